"""Recipes: layers of settings, parts of other runs, and recipes that cannot work."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from wsss_core.recipes import RecipeError, Recipes

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())


@pytest.fixture
def config():
    return deepcopy(CONFIG)


def test_the_runs_settings_on_a_data_set_beat_the_runs_the_data_sets_and_the_general_ones(config):
    config["settings"]["cams"].update(stride=4, scales=[1.0])
    config["datasets"]["demo"]["settings"] = {"cams": {"stride": 8}}
    config["runs"]["pnoc"]["settings"] = {"cams": {"stride": 2}}
    config["datasets"]["demo"]["runs"] = {"pnoc": {"cams": {"stride": 1}}}
    recipes = Recipes(config)
    strides = {
        (dataset, run): recipes.settings(dataset, run)["cams"]["stride"]
        for dataset in ("voc", "demo")
        for run in ("cam", "pnoc")
    }
    assert strides == {("voc", "cam"): 4, ("demo", "cam"): 8, ("voc", "pnoc"): 2, ("demo", "pnoc"): 1}
    assert recipes.settings("demo", "pnoc")["cams"]["scales"] == [1.0]


def test_the_order_of_keys_does_not_matter(config):
    reordered = deepcopy(config)
    reordered["settings"]["pnoc"] = dict(reversed(config["settings"]["pnoc"].items()))
    settings = [Recipes(c).settings("voc", "pnoc")["pnoc"] for c in (config, reordered)]
    assert list(settings[0]) == list(settings[1])  # equal dicts may differ in this


def test_a_seeded_run_takes_its_parts_from_the_same_seed(config):
    config["seeds"] = [5, 6]
    recipes = Recipes(config)
    assert recipes.parse("pnoc") == ("pnoc", 5)
    assert recipes.parse("pnoc@seed6") == ("pnoc", 6)
    assert recipes.source("pnoc@seed6", "ordinary") == "cam@seed6"
    assert recipes.source("pnoc@seed6", "saliency") == "pnoc@seed6"
    assert recipes.seeded("pnoc") == ["pnoc", "pnoc@seed6"]


def test_scored_images_are_found_in_the_stores_of_the_training_split(config):
    recipes = Recipes(config)
    assert recipes.train_subset("voc", "train") == "train_aug"
    assert recipes.train_subset("voc", "val") == "val"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("runs.pnoc.ordinary", "kam", "runs.pnoc.ordinary names the run 'kam'"),
        ("runs.pnoc.saliency", "pnoc", "runs.pnoc.saliency names the run itself"),
        ("runs.pnoc.ordinary", None, "runs.pnoc needs an ordinary classifier"),
        ("runs.cam.ordinary", "pnoc", "runs.cam.ordinary leads back to itself: cam -> pnoc -> cam"),
        ("runs.cam.settings", {"classifier": {"weights": "ordinary"}}, "run cam on data set voc: classifier.weights"),
        ("settings.classifier.crop", 511, "run pnoc on data set voc: classifier.crop must be even"),
        ("settings.deeplab.resize", [640, 320], "deeplab.resize is .640, 320.: smallest first"),
        ("settings.pnoc.erasing.start", 2.0, "pnoc.erasing falls from start to end"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_by_name(config, path, value, message):
    *parents, key = path.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[key] = value
    with pytest.raises(RecipeError, match=message):
        Recipes(config)


def test_an_unknown_run_is_refused_with_the_known_ones(config):
    with pytest.raises(RecipeError, match=r"unknown run 'pnok'; the runs of .* are cam, pnoc"):
        Recipes(config).settings("voc", "pnok")
