"""Memory that does not grow with pictures: processes of a job, tiles of the CRF and of networks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.base.jobs import Share
from wsss_core.data import DataError, Manifest, Row
from wsss_core.maps import crf, inference, store
from wsss_core.maps.crf import LabelCRF, crf_bytes, crf_labels, crf_tiles
from wsss_core.maps.inference import in_tiles, mirrored, named, normalized_sum
from wsss_core.maps.memory import NEEDS, processes_for
from wsss_core.maps.sizes import inside, tiles
from wsss_core.recipes.settings import PoolnetSettings
from wsss_core.saliency.poolnet_maps import predict_saliency
from wsss_core.segmentation import prediction
from wsss_core.segmentation.prediction import _enlarged

SCALES = (0.5, 1.0, 1.5, 2.0)  # their squares add up to 7.5


def manifest_of(*sizes: tuple[int, int], labels: int = 2) -> Manifest:
    rows = [Row(f"image{i}", f"image{i}.jpg", "", *size, tuple(range(labels))) for i, size in enumerate(sizes)]
    return Manifest.of(rows)


SMALL, LARGE = manifest_of((300, 400), (500, 500)), manifest_of((300, 400), (3000, 4000))


@pytest.mark.parametrize(
    ("rule", "manifest", "mem_mb", "further", "expected"),
    [
        # the largest picture: 0.25 MP x (34 + 2 x 5 + 560 + 3 x 80) B and 120 MB of the process are 331 MB
        ("make_pseudo_masks", SMALL, 8000, {}, 8),
        ("make_pseudo_masks", SMALL, 300 + 3 * 332, {}, 3),
        # 12 MP x 44 B, 3000 MB of CRF tiles and 120 MB are 3648 MB
        ("make_pseudo_masks", LARGE, 8000, {}, 2),
        ("make_pseudo_masks", LARGE, 300 + 2 * 3648 - 1, {}, 1),
        ("make_pseudo_masks", LARGE, 4148, {}, 1),
        # 21 labels of 0.25 MP: 0.25 MP x (560 + 21 x 80 + (3 + 20) x 7.5) B and 120 MB are 723 MB
        ("predict_masks", SMALL, 2500 + 4 * 724, {"classes": 20, "scales": SCALES}, 4),
        # the job decodes too: 12 MP x 12 x 7.5 B and 120 MB are 1200 MB
        ("dump_cams", LARGE, 2500 + 3 * 1200, {"scales": SCALES}, 2),
        ("dump_cams", SMALL, 16000, {"scales": SCALES}, 7),
        # scores compare at the photo's own size
        ("evaluate_cams", LARGE.limited(400), 300 + 2 * (120 + 12 * 26), {}, 2),
        ("evaluate_cams", LARGE.limited(400), 300 + 2 * (120 + 12 * 26) - 1, {}, 1),
        ("make_pseudo_masks", LARGE.limited(400), 8000, {}, 8),
    ],
)
def test_as_many_processes_as_fit_with_the_largest_picture(rule, manifest, mem_mb, further, expected):
    assert processes_for(rule, manifest, Share(8, mem_mb), **further) == expected


def test_a_number_of_processes_stays_what_it_is():
    assert processes_for("make_pseudo_masks", LARGE, 3) == 3


def test_a_picture_that_does_not_fit_is_named_with_the_way_out():
    message = (
        r"image1\.jpg of 4000 x 3000 pixels needs 4148 MB in make_pseudo_masks, which has 4000: set longest_side of "
        r"the data set, such as 1024, or --set-resources make_pseudo_masks:mem_mb=4148$"
    )
    with pytest.raises(DataError, match=message):
        processes_for("make_pseudo_masks", LARGE, Share(8, 4000))


@pytest.mark.parametrize("rule", sorted(set(NEEDS) - {"train_poolnet", "predict_saliency"}))
def test_a_photo_of_twelve_megapixels_fits_into_six_gigabytes(rule):
    further = {"classes": 20, "scales": SCALES} if rule == "predict_masks" else {}
    assert processes_for(rule, manifest_of((3000, 4000), labels=4), Share(8, 6000), **further) >= 0


def test_poolnet_refuses_on_a_cpu_what_it_has_no_memory_for(tmp_path):
    for of, mem_mb in (("train_poolnet", 48000), ("predict_saliency", 16000)):
        with pytest.raises(DataError, match=rf"image1\.jpg of 4000 x 3000 pixels needs .* MB in {of}, which has"):
            processes_for(of, LARGE, Share(8, mem_mb))
    model = nn.Identity()
    model.longest_side = None
    with pytest.raises(DataError, match="set longest_side of the data set"):
        predict_saliency(model=model, manifest=LARGE, folder=tmp_path, device=torch.device("cpu"), share=Share(8, 8000))


def test_poolnet_s_own_longest_side_bounds_its_memory():
    seen = LARGE.limited(PoolnetSettings().longest_side)
    assert processes_for("train_poolnet", seen, Share(1, 6000)) == 1
    assert processes_for("predict_saliency", seen, Share(1, 6000)) == 1


def test_the_published_pictures_are_never_cut():
    assert crf_bytes(640 * 640, 81) < crf.WHOLE_BYTES  # the largest of COCO
    assert crf_bytes(3000 * 4000, 21) == crf.WHOLE_BYTES
    assert list(crf_tiles(640, 640, 81, 67)) == [((slice(0, 640), slice(0, 640)),) * 2]
    assert inference.WHOLE > 1280 * 1280


@pytest.mark.parametrize(("height", "width", "step"), [(10, 50, 1), (64, 33, 8), (7, 7, 1)])
def test_tiles_cover_every_pixel_once_with_their_margins(height, width, step):
    count, pixels = np.zeros((height, width), int), np.arange(height * width).reshape(height, width)
    for part, outer in tiles(height, width, 32, 8, step):
        count[part] += 1
        np.testing.assert_array_equal(pixels[outer][inside(part, outer)], pixels[part])
        for of_part, of_outer, side in zip(part, outer, (height, width), strict=True):
            assert of_part.start % step == of_outer.start % step == 0
            assert of_outer.stop - of_outer.start <= 32
            assert of_outer == slice(max(0, of_part.start - 8), min(of_part.stop + 8, side)) or side <= 32
    assert (count == 1).all()


def test_tiles_of_a_crf_fit_and_overlap_by_its_reach():
    found = list(crf_tiles(3000, 4000, 21, 67))
    largest = max((a.stop - a.start) * (b.stop - b.start) for _, (a, b) in found)
    assert len(found) > 1
    assert largest * (560 + 21 * 80) <= crf.WHOLE_BYTES
    assert found[0][1][1].stop - found[0][0][1].stop == 3 * 67


def test_a_crf_in_tiles_is_nearly_that_of_the_whole(monkeypatch):
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:90, :120]
    objects = ((y - 45) ** 2 + (x - 60) ** 2 < 900).astype(np.uint8)
    image = np.clip(np.where(objects[..., None], 180, 60) + rng.normal(0, 8, (90, 120, 3)), 0, 255).astype(np.uint8)
    labels = np.where(rng.random((90, 120)) < 0.2, 1 - objects, objects)  # a fifth of the pixels is wrong
    monkeypatch.setattr(crf, "LABEL_DEVIATION", 5)
    whole = crf_labels(image, labels, 2)
    monkeypatch.setattr(crf, "WHOLE_BYTES", 60 * 60 * (560 + 2 * 80))
    assert len(LabelCRF(image, 2).tiles) == 3 * 4  # of 30 x 30 pixels, with 15 around each
    tiled = crf_labels(image, labels, 2)
    assert (tiled == whole).mean() > 0.995 > (labels == whole).mean()


class Local(nn.Module):
    """A map at a sixteenth of the size, whose cells depend on the pixels near them alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(a, b, 3, 2, padding=1) for a, b in ((3, 4), (4, 4), (4, 4), (4, 5))]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


