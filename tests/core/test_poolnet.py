"""PoolNet: its exact form, its small form, and the sizes it takes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from wsss_core.base.checkpoints import save_model
from wsss_core.data import Manifest, Row
from wsss_core.data.masks import read_grey, write_grey
from wsss_core.data.pictures import read_picture
from wsss_core.networks.backbones import load_weights
from wsss_core.networks.vgg16 import CaffeVGG16
from wsss_core.recipes.settings import PoolnetSettings
from wsss_core.saliency.poolnet import Aggregation, CaffeResNet50, PoolNet, build_poolnet, caffe_input, imagenet_input
from wsss_core.saliency.poolnet_maps import predict_saliency
from wsss_core.saliency.poolnet_training import PoolnetStep, SaliencyPairs, load_backbone, load_poolnet


class FakeBackbone(nn.Module):
    """Five maps whose sizes are the image's over the strides, rounded up as strided convolutions do."""

    channels = (2, 3, 4, 5, 6)
    strides = (2, 4, 8, 16, 16)

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, channels, 1, stride=stride), nn.BatchNorm2d(channels))
            for channels, stride in zip(self.channels, self.strides, strict=True)
        )

    def forward(self, x):
        return [conv(x) for conv in self.convs]


def test_the_paper_s_network_has_68_26_million_parameters():
    with torch.device("meta"):
        net = build_poolnet("resnet50_caffe")
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 68.26
    biased = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert biased == ["score"]


def test_the_backbone_s_maps_have_the_sizes_of_caffe():
    with torch.device("meta"):
        maps = CaffeResNet50()(torch.empty(1, 3, 353, 500))
    # 250 columns give 126 where the window may hang over the edge, 125 where it may not
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 177, 250),
        (256, 89, 126),
        (512, 45, 63),
        (1024, 23, 32),
        (2048, 23, 32),
    ]


def test_the_stride_is_in_the_first_convolution_and_the_last_stage_is_dilated():
    with torch.device("meta"):
        net = CaffeResNet50()
    assert net.layer2[0].conv1.stride == (2, 2)
    assert net.layer2[0].conv2.stride == (1, 1)
    assert net.layer4[0].conv1.stride == (1, 1)
    assert {block.conv2.dilation for block in net.layer4} == {(2, 2)}


