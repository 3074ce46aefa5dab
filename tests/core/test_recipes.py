"""Recipes: which layer of settings wins, which run a part comes from, and what is refused before any job starts."""

from copy import deepcopy

import pytest

from wsss_core.recipes import METHODS, RecipeError, Recipes

RAMP = {"start": 0.0, "end": 1.0, "fraction": 1.0}
CONFIG = {
    "seeds": [4, 5, 6],
    "settings": {
        "classifier": {
            "backbone": "resnet50", "weights": "pretrained", "crop": 512, "output_stride": 16, "resize": [320, 640],
            "epochs": 15,
        },
        "puzzle": {"pieces": 4, "weight": RAMP},
        "erasing": {"masking_depth": 0, "weight": RAMP},
        "discriminator": {"leak": True, "weight": RAMP},
        "affinity": {"resize": [320, 640]},
        "deeplab": {"resize": [320, 640]},
        "cams": {"scales": [0.5, 1.0], "stride": 4},
    },
    "runs": {
        "cam": {"method": "vanilla", "settings": {}},
        "longer": {"method": "vanilla", "ordinary": "cam", "settings": {"classifier": {"weights": "ordinary"}}},
        "puzzle": {"method": "puzzle", "ordinary": "cam", "settings": {}},
        "occse": {"method": "occse", "ordinary": "longer", "settings": {}},
        "pnoc": {"method": "pnoc", "ordinary": "cam", "settings": {"classifier": {"epochs": 10}}},
        "cheap": {"method": "pnoc", "ordinary": "cam", "saliency": "pnoc", "settings": {}},
        "nosal": {"priors": "pnoc", "saliency": "none", "settings": {}},
        "again": {"priors": "nosal", "saliency": "nosal", "pseudo_masks": "nosal", "settings": {}},
        "full": {"pseudo_masks": "ground_truth", "settings": {}},
    },
    "datasets": {
        "voc": {"settings": {}, "runs": {}, "splits": {"train": "train_aug", "scored": "train", "val": "val"}},
        "demo": {
            "settings": {"classifier": {"crop": 96, "epochs": 3}, "cams": {"scales": [1.0]}},
            "runs": {"pnoc": {"classifier": {"weights": "ordinary", "epochs": 1}}},
            "splits": {"train": "train", "scored": "train", "val": "val"},
        },
    },
}  # fmt: skip
RUNS = ", ".join(CONFIG["runs"])


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
    with pytest.raises(RecipeError, match=rf"unknown run 'poc'; the runs of config\.yaml are {RUNS}"):
        recipes.settings("voc", "poc")


def test_parts_come_from_other_runs_with_the_same_seed(recipes):
    assert recipes.source("pnoc", "ordinary") == "cam"
    assert recipes.source("pnoc@seed5", "ordinary") == "cam@seed5"
    assert recipes.source("cheap@seed5", "saliency") == "pnoc@seed5"
    assert recipes.source("nosal@seed5", "priors") == "pnoc@seed5"


@pytest.mark.parametrize("part", ["priors", "saliency", "pseudo_masks"])
def test_what_a_run_does_not_take_is_its_own(recipes, part):
    assert recipes.source("pnoc@seed5", part) == "pnoc@seed5"


def test_parts_are_followed_through_a_chain_of_runs(recipes):
    assert recipes.source("again@seed5", "priors") == "pnoc@seed5"
    assert recipes.source("again@seed5", "pseudo_masks") == "nosal@seed5"
    config = changed("runs/cheaper", {"method": "vanilla", "saliency": "cheap", "settings": {}})
    assert Recipes(config).source("cheaper@seed5", "saliency") == "pnoc@seed5"


def test_an_ordinary_classifier_is_that_of_the_very_run(recipes):
    """The run ``longer`` started from ``cam``; erased images are looked at by ``longer``."""
    assert recipes.source("occse@seed6", "ordinary") == "longer@seed6"


def test_words_stand_for_parts_that_no_run_has_and_have_no_seed(recipes):
    assert recipes.source("nosal@seed5", "saliency") == "none"
    assert recipes.source("again", "saliency") == "none"  # handed on
    assert recipes.source("full@seed5", "pseudo_masks") == "ground_truth"


