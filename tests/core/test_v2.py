"""DeepLabV2: network, weights, loss, images, schedule, training."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.io import savemat
from torch import nn

from wsss_core.data import Manifest, Row, write_mask
from wsss_core.data.classes import described
from wsss_core.data.pictures import read_image
from wsss_core.data.transforms import normalize, to_tensor
from wsss_core.recipes.settings import DeeplabV2Settings
from wsss_core.segmentation.losses import multi_scale_loss
from wsss_core.segmentation.training import _training_masks, load_segmentation, train_segmentation
from wsss_core.segmentation.v2 import CaffeResNet101, DeepLabV2, build_deeplabv2, usual_names
from wsss_core.segmentation.v2_training import CountedLoader, DeeplabV2Step, ScaledCrops

CPU = torch.device("cpu")
SEED = 9


class FakeBackbone(nn.Module):
    """Stride 8 and a BatchNorm."""

    channels = (2, 4, 4, 6, 8)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, kernel_size=8, stride=8)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        return [None, None, None, None, self.bn(self.conv(x))]


def settings(**changes) -> DeeplabV2Settings:
    values = {
        "backbone": "test_resnet", "scales": (0.5, 1.0, 1.5), "crop": 32, "batch_size": 3, "accumulation": 2,
        "updates": 4, "decay_every": 2, "learning_rate": 0.001, "weight_decay": 5e-4, "momentum": 0.9,
        "precision": "float32",
    }  # fmt: skip
    return DeeplabV2Settings(**values | changes)


@pytest.fixture(scope="module")
def caffe() -> CaffeResNet101:
    torch.manual_seed(1)
    return CaffeResNet101().eval()


# --- Network -------------------------------------------------------------------------------------------------------


def test_both_resnet101s_have_the_number_of_parameters_counted_by_hand():
    def bottleneck(channels, planes, project):
        convs = channels * planes + 9 * planes**2 + 4 * planes**2 + project * 4 * channels * planes
        return convs + 2 * (planes + planes + 4 * planes + project * 4 * planes)

    total, channels = 3 * 64 * 49 + 2 * 64, 64
    for planes, blocks in ((64, 3), (128, 4), (256, 23), (512, 3)):
        total += bottleneck(channels, planes, True) + (blocks - 1) * bottleneck(4 * planes, planes, False)
        channels = 4 * planes
    total += 4 * (9 * 2048 * 21 + 21)
    with torch.device("meta"):
        nets = [build_deeplabv2(name, classes=21) for name in ("resnet101_caffe", "resnet101")]
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [total, total] == [44_048_532] * 2


def test_caffe_stages_have_strides_4_8_8_8_and_dilations_1_1_2_4(caffe):
    with torch.inference_mode():
        maps = caffe(torch.zeros(1, 3, 33, 50))
    # 33 -> 17 -> 9 (the pooling rounds up) -> 5; 50 -> 25 -> 13 -> 7
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 17, 25), (256, 9, 13), (512, 5, 7), (1024, 5, 7), (2048, 5, 7)]
    stages = (caffe.layer1, caffe.layer2, caffe.layer3, caffe.layer4)
    assert [{block.conv2.dilation[0] for block in stage} for stage in stages] == [{1}, {1}, {2}, {4}]
    assert [block.conv1.stride[0] for stage in stages for block in stage if block.conv1.stride != (1, 1)] == [2]
    assert caffe.layer2[0].conv1.stride == (2, 2)


def test_caffe_sees_blue_green_red_minus_the_mean(caffe):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    expected = pixels[..., ::-1] - np.array([104.008, 116.669, 122.675])
    prepared = caffe.prepare(to_tensor(normalize(pixels))[None])[0]
    np.testing.assert_allclose(prepared.permute(1, 2, 0), expected, atol=1e-3)


def test_the_pyramid_is_a_sum_of_four_dilated_convolutions():
    net = DeepLabV2(FakeBackbone(), classes=5)
    assert [conv.dilation for conv in net.aspp] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert all(conv.bias.eq(0).all() for conv in net.aspp)
    assert torch.cat([conv.weight.flatten() for conv in net.aspp]).std().item() == pytest.approx(0.01, rel=0.1)
    x = torch.randn(1, 3, 33, 50)
    features = net.backbone(x)[4]
    expected = 0
    for conv in net.aspp:
        padded = F.pad(features, [conv.dilation[0]] * 4)
        expected = expected + F.conv2d(padded, conv.weight, conv.bias, dilation=conv.dilation)
    torch.testing.assert_close(net(x, every_scale=True)[0], expected)


def shrunk(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Bilinear, from the middle of each new pixel at exactly 1 / scale pixels from the last; sizes are rounded down."""
    for axis in (2, 3):
        length = x.shape[axis]
        middles = (torch.arange(int(scale * length), dtype=torch.float64) + 0.5) / scale - 0.5
        left = middles.floor().long()
        share = (middles - left).float().view([-1 if other == axis else 1 for other in range(4)])
        right = (left + 1).clamp(max=length - 1)
        x = x.index_select(axis, left) * (1 - share) + x.index_select(axis, right) * share
    return x


