"""Recipes: which layer of settings wins, which run a part comes from, and what is refused before any job starts."""

from copy import deepcopy

import pytest

from wsss_core.recipes import RecipeError, Recipes

RAMPS = {name: {"start": 0.0, "end": 1.0, "fraction": 1.0} for name in ("reconstruction", "erasing", "discriminator")}
CONFIG = {
    "seeds": [4, 5, 6],
    "settings": {
        "classifier": {"weights": "pretrained", "crop": 512, "output_stride": 16, "resize": [320, 640], "epochs": 15},
        "affinity": {"resize": [320, 640]},
        "deeplab": {"resize": [320, 640]},
        "pnoc": {**RAMPS, "pieces": 4, "leak": True},
        "cams": {"scales": [0.5, 1.0], "stride": 4},
    },
    "runs": {
        "cam": {"method": "vanilla", "ordinary": None, "saliency": None, "settings": {}},
        "pnoc": {"method": "pnoc", "ordinary": "cam", "saliency": None, "settings": {"classifier": {"epochs": 10}}},
        "cheap": {"method": "pnoc", "ordinary": "cam", "saliency": "pnoc", "settings": {}},
    },
    "datasets": {
        "voc": {"settings": {}, "runs": {}, "splits": {"train": "train_aug", "scored": "train", "val": "val"}},
        "demo": {
            "settings": {"classifier": {"crop": 96, "epochs": 3}, "cams": {"scales": [1.0]}},
            "runs": {"pnoc": {"classifier": {"weights": "ordinary", "epochs": 1}}},
            "splits": {"train": "train", "scored": "train", "val": "val"},
        },
    },
}


def changed(path: str, value) -> dict:
    config = deepcopy(CONFIG)
    *folders, last = path.split("/")
    place = config
    for key in folders:
        place = place[key]
    place[last] = value
    return config


@pytest.fixture
def recipes() -> Recipes:
    return Recipes(CONFIG)


def test_later_layers_win_key_by_key(recipes):
    classifier = {
        (dataset, run): recipes.settings(dataset, run)["classifier"]
        for dataset in ("voc", "demo")
        for run in ("cam", "pnoc")
    }
    assert classifier["voc", "cam"] == CONFIG["settings"]["classifier"]
    assert classifier["voc", "pnoc"]["epochs"] == 10  # the run's
    assert classifier["demo", "cam"]["epochs"] == 3  # the data set's
    assert classifier["demo", "pnoc"]["epochs"] == 1  # the run's on the data set
    assert classifier["demo", "pnoc"]["crop"] == 96
    assert classifier["demo", "pnoc"]["resize"] == [320, 640]


def test_the_run_wins_over_the_data_set():
    config = changed("datasets/demo/runs", {})
    assert Recipes(config).settings("demo", "pnoc")["classifier"]["epochs"] == 10


def test_lists_are_replaced_and_not_joined(recipes):
    assert recipes.settings("demo", "cam")["cams"] == {"scales": [1.0], "stride": 4}


def test_settings_are_copies_in_the_order_of_their_names(recipes):
    settings = recipes.settings("demo", "pnoc")
    settings["cams"]["scales"].append(9)
    settings["classifier"]["crop"] = 0
    again = recipes.settings("demo", "pnoc")
    assert (again["cams"]["scales"], again["classifier"]["crop"]) == ([1.0], 96)
    assert list(again["classifier"]) == sorted(again["classifier"])


def test_a_seed_in_the_name_changes_no_setting(recipes):
    assert recipes.settings("demo", "pnoc@seed6") == recipes.settings("demo", "pnoc")


def test_plain_names_have_the_first_seed(recipes):
    assert recipes.parse("pnoc") == ("pnoc", 4)
    assert recipes.parse("pnoc@seed12") == ("pnoc", 12)