def test_weights_of_the_plain_classifier_are_those_of_the_ordinary_run_or_that_of_the_priors(recipes):
    assert recipes.plain("pnoc@seed5") == "cam@seed5"
    assert recipes.plain("nosal@seed5") == recipes.plain("again@seed5") == "cam@seed5"
    assert recipes.plain("occse") == "longer"
    assert recipes.plain("cam") == "cam"


def test_the_ordinary_classifier_of_a_run_is_found_with_its_seed(recipes):
    assert recipes.ordinary("voc", "pnoc") == "cam"
    assert recipes.ordinary("voc", "occse@seed5") == "longer@seed5"


@pytest.mark.parametrize(("backbone", "deepest"), [("resnet50", 5), ("resnet38d", 7), ("vgg16", 7)])
def test_masks_go_no_deeper_than_the_ordinary_classifier(backbone, deepest):
    """It counts the ordinary classifier's network, not that of the run; and only on the data set that is asked for."""
    config = changed("runs/cam/settings", {"classifier": {"backbone": backbone}})
    for depth in (deepest, deepest + 1):
        config["datasets"]["demo"]["runs"]["pnoc"]["erasing"] = {"masking_depth": depth}
        recipes = Recipes(config)
        assert recipes.ordinary("voc", "pnoc") == "cam"
        if depth == deepest:
            assert recipes.ordinary("demo", "pnoc") == "cam"
    message = (
        f"run pnoc@seed5 on data set demo: erasing.masking_depth is {depth}, but its ordinary classifier cam@seed5 "
        f"has the backbone {backbone} with {deepest} groups of layers"
    )
    with pytest.raises(RecipeError, match=message):
        recipes.ordinary("demo", "pnoc@seed5")


def test_every_seed_of_a_run_has_a_name(recipes):
    assert recipes.seeded("pnoc") == ["pnoc", "pnoc@seed5", "pnoc@seed6"]


def test_a_method_decides_about_the_sections_that_train_the_classifier(recipes):
    sections = {
        "vanilla": (),
        "puzzle": ("puzzle",),
        "occse": ("erasing",),
        "poc": ("puzzle", "erasing"),
        "pnoc": ("puzzle", "erasing", "discriminator"),
    }
    assert sections == METHODS
    for method, names in sections.items():
        changes = {"method": method, "ordinary": "cam", "settings": {}}
        one = Recipes(changed("runs/one", changes))
        assert one.classifier_sections("one@seed5") == ("classifier", *names)
        assert [name for name in sections["pnoc"] if one.needs("one@seed5", name)] == list(names)
    assert not recipes.needs("nosal", "puzzle")
    assert not recipes.needs("full", "puzzle")


def test_runs_with_a_method_train_a_classifier_of_their_own(recipes):
    assert recipes.with_classifier() == ["cam", "longer", "puzzle", "occse", "pnoc", "cheap"]