def test_the_answer_is_the_highest_of_three_input_scales():
    net = DeepLabV2(FakeBackbone(), classes=3).eval()
    x = torch.randn(2, 3, 353, 500)
    whole, three_quarters, half, highest = net(x, every_scale=True)
    assert [tuple(o.shape) for o in (whole, three_quarters, half)] == [(2, 3, 44, 62), (2, 3, 33, 46), (2, 3, 22, 31)]
    torch.testing.assert_close(half, net(shrunk(x, 0.5), every_scale=True)[0])
    torch.testing.assert_close(three_quarters, net(shrunk(x, 0.75), every_scale=True)[0])
    by_size = F.interpolate(x, (264, 375), mode="bilinear")  # stretched a little, since 264.75 is rounded down
    assert not torch.allclose(three_quarters, net(by_size, every_scale=True)[0], atol=1e-3)
    up = [F.interpolate(o, (44, 62), mode="bilinear") for o in (three_quarters, half)]
    torch.testing.assert_close(highest, torch.maximum(whole, torch.maximum(*up)))
    assert torch.equal(net(x), highest)


def test_small_backbones_have_output_stride_8():
    net = build_deeplabv2("test_resnet", classes=4).eval()
    assert net(torch.randn(1, 3, 65, 97)).shape == (1, 4, 9, 13)


def test_batch_norm_is_neither_trained_nor_updated():
    net = DeepLabV2(FakeBackbone(), classes=3)
    net.backbone.requires_grad_(True)
    net.train()
    before = [t.clone() for t in net.backbone.bn.state_dict().values()]
    DeeplabV2Step(net, settings(accumulation=1), CPU)(some_batch(), 0)
    assert all(map(torch.equal, before, net.backbone.bn.state_dict().values()))
    assert net.backbone.conv.weight.grad is None  # cleared after the update
    assert net.aspp.training


# --- Weights -------------------------------------------------------------------------------------------------------


def deeplab_pytorch_names(state: dict) -> dict:
    """The names of deeplab-pytorch, from the usual ones; with last layers that must be left out."""
    parts = {"1": "reduce", "2": "conv3x3", "3": "increase"}
    named = {}
    for name, value in state.items():
        words = name.split(".")
        if name.startswith("layer"):
            stage, block, layer, *rest = words
            if layer == "downsample":
                place = f"shortcut.{('conv', 'bn')[int(rest[0])]}"
                rest = rest[1:]
            else:
                place = f"{parts[layer[-1]]}.{layer[:-1]}"
            named[f"layer{int(stage[5:]) + 1}.block{int(block) + 1}.{place}.{rest[0]}"] = value
        else:
            named[f"layer1.conv1.{words[0][:-1]}.{words[1]}"] = value
    return named | {"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}


def test_weights_load_under_usual_and_under_deeplab_pytorchs_names(caffe, tmp_path):
    own = {name: value for name, value in caffe.state_dict().items() if "num_batches" not in name}
    theirs = deeplab_pytorch_names(own)
    assert {"layer4.block23.conv3x3.bn.running_var", "layer2.block1.shortcut.conv.weight"} <= theirs.keys()
    for names in (own | {"fc.weight": torch.zeros(1)}, theirs, {f"base.{name}": theirs[name] for name in theirs}):
        found = usual_names(names)
        assert found.keys() == own.keys()
        assert all(found[name] is own[name] for name in own)
    torch.save(theirs, tmp_path / "coco.pth")
    torch.manual_seed(2)
    net = build_deeplabv2("resnet101_caffe", 3, tmp_path / "coco.pth")
    assert torch.equal(net.backbone.layer4[2].conv3.weight, caffe.layer4[2].conv3.weight)


def test_weights_of_another_network_are_refused_by_the_files_name(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth does not hold weights of a ResNet-101.*segmentation\.v2\.weights"):
        CaffeResNet101().load_weights(tmp_path / "odd.pth")


# --- Loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(41, 41), (31, 31), (21, 21), (45, 63), (16, 24)])
def test_labels_are_shrunk_as_pillow_does(size):
    target = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (1, 321, 357), np.uint8))
    shrunk = np.array(Image.fromarray(target[0].numpy()).resize(size[::-1], Image.Resampling.NEAREST))
    logits = torch.randn(1, 4, *size)
    expected = F.cross_entropy(logits, torch.from_numpy(shrunk)[None].long())
    torch.testing.assert_close(multi_scale_loss([logits], target), expected)


