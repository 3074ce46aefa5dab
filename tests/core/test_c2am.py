"""C²AM: its pooled vectors and its losses, against values worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.saliency.c2am import C2AM, c2am_loss
from wsss_core.saliency.hints import hint_loss


class FakeBackbone(nn.Module):
    """Five maps at strides 2, 4, 8, 16 and 16, by one convolution each."""

    channels = (2, 3, 4, 5, 6)

    def __init__(self, strides=(2, 4, 8, 16, 16)):
        super().__init__()
        self.strides = strides
        self.convs = nn.ModuleList(nn.Conv2d(3, channels, kernel_size=1) for channels in self.channels)

    def forward(self, x):
        return [conv(F.avg_pool2d(x, stride)) for conv, stride in zip(self.convs, self.strides, strict=True)]


def directions(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_vectors_are_means_of_the_features_weighted_by_the_map():
    torch.manual_seed(0)
    net = C2AM(FakeBackbone())
    x = torch.randn(2, 3, 64, 48)

    foreground, background, logits = net(x)

    *_, s3, s4 = net.backbone(x)
    features = torch.cat([s4, s3], dim=1)
    p = torch.sigmoid(logits)
    assert logits.shape == (2, 1, 4, 3)
    torch.testing.assert_close(foreground, (p * features).mean(dim=(2, 3)))
    torch.testing.assert_close(background, ((1 - p) * features).mean(dim=(2, 3)))
    torch.testing.assert_close(foreground + background, features.mean(dim=(2, 3)))


def test_the_head_is_one_convolution_without_bias_and_its_batchnorm():
    names = [name for name, _ in C2AM(FakeBackbone()).disentangler.named_parameters()]
    assert names == ["0.weight", "1.weight", "1.bias"]


def test_unequal_strides_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"16 and 32.*output_stride=16"):
        C2AM(FakeBackbone(strides=(2, 4, 8, 16, 32)))


def test_salient_logits_point_to_the_foreground_in_either_direction():
    torch.manual_seed(0)
    backbone, x = FakeBackbone(), torch.randn(2, 3, 32, 32)
    ahead, back = C2AM(backbone).eval(), C2AM(backbone, direction=-1).eval()
    back.load_state_dict(ahead.state_dict())
    torch.testing.assert_close(ahead.salient_logits(x), ahead(x)[2])
    torch.testing.assert_close(back.salient_logits(x), -ahead(x)[2])
    assert ahead.salient_logits(x).abs().min() > 0


def test_vectors_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        foreground, background, _ = C2AM(FakeBackbone())(torch.randn(2, 3, 32, 32))
    assert foreground.dtype == background.dtype == torch.float32


def test_losses_of_three_images_match_the_equations_pair_by_pair():
    # row 0: itself, image 1 at 20 degrees, image 2 at 50; row 1: 0 at 20, 2 at 30; row 2: 1 at 30, 0 at 50
    foreground, background = directions(0, 20, 50), directions(70, 75, 85)
    clipped = -math.log(0.9995)
    pair = {angle: -math.log(math.cos(math.radians(angle))) for angle in (20, 30, 50)}
    near, far = 1, math.exp(-0.25)
    positive = 3 * math.exp(0.25) * clipped
    positive += near * (pair[20] + pair[20] + pair[30]) + far * (pair[50] + pair[30] + pair[50])
    angles = [abs(f - b) for f in (0, 20, 50) for b in (70, 75, 85)]
    negative = -sum(math.log(1 - math.cos(math.radians(angle))) for angle in angles)

    losses = c2am_loss(3 * foreground, 0.5 * background)  # lengths have no part in cosines

    assert list(losses) == ["positive_foreground", "positive_background", "negative"]
    assert losses["positive_foreground"].item() == pytest.approx(positive / 9, rel=1e-4)
    assert losses["negative"].item() == pytest.approx(negative / 9, rel=1e-4)
    # 70, 75 and 85 degrees: the nearest pair, 5 degrees apart, is at rank 0 for both of its images
    pair = {angle: -math.log(math.cos(math.radians(angle))) for angle in (5, 10, 15)}
    positive = 3 * math.exp(0.25) * clipped + 2 * pair[5] + pair[10] + far * (2 * pair[15] + pair[10])
    assert losses["positive_background"].item() == pytest.approx(positive / 9, rel=1e-4)


def test_alpha_zero_weighs_all_pairs_alike():
    foreground, background = directions(0, 20, 50), directions(70, 75, 85)
    cosine = (foreground @ foreground.T).clamp(0.0005, 0.9995)
    losses = c2am_loss(foreground, background, alpha=0)
    torch.testing.assert_close(losses["positive_foreground"], -cosine.log().mean())


def test_opposite_and_equal_vectors_give_finite_losses_and_gradients():
    foreground = directions(0, 0, 180).requires_grad_()
    background = directions(0, 180, 180).requires_grad_()
    losses = c2am_loss(foreground, background)
    sum(losses.values()).backward()
    assert all(0 <= loss.item() < 10 for loss in losses.values())
    assert torch.isfinite(foreground.grad).all()
    assert torch.isfinite(background.grad).all()


def test_losses_do_not_depend_on_autocast():
    generator = torch.Generator().manual_seed(1)
    vectors = torch.rand(2, 6, 32, generator=generator)
    plain = c2am_loss(*vectors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(c2am_loss(*vectors), plain, rtol=0, atol=0)


def test_hint_loss_is_the_mean_over_the_hinted_pixels_of_the_batch():
    logits = torch.tensor([[[[2.0, -1.0], [0.5, 3.0]]], [[[1.0, -2.0], [0.0, 0.0]]]])
    hint = torch.tensor([[[0.4, 0.39], [0.0, 1.0]], [[0.0, 0.9], [0.1, 0.2]]])
    hinted = [2.0, 3.0, -2.0]
    expected = sum(math.log1p(math.exp(-q)) + 0.05 * q for q in hinted) / 3

    assert hint_loss(logits, hint).item() == pytest.approx(expected, rel=1e-5)
    assert hint_loss(logits, hint[:, None]).item() == pytest.approx(expected, rel=1e-5)
    unsmoothed = sum(math.log1p(math.exp(-q)) for q in hinted) / 3
    assert hint_loss(logits, hint, smoothing=0).item() == pytest.approx(unsmoothed, rel=1e-5)


def test_a_larger_hint_is_resized_to_the_map():
    hint = torch.zeros(1, 8, 8)
    hint[:, :4, :4] = 1  # after resizing to 2 x 2, the first pixel alone
    logits = torch.tensor([[[[1.5, 9.0], [9.0, 9.0]]]])
    assert hint_loss(logits, hint, smoothing=0).item() == pytest.approx(math.log1p(math.exp(-1.5)))


def test_an_empty_hint_costs_nothing_and_moves_nothing():
    logits = torch.randn(2, 1, 3, 3, requires_grad=True)
    loss = hint_loss(logits, torch.full((2, 6, 6), 0.3))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