def test_scored_images_are_in_the_stores_of_the_training_split(recipes):
    assert recipes.train_subset("voc", "train") == "train_aug"
    assert recipes.train_subset("voc", "val") == "val"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("runs/pnoc/ordinary", "oc", r"runs\.pnoc\.ordinary names the run 'oc', which is not in config\.yaml"),
        ("runs/pnoc/saliency", "sal", r"runs\.pnoc\.saliency names the run 'sal'"),
        ("runs/nosal/priors", "poc", r"runs\.nosal\.priors names the run 'poc'"),
        # words are those of their own part
        ("runs/pnoc/saliency", "ground_truth", r"runs\.pnoc\.saliency names the run 'ground_truth'"),
        ("runs/pnoc/pseudo_masks", "none", r"runs\.pnoc\.pseudo_masks names the run 'none'"),
        ("runs/pnoc/ordinary", "none", r"runs\.pnoc\.ordinary names the run 'none'"),
        ("runs/nosal/priors", "ground_truth", r"runs\.nosal\.priors names the run 'ground_truth'"),
        ("runs/pnoc/saliency", "pnoc", r"runs\.pnoc\.saliency names the run itself: leave it out"),
        ("runs/nosal/priors", "nosal", r"runs\.nosal\.priors names the run itself: leave it out"),
        ("runs/pnoc/pseudo_masks", "pnoc", r"runs\.pnoc\.pseudo_masks names the run itself: leave it out"),
        ("runs/pnoc/saliency", "cheap", r"saliency leads back to itself: pnoc -> cheap -> pnoc"),
        (
            "runs/full",
            {"pseudo_masks": "ground_truth", "method": "vanilla", "priors": "pnoc", "settings": {}},
            r"runs\.full: set either a method",
        ),
        ("runs/cheap", {"priors": "full", "settings": {}}, r"runs\.cheap\.priors is full, which has no classifier"),
        ("runs/nosal/priors", "again", r"priors leads back to itself: nosal -> again -> nosal"),
        ("runs/nosal/pseudo_masks", "again", r"pseudo_masks leads back to itself: nosal -> again -> nosal"),
        ("runs/cam/ordinary", "longer", r"ordinary leads back to itself: cam -> longer -> cam"),
        ("runs/pnoc/priors", "cam", r"runs\.pnoc: set either a method, to train a classifier, or priors"),
        ("runs/cam/method", None, r"runs\.cam: set either a method, to train a classifier, or priors"),
        ("runs/full/pseudo_masks", "pnoc", r"runs\.full: set either a method, to train a classifier, or priors"),
        ("runs/pnoc/ordinary", None, r"runs\.pnoc needs an ordinary classifier: set runs\.pnoc\.ordinary"),
        ("runs/occse/ordinary", None, r"runs\.occse needs an ordinary classifier: set runs\.occse\.ordinary"),
        ("runs/pnoc/ordinary", "nosal", r"runs\.pnoc\.ordinary is nosal, which trains no classifier: name the run in"),
        ("datasets/demo/runs/pnok", {}, r"datasets\.demo\.runs\.pnok is no run; config\.yaml has cam, longer, puz"),
        ("settings/classifier/weights", "ordinary", "run cam on data set voc: classifier.weights is 'ordinary'"),
        (
            "datasets/demo/settings/classifier/crop",
            97,
            r"run puzzle on data set demo: classifier\.crop .* multiple of 32",
        ),
        ("datasets/demo/settings/classifier/crop", 112, r"classifier\.crop must be a multiple of 32"),
        ("settings/puzzle/pieces", 9, r"run puzzle on data set voc: classifier\.crop must be a multiple of 48"),
        ("settings/classifier/resize", [640, 320], r"classifier\.resize is \[640, 320\]: smallest first"),
        ("settings/affinity/resize", [9, 8], r"affinity\.resize is \[9, 8\]: smallest first"),
        ("datasets/demo/settings/deeplab", {"resize": [9, 8]}, r"run cam on data set demo: deeplab\.resize"),
        ("settings/erasing/weight", RAMP | {"start": 2.0}, r"erasing\.weight falls from start to end; only rising"),
        ("settings/puzzle/weight", RAMP | {"start": 2.0}, r"puzzle\.weight falls from start to end"),
        ("settings/discriminator/weight", RAMP | {"start": 2.0}, r"discriminator\.weight falls from start to end"),
    ],
)
def test_recipes_that_cannot_work_are_refused_by_name(path, value, message):
    with pytest.raises(RecipeError, match=message):
        Recipes(changed(path, value))


def test_crops_of_runs_without_a_puzzle_may_have_any_size():
    config = changed("datasets/demo/settings/classifier/crop", 97)
    config["runs"] = {name: run for name, run in config["runs"].items() if name in ("cam", "longer", "occse", "full")}
    config["datasets"]["demo"]["runs"] = {}
    assert Recipes(config).settings("demo", "occse")["classifier"]["crop"] == 97


def test_a_run_whose_priors_are_another_run_may_start_its_networks_from_the_plain_classifier():
    """Only the classifier itself needs a run named by ``ordinary`` for that."""
    config = changed("runs/nosal/settings", {"classifier": {"weights": "ordinary"}})
    assert Recipes(config).plain("nosal") == "cam"


@pytest.mark.parametrize("subset", ["train", "train_aug"])
def test_the_network_is_not_scored_on_images_that_train_it(subset):
    with pytest.raises(RecipeError, match=r"datasets\.voc\.splits"):
        Recipes(changed("datasets/voc/splits/val", subset))