@torch.no_grad()
@pytest.mark.parametrize("size", [(70, 224), (300, 133), (32, 40)])
def test_a_network_in_tiles_gives_the_maps_of_the_whole(monkeypatch, size):
    model, pixels = Local(), torch.rand(2, *size, 3)

    def look(part):
        return torch.add(*mirrored(model, part.permute(0, 3, 1, 2)))

    whole = look(pixels)
    monkeypatch.setattr(inference, "WHOLE", 48 * 48)
    monkeypatch.setattr(inference, "TILE", 128)
    monkeypatch.setattr(inference, "MARGIN", 32)
    looked_at = []

    def recorded(part):
        looked_at.append(part.shape[1] * part.shape[2])
        return look(part)

    if size[1] % 16 == 0:  # elsewhere the cells of the mirror image lie on another grid than the tiles'
        torch.testing.assert_close(in_tiles(recorded, pixels), whole)
    found = in_tiles(lambda part: model(part.permute(0, 3, 1, 2)), pixels)
    torch.testing.assert_close(found, model(pixels.permute(0, 3, 1, 2)))
    assert max(looked_at, default=0) <= 128 * 128


@torch.no_grad()
def test_large_images_and_their_mirror_images_go_apart(monkeypatch):
    model, images = Local(), torch.rand(1, 3, 48, 64)
    together, calls = mirrored(model, images), []
    monkeypatch.setattr(inference, "WHOLE", 10)
    apart = mirrored(lambda x: calls.append(len(x)) or model(x), images)
    assert calls == [1, 1]
    torch.testing.assert_close(apart, together)


