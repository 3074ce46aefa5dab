"""Soft and hard erasing, on a batch small enough to work out by hand."""

import pytest
import torch

from wsss_core.classifiers.erasing import hard_erase, soft_erase, soft_keep, without

# two images, two classes, maps of the images' own size, so that nothing is interpolated
MAPS = torch.tensor(
    [
        [[[4.0, -3.0], [2.0, 1.0]], [[9.0, 9.0], [9.0, 9.0]]],
        [[[7.0, 7.0], [7.0, 7.0]], [[0.5, 0.0], [-1.0, 0.1]]],
    ]
)
CHOSEN = torch.tensor([0, 1])
ACTIVE = torch.tensor([[[[4.0, 0.0], [2.0, 1.0]]], [[[0.5, 0.0], [0.0, 0.1]]]])  # ReLU of the chosen maps
IMAGES = torch.arange(1.0, 25.0).reshape(2, 3, 2, 2)


def test_soft_erasing_divides_by_the_maximum_of_the_batch():
    expected = IMAGES * (1 - ACTIVE / (4 + 1e-5))
    torch.testing.assert_close(soft_erase(IMAGES, MAPS, CHOSEN), expected)


def test_soft_erasing_of_single_images_divides_by_their_own_maximum():
    peaks = torch.tensor([4.0, 0.5]).reshape(2, 1, 1, 1)
    expected = IMAGES * (1 - ACTIVE / (peaks + 1e-5))
    torch.testing.assert_close(soft_erase(IMAGES, MAPS, CHOSEN, per_image=True), expected)


@pytest.mark.parametrize("per_image", [False, True])
def test_gradients_flow_through_the_mask_and_its_maximum(per_image):
    maps = MAPS.clone().requires_grad_()
    soft_erase(IMAGES, maps, CHOSEN, per_image=per_image).sum().backward()
    brightness = IMAGES.sum(1)  # d(output) / d(1 - mask) at each pixel
    # a pixel below the maximum: -brightness / peak
    assert maps.grad[0, 0, 1, 0].item() == pytest.approx(-brightness[0, 1, 0].item() / 4, rel=1e-4)
    # the maximum darkens its own pixel no further, but by growing it brightens all that are divided by it
    rest = ACTIVE[:1] if per_image else ACTIVE
    others = (brightness[: len(rest), None] * rest).sum() - brightness[0, 0, 0] * 4
    assert maps.grad[0, 0, 0, 0].item() == pytest.approx((others / 16).item(), rel=1e-4)
    assert (maps.grad[0, 1] == 0).all()  # the other class has no say
    assert maps.grad[0, 0, 0, 1] == 0  # nor what the ReLU cuts


def test_the_whole_mask_is_differentiated():
    maps = (MAPS + 0.05).double().requires_grad_()  # off the ReLU's corner
    assert torch.autograd.gradcheck(lambda m: soft_erase(IMAGES.double(), m, CHOSEN), maps)


def test_hard_erasing_keeps_exactly_what_is_at_most_the_threshold():
    chosen_map = torch.tensor([[[[1.0, 0.2], [0.21, 0.0]]]])
    threshold = (torch.tensor(0.2) / (torch.tensor(1.0) + 1e-5)).item()  # psi of the second pixel, to the last bit
    kept = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    images = torch.full((1, 3, 2, 2), 5.0)
    assert torch.equal(hard_erase(images, chosen_map, torch.tensor([0]), threshold), images * kept)
    below = hard_erase(images, chosen_map, torch.tensor([0]), threshold - 1e-6)
    assert torch.equal(below[0, 0], torch.tensor([[0.0, 0.0], [0.0, 5.0]]))


def test_hard_erasing_divides_by_the_maximum_of_each_image():
    erased = hard_erase(IMAGES, MAPS, CHOSEN)
    kept = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]], [[[0.0, 1.0], [1.0, 1.0]]]])  # 0.1 / 0.5 is a hair below 0.2
    assert torch.equal(erased, IMAGES * kept)


def test_hard_erasing_has_no_gradient():
    maps = MAPS.clone().requires_grad_()
    assert not hard_erase(IMAGES, maps, CHOSEN).requires_grad


def test_maps_without_activation_erase_nothing():
    maps = -torch.ones(2, 2, 2, 2)
    assert torch.equal(soft_erase(IMAGES, maps, CHOSEN), IMAGES)
    assert torch.equal(hard_erase(IMAGES, maps, CHOSEN), IMAGES)


@pytest.mark.parametrize(
    ("relu_first", "mask"),
    [
        (True, [0.0, 1.0, 3.0, 4.0]),  # bilinear between 0 and 4
        (False, [0.0, 0.0, 1.0, 4.0]),  # bilinear between -8 and 4, which is -8, -5, 1, 4; OC-CSE's own way
    ],
)
def test_the_relu_comes_before_the_resize_or_after_it(relu_first, mask):
    maps = torch.tensor([[[[-8.0, 4.0]]]])  # 1 x 2, resized to 1 x 4
    keep = soft_keep(torch.ones(1, 3, 1, 4), maps, torch.tensor([0]), relu_first=relu_first)
    torch.testing.assert_close(keep, 1 - torch.tensor([[[mask]]]) / (4 + 1e-5))


def test_published_erasing_has_the_relu_first():
    maps = torch.tensor([[[[-8.0, 4.0]]]])
    kept = 1 - torch.tensor([0.0, 1.0, 3.0, 4.0]) / (4 + 1e-5)
    torch.testing.assert_close(soft_erase(torch.ones(1, 3, 1, 4), maps, torch.tensor([0]))[0, 0, 0], kept)
    hard = hard_erase(torch.ones(1, 3, 1, 4), maps, torch.tensor([0]), threshold=0.2)
    assert hard[0, 0, 0].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("per_image", [False, True])
def test_soft_erasing_multiplies_by_what_is_kept(per_image):
    keep = soft_keep(IMAGES, MAPS, CHOSEN, per_image)
    assert keep.shape == (2, 1, 2, 2)
    assert ((keep > 0) & (keep <= 1)).all()
    torch.testing.assert_close(soft_erase(IMAGES, MAPS, CHOSEN, per_image), IMAGES * keep)


def test_each_image_needs_its_class():
    with pytest.raises(ValueError, match="2 images need one chosen class each, got 1"):
        soft_erase(IMAGES, MAPS, torch.tensor([0]))


def test_without_takes_out_the_chosen_class_alone_and_all_of_it():
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.25, 0.0, 0.75]])  # the last one of a mixed image
    before = labels.clone()
    rest = without(labels, torch.tensor([1, 2, 2]))
    assert torch.equal(rest, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.25, 0.0, 0.0]]))
    assert torch.equal(labels, before)
