"""What labels of proposals are worth: counts, and the comparison with true objects, by hand."""

import numpy as np
import pytest

from wsss_core.cim.label_scores import evaluate_proposal_labels
from wsss_core.cim.labels import ProposalLabels, make_proposal_labels
from wsss_core.cim.peak_table import read_peaks, write_peaks
from wsss_core.data import Manifest, Row
from wsss_core.instances.store import InstanceStore, InstanceWriter, instances_of
from wsss_core.maps.shards import StoreError
from wsss_core.recipes.settings import ProposalLabelSettings

SIZE = 10, 20
# An object of class 0 on the left, one of class 2 on the right; in b, one of class 1 in a corner.
TRUE = {"a": [(0, 10, 0, 8), (0, 10, 10, 20)], "b": [(0, 4, 0, 4)], "c": [], "d": [(0, 10, 0, 20)]}
LABELS = {"a": [0, 2], "b": [1], "c": [], "d": [2]}
PROPOSALS = {
    # left: the object itself and a part of it; right: two overlapping halves of the object and it; background
    "a": [(0, 10, 0, 8), (0, 3, 0, 8), (0, 10, 10, 16), (0, 10, 10, 20)],
    "b": [(0, 10, 10, 20), (0, 10, 12, 20)],
    "c": [(0, 5, 0, 5)],
    "d": [],
}


def store(path, manifest, rectangles, labels=None, **about):
    with InstanceWriter(path, manifest, about=about) as out:
        for row in manifest:
            masks = np.zeros((len(rectangles[row.id]), *SIZE), bool)
            for mask, (top, bottom, left, right) in zip(masks, rectangles[row.id], strict=True):
                mask[top:bottom, left:right] = True
            out.write(row.id, instances_of(masks, labels[row.id] if labels else [-1] * len(masks)))
    return InstanceStore(path)


@pytest.fixture
def given(tmp_path, tiny):
    manifest = Manifest.of([Row(name, f"{name}.jpg", "", *SIZE, tuple(LABELS[name])) for name in TRUE])
    proposals = store(tmp_path / "p.zarr", manifest, PROPOSALS)
    truth = store(tmp_path / "t.zarr", manifest, TRUE, LABELS, truth="objects")
    peaks = [("a", 0, 1, 1, 10, 0.5), ("a", 2, 5, 6, 10, 0.75), ("b", 1, 9, 8, 10, 1.0)]  # that of b is far off
    write_peaks(tmp_path / "peaks.csv", peaks)
    make_proposal_labels(
        manifest=manifest, proposals=tmp_path / "p.zarr", peaks=tmp_path / "peaks.csv", output=tmp_path / "l.npz",
        settings=ProposalLabelSettings(),
    )  # fmt: skip
    return {"manifest": manifest, "classes": tiny.classes, "labels": ProposalLabels(tmp_path / "l.npz"),
            "peaks": read_peaks(tmp_path / "peaks.csv"), "proposals": proposals, "truth": truth}  # fmt: skip


def test_the_example_is_what_its_names_say(given):
    labels = {name: given["labels"][name][0].tolist() for name in TRUE}
    # the support of the first peak is the part alone, which both of its proposals share
    assert labels == {"a": [-1, 1, 2, 2], "b": [1, 1], "c": [-1], "d": []}
    assert given["labels"].support_of("a").tolist() == [3 * 8, 10 * 6]


def test_labels_are_counted_and_compared(given):
    found = evaluate_proposal_labels(**given)
    everything, classes = found.pop("all"), found.pop("by_class")
    assert found == {
        "images": 3, "images_without_label": pytest.approx(1 / 3),  # d, which has no proposal; c has no class
        "proposals": 6, "with_class": pytest.approx(5 / 6), "background": pytest.approx(1 / 6), "without_label": 0.0,
        "background_on_objects": 1.0,
    }  # fmt: skip
    # the part is 0.3 of its object, and the half 0.6; the corner of b is not where its peak and its labels are
    names = ("images", "clusters", "inside", "labelled", "support", "right", "objects", "found")
    assert {name: tuple(own[key] for key in names) for name, own in classes.items()} == {
        "circle": (1, 1, 1.0, 1, 0.12, 0.0, 1, 0.0),
        "square": (1, 1, 0.0, 2, 0.4, 0.0, 1, 0.0),
        "star": (2, 1, 1.0, 2, 0.3, 1.0, 2, 0.5),
    }
    assert tuple(everything[key] for key in names) == (3, 3, 2 / 3, 5, 0.3, 2 / 5, 4, 1 / 4)


def test_without_true_objects_labels_are_counted_alone(given):
    found, compared = evaluate_proposal_labels(**given | {"truth": None}), evaluate_proposal_labels(**given)
    assert "background_on_objects" not in found
    assert found["all"] == {name: compared["all"][name] for name in ("images", "clusters", "labelled", "support")}


def test_the_class_counts(given, tmp_path):
    turned = {name: [(label + 1) % 3 for label in labels] for name, labels in LABELS.items()}
    truth = store(tmp_path / "other.zarr", given["manifest"], TRUE, turned, truth="objects")
    found = evaluate_proposal_labels(**given | {"truth": truth})["all"]
    assert (found["inside"], found["right"]) == (0, 0)


def test_what_belongs_to_other_images_is_refused(given, tmp_path):
    fewer = Manifest.of(given["manifest"].rows[:3])
    with pytest.raises(StoreError, match="another manifest"):
        evaluate_proposal_labels(**given | {"truth": store(tmp_path / "few.zarr", fewer, TRUE, LABELS, truth="x")})
    with pytest.raises(StoreError, match="another manifest"):
        evaluate_proposal_labels(**given | {"manifest": fewer})
