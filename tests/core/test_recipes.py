"""Recipes: which value wins, which run an artefact comes from, and what is refused before any job starts."""

from copy import deepcopy
from typing import Any

import pytest

from wsss_core.recipes.config import RecipeError
from wsss_core.recipes.methods import METHODS, SECTIONS, SLOTS
from wsss_core.recipes.names import unknown
from wsss_core.recipes.recipes import Recipes

CONFIG: dict[str, Any] = {
    "seeds": [4, 5, 6],
    "runs": {
        "cam": {"prior": {"method": "cam"}},
        "longer": {"extends": "cam", "prior": {"ordinary": "cam", "classifier": {"weight_decay": 0.01}}},
        "puzzle": {"prior": {"method": "puzzle", "ordinary": "cam"}},
        "occse": {
            "extends": "longer",
            "prior": {"method": "occse", "ordinary": "longer", "classifier": {"backbone": "resnet38d", "crop": 384}},
        },
        "pnoc": {"prior": {"method": "pnoc", "ordinary": "cam", "classifier": {"label_smoothing": 0.0}}},
        "no_leak": {"extends": "pnoc", "prior": {"discriminator": {"leak": False}}},
        "nosal": {"extends": "pnoc", "saliency": "none"},
        "v2": {"extends": "pnoc", "segmentation": "v2"},
        "split": {"extends": "cam", "saliency": "c2am"},
        "borrower": {"extends": "pnoc", "saliency": {"from": "split"}},
        "masks": {"extends": "pnoc", "saliency": {"poolnet": None}},
        "full": {"extends": "cam", "saliency": "none", "refinement": "truth"},
    },
    "datasets": {
        "voc": {"kind": "voc", "splits": {"train": "train_aug", "scored": "train", "val": "val"}},
        "demo": {
            "settings": {
                "prior": {
                    "classifier": {"backbone": "test_resnet", "crop": 96, "epochs": 3, "weights": "none"},
                    "continued": {"epochs": 1, "weights": "ordinary"},
                    "puzzle": {"weight": {"end": 0.1}},
                    "cams": {"scales": [1.0]},
                },
                "saliency": {"c2am": {"weights": "ordinary"}},
            },
            "kind": "demo",
            "images": {"train": 3, "val": 2},
            "splits": {"train": "train", "scored": "train", "val": "val"},
        },
    },
}
RUNS = ", ".join(CONFIG["runs"])


def changed(path: str, value: Any) -> dict[str, Any]:
    """The config with another value at a path; folders on the way are made."""
    config = deepcopy(CONFIG)
    *folders, last = path.split("/")
    place = config
    for key in folders:
        place = place.setdefault(key, {})
    place[last] = value
    return config


@pytest.fixture
def recipes() -> Recipes:
    return Recipes(CONFIG)


def value(recipes: Recipes, dataset: str, run: str, key: str) -> Any:
    return recipes.flat(dataset, run)[key]


# --- which value wins ---


def test_what_nobody_says_is_the_default(recipes):
    assert value(recipes, "voc", "cam", "prior.classifier.crop") == 512
    assert value(recipes, "voc", "cam", "prior.classifier.augmentation") == "randaug"


def test_a_method_has_values_of_its_own(recipes):
    classifier = {run: recipes.section("voc", run, "prior.classifier") for run in ("cam", "puzzle", "pnoc")}
    assert (classifier["cam"].batch_size, classifier["cam"].accumulation) == (32, 1)
    assert (classifier["puzzle"].batch_size, classifier["puzzle"].accumulation) == (16, 2)
    assert classifier["pnoc"].augmentation == "jitter"


def test_settings_of_the_config_hold_for_all_runs_that_say_nothing_else():
    recipes = Recipes(changed("settings/prior/classifier", {"label_smoothing": 0.3, "precision": "bfloat16"}))
    assert value(recipes, "voc", "cam", "prior.classifier.label_smoothing") == 0.3
    assert value(recipes, "voc", "pnoc", "prior.classifier.label_smoothing") == 0.0
    assert value(recipes, "demo", "pnoc", "prior.classifier.precision") == "bfloat16"


def test_the_scale_of_a_data_set_wins_over_the_run(recipes):
    assert value(recipes, "voc", "occse", "prior.classifier.backbone") == "resnet38d"
    assert value(recipes, "voc", "occse", "prior.classifier.crop") == 384
    assert value(recipes, "demo", "occse", "prior.classifier.backbone") == "test_resnet"
    assert value(recipes, "demo", "occse", "prior.classifier.crop") == 96


