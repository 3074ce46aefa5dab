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
    maps = model.eval().maps(torch.randn(2, 3, 32, 48))
    assert maps.shape == (2, 4, 4, 6)
    assert maps.min() < 0 < maps.max()


def test_the_features_are_the_five_maps_of_the_backbone(model):
    x = torch.randn(2, 3, 32, 48)
    maps, features = model.eval()(x)
    assert [tuple(f.shape[1:]) for f in features] == [
        (channels, 32 // stride, 48 // stride)
        for channels, stride in zip(model.backbone.channels, model.backbone.strides, strict=True)
    ]
    assert all(torch.equal(f, wanted) for f, wanted in zip(features, model.backbone(x), strict=True))
    assert torch.equal(maps, model.head(features[-1]))
    assert torch.equal(model.maps(x), maps)


@pytest.mark.parametrize("root", [False, True], ids=["as they are", "under a root"])
def test_cams_are_the_positive_part_of_the_maps_in_single_precision(model, root):
    model.backbone.root_cam = root  # as PSA's VGG16 has it
    x = torch.randn(2, 3, 32, 48)
    positive = model.eval().maps(x).clamp(min=0)
    assert torch.equal(model.cams(x), positive**0.5 if root else positive)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.maps(x)
        assert half.dtype == torch.bfloat16
        assert torch.equal(model.cams(x), half.float().clamp(min=0) ** 0.5 if root else half.float().clamp(min=0))


def test_calls_of_all_kinds_go_through_what_is_compiled(model, monkeypatch):
    calls = []
    monkeypatch.setattr(Classifier, "__call__", lambda self, x: calls.append(1) or self.forward(x))
    for call in (model, model.maps, model.cams):
        call(torch.zeros(1, 3, 32, 32))
    assert len(calls) == 3


def test_pooling_before_or_after_the_head_gives_the_same_logits(model):
    x = torch.randn(2, 3, 32, 48)
    pooled = model.eval().backbone(x)[-1].mean((2, 3))
    torch.testing.assert_close(logits(model.maps(x)), pooled @ model.head.weight[:, :, 0, 0].T)


def test_the_head_is_a_convolution_without_bias_from_kaiming_normal():
    torch.manual_seed(0)
    head = Classifier(build_backbone("test_resnet"), 400).head
    assert head.bias is None
    assert head.weight.std().item() == pytest.approx((2 / 96) ** 0.5, rel=0.02)  # fan in 96, gain of a ReLU


def test_fixed_batch_norm_keeps_its_statistics_in_training(model):
    fixed = Classifier(model.backbone, 4, batch_norm="fixed").train()
    assert fixed.training
    assert fixed.head.training
    before = statistics(fixed)
    fixed(torch.randn(4, 3, 32, 32) * 3 + 1)
    for name, value in fixed.named_buffers():
        assert torch.equal(value, before[name]), name


def test_fixed_batch_norm_is_not_trained(model):
    normal = sum(len(group["params"]) for group in parameter_groups(model, model.scratch, 0.1, 0))
    fixed = Classifier(model.backbone, 4, batch_norm="fixed")
    names = [name for name, p in fixed.named_parameters() if not p.requires_grad]
    norms = [name for name, m in fixed.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert sorted(names) == sorted(f"{norm}.{part}" for norm in norms for part in ("weight", "bias"))
    assert sum(len(group["params"]) for group in parameter_groups(fixed, fixed.scratch, 0.1, 0)) == normal - len(names)


def test_normal_batch_norm_learns(model):
    before = statistics(model.train())
    model(torch.randn(4, 3, 32, 32) * 3 + 1)
    assert all(not torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_an_unknown_batch_norm_is_refused(model):
    with pytest.raises(ValueError, match="one of trained, statistics, fixed, not 'frozen'"):
        Classifier(model.backbone, 4, batch_norm="frozen")


@pytest.mark.parametrize("batch_norm", ["trained", "statistics", "fixed"])
def test_a_step_moves_what_the_batch_norm_leaves_free(batch_norm):
    """Convolutions always; scales and shifts unless fixed; running statistics where they are trained."""
    torch.manual_seed(0)
    net = Classifier(build_backbone("test_resnet"), 4, batch_norm=batch_norm).eval().train()
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.ones_(norm.weight)  # timm starts some at 0, which would stop the gradient
    before = {name: value.clone() for name, value in net.state_dict().items()}
    groups = parameter_groups(net, net.scratch, 0.1, 0.0)
    net.maps(torch.randn(4, 3, 32, 32) * 3 + 1).square().mean().backward()
    torch.optim.SGD([group for group in groups if group["params"]]).step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    names = [name for name, module in net.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    affine = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    running = {f"{name}.{part}" for name in names for part in ("running_mean", "running_var", "num_batches_tracked")}
    assert affine | running < set(before)
    expected = set(before)
    expected -= running if batch_norm != "trained" else set()
    expected -= affine if batch_norm == "fixed" else set()
    assert moved == expected


@pytest.mark.parametrize("batch_norm", ["trained", "fixed"])
def test_a_frozen_stem_stays_as_it_is_in_training(batch_norm):
    torch.manual_seed(0)
    net = Classifier(build_backbone("test_resnet"), 4, batch_norm=batch_norm, frozen="stem").eval().train()
    network = net.backbone.network
    torch.nn.init.ones_(network.layer1[0].bn2.weight)  # timm starts it at 0, which would stop the gradient
    assert net.training
    assert not any(layer.training for layer in [*network.conv1, network.bn1])
    assert network.layer1[0].conv1.training
    before = statistics(net)
    net.maps(torch.randn(4, 3, 32, 32)).sum().backward()
    stem = [p for part in (network.conv1, network.bn1) for p in part.parameters()]
    assert all(p.grad is None for p in stem)
    assert network.layer1[0].conv1.weight.grad.abs().sum() > 0
    stays = {name for name, value in net.named_buffers() if torch.equal(value, before[name])}
    held = {name for name in before if name.startswith("backbone.network.bn1.") or ".conv1.1." in name}
    assert held <= stays
    assert (stays == set(before)) == (batch_norm == "fixed")


def test_frozen_parameters_are_in_no_group_of_the_optimiser():
    def trained(frozen):
        net = Classifier(build_backbone("test_resnet"), 4, frozen=frozen)
        return [len(group["params"]) for group in parameter_groups(net, net.scratch, 0.1, 0)]

    assert trained("backbone") == [0, 0, 1, 0]
    assert trained("none")[0] > trained("stem")[0] > trained("all_but_last")[0] > 0


def test_an_unknown_frozen_part_is_refused():
    with pytest.raises(ValueError, match=r"frozen must be one of none, stem, .*, not 'top'"):
        Classifier(build_backbone("test_resnet"), 4, frozen="top")


def test_the_builder_hands_on_what_is_frozen_or_fixed():
    start = {"output_stride": 16, "weights": None}
    assert build_classifier("test_resnet", 3, frozen="all_but_last", **start).frozen == "all_but_last"
    assert build_classifier("test_resnet", 3, batch_norm="statistics", **start).batch_norm == "statistics"
    with pytest.raises(ValueError, match="test_resnet takes no dropouts"):
        build_classifier("test_resnet", 3, dropouts=(0.2, 0.2), **start)


# --- dropout before the head ---------------------------------------------------------------------------------------


def test_dropout_takes_whole_channels_from_the_head_in_training_alone():
    torch.manual_seed(0)
    net = Classifier(build_backbone("test_resnet"), 4, batch_norm="fixed", dropout=0.5)
    x = torch.randn(2, 3, 32, 48)
    features = net.eval().backbone(x)[-1]
    assert torch.equal(net.maps(x), net.head(features))
    torch.manual_seed(1)
    kept = torch.empty(2, 96, 1, 1).bernoulli_(0.5)
    torch.manual_seed(1)
    maps, seen = net.train()(x)
    torch.testing.assert_close(maps, net.head(2 * kept * features))
    assert 0.3 < kept.mean() < 0.7
    assert torch.equal(seen[-1], features)  # what terms see of the backbone misses nothing


def test_without_dropout_nothing_is_drawn(model):
    before = torch.get_rng_state()
    model.train().maps(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_no_part_of_a_checkpoint(model, tmp_path):
    start = {"output_stride": 8, "weights": None}
    dropping = build_classifier("test_resnet", 4, dropout=0.5, **start)
    assert dropping.dropout.p == 0.5
    assert dropping.state_dict().keys() == model.state_dict().keys()
    save_model(tmp_path / "model.pt", dropping, "classifier", RECIPE)
    again, x = load_classifier(tmp_path / "model.pt"), torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval().maps(x), dropping.eval().maps(x))
    assert isinstance(again.train().dropout, torch.nn.Identity)  # so that an ordinary classifier drops nothing


# --- checkpoints ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_rebuilds_the_network(model, tmp_path):
    save_model(tmp_path / "model.pt", model, "classifier", RECIPE)
    again = load_classifier(tmp_path / "model.pt").eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(again.maps(x), model.eval().maps(x))
    assert read_model(tmp_path / "model.pt", "classifier")[0] == RECIPE
    assert load_classifier(tmp_path / "model.pt", batch_norm="fixed").batch_norm == "fixed"


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
    first = build_classifier("test_resnet", 3, output_stride=16, weights=None)
    save_model(
        tmp_path / "first.pt", first, "classifier", {"backbone": "test_resnet", "output_stride": 16, "classes": 3}
    )
    second = build_classifier("test_resnet", 3, output_stride=16, weights=tmp_path / "first.pt")
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)
    other = build_classifier("test_resnet", 4, output_stride=16, weights=tmp_path / "first.pt")
    assert other.head.weight.shape[0] == 4  # another number of classes: the backbone alone is taken


def test_a_head_with_a_bias_comes_back_from_its_checkpoint_and_goes_to_no_head_without_one(tmp_path):
    how = {"output_stride": 16, "weights": None}
    first = build_classifier("test_resnet", 3, head_bias=True, **how)
    assert first.head.bias.abs().min() > 0
    recipe = {"backbone": "test_resnet", "output_stride": 16, "classes": 3}
    save_model(tmp_path / "first.pt", first, "classifier", recipe)
    torch.testing.assert_close(load_classifier(tmp_path / "first.pt").state_dict(), first.state_dict(), rtol=0, atol=0)
    how["weights"] = tmp_path / "first.pt"
    assert build_classifier("test_resnet", 3, head_bias=True, **how).head_trained
    assert not build_classifier("test_resnet", 3, **how).head_trained


# --- further heads -------------------------------------------------------------------------------------------------


def test_a_further_head_is_new_to_the_optimiser_and_part_of_the_state(model):
    before = set(model.state_dict())
    second = model.add_head("second", torch.nn.Conv2d(96, 4, 1))
    assert model.scratch == [model.head, second]
    assert set(model.state_dict()) - before == {"heads.second.weight", "heads.second.bias"}
    groups = parameter_groups(model, model.scratch, 0.1, 0.0)
    assert [p is q for p, q in zip(groups[2]["params"], (model.head.weight, second.weight), strict=True)] == [True] * 2
    assert groups[3]["params"][0] is second.bias


def test_a_checkpoint_with_a_further_head_gives_a_classifier_without_it(model, tmp_path):
    model.add_head("second", torch.nn.Conv2d(96, 4, 1))
    save_model(tmp_path / "model.pt", model, "classifier", RECIPE)
    assert "heads.second.weight" in read_model(tmp_path / "model.pt", "classifier")[1]
    again, x = load_classifier(tmp_path / "model.pt").eval(), torch.randn(1, 3, 32, 32)
    assert not again.heads
    assert torch.equal(again.maps(x), model.eval().maps(x))