def test_a_caffe_state_dict_loads_without_its_classifier(tmp_path):
    net = CaffeResNet50()
    state = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
    usual = {"conv1.weight", "bn1.running_var", "layer1.0.downsample.1.bias", "layer3.5.conv3.weight"}
    assert usual <= set(state)
    state["bn1.bias"] = torch.arange(64.0)
    path = tmp_path / "resnet50_caffe.pth"
    torch.save({**state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, path)
    load_weights(net, path)
    assert torch.equal(net.bn1.bias, torch.arange(64.0))
    del state["layer4.2.bn3.weight"]
    torch.save(state, path)
    with pytest.raises(
        ValueError, match=r"caffe\.pth does not hold weights of resnet50_caffe: .*\['layer4\.2\.bn3\.weight"
    ):
        load_weights(net, path)


@pytest.mark.parametrize("name", ["resnet50_caffe", "vgg16_caffe"])
def test_a_checkpoint_of_the_pipeline_does_not_serve_a_backbone_of_caffe(name, tmp_path):
    """A plain ResNet-50 has the same tensors, but another input and other strides."""
    torch.save({"recipe": {"backbone": "resnet50"}, "state": {}}, tmp_path / "classifier.pt")
    with torch.device("meta"):
        net = build_poolnet(name)
    with pytest.raises(
        ValueError, match=rf"classifier\.pt .* does not fit {name}: set saliency\.poolnet\.weights to pretrained"
    ):
        load_backbone(net, name, tmp_path / "classifier.pt")


def test_weights_of_a_backbone_of_timm_are_loaded_into_it(tmp_path):
    net = build_poolnet("test_resnet", width=1 / 64)
    state = {name: torch.rand_like(value) for name, value in net.backbone.network.state_dict().items() if value.ndim}
    torch.save(state, tmp_path / "weights.pt")
    load_backbone(net, "test_resnet", tmp_path / "weights.pt")
    assert torch.equal(net.backbone.network.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


# --- VGG16 ---------------------------------------------------------------------------------------------------------


class FakeVGG(nn.Module):
    """Four maps, the finest first, of few channels."""

    channels = (2, 4, 8, 8)
    strides = (2, 4, 8, 16)

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(3, c, 1, stride=s) for c, s in zip(self.channels, self.strides, strict=True)
        )

    def forward(self, x):
        return [conv(x).relu() for conv in self.convs]


def test_the_vgg16_of_the_authors_has_52_51_million_parameters():
    with torch.device("meta"):
        net = build_poolnet("vgg16_caffe")
        logits = net(torch.empty(1, 3, 99, 130))
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 52.51
    assert all(p.requires_grad for p in net.parameters())
    assert logits.shape == (1, 1, 99, 130)
    assert net.preprocess is caffe_input
    widths = [(part.change.in_channels, part.change.out_channels, part.up) for part in net.aggregate]
    assert widths == [(512, 512, True), (512, 256, True), (256, 128, True), (128, 128, False)]
    assert [tell[0].out_channels for tell in net.guidance.tell] == [512, 256, 128]


def test_maps_that_need_no_conversion_enter_the_decoder_as_they_are():
    torch.manual_seed(0)
    net = PoolNet(FakeVGG(), convert=False)
    x = torch.randn(1, 3, 48, 64)
    maps = net.backbone(x)
    guides = net.guidance(maps)
    merged = net.aggregate[0](maps[3], maps[2], guides[0])
    merged = net.aggregate[1](merged, maps[1], guides[1])
    merged = net.aggregate[2](merged, maps[0], guides[2])
    score = net.score(net.aggregate[3](merged))
    expected = F.interpolate(score, (48, 64), mode="bilinear", align_corners=True)
    torch.testing.assert_close(net(x), expected)


def test_a_decoder_without_conversion_has_no_other_width():
    with pytest.raises(ValueError, match=r"set saliency\.poolnet\.width to 1"), torch.device("meta"):
        build_poolnet("vgg16_caffe", width=0.5)


def test_vgg16_weights_reach_the_backbone(tmp_path):
    with torch.device("meta"):
        shapes = CaffeVGG16().state_dict()
    places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    groups = ["1.0", "1.2", "2.0", "2.2", "3.0", "3.2", "3.4", "4.0", "4.2", "4.4", "5.0", "5.2", "5.4"]
    state = {
        f"{place}.{part}": torch.full(shapes[f"conv{group}.{part}"].shape, float(place))
        for place, group in zip(places, groups, strict=True)
        for part in ("weight", "bias")
    }
    torch.save(state, tmp_path / "vgg16-20M.pth")
    net = SimpleNamespace(backbone=CaffeVGG16())
    load_backbone(net, "vgg16_caffe", tmp_path / "vgg16-20M.pth")
    assert (net.backbone.conv5[4].bias == 28).all()
    assert (net.backbone.conv2[0].weight == 5).all()


@pytest.mark.parametrize("size", [(353, 500), (64, 97), (17, 16)])
def test_output_has_the_size_of_the_input(size):
    net = PoolNet(FakeBackbone(), width=1 / 64)
    assert net(torch.randn(2, 3, *size)).shape == (2, 1, *size)


def test_every_layer_takes_part():
    torch.manual_seed(0)
    net = PoolNet(FakeBackbone(), width=1 / 32)
    for parameter in net.parameters():
        parameter.data.abs_()  # no ReLU cuts the gradient
    net(torch.rand(1, 3, 64, 64)).sum().backward()
    still = [name for name, p in net.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert still == []


def test_batchnorm_stays_fixed_and_frozen_while_training():
    net = PoolNet(FakeBackbone(), width=1 / 64).train()
    before = {name: value.clone() for name, value in net.named_buffers()}
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert not any(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())


def test_new_layers_start_at_a_deviation_of_one_hundredth():
    torch.manual_seed(0)
    net = PoolNet(FakeBackbone())
    assert net.aggregate[0].change.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert net.score.bias.item() == 0
    narrow = PoolNet(FakeBackbone(), width=0.25)
    assert narrow.aggregate[0].change.weight.std().item() == pytest.approx(0.02, rel=0.01)


def test_aggregation_adds_pooled_contexts_then_the_level_above():
    torch.manual_seed(0)
    x, lateral, guide = torch.randn(1, 4, 9, 11), torch.randn(1, 2, 18, 21), torch.randn(1, 2, 18, 21)
    part = Aggregation(4, 2, up=True)

    total = x.clone()
    for kernel, conv in zip((2, 4, 8), part.contexts, strict=True):
        pooled = nn.AvgPool2d(kernel, kernel)(x)
        total += F.interpolate(conv(pooled), (9, 11), mode="bilinear", align_corners=True)
    up = F.interpolate(total.clamp(min=0), (18, 21), mode="bilinear", align_corners=True)
    expected = part.fuse(part.change(up) + lateral + guide)

    torch.testing.assert_close(part(x, lateral, guide), expected)


def test_caffe_input_is_bgr_minus_the_mean():
    image = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)
    expected = torch.tensor([30 - 104.00699, 20 - 116.66877, 10 - 122.67892])
    torch.testing.assert_close(caffe_input(image).flatten(), expected)


def test_preprocessing_belongs_to_the_backbone_s_weights():
    with torch.device("meta"):
        assert build_poolnet("resnet50_caffe").preprocess is caffe_input
    images = torch.full((1, 3, 2, 2), 255.0)
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    net = PoolNet(FakeBackbone(), width=1 / 64)
    assert net.preprocess is imagenet_input
    torch.testing.assert_close(net.preprocess(images)[0, :, 0, 0], expected)


# --- Small images --------------------------------------------------------------------------------------------------


def small_net(**sizes) -> PoolNet:
    torch.manual_seed(0)
    return PoolNet(FakeBackbone(), width=1 / 64, **sizes)


def test_a_side_below_the_padding_gets_zeros_on_the_right_and_below():
    net = small_net(padding=4)
    x = torch.ones(1, 2, 3, 6)
    assert net.padded(x)[0, 1].tolist() == [[1.0] * 6] * 3 + [[0.0] * 6]
    assert net.padded(x.mT)[0, 0].tolist() == [[1.0, 1.0, 1.0, 0.0]] * 6
    assert net.padded(torch.ones(1, 1, 4, 9)).shape == (1, 1, 4, 9)
    assert torch.equal(small_net().padded(x), x)


def test_saliency_of_a_padded_image_is_cut_to_the_image():
    images = torch.randint(0, 256, (1, 3, 150, 300)).float()
    net = small_net(padding=224, smallest_side=100)
    canvas = torch.zeros(1, 3, 224, 300)  # zeros are the mean colour, as they come after the preprocessing
    canvas[:, :, :150] = net.preprocess(images)
    torch.testing.assert_close(net.saliency(images), net(canvas).sigmoid()[:, :, :150])
    large = torch.randint(0, 256, (1, 3, 224, 300)).float()  # nothing happens to images of VOC's sizes
    assert torch.equal(net.saliency(large), net(net.preprocess(large)).sigmoid())


@pytest.mark.parametrize("padding", [0, 224])
def test_an_image_with_a_side_up_to_the_smallest_is_doubled_and_its_map_halved(padding):
    images = torch.randint(0, 256, (1, 3, 71, 120)).float()
    net = small_net(padding=padding, smallest_side=100)
    x = net.padded(net.preprocess(images))
    doubled = F.interpolate(x, (2 * x.shape[2], 2 * x.shape[3]), mode="bilinear")
    expected = F.avg_pool2d(net(doubled)[:, :, :142, :240], 2)  # halving bilinearly is the mean of four pixels
    torch.testing.assert_close(net.saliency(images), expected.sigmoid())
    as_it_is = small_net(smallest_side=70)
    assert torch.equal(as_it_is.saliency(images), as_it_is(as_it_is.preprocess(images)).sigmoid())


def test_padding_counts_as_background_in_the_loss():
    net = small_net(padding=48)
    settings = PoolnetSettings(backbone="fake", accumulation=1, learning_rate=0.0)
    batch = {
        "image": torch.randint(0, 256, (1, 3, 40, 64), dtype=torch.uint8),
        "saliency": torch.full((1, 1, 40, 64), 255, dtype=torch.uint8),
    }
    losses = PoolnetStep(net, settings, 10, torch.device("cpu"))(batch, 1)
    target = torch.zeros(1, 1, 48, 64)
    target[:, :, :40] = 1
    logits = net(net.padded(net.preprocess(batch["image"].float())))
    expected = F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(losses["loss_a_pixel"], expected.detach())


def test_small_images_are_left_out_of_training_unless_they_are_padded_past_that(tmp_path):
    rows = [Row(str(side), f"{side}.png", "", side, 300, (0,)) for side in (99, 100, 101)]
    manifest = Manifest.of(rows)
    assert [row.id for row in SaliencyPairs(manifest, tmp_path, 100).rows] == ["101"]
    assert len(SaliencyPairs(manifest, tmp_path, 100, padding=224)) == 3


def test_a_network_knows_its_sizes_again(tmp_path):
    sizes = {"padding": 224, "smallest_side": 100, "longest_side": 640}
    recipe = {"backbone": "test_resnet", "width": 1 / 64, **sizes}
    save_model(tmp_path / "poolnet.pt", build_poolnet(**recipe), "poolnet", recipe)
    net = load_poolnet(tmp_path / "poolnet.pt")
    assert (net.padding, net.smallest_side, net.longest_side) == (224, 100, 640)


# --- Large photos --------------------------------------------------------------------------------------------------


@pytest.fixture
def masks(tiny, tmp_path):
    """A binary saliency of each of the tiny pictures, whose longer side has 48 pixels."""
    for row in tiny.manifest:
        write_grey(tmp_path / "saliency" / f"{row.id}.png", ((tiny.mask(row) > 0) * 255).astype(np.uint8))
    return tmp_path / "saliency"


def sample_of(manifest, masks, index=0, seed=0, **sizes):
    return SaliencyPairs(manifest, masks, smallest_side=0, **sizes).sample(index, np.random.default_rng(seed))


@pytest.mark.parametrize("longest_side", [48, 1024])
def test_photos_up_to_the_longest_side_are_seen_as_they_are(tiny, masks, tmp_path, longest_side):
    for index in range(len(tiny.manifest)):
        bounded, free = (sample_of(tiny.manifest, masks, index, longest_side=side) for side in (longest_side, None))
        assert all(torch.equal(bounded[key], free[key]) for key in ("image", "saliency"))
    for side in (longest_side, None):
        net = small_net(longest_side=side)
        predict_saliency(model=net, manifest=tiny.manifest, folder=tmp_path / str(side), device=torch.device("cpu"))
    for row in tiny.manifest:
        found = [(tmp_path / str(side) / f"{row.id}.png").read_bytes() for side in (longest_side, None)]
        assert found[0] == found[1]


def test_larger_photos_and_their_saliency_are_reduced_for_the_training(tiny, masks):
    row = tiny.manifest.rows[0]
    picture = Image.open(row.image).convert("RGB").resize((24, 16), Image.Resampling.BICUBIC)
    saliency = read_grey(masks / f"{row.id}.png").reshape(16, 2, 24, 2).mean(axis=(1, 3))  # four pixels each
    mirrored = set()
    for seed in range(8):
        sample = sample_of(tiny.manifest, masks, seed=seed, longest_side=24)
        turns = [torch.equal(sample["image"], torch.from_numpy(p.copy()).permute(2, 0, 1))
                 for p in (np.asarray(picture), np.asarray(picture)[:, ::-1])]  # fmt: skip
        assert sum(turns) == 1
        expected = saliency[:, ::-1] if turns[1] else saliency
        np.testing.assert_allclose(sample["saliency"][0].numpy(), expected, atol=0.5)
        mirrored.add(turns[1])
    assert mirrored == {False, True}


def test_photos_are_left_out_by_the_size_that_the_network_sees(tiny, masks):
    assert len(SaliencyPairs(tiny.manifest, masks, 16)) == len(tiny.manifest)
    assert len(SaliencyPairs(tiny.manifest, masks, 16, longest_side=24)) == 0


def test_a_data_set_that_works_at_less_than_the_longest_side_keeps_its_size(tiny, tmp_path):
    manifest = tiny.manifest.limited(24)
    write_grey(tmp_path / f"{manifest.ids[0]}.png", np.zeros((16, 24), np.uint8))
    assert sample_of(manifest, tmp_path, longest_side=36)["image"].shape == (3, 16, 24)


def test_maps_of_larger_photos_are_enlarged_to_their_size(tiny, tmp_path):
    net = small_net(longest_side=24)
    predict_saliency(model=net, manifest=tiny.manifest, folder=tmp_path / "maps", device=torch.device("cpu"))
    for row, seen in zip(tiny.manifest, tiny.manifest.limited(24), strict=True):
        pixels = torch.from_numpy(np.array(read_picture(seen))).permute(2, 0, 1)[None].float()
        assert max(pixels.shape) == 24
        size = row.height, row.width
        expected = F.interpolate(net.saliency(pixels), size, mode="bilinear")[0, 0].detach().numpy()
        found = read_grey(tmp_path / "maps" / f"{row.id}.png", size)
        np.testing.assert_allclose(found, 255 * expected, atol=0.51)


def test_saliency_that_is_not_finite_is_refused(tiny, tmp_path):
    net = small_net()
    with torch.no_grad():
        net.score.bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match="saliency of image image0 is not finite: delete its checkpoint"):
        predict_saliency(model=net, manifest=tiny.manifest, folder=tmp_path / "maps", device=torch.device("cpu"))
    assert list(tmp_path.iterdir()) == []