def test_a_run_can_say_openly_that_its_own_scale_holds():
    config = changed("runs/occse/prior/own_scale", True)
    recipes = Recipes(config)
    assert value(recipes, "demo", "occse", "prior.classifier.crop") == 384
    assert value(recipes, "demo", "cam", "prior.classifier.crop") == 96


def test_an_entry_for_one_run_on_one_data_set_wins_over_all():
    recipes = Recipes(changed("datasets/demo/runs/occse/prior/classifier", {"crop": 128, "weight_decay": 0.5}))
    assert value(recipes, "demo", "occse", "prior.classifier.crop") == 128
    assert value(recipes, "demo", "occse", "prior.classifier.weight_decay") == 0.5
    assert value(recipes, "voc", "occse", "prior.classifier.weight_decay") == 0.01


def test_the_recipe_of_a_run_wins_over_the_data_set():
    config = changed("datasets/demo/settings/prior/classifier/label_smoothing", 0.2)
    recipes = Recipes(config)
    assert value(recipes, "demo", "cam", "prior.classifier.label_smoothing") == 0.2
    assert value(recipes, "demo", "pnoc", "prior.classifier.label_smoothing") == 0.0


def test_a_data_set_changes_what_a_method_says_and_blocks_merge_key_by_key(recipes):
    weight = recipes.section("demo", "pnoc", "prior.puzzle").weight
    assert (weight.start, weight.end, weight.fraction) == (0.0, 0.1, 0.5)
    assert recipes.section("voc", "pnoc", "prior.puzzle").weight.end == 4.0


def test_classifiers_that_go_on_from_an_ordinary_one_have_their_own_scale(recipes):
    assert value(recipes, "demo", "cam", "prior.classifier.epochs") == 3
    assert value(recipes, "demo", "longer", "prior.classifier.epochs") == 1
    assert value(recipes, "demo", "pnoc", "prior.classifier.weights") == "ordinary"


def test_a_new_run_of_any_method_has_the_scale_of_the_data_set_without_an_entry():
    for method in METHODS["prior"]:
        recipes = Recipes(changed("runs/new", {"prior": {"method": method, "ordinary": "cam"}}))
        classifier = recipes.section("demo", "new", "prior.classifier")
        assert (classifier.backbone, classifier.crop, classifier.epochs) == ("test_resnet", 96, 1)


def test_an_extending_run_differs_in_what_it_says_alone(recipes):
    for dataset in CONFIG["datasets"]:
        assert recipes.differences((dataset, "pnoc"), (dataset, "no_leak")) == {
            "prior.discriminator.leak": (True, False)
        }


def test_an_extending_run_has_the_data_sets_entries_for_the_run_that_it_extends():
    recipes = Recipes(changed("datasets/demo/runs/pnoc/prior/erasing", {"masking_depth": 2}))
    assert value(recipes, "demo", "no_leak", "prior.erasing.masking_depth") == 2


def test_a_change_of_method_keeps_the_sections_that_the_new_one_has():
    recipes = Recipes(changed("runs/new", {"extends": "no_leak", "prior": {"method": "poc"}}))
    assert value(recipes, "voc", "new", "prior.classifier.label_smoothing") == 0.0
    assert not any(key.startswith("prior.discriminator") for key in recipes.flat("voc", "new"))


def test_null_turns_a_block_off_and_a_block_turns_it_on_again(recipes):
    assert recipes.section("voc", "masks", "saliency.poolnet") is None
    again = Recipes(changed("runs/again", {"extends": "masks", "saliency": {"poolnet": {"epochs": 2}}}))
    assert again.section("voc", "again", "saliency.poolnet").epochs == 2
    assert again.section("voc", "again", "saliency.poolnet").accumulation == 10


def test_a_null_is_left_out_of_what_decides_about_a_result():
    plain = Recipes(CONFIG).stage_settings("voc", "cam", "classifier")["classifier"]
    assert {"mixing", "average", "weights", "compile"}.isdisjoint(plain)
    mixed = Recipes(changed("runs/cam/prior/classifier", {"mixing": {"kind": "cutmix"}}))
    assert mixed.stage_settings("voc", "cam", "classifier")["classifier"]["mixing"] == {
        "kind": "cutmix",
        "probability": 0.5,
    }


