"""What a run shows on its training images, looked at without any mask: numbers by hand, and what is said of them."""

import json

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import DataError, Manifest, Row, make_classes, write_mask
from wsss_core.maps.sizes import cells
from wsss_core.scores.health import health

CLASSES = make_classes(["cat", "dog"])
H, W = 16, 32


@pytest.fixture
def images() -> Manifest:
    """A cat, a dog, and an image of neither."""
    rows = [("a", (0,)), ("b", (1,)), ("none", ())]
    return Manifest.of([Row(id, f"{id}.png", "", H, W, labels) for id, labels in rows])


@pytest.fixture
def stage(tmp_path):
    """A function that writes a stage's folder: for each image the columns that are foreground, and with which value."""

    def write(name, columns, grey=False):
        (tmp_path / name).mkdir()
        for id, parts in columns.items():
            mask = np.zeros((H, W), np.uint8)
            for first, last, value in parts:
                mask[:, first:last] = value
            path = tmp_path / name / f"{id}.png"
            Image.fromarray(mask).save(path) if grey else write_mask(path, mask, CLASSES)
        return tmp_path / name

    return write


def cams_of(tmp_path, write_store, images, columns):
    """A store whose maps are 1 in the first columns of each image and 0 elsewhere."""
    maps = {}
    for row in images:
        maps[row.id] = np.zeros((len(row.labels), cells(H, 4), cells(W, 4)), np.float32)
        maps[row.id][:, :, : columns.get(row.id, 0) // 4] = 1
    return write_store(tmp_path / "cams.zarr", images, maps)


def test_the_shares_are_those_of_the_pixels(images, stage, tmp_path, write_store):
    cams = cams_of(tmp_path, write_store, images, {"a": 16, "b": 8})
    nothing = {"none": []}
    found = health(
        manifest=images,
        classes=CLASSES,
        cams=cams,
        threshold=0.5,
        folders={
            "saliency_masks": stage("c2am", {"a": [(0, 16, 255)], "b": [(8, 16, 255)], **nothing}, grey=True),
            "saliency": None,
            "affinity_labels": stage("labels", {"a": [(0, 8, 1), (8, 24, 255)], "b": [(0, 16, 2)], **nothing}),
            "pseudo_masks": stage("pseudo", {"a": [(0, 16, 1)], "b": [(0, 16, 2)], **nothing}),
            "masks": stage("masks", {"a": [(0, 16, 1), (16, 24, 2)], "b": [(0, 8, 2)], "none": [(0, 4, 1)]}),
        },
    )
    stages = found["stages"]
    assert list(stages) == ["cams", "saliency_masks", "affinity_labels", "pseudo_masks", "masks"]
    assert stages["cams"]["most"] == pytest.approx({"a": 0.5, "b": 0.25}, abs=0.07)  # maps are enlarged softly
    assert stages["saliency_masks"]["foreground"] == pytest.approx((0.5 + 0.25) / 2)
    assert stages["affinity_labels"]["uncertain"] == pytest.approx((0.5 + 0) / 2)
    assert stages["affinity_labels"]["foreground"] == pytest.approx((0.5 + 0.5) / 2)  # of what is certain
    assert stages["pseudo_masks"]["least"] == {"a": 0.5, "b": 0.5}
    assert stages["masks"]["foreground"] == pytest.approx((0.75 + 0.25) / 2)
    assert found["agreement"]["least"]["b"] < 0.15 < 0.8 < found["agreement"]["least"]["a"]
    # of 8 x (3 + 1) columns of foreground, one of a (dog) and that of the third image are of no label
    assert found["outside_labels"]["share_of_predicted_foreground"] == pytest.approx((8 + 4) / (24 + 8 + 4), abs=1e-4)
    assert found["outside_labels"]["worst"] == {"a": ["dog"], "none": ["cat"]}
    assert (found["images"], found["images_without_class"]) == (3, 1)
    assert [warning[:40] for warning in found["warnings"]] == ["33.3 % of the predicted foreground is of"]
    assert not found["healthy"]
    json.dumps(found, allow_nan=False)


def told(images, tmp_path, write_store, columns=None, **folders):
    cams = cams_of(tmp_path, write_store, images, columns) if columns is not None else None
    return health(manifest=images, classes=CLASSES, cams=cams, threshold=0.5, folders=folders)


def test_a_run_that_went_well_has_no_warning(images, stage, tmp_path, write_store):
    good = {"a": [(0, 12, 1)], "b": [(0, 12, 2)], "none": []}
    white = {id: [(first, last, 255) for first, last, _ in parts] for id, parts in good.items()}
    found = told(
        images, tmp_path, write_store, {"a": 12, "b": 12},
        saliency=stage("saliency", white, grey=True), pseudo_masks=stage("pseudo", good), masks=stage("masks", good),
    )  # fmt: skip
    assert found["warnings"] == []
    assert found["healthy"]


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("pseudo_masks", 32, "pseudo masks are nearly all foreground (100.0 %): let refinement.walk spread less"),
        ("pseudo_masks", 0, "pseudo masks have next to no foreground (0.0 %): lower refinement.masks.threshold"),
        ("pseudo_masks", 24, "pseudo masks have 75.0 % foreground where the CAMs had"),
        ("affinity_labels", -31, "affinity labels leave 96.9 % of the pixels uncertain"),
        ("masks", 0, "predictions have next to no foreground (0.0 %): look at the pseudo masks first"),
    ],
)
def test_an_unhealthy_number_is_said_with_what_to_try(images, stage, tmp_path, write_store, name, columns, message):
    parts = {id: [(0, abs(columns), value if columns > 0 else 255)] for id, value in {"a": 1, "b": 2}.items()}
    folder = stage(name, parts | {"none": []})
    found = told(images, tmp_path, write_store, {"a": 8, "b": 8}, **{name: folder})
    assert any(warning.startswith(message) for warning in found["warnings"]), found["warnings"]


def test_a_grey_saliency_and_empty_maps_are_said(images, stage, tmp_path, write_store):
    grey = stage("saliency", {id: [(0, 32, 120)] for id in ("a", "b", "none")}, grey=True)
    found = told(images, tmp_path, write_store, {}, saliency=grey)
    assert found["stages"]["saliency"]["flat_images"] == 2
    assert found["stages"]["cams"]["empty_images"] == 2
    assert found["agreement"] is None  # neither has any foreground
    said = " | ".join(found["warnings"])
    assert "CAMs have next to no foreground" in said
    assert "PoolNet's saliency is the same grey all over in 2 of 2 images: set saliency.poolnet to null" in said


def test_some_flooded_images_are_named(images, stage, tmp_path, write_store):
    folder = stage("pseudo", {"a": [(0, 32, 1)], "b": [(0, 8, 2)], "none": []})
    (warning,) = told(images, tmp_path, write_store, pseudo_masks=folder)["warnings"]
    assert warning.startswith("pseudo masks fill 1 of 2 images (a, b)")


def test_workers_do_not_change_the_numbers(images, stage, tmp_path, write_store):
    cams = cams_of(tmp_path, write_store, images, {"a": 16, "b": 8})
    call = {"manifest": images, "classes": CLASSES, "cams": cams, "threshold": 0.5, "folders": {}}
    assert health(**call, workers=2) == health(**call)


def test_nothing_to_look_at_is_an_error(images):
    with pytest.raises(DataError, match="nothing to look at"):
        health(manifest=images, classes=CLASSES, cams=None, threshold=0.5, folders={"masks": None})
