"""Photos that come later: a row in the table of labels or a list of their own remakes nothing that is there."""

import pytest
from snakemake_cli import planned, snakemake, succeed

LABELS = "data/cells/labels.csv"
ROWS = "image_id,classes\na,round\nb,round;long\nc,long\n"
SCORE = "results/cells/pnoc_nosal/pseudo_miou.json"
NEW = "results/cells/manifest/unseen.csv"


def data_set(**lists):
    roles = {name: f"data/cells/{name}.txt" for name in ("train", "scored", "val")}
    declared = {
        "kind": "folders",
        "images": "data/cells/images",
        "masks": "data/cells/masks",
        "labels": LABELS,
        "names": ["round", "long"],
        "colours": None,
        "lists": roles | lists,
        "classes": None,
        "splits": {name: name for name in roles},
    }
    return {"datasets": {"cells": declared}}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A folder of one's own data where all that is behind a score is there and recorded as made, in no time."""
    tmp_path = tmp_path_factory.mktemp("cells")
    for name in ("images", "masks"):
        (tmp_path / "data/cells" / name).mkdir(parents=True)
    for name, ids in {"train": "a\nb\n", "scored": "a\n", "val": "c\n"}.items():
        (tmp_path / f"data/cells/{name}.txt").write_text(ids)
    (tmp_path / LABELS).write_text(ROWS)
    call = {"targets": [SCORE], "config": data_set()}
    for line in succeed(tmp_path, "--summary", **call).splitlines():
        path = tmp_path / line.split("\t")[0]
        if line.startswith(("results/", "resources/")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix in (".csv", ".json", ".pt") else path.mkdir()
    succeed(tmp_path, "--touch", "--forceall", **call)
    assert planned(tmp_path, **call) == {}
    return tmp_path


@pytest.fixture
def cells(complete):
    """The complete folder with its table of labels as it was."""
    (complete / LABELS).write_text(ROWS)
    return complete


@pytest.mark.parametrize("row", ["", "d,\n", "d,long\n"])
def test_new_photos_plan_their_own_manifest_alone(cells, row):
    (cells / LABELS).write_text(ROWS + row)
    (cells / "data/cells/unseen.txt").write_text("d\n")
    config = data_set(unseen="data/cells/unseen.txt")
    assert planned(cells, targets=[SCORE, NEW], config=config) == {"make_manifest": 1}


def test_another_label_remakes_what_was_made_of_it(cells):
    """And no more than that: b is in train, c in val, which this score does not look at."""
    (cells / LABELS).write_text(ROWS.replace("c,long", "c,round"))
    assert planned(cells, targets=[SCORE], config=data_set()) == {}
    (cells / LABELS).write_text(ROWS.replace("b,round;long", "b, long ; round "))
    assert planned(cells, targets=[SCORE], config=data_set()) == {}
    (cells / LABELS).write_text(ROWS.replace("b,round;long", "b,round"))
    plan = planned(cells, targets=[SCORE], config=data_set())
    assert (plan["make_manifest"], plan["train_classifier"]) == (1, 2)


def test_a_broken_table_stops_the_plan_with_its_line(cells):
    (cells / LABELS).write_text(ROWS + "d,round,long\n")
    done = snakemake(cells, "--dry-run", targets=[SCORE], config=data_set())
    assert done.returncode != 0
    assert "labels.csv, line 5: 'd,round,long' has 3 cells, the head has 2: join names by ;" in done.stdout


def test_an_image_to_train_with_needs_a_row_when_it_is_planned(cells):
    (cells / LABELS).write_text(ROWS.replace("b,round;long\n", ""))
    done = snakemake(cells, "--dry-run", targets=[SCORE], config=data_set())
    assert done.returncode != 0
    assert "labels.csv: images of data/cells/train.txt without a row (1 of 2): b" in done.stdout