def test_settings_are_in_the_order_of_their_names(recipes):
    settings = recipes.stage_settings("demo", "pnoc", "classifier")
    assert list(settings) == sorted(settings) == ["classifier", "discriminator", "erasing", "puzzle"]
    assert list(settings["classifier"]) == sorted(settings["classifier"])


def test_a_seed_in_the_name_changes_no_setting(recipes):
    assert recipes.flat("demo", "pnoc@seed6") == recipes.flat("demo", "pnoc")


def test_every_value_tells_where_it_comes_from(recipes):
    origins = recipes.slot("demo", "no_leak", "prior").origins
    assert origins["classifier.label_smoothing"] == "runs.pnoc"
    assert origins["classifier.crop"] == "datasets.demo"
    assert origins["classifier.batch_size"] == "method pnoc"
    assert origins["classifier.precision"] == "default"
    assert origins["discriminator.leak"] == "runs.no_leak"


def test_affinity_labels_without_saliency_have_thresholds_of_their_own():
    config = changed("datasets/voc/settings/refinement", {"labels": {"foreground": 0.25, "background": 0.65}})
    recipes = Recipes(config)
    with_saliency = recipes.stage_settings("voc", "pnoc", "affinity_labels")["labels"]
    without = recipes.stage_settings("voc", "nosal", "affinity_labels")["labels"]
    assert (with_saliency["foreground"], with_saliency["background"]) == (0.25, 0.65)
    assert (without["foreground"], without["background"]) == (0.4, 0.1)


# --- names ---


def test_plain_names_have_the_first_seed(recipes):
    assert recipes.parse("pnoc") == ("pnoc", 4)
    assert recipes.parse("pnoc@seed12") == ("pnoc", 12)


@pytest.mark.parametrize("run", ["pnoc@seed", "pnoc@seedx", "pnoc@seed-1", "pnoc@sed1", "pnoc@1"])
def test_a_seed_that_is_no_number_is_refused(recipes, run):
    with pytest.raises(RecipeError, match=f"run '{run}': write a seed as in pnoc@seed2"):
        recipes.parse(run)


def test_an_unknown_run_lists_the_runs(recipes):
    with pytest.raises(RecipeError, match=rf"unknown run 'poc'; the runs of config\.yaml are {RUNS}"):
        recipes.flat("voc", "poc")


def test_of_an_unknown_run_on_an_unknown_data_set_the_data_set_is_named(recipes):
    with pytest.raises(RecipeError, match=r"unknown data set 'farm'; .*--configfile"):
        recipes.flat("farm", "own")


def test_many_names_are_not_all_listed():
    assert unknown("run", "xyz", [f"run{n}" for n in range(80)], "there are").endswith("run13, run14 and 65 more")
    assert unknown("run", "rum7", [f"run{n}" for n in range(80)], "there are").startswith("unknown run 'rum7' (did")


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(recipes):
    with pytest.raises(RecipeError, match=r"unknown run 'pnok'; .* \(did you mean pnoc\?\)"):
        recipes.flat("voc", "pnok")
    with pytest.raises(
        RecipeError, match=r"unknown data set 'dmo'; config\.yaml has voc, demo \(did you mean demo\?\); .*--configfile"
    ):
        recipes.flat("dmo", "pnoc")


def test_every_seed_of_a_run_has_a_name(recipes):
    assert recipes.seeded("pnoc") == ["pnoc", "pnoc@seed5", "pnoc@seed6"]


def test_scored_images_are_in_the_stores_of_the_training_split(recipes):
    assert recipes.train_subset("voc", "train") == "train_aug"
    assert recipes.train_subset("voc", "val") == "val"


# --- artefacts ---


@pytest.mark.parametrize("artefact", ["classifier", "epochs", "cams", "c2am", "saliency", "pseudo_masks"])
def test_a_run_shares_what_it_does_not_change(recipes, artefact):
    assert recipes.source("voc", "v2@seed5", artefact) == "pnoc@seed5"
    assert recipes.source("voc", "v2", "segmentation") == "v2"


def test_what_follows_from_a_change_is_the_runs_own(recipes):
    """Another prior changes all; without saliency the prior stays, and masks are other ones."""
    assert {recipes.source("voc", "no_leak", a) for a in ("classifier", "cams", "hints", "segmentation")} == {"no_leak"}
    assert recipes.source("voc", "nosal", "cams") == "pnoc"
    assert {recipes.source("voc", "nosal", a) for a in ("affinity_labels", "random_walk", "segmentation")} == {"nosal"}