class Enlarged(Local):
    """Logits at the size of its input, as DeepLabV3+ gives them."""

    def forward(self, x):
        return F.interpolate(super().forward(x), x.shape[-2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def test_logits_of_views_in_tiles_are_kept_at_a_stride_of_4(monkeypatch):
    torch.manual_seed(0)
    model, view = Enlarged(), torch.rand(128, 224, 3)

    def look(pixels):
        return model(pixels.permute(0, 3, 1, 2))

    assert prediction._kept(look, view) is look
    whole = look(view[None])
    monkeypatch.setattr(inference, "WHOLE", 48 * 48)
    monkeypatch.setattr(inference, "TILE", 128)
    monkeypatch.setattr(inference, "MARGIN", 32)
    found = in_tiles(prediction._kept(look, view), view[None])
    assert found.shape == (1, 5, 32, 56)
    again = F.interpolate(found, (128, 224), mode="bilinear", align_corners=False)
    assert (again - whole).abs().max() < 0.1 * (whole.max() - whole.min())
    coarse = Local()
    kept = prediction._kept(lambda pixels: coarse(pixels.permute(0, 3, 1, 2)), view)
    assert kept(view[None]).shape == (1, 5, 8, 14)  # what is coarser stays


def test_shards_of_large_maps_hold_fewer_rows(monkeypatch, tmp_path, tiny, random_maps, write_store):
    monkeypatch.setattr(store, "SHARD_CELLS", 2 * 12 * 12 + 1)  # two of the rows, of 12 x 12 cells with their padding
    maps = random_maps(tiny.manifest)
    found = write_store(tmp_path / "cams.zarr", tiny.manifest, maps)
    rows = sum(len(row.labels) for row in tiny.manifest)
    assert len([path for path in (tmp_path / "cams.zarr/map/c").rglob("*") if path.is_file()]) == -(-rows // 2)
    for row in tiny.manifest:
        np.testing.assert_allclose(found[row.id][1], maps[row.id], atol=1e-3)


def test_an_image_that_a_device_has_no_memory_for_is_named():
    row = Row("a", "a.jpg", "", 3000, 4000, (0,))
    message = r"^a\.jpg of 4000 x 3000 pixels and the network .* set longest_side .*: CUDA out of memory\.$"
    with pytest.raises(DataError, match=message), named(row):
        raise torch.OutOfMemoryError("CUDA out of memory.\nfurther lines")


def test_sums_of_large_maps_are_made_some_at_a_time(monkeypatch):
    maps = [torch.rand(5, 4, 6), torch.rand(5, 8, 12)]
    whole = normalized_sum(maps, 40, 60, 4)
    monkeypatch.setattr(inference, "SUMMED", 2 * 40 * 60)
    torch.testing.assert_close(normalized_sum(maps, 40, 60, 4), whole, rtol=0, atol=0)


def test_a_window_is_that_of_the_interpolated_whole():
    maps = np.random.default_rng(0).random((3, 5, 7), np.float32)
    whole = F.interpolate(torch.from_numpy(maps)[None], (41, 29), mode="bilinear", align_corners=False)[0].numpy()
    for window in ((slice(0, 41), slice(0, 29)), (slice(10, 20), slice(0, 5)), (slice(35, 41), slice(20, 29))):
        np.testing.assert_allclose(_enlarged(maps, (41, 29), window), whole[:, *window], atol=1e-6)