@pytest.mark.parametrize("run", ["pnoc@seed", "pnoc@seedx", "pnoc@seed-1"])
def test_a_seed_that_is_no_number_is_refused(recipes, run):
    with pytest.raises(RecipeError, match=f"run '{run}': write a seed as in pnoc@seed2"):
        recipes.parse(run)


def test_an_unknown_run_lists_the_runs(recipes):
    with pytest.raises(RecipeError, match=r"unknown run 'poc'; the runs of config\.yaml are cam, pnoc, cheap"):
        recipes.settings("voc", "poc")


def test_parts_come_from_other_runs_with_the_same_seed(recipes):
    assert recipes.source("pnoc", "ordinary") == "cam"
    assert recipes.source("pnoc@seed5", "ordinary") == "cam@seed5"
    assert recipes.source("cheap@seed5", "saliency") == "pnoc@seed5"
    assert recipes.source("pnoc@seed5", "saliency") == "pnoc@seed5"  # its own


def test_every_seed_of_a_run_has_a_name(recipes):
    assert recipes.seeded("pnoc") == ["pnoc", "pnoc@seed5", "pnoc@seed6"]


def test_runs_are_found_by_their_method(recipes):
    assert recipes.with_method("pnoc") == ["pnoc", "cheap"]
    assert recipes.with_method("vanilla") == ["cam"]


def test_scored_images_are_in_the_stores_of_the_training_split(recipes):
    assert recipes.train_subset("voc", "train") == "train_aug"
    assert recipes.train_subset("voc", "val") == "val"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("runs/pnoc/ordinary", "oc", r"runs\.pnoc\.ordinary names the run 'oc', which is not in config\.yaml"),
        ("runs/pnoc/saliency", "sal", r"runs\.pnoc\.saliency names the run 'sal'"),
        ("runs/pnoc/saliency", "pnoc", r"runs\.pnoc\.saliency names the run itself: use null"),
        ("runs/pnoc/ordinary", None, r"runs\.pnoc needs an ordinary classifier: set runs\.pnoc\.ordinary"),
        ("runs/pnoc/saliency", "cheap", r"saliency leads back to itself: pnoc -> cheap -> pnoc"),
        ("datasets/demo/runs/pnok", {}, r"datasets\.demo\.runs\.pnok is no run; config\.yaml has cam, pnoc, cheap"),
        ("settings/classifier/weights", "ordinary", "run cam on data set voc: classifier.weights is 'ordinary'"),
        (
            "datasets/demo/settings/classifier/crop",
            97,
            r"run pnoc on data set demo: classifier\.crop .* multiple of 32",
        ),
        ("datasets/demo/settings/classifier/crop", 112, r"classifier\.crop must be a multiple of 32"),
        ("settings/pnoc/pieces", 9, r"run pnoc on data set voc: classifier\.crop must be a multiple of 48"),
        ("settings/classifier/resize", [640, 320], r"classifier\.resize is \[640, 320\]: smallest first"),
        ("settings/affinity/resize", [9, 8], r"affinity\.resize is \[9, 8\]: smallest first"),
        ("datasets/demo/settings/deeplab", {"resize": [9, 8]}, r"run cam on data set demo: deeplab\.resize"),
        ("settings/pnoc/erasing/start", 2.0, r"pnoc\.erasing falls from start to end; only rising weights"),
    ],
)
def test_recipes_that_cannot_work_are_refused_by_name(path, value, message):
    with pytest.raises(RecipeError, match=message):
        Recipes(changed(path, value))


def test_saliency_is_followed_through_a_chain_of_runs():
    config = changed("runs/cheaper", {"method": "vanilla", "ordinary": None, "saliency": "cheap", "settings": {}})
    assert Recipes(config).source("cheaper@seed5", "saliency") == "pnoc@seed5"


@pytest.mark.parametrize("subset", ["train", "train_aug"])
def test_the_network_is_not_scored_on_images_that_train_it(subset):
    with pytest.raises(RecipeError, match=r"datasets\.voc\.splits"):
        Recipes(changed("datasets/voc/splits/val", subset))