def test_other_maps_of_one_training_share_the_training():
    recipes = Recipes(changed("runs/other", {"extends": "pnoc", "prior": {"cams": {"stride": 2}}}))
    assert recipes.source("voc", "other", "classifier") == "pnoc"
    assert recipes.source("voc", "other", "cams") == "other"


def test_runs_that_the_scale_of_a_data_set_makes_equal_share_there():
    config = changed("runs/big", {"extends": "cam", "prior": {"classifier": {"backbone": "resnest101"}}})
    assert Recipes(config).source("voc", "big", "classifier") == "big"
    assert Recipes(config).source("demo", "big", "classifier") == "cam"


def test_weights_of_another_plain_classifier_are_another_start():
    """On the demo, the later networks start from the run's plain classifier."""
    config = changed("runs/other", {"extends": "pnoc", "prior": {"from": "pnoc"}})
    assert Recipes(config).source("demo", "other", "c2am") == "pnoc"
    config["runs"]["other"] = {"extends": "split", "prior": {"ordinary": "longer"}}
    assert Recipes(config).source("demo", "other", "c2am") == "other"


def test_a_slot_from_another_run_is_followed_with_the_seed(recipes):
    assert recipes.source("voc", "borrower@seed5", "saliency_masks") == "split@seed5"
    assert recipes.source("voc", "borrower@seed5", "cams") == "pnoc@seed5"
    assert recipes.source("voc", "borrower", "affinity_labels") == "borrower"


def test_slots_are_followed_through_a_chain_of_runs():
    recipes = Recipes(changed("runs/chain", {"extends": "cam", "saliency": {"from": "borrower"}}))
    assert recipes.source("voc", "chain", "c2am") == "split"
    assert recipes.section("voc", "chain", "saliency.c2am").head_rate == 1  # that of the run which made it


def test_what_a_slot_hands_on_depends_on_its_method_and_its_sections(recipes):
    assert recipes.result("voc", "pnoc", "saliency") == "saliency"
    assert recipes.result("voc", "masks", "saliency") == "saliency_masks"
    assert recipes.result("voc", "nosal", "saliency") is None
    assert recipes.result("voc", "full", "refinement") is None
    assert not recipes.has("voc", "masks", "poolnet")
    assert not recipes.has("voc", "split", "hints")
    assert recipes.has("voc", "borrower", "saliency")


def test_full_supervision_learns_from_the_truth(recipes):
    assert recipes.trains_on_truth("voc", "full")
    assert not recipes.trains_on_truth("voc", "pnoc")
    assert recipes.source("voc", "full", "segmentation") == "full"


def test_the_ordinary_classifier_is_that_of_the_very_run(recipes):
    assert recipes.ordinary("voc", "occse@seed6") == "longer@seed6"
    assert recipes.ordinary("voc", "no_leak") == "cam"


def test_plain_is_the_ordinary_classifier_of_the_prior_or_its_own(recipes):
    assert recipes.plain("voc", "pnoc@seed5") == "cam@seed5"
    assert recipes.plain("voc", "cam") == "cam"
    config = changed("runs/other", {"prior": {"from": "no_leak"}})
    assert Recipes(config).plain("voc", "other@seed5") == "cam@seed5"


def test_what_is_behind_an_artefact_names_runs_and_settings_from_the_start(recipes):
    found = recipes.behind("demo", "borrower@seed5", "masks")
    assert list(found)[:3] == ["ordinary", "classifier", "cams"]
    assert list(found)[-2:] == ["segmentation", "masks"]
    assert (found["ordinary"]["run"], found["classifier"]["run"]) == ("cam@seed5", "pnoc@seed5")
    assert found["c2am"] == {"run": "split@seed5", "weights": "split@seed5", **found["c2am"]}
    assert found["affinity_labels"]["run"] == found["masks"]["run"] == "borrower@seed5"
    assert found["classifier"]["weights"] == "cam@seed5"
    assert found["classifier"]["classifier"]["label_smoothing"] == 0.0
    assert "hints" not in found
    assert "pseudo_masks" not in recipes.behind("voc", "full", "masks")


