"""Photos that come later: a row in the table of labels or a list of their own remakes nothing that is there."""

import pytest
import yaml
from snakemake_cli import ROOT, jobs_in, planned, snakemake, succeed

from wsss_core.recipes.config import RecipeError, read_config
from wsss_core.recipes.recipes import Recipes

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


# --- the file to start from ---

OWN = yaml.safe_load((ROOT / "config/own-data.yaml").read_text(encoding="utf-8"))
MASKS, HEALTH = "results/mine/own/masks/new", "results/mine/own/health.json"


@pytest.fixture
def photos(tmp_path):
    """Photos of two classes and a new one; no list, no table, no mask."""
    for place in ("photos/cat/a", "photos/dog/b", "new/c"):
        (tmp_path / f"data/mine/{place}.jpg").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"data/mine/{place}.jpg").touch()
    return tmp_path


def test_the_starter_file_plans_masks_of_new_photos_from_nothing_but_photos(photos):
    targets = [MASKS, HEALTH, "results/mine/own/pictures.png", "results/mine/own/predictions/new.png"]
    output = succeed(photos, "--dry-run", targets=targets, config=OWN)
    plan = jobs_in(output)
    assert plan["fetch_weights"] == plan["train_classifier"] == plan["train_segmentation"] == plan["check_health"] == 1
    assert plan["predict_masks"] == plan["make_manifest"] == 2
    assert not {"train_poolnet", "evaluate_segmentation", "make_masks"} & set(plan)
    assert "Not there" not in output


@pytest.mark.parametrize("run", read_config([], ROOT)["runs"])
def test_every_run_of_the_papers_is_whole_on_own_photos(run):
    config = read_config([ROOT / "config/own-data.yaml"], ROOT)
    try:
        Recipes(config).flat("mine", run)
    except RecipeError as error:
        assert "masking_depth is" in str(error)  # noqa: PT017 - which a ResNet-50 is too shallow for


def test_scores_of_own_photos_are_refused_with_what_can_be_asked_for(photos):
    for name, said in {"seg_miou": "splits.val is null", "priors_miou": "masks is null"}.items():
        done = snakemake(photos, "--dry-run", targets=[f"results/mine/own/{name}.json"], config=OWN)
        assert done.returncode != 0
        assert f"datasets.mine.{said}" in done.stdout.splitlines()[-1]
        assert "results/mine/RUN/masks/" in done.stdout.splitlines()[-1]


def test_five_keys_are_all_that_has_to_be_changed():
    mine = OWN["datasets"]["mine"]
    assert list(mine)[:5] == ["kind", "images", "labels", "names", "lists"]
    assert set(mine) - {"kind", "images", "labels", "names", "lists"} == {"longest_side", "settings"}


def test_without_a_validation_split_masks_of_training_images_still_score_them(photos):
    (photos / "data/mine/masks").mkdir()
    mine = {"datasets": {"mine": OWN["datasets"]["mine"] | {"masks": "data/mine/masks"}}, "runs": OWN["runs"]}
    targets = [f"results/mine/own/{name}_miou.json" for name in ("priors", "pseudo")]
    plan = planned(photos, targets=targets, config=mine)
    assert plan["evaluate_cams"] == plan["evaluate_pseudo_masks"] == 1
