"""The classifier: its head, its fixed mode, its checkpoints."""

import pytest
import torch

from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.classifiers.network import Classifier, build_classifier, load_classifier, logits
from wsss_core.fitting.optim import parameter_groups
from wsss_core.networks.backbones import build_backbone

RECIPE = {"backbone": "test_resnet", "output_stride": 8, "classes": 4}


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(build_backbone("test_resnet", output_stride=8), 4)


def statistics(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


def test_maps_are_raw_and_at_the_output_stride(model):
    maps = model.eval()(torch.randn(2, 3, 32, 48))
    assert maps.shape == (2, 4, 4, 6)
    assert maps.min() < 0 < maps.max()


def test_pooling_before_or_after_the_head_gives_the_same_logits(model):
    x = torch.randn(2, 3, 32, 48)
    pooled = model.eval().backbone(x)[-1].mean((2, 3))
    torch.testing.assert_close(logits(model(x)), pooled @ model.head.weight[:, :, 0, 0].T)


def test_the_head_is_a_convolution_without_bias_from_kaiming_normal():
    torch.manual_seed(0)
    head = Classifier(build_backbone("test_resnet"), 400).head
    assert head.bias is None
    assert head.weight.std().item() == pytest.approx((2 / 96) ** 0.5, rel=0.02)  # fan in 96, gain of a ReLU


def test_fixed_batch_norm_keeps_its_statistics_in_training(model):
    fixed = Classifier(model.backbone, 4, mode="fix").train()
    assert fixed.training
    assert fixed.head.training
    before = statistics(fixed)
    fixed(torch.randn(4, 3, 32, 32) * 3 + 1)
    for name, value in fixed.named_buffers():
        assert torch.equal(value, before[name]), name


def test_fixed_batch_norm_is_not_trained(model):
    normal = sum(len(group["params"]) for group in parameter_groups(model, model.scratch, 0.1, 0))
    fixed = Classifier(model.backbone, 4, mode="fix")
    names = [name for name, p in fixed.named_parameters() if not p.requires_grad]
    norms = [name for name, m in fixed.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert sorted(names) == sorted(f"{norm}.{part}" for norm in norms for part in ("weight", "bias"))
    assert sum(len(group["params"]) for group in parameter_groups(fixed, fixed.scratch, 0.1, 0)) == normal - len(names)


def test_normal_batch_norm_learns(model):
    before = statistics(model.train())
    model(torch.randn(4, 3, 32, 32) * 3 + 1)
    assert all(not torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_an_unknown_mode_is_refused(model):
    with pytest.raises(ValueError, match="normal or fix, not 'frozen'"):
        Classifier(model.backbone, 4, mode="frozen")


@pytest.mark.parametrize("mode", ["normal", "fix"])
def test_a_frozen_stem_stays_as_it_is_in_training(mode):
    torch.manual_seed(0)
    net = Classifier(build_backbone("test_resnet"), 4, mode=mode, frozen="stem").eval().train()
    network = net.backbone.network
    torch.nn.init.ones_(network.layer1[0].bn2.weight)  # timm starts it at 0, which would stop the gradient
    assert net.training
    assert not any(layer.training for layer in [*network.conv1, network.bn1])
    assert network.layer1[0].conv1.training
    before = statistics(net)
    net(torch.randn(4, 3, 32, 32)).sum().backward()
    stem = [p for part in (network.conv1, network.bn1) for p in part.parameters()]
    assert all(p.grad is None for p in stem)
    assert network.layer1[0].conv1.weight.grad.abs().sum() > 0
    stays = {name for name, value in net.named_buffers() if torch.equal(value, before[name])}
    held = {name for name in before if name.startswith("backbone.network.bn1.") or ".conv1.1." in name}
    assert held <= stays
    assert (stays == set(before)) == (mode == "fix")


def test_frozen_parameters_are_in_no_group_of_the_optimiser():
    def trained(frozen):
        net = Classifier(build_backbone("test_resnet"), 4, frozen=frozen)
        return [len(group["params"]) for group in parameter_groups(net, net.scratch, 0.1, 0)]

    assert trained("backbone") == [0, 0, 1, 0]
    assert trained("none")[0] > trained("stem")[0] > trained("all_but_last")[0] > 0


def test_an_unknown_frozen_part_is_refused():
    with pytest.raises(ValueError, match="frozen must be one of none, stem, all_but_last, backbone, not 'top'"):
        Classifier(build_backbone("test_resnet"), 4, frozen="top")


def test_the_builder_hands_on_what_is_frozen():
    start = {"output_stride": 16, "mode": "normal", "weights": None}
    assert build_classifier("test_resnet", 3, frozen="all_but_last", **start).frozen == "all_but_last"
    with pytest.raises(ValueError, match="test_resnet takes no dropouts"):
        build_classifier("test_resnet", 3, dropouts=(0.2, 0.2), **start)


# --- checkpoints ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_rebuilds_the_network(model, tmp_path):
    save_model(tmp_path / "model.pt", model, "classifier", RECIPE)
    again = load_classifier(tmp_path / "model.pt").eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(x), model.eval()(x))
    assert read_model(tmp_path / "model.pt", "classifier")[0] == RECIPE
    assert load_classifier(tmp_path / "model.pt", mode="fix").mode == "fix"


def test_a_checkpoint_serves_as_weights_of_a_backbone(model, tmp_path):
    save_model(tmp_path / "model.pt", model, "classifier", RECIPE)
    backbone = build_backbone("test_resnet", weights=tmp_path / "model.pt")
    assert torch.equal(backbone.network.conv1[0].weight, model.backbone.network.conv1[0].weight)
    with pytest.raises(ValueError, match=r"model\.pt does not hold weights of resnet18"):
        build_backbone("resnet18", weights=tmp_path / "model.pt")


@pytest.mark.parametrize("kind", ["classifier", "c2am", "poolnet", "affinity", "segmentation"])
def test_a_checkpoint_of_any_kind_serves_as_weights_of_a_backbone_with_its_names(model, tmp_path, kind):
    save_model(tmp_path / "model.pt", model, kind, {"backbone": "test_resnet"})
    backbone = build_backbone("test_resnet", weights=tmp_path / "model.pt")
    torch.testing.assert_close(backbone.state_dict(), model.backbone.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_of_another_kind_is_refused(model, tmp_path):
    save_model(tmp_path / "model.pt", model, "c2am", RECIPE)
    with pytest.raises(ValueError, match=r"model\.pt holds a c2am, not a classifier: name the checkpoint of"):
        load_classifier(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content",
    [{"weight": torch.ones(1)}, [1, 2], {"recipe": RECIPE, "state": {}}],
    ids=["state dict", "list", "without a kind"],
)
def test_a_file_of_another_origin_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt was not written by this pipeline; delete it"):
        load_classifier(tmp_path / "model.pt")


def test_a_damaged_checkpoint_is_named(model, tmp_path):
    path = tmp_path / "model.pt"
    save_model(path, model, "classifier", RECIPE)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"model\.pt is damaged .* delete it and run its rule again"):
        load_classifier(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_classifier(tmp_path / "nowhere.pt")


def test_a_classifier_may_start_from_another_one_head_included(tmp_path):
    start = {"output_stride": 16, "mode": "normal"}
    first = build_classifier("test_resnet", 3, weights=None, **start)
    save_model(
        tmp_path / "first.pt", first, "classifier", {"backbone": "test_resnet", "output_stride": 16, "classes": 3}
    )
    second = build_classifier("test_resnet", 3, weights=tmp_path / "first.pt", **start)
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)
    other = build_classifier("test_resnet", 4, weights=tmp_path / "first.pt", **start)
    assert other.head.weight.shape[0] == 4  # another number of classes: the backbone alone is taken