# --- refused ---


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("runs/pnoc/prior/ordinary", "oc", r"runs\.pnoc\.prior\.ordinary: unknown run 'oc'; config\.yaml has"),
        ("runs/borrower/saliency/from", "sal", r"runs\.borrower\.saliency\.from: unknown run 'sal'.* mean nosal"),
        ("runs/v2/extends", "poc", r"runs\.v2\.extends: unknown run 'poc'; .* \(did you mean pnoc\?\)"),
        ("runs/borrower/saliency/from", "borrower", r"runs\.borrower\.saliency\.from names the run itself"),
        ("runs/cam/extends", "full", r"runs\.\w+\.extends leads back to itself: "),
        ("datasets/demo/runs/pnok", {}, r"datasets\.demo\.runs: unknown run 'pnok'; config\.yaml has cam"),
    ],
)
def test_names_that_lead_nowhere_are_refused(path, content, message):
    with pytest.raises(RecipeError, match=message):
        Recipes(changed(path, content))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("runs/new", {"saliency": "none"}, r"runs\.new\.prior names no method: cam, .*, recam, or from"),
        (
            "runs/new",
            {"prior": {"method": "pnoc"}},
            r"runs\.new\.prior needs an ordinary classifier: set ordinary to a run such as cam",
        ),
        ("runs/new", {"prior": {"method": "pnok"}}, r"runs\.new\.prior: unknown method 'pnok'; it offers cam, puzzle"),
        (
            "runs/new",
            {"extends": "cam", "prior": {"discriminator": {"leak": False}}},
            r"runs\.new\.prior\.discriminator: the method cam has no such settings; pnoc has",
        ),
        (
            "runs/new",
            {"extends": "cam", "prior": {"from": "cam", "cams": {"stride": 2}}},
            r"runs\.new\.prior: beside from no key counts",
        ),
        (
            "runs/new",
            {"extends": "nosal", "saliency": {"masks": {"threshold": 0.3}}},
            r"runs\.new\.saliency sets masks, but what it extends has no such slot: name a method",
        ),
        (
            "runs/new",
            {"extends": "borrower", "saliency": {"masks": {"threshold": 0.3}}},
            r"runs\.new\.saliency sets masks, but what it extends has that slot from split: name a method",
        ),
        (
            "runs/new",
            {"extends": "cam", "prior": {"classifier": None}},
            r"runs\.new: the settings classifier cannot be null",
        ),
        (
            "runs/new",
            {"extends": "cam", "prior": {"classifier": {"weights": "ordinary"}}},
            r"run new on data set voc: prior\.classifier\.weights is 'ordinary', but the run names no ordinary",
        ),
        (
            "runs/new",
            {"extends": "pnoc", "prior": {"classifier": {"crop": 97}}},
            r"run new on data set voc: prior\.classifier\.crop must be a multiple of 32",
        ),
        (
            "runs/new",
            {"extends": "pnoc", "prior": {"classifier": {"crop": 520}, "puzzle": {"pieces": 16}}},
            r"prior\.classifier\.crop must be a multiple of 64",
        ),
        (
            "runs/new",
            {"extends": "cam", "prior": {"classifier": {"resize": [640, 320]}}},
            r"prior\.classifier\.resize is \[640, 320\]: smallest first",
        ),
        (
            "runs/new",
            {"extends": "pnoc", "prior": {"erasing": {"weight": {"start": 2.0}}}},
            r"prior\.erasing\.weight falls from start to end; only rising weights are possible",
        ),
        (
            "runs/new",
            {"extends": "pnoc", "prior": {"classifier": {"label_smoothing": 1.5}}},
            r"prior\.classifier of a run on data set voc: .*less than 1",
        ),
        (
            "runs/new",
            {"extends": "pnoc", "segmentation": {"v3plus": {"nesterov": True}}},
            r"segmentation\.v3plus\.nesterov needs a momentum above 0",
        ),
        (
            "runs/new",
            {"extends": "nosal", "refinement": {"cam_labels": {"background": 0.4}}},
            r"refinement\.cam_labels: background 0\.4 is not below foreground 0\.4, so that no pixel",
        ),
        (
            "runs/new",
            {"extends": "pnoc", "prior": {"erasing": {"masking_depth": 6}}},
            r"prior\.erasing\.masking_depth is 6, but its ordinary classifier cam has the backbone resnest269 with 5",
        ),
    ],
)
def test_recipes_that_cannot_work_are_refused_by_name(path, content, message):
    recipes = Recipes(changed(path, content))
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        recipes.flat("voc", "new")