def test_the_loss_is_the_sum_of_the_means_over_valid_pixels():
    target = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 255], [2, 2, 255, 255], [2, 2, 255, 255]]], dtype=torch.uint8)
    fine = torch.zeros(1, 3, 4, 4)
    fine[0, 0] = 1.0
    coarse = torch.zeros(1, 3, 2, 2)
    coarse[0, 1, 0, 1] = 2.0  # its cells take the labels 0, 255, 2 and 255 at the odd pixels
    right, wrong = math.log(math.e + 2) - 1, math.log(math.e + 2)
    expected = (4 * right + 7 * wrong) / 11 + math.log(3)
    assert multi_scale_loss([fine, coarse], target).item() == pytest.approx(expected)


# --- Images --------------------------------------------------------------------------------------------------------


def crops(tiny, **changes) -> ScaledCrops:
    values = {"scales": (1.0,), "size": 64, "padding": (0.1, 0.2, 0.3)}
    return ScaledCrops(tiny.manifest, tiny.mask, **values | changes)


def some_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "image": torch.randn(2, 3, 32, 32, generator=generator),
        "mask": torch.randint(0, 3, (2, 32, 32), generator=generator, dtype=torch.uint8),
    }


def test_what_no_image_covers_is_right_and_below_and_void(tiny):
    row = tiny.manifest.rows[0]  # 32 x 48
    image, mask = to_tensor(normalize(read_image(row.image))), torch.from_numpy(tiny.mask(row))
    seen = set()
    for seed in range(8):
        sample = crops(tiny).sample(0, np.random.default_rng(seed))
        turned = sample["mask"][0, 0] == 255 and sample["mask"][0, 63] != 255
        seen.add(bool(turned))
        pixels, labels = (sample[name].flip(-1) if turned else sample[name] for name in ("image", "mask"))
        colour = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
        assert torch.equal(pixels[:, :32, :48], image)
        assert torch.equal(labels[:32, :48], mask)
        assert [(part == colour).all() for part in (pixels[:, 32:], pixels[..., 48:])] == [True, True]
        assert [(part == 255).all() for part in (labels[32:], labels[:, 48:])] == [True, True]
    assert seen == {False, True}


def test_caffes_padding_is_zero_for_its_weights(caffe):
    padding = torch.tensor(DeepLabV2(caffe, classes=2).padding).view(1, 3, 1, 1)
    torch.testing.assert_close(caffe.prepare(padding), torch.zeros(1, 3, 1, 1), atol=1e-4, rtol=0)
    assert build_deeplabv2("test_resnet", classes=2).padding == (0.0, 0.0, 0.0)  # the mean of ImageNet


def test_scales_are_drawn_from_the_list_and_sizes_rounded_down(tiny):
    covered = set()
    for seed in range(20):
        mask = crops(tiny, scales=(0.51, 1.0, 1.26)).sample(0, np.random.default_rng(seed))["mask"]
        covered.add((int((mask != 255).any(1).nonzero().max()) + 1, int((mask != 255).any(0).sum())))
    assert covered == {(16, 24), (32, 48), (40, 60)}


def test_a_large_image_is_cut_at_random(tiny):
    row = tiny.manifest.rows[0]
    mask = torch.from_numpy(tiny.mask(row))
    windows = torch.cat([mask.unfold(0, 24, 1).unfold(1, 24, 1), mask.flip(1).unfold(0, 24, 1).unfold(1, 24, 1)])
    found = [crops(tiny, size=24).sample(0, np.random.default_rng(seed))["mask"] for seed in range(10)]
    assert all((windows == crop).all(-1).all(-1).any() for crop in found)
    assert len({crop.numpy().tobytes() for crop in found}) > 5


# --- Steps ---------------------------------------------------------------------------------------------------------


def test_groups_have_caffes_factors_and_decays():
    net = build_deeplabv2("resnet50", classes=4)
    groups = DeeplabV2Step(net, settings(learning_rate=0.1), CPU).optimizer.sgd.param_groups
    found = [(len(g["params"]), round(g["lr"], 9), g["weight_decay"], g["momentum"]) for g in groups]
    # 53 convolutions of ResNet-50; four weights and four biases of the pyramid
    assert found == [(53, 0.1, 5e-4, 0.9), (4, 1.0, 5e-4, 0.9), (4, 2.0, 0.0, 0.9)]


def test_the_learning_rate_falls_at_every_so_many_updates():
    net = DeepLabV2(FakeBackbone(), classes=3)
    step = DeeplabV2Step(net, settings(accumulation=1, updates=25, decay_every=10, learning_rate=0.5), CPU)
    rates = []
    for t in range(25):
        rates.append(step.optimizer.lr)
        step(some_batch(), t)
    assert rates == pytest.approx([0.5] * 10 + [0.5 * (15 / 25) ** 0.9] * 10 + [0.5 * (5 / 25) ** 0.9] * 5)


def test_an_update_takes_the_mean_loss_of_its_batches():
    net, reference = DeepLabV2(FakeBackbone(), classes=3), DeepLabV2(FakeBackbone(), classes=3)
    reference.load_state_dict(net.state_dict())
    step = DeeplabV2Step(net, settings(weight_decay=0.0), CPU)
    batches = [some_batch(), {name: value.flip(0, -1) for name, value in some_batch().items()}]
    for t, batch in enumerate(batches):
        step(batch, t)
    for batch in batches:
        (multi_scale_loss(reference(batch["image"], every_scale=True), batch["mask"]) / 2).backward()
    conv, old = net.backbone.conv.weight, reference.backbone.conv.weight
    torch.testing.assert_close(conv.detach(), (old - 0.001 * old.grad).detach())
    bias, old = net.aspp[0].bias, reference.aspp[0].bias
    torch.testing.assert_close(bias.detach(), (old - 0.02 * old.grad).detach())


# --- Training ------------------------------------------------------------------------------------------------------


def test_batches_are_counted_over_epochs():
    class Numbers:
        def __len__(self):
            return 5

        def sample(self, index, rng):
            return {"index": index}

    loader = CountedLoader(Numbers(), batches=7, batch_size=2, seed=0, workers=0)
    epochs = [[batch["index"].tolist() for batch in loader.epoch(epoch)] for epoch in range(loader.epochs)]
    assert [list(map(len, epoch)) for epoch in epochs] == [[2, 2, 1], [2, 2, 1], [2]]
    assert sorted(index for batch in epochs[0] for index in batch) == [0, 1, 2, 3, 4]
    assert len(loader) == 3


@pytest.fixture
def common(tiny, tmp_path) -> dict:
    torch.manual_seed(SEED)
    return {
        "manifest": tiny.manifest, "classes": tiny.classes, "masks": tiny.masks, "weights": None,
        "output": tmp_path / "segmentation.pt", "seed": SEED, "device": CPU,
    }  # fmt: skip


def losses(common: dict) -> list[float]:
    return pd.read_csv(common["output"].with_suffix(".history.csv"))["loss"].tolist()