def test_masks_go_as_deep_as_the_ordinary_classifier_on_the_data_set_that_is_asked_for():
    """It counts the ordinary classifier's network, not that of the run."""
    config = changed("runs/cam/prior/classifier", {"backbone": "vgg16"})
    config["runs"]["pnoc"]["prior"]["erasing"] = {"masking_depth": 7}
    recipes = Recipes(config)
    assert value(recipes, "voc", "pnoc", "prior.erasing.masking_depth") == 7
    with pytest.raises(RecipeError, match="has the backbone test_resnet with 5 groups of layers"):
        recipes.flat("demo", "pnoc")


def test_crops_of_runs_without_a_puzzle_may_have_any_size():
    recipes = Recipes(changed("datasets/demo/settings/prior/classifier/crop", 97))
    assert value(recipes, "demo", "occse", "prior.classifier.crop") == 97
    with pytest.raises(RecipeError, match="multiple of 32"):
        recipes.flat("demo", "puzzle")


def test_slots_that_are_taken_in_a_circle_are_refused():
    config = changed("runs/one", {"extends": "cam", "saliency": {"from": "two"}})
    config["runs"]["two"] = {"extends": "cam", "saliency": {"from": "one"}}
    with pytest.raises(RecipeError, match=r"runs\.one\.saliency leads back to itself: one -> two -> one"):
        Recipes(config).source("voc", "one", "saliency")


@pytest.mark.parametrize(
    ("run", "artefact", "message"),
    [
        ("nosal", "saliency_masks", r"runs\.nosal\.saliency is none: saliency_masks cannot be made on voc"),
        ("full", "pseudo_masks", r"runs\.full\.refinement is truth: pseudo_masks cannot be made on voc"),
        ("split", "hints", r"runs\.split\.saliency is c2am: hints cannot be made on voc"),
        ("masks", "poolnet", r"runs\.masks\.saliency is c2amh without its later stages: poolnet cannot be made"),
    ],
)
def test_what_a_run_does_not_have_cannot_be_asked_for(recipes, run, artefact, message):
    with pytest.raises(RecipeError, match=message):
        recipes.source("voc", run, artefact)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "1"])
def test_seeds_are_whole_numbers_of_32_bits(seed):
    with pytest.raises(RecipeError, match=r"a seed is a whole number from 0 to 4294967295"):
        Recipes(changed("seeds", [seed]))
    with pytest.raises(RecipeError, match=r"run 'pnoc@seed4294967296': a seed is a whole number"):
        Recipes(CONFIG).parse("pnoc@seed4294967296")


def test_subsets_whose_names_no_path_could_hold_are_refused():
    with pytest.raises(RecipeError, match=r"datasets\.voc\.splits\.val is 'val-2': use letters, digits and _"):
        Recipes(changed("datasets/voc/splits/val", "val-2"))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["learning_rate", "weight_decay"])
def test_numbers_that_are_none_are_refused(key, number):
    recipes = Recipes(changed(f"settings/prior/classifier/{key}", number))
    with pytest.raises(RecipeError, match=f"(?s)prior\\.classifier.*{key}.*finite number"):
        recipes.flat("voc", "cam")


def test_whole_numbers_written_as_others_are_whole_numbers():
    epochs = Recipes(changed("settings/prior/classifier/epochs", 15.0)).section("voc", "cam", "prior.classifier").epochs
    assert (epochs, type(epochs)) == (15, int)


@pytest.mark.parametrize("subset", ["train", "train_aug"])
def test_the_network_is_not_scored_on_images_that_train_it(subset):
    with pytest.raises(RecipeError, match=r"datasets\.voc\.splits"):
        Recipes(changed("datasets/voc/splits/val", subset))


# --- the chain ---


def test_stages_take_what_is_made_before_them():
    known = {"ordinary", "objects", "refined"}
    every = {f"{slot}.{name}" for slot in SLOTS for name in SECTIONS[slot]}
    for slot in SLOTS:
        for method in METHODS[slot].values():
            for stage in method.stages:
                assert set(stage.takes) <= known | {"cams", "pseudo_masks"} | {s.makes for s in method.stages}
                own = {name for name in stage.sections if "." not in name}
                assert set(stage.sections) - own <= every  # of other slots
                assert own <= set(method.sections) <= set(SECTIONS[slot])
                known.add(stage.makes)