def test_deeplabv2_does_what_it_did_and_loads_as_it_was_saved(common, tiny):
    """Four updates of two batches: two whole epochs of three batches and two batches of a third."""
    train_segmentation(**common, settings=settings())
    assert losses(common) == pytest.approx([5.28895, 4.33239, 3.88082], rel=1e-3)
    again = load_segmentation(common["output"])
    state = torch.load(common["output"], weights_only=True)
    about = described(tiny.classes)
    assert (about["names"], about["colours"][1]) == (["circle", "square", "star"], [128, 0, 0])
    rebuilt_by = {"network": "v2", "backbone": "test_resnet", "classes": 4, "masks": "pseudo_masks"}
    assert state["recipe"] == {**rebuilt_by, **about}
    assert all(torch.equal(value, state["state"][name]) for name, value in again.state_dict().items())
    assert again.eval()(torch.zeros(1, 3, 33, 47)).shape == (1, 4, 5, 6)


def test_a_stopped_training_goes_on_to_the_same_losses(common, monkeypatch, tmp_path):
    train_segmentation(**common, settings=settings())
    whole = losses(common)

    def stop(self, batch, step):
        if step == 4:  # the first epoch ended in the middle of an update
            raise KeyboardInterrupt
        return call(self, batch, step)

    call, common["output"] = DeeplabV2Step.__call__, tmp_path / "stopped.pt"
    torch.manual_seed(SEED)
    monkeypatch.setattr(DeeplabV2Step, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        train_segmentation(**common, settings=settings())
    monkeypatch.setattr(DeeplabV2Step, "__call__", call)
    train_segmentation(**common, settings=settings())
    assert losses(common) == pytest.approx(whole, rel=1e-6)


def test_true_masks_train_as_a_folder_of_the_same_masks_does(common, tiny, tmp_path):
    train_segmentation(**common, settings=settings(updates=2))
    from_folder = losses(common)
    torch.manual_seed(SEED)
    true = common | {"masks": None, "output": tmp_path / "true.pt"}
    train_segmentation(**true, settings=settings(updates=2))
    assert losses(true) == from_folder
    assert torch.load(true["output"], weights_only=True)["recipe"]["masks"] == "ground_truth"


@pytest.fixture
def bare(common) -> dict:
    """Full supervision where image3 has no mask of its own."""
    rows: list[Row] = list(common["manifest"])
    rows[3] = dataclasses.replace(rows[3], mask="")
    return common | {"masks": None, "manifest": Manifest.of(rows)}


@pytest.mark.parametrize("suffix", [".png", ".mat"])
def test_full_supervision_takes_masks_that_a_data_set_lacks_from_a_folder_of_their_own(bare, tiny, tmp_path, suffix):
    """And the data set's own where it has them: those in the folder are of the wrong class."""
    further = tmp_path / "further"
    further.mkdir()
    for row in tiny.manifest:
        mask = tiny.mask(row) if row.id == "image3" else np.full_like(tiny.mask(row), 3)
        if suffix == ".png":
            write_mask(further / f"{row.id}.png", mask, tiny.classes)
        else:  # SBD's own have no void pixels
            write_sbd(further / f"{row.id}.mat", np.where(mask == 255, 0, mask).astype(np.uint8))
    read, _ = _training_masks(bare["manifest"], None, further, tiny.classes)
    for row, own in zip(bare["manifest"], tiny.manifest, strict=True):
        expected = tiny.mask(own)
        lost = row.id == "image3" and suffix == ".mat"
        np.testing.assert_array_equal(read(row), np.where(expected == 255, 0, expected) if lost else expected)
    torch.manual_seed(SEED)
    train_segmentation(**bare, further=further, settings=settings(updates=2))
    assert torch.load(bare["output"], weights_only=True)["recipe"]["masks"] == "ground_truth"


def write_sbd(path, mask) -> None:
    """A file of SBD's cls: GTcls with Boundaries and Segmentation."""
    savemat(path, {"GTcls": {"Boundaries": np.zeros(3), "Segmentation": mask}})


def test_an_image_without_a_true_mask_stops_full_supervision(bare, common):
    with pytest.raises(ValueError, match=r"1 of 8 training images have no true mask, the first is image3"):
        train_segmentation(**bare, settings=settings())
    assert not common["output"].exists()
