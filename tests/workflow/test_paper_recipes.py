"""Every row of the papers' tables against values written down by hand from papers, published README and code.

The numbers here are typed, not computed: a recipe that drifts away from its row's stops here, key by key.
"""

from dataclasses import fields

import pytest
import yaml
from snakemake_cli import ROOT

from wsss_core.recipes.config import read_config
from wsss_core.recipes.methods import SECTIONS, SLOTS
from wsss_core.recipes.recipes import Recipes

RECIPES = Recipes(read_config([], ROOT))
RESNET38D = "data/weights/ilsvrc-cls_rna-a1_cls1000_ep-0001.params"
MOCO = "data/weights/moco_r50_v2-e3b0c442.pth"
FOUR_SCALES = (0.5, 1.0, 1.5, 2.0)

# --- by hand ---

# P-NOC's CAM stage: 15 epochs, rate 0.1, decay 1e-4, images of 320 to 640 pixels, crops of 512; on COCO rate 0.05,
# 400 to 800, crops of 640. From ImageNet weights, BatchNorm trained, nothing frozen, new layers at ten times the rate.
CAM_STAGE = {
    "weights": "pretrained", "output_stride": 16, "batch_norm": "trained", "frozen": "none", "epochs": 15,
    "weight_decay": 1e-4, "head_rate": 10, "dropout": None, "mixing": None, "average": None,
}  # fmt: skip
SIZES = {
    "voc": {"learning_rate": 0.1, "resize": (320, 640), "crop": 512},
    "coco14": {"learning_rate": 0.05, "resize": (400, 800), "crop": 640},
}
# PSA's and OC-CSE's: ResNet-38 at stride 8, BatchNorm and first blocks fixed, decay 5e-4, no smoothing; the rate is 0.1
# in PSA's README, 0.01 in OC-CSE's code.
PSA = {
    "backbone": "resnet38d", "weights": RESNET38D, "output_stride": 8, "batch_norm": "fixed", "frozen": "stem",
    "epochs": 15, "weight_decay": 5e-4, "label_smoothing": 0.0, "augmentation": "jitter",
    "accumulation": 1, "precision": "float32",
}  # fmt: skip
PSA_PLAIN = {
    **PSA, "learning_rate": 0.1, "resize": (448, 768), "crop": 448, "batch_size": 16, "dropout": 0.5, "head_rate": 10,
}  # fmt: skip
OCCSE = {
    **PSA, "learning_rate": 0.01, "resize": (256, 448), "crop": 384, "batch_size": 8, "dropout": None, "head_rate": 1,
}  # fmt: skip

# Run: method, backbone, augmentation, batch x accumulation, label smoothing, ordinary classifier and its smoothing.
VOC_PRIORS = {
    "cam": ("cam", "resnest269", "randaug", (32, 1), 0.1, None, None),
    "cam_nols": ("cam", "resnest269", "randaug", (32, 1), 0.0, None, None),
    "cam_rs101": ("cam", "resnest101", "randaug", (32, 1), 0.0, None, None),
    "cam_resnet101": ("cam", "resnet101_undilated", "randaug", (32, 1), 0.0, None, None),
    "puzzle": ("puzzle", "resnest269", "jitter", (16, 2), 0.0, None, None),
    "puzzle_rs101": ("puzzle", "resnest101", "jitter", (32, 1), 0.0, None, None),
    "puzzle_rn50": ("puzzle", "resnet50_undilated", "jitter", (32, 1), 0.0, None, None),
    "poc": ("poc", "resnest269", "jitter", (16, 2), 0.0, "resnest269", 0.0),
    "poc_ls": ("poc", "resnest269", "jitter", (16, 2), 0.1, "resnest269", 0.0),
    "poc_rs101": ("poc", "resnest101", "jitter", (32, 1), 0.0, "resnest101", 0.0),
    "pnoc": ("pnoc", "resnest269", "jitter", (16, 2), 0.1, "resnest269", 0.1),
    "pnoc_nols": ("pnoc", "resnest269", "jitter", (16, 2), 0.0, "resnest269", 0.1),
}
COCO_PRIORS = {  # the released models: CAM 33.7, Puzzle 36.8, P-OC 37.3, P-NOC 40.7
    "cam": ("cam", "resnest269", "randaug", (32, 1), 0.1, None, None),
    "puzzle": ("puzzle", "resnest269", "jitter", (16, 2), 0.0, None, None),
    "poc_ls": ("poc", "resnest269", "jitter", (16, 2), 0.1, "resnest269", 0.1),
    "pnoc": ("pnoc", "resnest269", "jitter", (16, 2), 0.0, "resnest269", 0.0),
}
# Terms: what each method adds, with the weights of pnoc.md 3.3 to 3.6.
PUZZLE = {"pieces": 4, "weight": (0.0, 4.0, 0.5)}
ERASING = {
    "weight": (0.3, 1.0, 1.0), "by_epoch": False, "relu_first": True, "class_choice": "random", "masking_depth": 0,
    "per_image_maximum": False,
}  # fmt: skip
DISCRIMINATOR = {
    "weight": (0.0, 1.0, 1.0), "every": 1, "rate": 1.0, "input": "hard", "hard_threshold": 0.2, "leak": True,
}  # fmt: skip
TERMS = {
    "cam": {},
    "puzzle": {"puzzle": PUZZLE},
    "poc": {"puzzle": PUZZLE, "erasing": ERASING},
    "pnoc": {"puzzle": PUZZLE, "erasing": ERASING, "discriminator": DISCRIMINATOR},
}
# Table 6 and later, run: run of the priors, network of the saliency, its start, hints from, batch.
C2AM = {"squash": 1.143, "crop": 448, "epochs": 10, "learning_rate": 1e-3, "weight_decay": 1e-4, "alpha": 0.25}
SALIENCY = {
    "puzzle_rn50_c2am": ("puzzle_rn50", "resnet50_undilated", MOCO, None, 128),
    "puzzle_c2am": ("puzzle", "resnet50_undilated", MOCO, None, 128),
    "poc_c2am": ("poc", "resnet50_undilated", MOCO, None, 128),
    "poc_ls_c2am": ("poc_ls", "resnet50_undilated", MOCO, None, 128),
    "c2am": ("cam", "resnet50_undilated", MOCO, None, 128),
    "poc": ("poc", "resnest269", "pretrained", "poc", 32),
    "poc_ls_hints_poc": ("poc_ls", "resnest269", "pretrained", "poc", 32),
    "poc_ls": ("poc_ls", "resnest269", "pretrained", "poc_ls", 32),
    "pnoc_hints_poc_ls": ("pnoc", "resnest269", "pretrained", "poc_ls", 32),
    "pnoc": ("pnoc", "resnest269", "pretrained", "pnoc", 32),
    "c2amh_rn50": ("poc", "resnet50_undilated", "pretrained", "poc", 128),
    "c2amh_rs101": ("poc", "resnest101", "pretrained", "poc", 128),
}
# Tables 7 to 10, run: priors, whether saliency decides about the background.
REFINED = {
    "puzzle_nosal": ("puzzle", False),
    "poc_nosal": ("poc", False),
    "poc_ls_nosal": ("poc_ls", False),
    "pnoc_nosal": ("pnoc", False),
    "poc": ("poc", True),
    "poc_ls": ("poc_ls", True),
    "pnoc": ("pnoc", True),
}
# Tables 8 to 10, run: network, what it learns from.
NETWORKS = {
    "supervised_v2": ("v2", None),
    "supervised_v3": ("v3plus", None),
    "pnoc_v2": ("v2", "pnoc"),
    "pnoc": ("v3plus", "pnoc"),
    "poc": ("v3plus", "poc"),
    "puzzle_nosal": ("v3plus", "puzzle_nosal"),
}
V3PLUS = {
    "backbone": "resnest269", "weights": "pretrained", "output_stride": 16, "norm": "group", "width": 256,
    "batch_size": 16, "accumulation": 2, "epochs": 50, "weight_decay": 4e-5, "momentum": 0.0, "nesterov": False,
    "label_smoothing": 0.1, "augmentation": "none",
}  # fmt: skip
V3PLUS_SIZES = {
    "voc": {"learning_rate": 0.007, "resize": (320, 640), "crop": 512},
    "coco14": {"learning_rate": 0.004, "resize": (400, 800), "crop": 640},
}
V2 = {"backbone": "resnet101_caffe", "weights": "pretrained", "accumulation": 2, "decay_every": 10, "momentum": 0.9,
      "weight_decay": 5e-4, "precision": "float32"}  # fmt: skip
V2_SIZES = {
    "voc": {
        "crop": 321, "batch_size": 5, "updates": 20000, "learning_rate": 2.5e-4, "scales": (0.5, 0.75, 1, 1.25, 1.5),
    },
    "coco14": {
        "crop": 481, "batch_size": 10, "updates": 100000, "learning_rate": 2e-4,
        "scales": (0.5, 0.75, 1, 1.25, 1.5, 1.75, 2),
    },
}  # fmt: skip
# Masks: V3+ at four scales with mirror images; its CRF on VOC, none in COCO's 44.6. V2 at one scale, with CRF.
PREDICTION = {
    ("voc", "v3plus"): {"scales": FOUR_SCALES, "mirror": True, "crf_iterations": 10},
    ("coco14", "v3plus"): {"scales": FOUR_SCALES, "mirror": True, "crf_iterations": 0},
    ("voc", "v2"): {"scales": (1.0,), "mirror": False, "crf_iterations": 10},
    ("coco14", "v2"): {"scales": (1.0,), "mirror": False, "crf_iterations": 10},
}
# What no table above names is alike in all of these runs.
BY_FIVE = (
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8,
)  # fmt: skip
REST = {
    "prior.classifier": {
        "batch_norm_group": None, "rescale": None, "decay_power": None, "momentum": None, "as_irnet": None,
        "head_bias": None, "pooling": None, "squash": None, "label_loss": None,
    },
    "prior.cams": {"stride": 4, "head": None, "dtype": "float16", "precision": "float16"},
    "prior.scores": {"thresholds": BY_FIVE, "fixed": 0.3},
    "prior.monitoring": {"thresholds": BY_FIVE[1:9], "cell": "corner"},
    "saliency.c2am": {"batch_norm_group": None, "precision": "float16"},
    "saliency.maps": {"stride": 4},
    "saliency.poolnet": {"weights": "pretrained"},
    "saliency.scores": {"thresholds": BY_FIVE, "fixed": 0.5, "crf": None},
    "refinement.affinity": {"weights": "pretrained", "rescale": None, "displacement": None, "displacement_rate": None},
    "refinement.walk": {"power": None},
    "refinement.masks": {"each_class": None},
    "refinement.scores": {"thresholds": (0.25, 0.3, 0.35), "fixed": 0.3},
    "segmentation.v3plus": {"precision": "float16"},
}  # fmt: skip
FREE = {"compile", "longest_side"}  # of speed alone; beyond any image of VOC and COCO

# --- the comparison ---


def check(section, expected):
    """A section of settings has these values, key by key."""
    found = {key: getattr(section, key) for key in expected}
    weights = {k: (v.start, v.end, v.fraction) for k, v in found.items() if hasattr(v, "fraction")}
    assert {**found, **weights} == expected


def check_prior(dataset, run, row):
    method, backbone, augmentation, (batch, accumulation), smoothing, ordinary, ordinary_smoothing = row
    _, slot = RECIPES.filled(dataset, run, "prior")
    assert slot.method == method
    own = {"backbone": backbone, "augmentation": augmentation, "batch_size": batch, "accumulation": accumulation}
    check(slot.sections["classifier"], {**CAM_STAGE, **SIZES[dataset], **own, "label_smoothing": smoothing})
    assert {name for name in ("puzzle", "erasing", "discriminator") if name in slot.sections} == set(TERMS[method])
    for name, values in TERMS[method].items():
        check(slot.sections[name], values)
    check(slot.sections["cams"], {"scales": FOUR_SCALES})
    if ordinary:
        classifier = RECIPES.section(dataset, RECIPES.ordinary(dataset, run), "prior.classifier")
        plain = {"backbone": ordinary, "augmentation": "randaug", "label_smoothing": ordinary_smoothing}
        check(classifier, {**CAM_STAGE, **SIZES[dataset], **plain})


@pytest.mark.parametrize("run", VOC_PRIORS)
def test_priors_of_voc(run):
    check_prior("voc", run, VOC_PRIORS[run])


@pytest.mark.parametrize("run", COCO_PRIORS)
def test_priors_of_coco(run):
    check_prior("coco14", run, COCO_PRIORS[run])


@pytest.mark.parametrize(
    ("run", "expected", "ordinary", "depth"),
    [
        ("cam_resnet38d", PSA_PLAIN, None, None),
        ("cam_vgg16", {**PSA_PLAIN, "backbone": "vgg16", "weights": "pretrained", "dropout": None}, None, None),
        ("occse", OCCSE, "cam_resnet38d", 0),
        ("occse_oc_resnet101", OCCSE, "cam_resnet101", 0),
        ("occse_oc_vgg16", OCCSE, "cam_vgg16", 0),
        *((f"occse_depth{depth}", OCCSE, "cam_resnet38d", depth) for depth in range(1, 8)),
    ],
)
def test_occse_and_its_supplement(run, expected, ordinary, depth):
    _, slot = RECIPES.filled("voc", run, "prior")
    check(slot.sections["classifier"], expected)
    assert slot.references.get("ordinary") == ordinary
    if ordinary:
        assert slot.method == "occse"
        weight = {"weight": (0.3, 1.05, 1.0), "by_epoch": True, "relu_first": False}  # 0.3 + 0.05 times the epoch
        check(slot.sections["erasing"], {**ERASING, **weight, "masking_depth": depth})


@pytest.mark.parametrize("run", SALIENCY)
def test_saliency(run):
    priors, backbone, weights, hints, batch = SALIENCY[run]
    assert RECIPES.source("voc", run, "cams") == priors
    c2am = RECIPES.section("voc", run, "saliency.c2am")
    squash = {"squash": 1.15} if hints else {}
    start = {"backbone": backbone, "weights": weights, "batch_size": batch, "accumulation": 1}
    check(c2am, {**C2AM, **squash, **start, "head_rate": 1, "train_batch_norm": False})
    assert RECIPES.has("voc", run, "hints") == bool(hints)
    if hints:
        maker = RECIPES.source("voc", run, "c2am")
        assert RECIPES.source("voc", maker, "cams") == hints
        check(RECIPES.section("voc", run, "saliency.hints"), {"threshold": 0.4, "weight": 1.0, "label_smoothing": 0.1})
    check(RECIPES.section("voc", run, "saliency.maps"), {"scales": FOUR_SCALES, "activation": "relu"})
    masks = RECIPES.section("voc", run, "saliency.masks")
    assert (masks.threshold, masks.crf.iterations, masks.crf.confidence) == (0.2, 10, 0.7)
    poolnet = {"backbone": "resnet50_caffe", "epochs": 9, "accumulation": 10, "learning_rate": 5e-5, "width": 1.0}
    check(RECIPES.section("voc", run, "saliency.poolnet"), {**poolnet, "weight_decay": 5e-4, "smallest_side": 100})


def test_saliency_of_coco():
    own = {"batch_size": 64, "accumulation": 2, "learning_rate": 5e-4, "head_rate": 1, "train_batch_norm": False}
    check(RECIPES.section("coco14", "pnoc", "saliency.c2am"), {**C2AM, "squash": 1.15, **own})
    check(RECIPES.section("coco14", "pnoc", "saliency.hints"), {"threshold": 0.3})
    check(RECIPES.section("coco14", "pnoc", "saliency.masks"), {"threshold": 0.25})


@pytest.mark.parametrize("run", REFINED)
@pytest.mark.parametrize("dataset", ["voc", "coco14"])
def test_refinement(dataset, run):
    priors, with_saliency = REFINED[run]
    assert RECIPES.source(dataset, run, "cams") == priors
    assert RECIPES.result(dataset, run, "saliency") == ("saliency" if with_saliency else None)
    labels = RECIPES.stage_settings(dataset, run, "affinity_labels")["labels"]
    coco = dataset == "coco14" and with_saliency
    assert (labels["foreground"], labels["background"]) == ((0.25, 0.65) if coco else (0.4, 0.1))
    assert labels["crf"] == {"iterations": 10, "confidence": 0.7}
    affinity = {"backbone": "resnest269", "radius": 10, "batch_size": 32, "epochs": 3, "learning_rate": 0.1}
    sizes = {key: value for key, value in SIZES[dataset].items() if key != "learning_rate"}
    check(RECIPES.section(dataset, run, "refinement.affinity"), {**affinity, **sizes, "weight_decay": 1e-4})
    walk = {"radius": 5, "beta": 10.0, "squarings": 8, "padding": sizes["crop"], "swapped_padding": True}
    check(RECIPES.section(dataset, run, "refinement.walk"), walk)
    masks = RECIPES.section(dataset, run, "refinement.masks")
    assert (masks.threshold, masks.crf.iterations, masks.crf.confidence) == (0.3, 1, 0.9)


@pytest.mark.parametrize("run", NETWORKS)
@pytest.mark.parametrize("dataset", ["voc", "coco14"])
def test_segmentation(dataset, run):
    network, learnt_from = NETWORKS[run]
    _, slot = RECIPES.filled(dataset, run, "segmentation")
    assert slot.method == network
    expected = {**V3PLUS, **V3PLUS_SIZES[dataset]} if network == "v3plus" else {**V2, **V2_SIZES[dataset]}
    check(slot.sections[network], expected)
    check(slot.sections["prediction"], PREDICTION[dataset, network])
    if learnt_from:
        assert RECIPES.source(dataset, run, "pseudo_masks") == learnt_from
    else:
        assert RECIPES.trains_on_truth(dataset, run)


@pytest.mark.parametrize("dataset", ["voc", "coco14"])
def test_what_is_alike_in_all_runs(dataset):
    for run in sorted(runs_of_tables()):
        for slot in ("prior", "saliency", "refinement", "segmentation"):
            _, found = RECIPES.filled(dataset, run, slot)
            for section, settings in found.sections.items():
                check(settings, REST.get(f"{slot}.{section}", {}))
        psa = run.startswith(("occse", "cam_resnet38d", "cam_vgg16"))
        assert RECIPES.section(dataset, run, "prior.classifier").precision == ("float32" if psa else "float16")
        if RECIPES.has(dataset, run, "poolnet"):
            poolnet = RECIPES.section(dataset, run, "saliency.poolnet")
            assert poolnet.padding == (224 if dataset == "coco14" else None)


def test_no_setting_is_left_out_above():
    """A new setting has to be compared with the papers as well."""
    labels, crops = {"foreground", "background", "crf"}, {"learning_rate", "resize", "crop"}
    batches = {"backbone", "batch_size", "accumulation"}
    named = {
        "prior.classifier": {*CAM_STAGE, *crops, *batches, "augmentation", "label_smoothing", "precision"},
        "prior.puzzle": PUZZLE,
        "prior.erasing": ERASING,
        "prior.discriminator": DISCRIMINATOR,
        "prior.cams": {"scales"},
        "saliency.c2am": {*C2AM, *batches, "weights", "head_rate", "train_batch_norm"},
        "saliency.hints": {"threshold", "weight", "label_smoothing"},
        "saliency.maps": {"scales", "activation"},
        "saliency.masks": {"threshold", "crf"},
        "saliency.poolnet": {
            "backbone", "epochs", "accumulation", "learning_rate", "width", "weight_decay", "smallest_side", "padding",
        },
        "refinement.labels": labels,
        "refinement.cam_labels": labels,
        "refinement.affinity": {"backbone", "radius", "batch_size", "epochs", "weight_decay", *crops},
        "refinement.walk": {"radius", "beta", "squarings", "padding", "swapped_padding"},
        "refinement.masks": {"threshold", "crf"},
        "segmentation.v3plus": {*V3PLUS, *crops},
        "segmentation.v2": {*V2, *V2_SIZES["voc"]},
        "segmentation.prediction": PREDICTION["voc", "v2"],
    }  # fmt: skip
    for slot in ("prior", "saliency", "refinement", "segmentation"):
        for section, kind in SECTIONS[slot].items():
            if section != "reactivation":  # ReCAM's
                compared = {*named.get(f"{slot}.{section}", ()), *REST.get(f"{slot}.{section}", ())}
                assert {field.name for field in fields(kind)} - FREE == compared, f"{slot}.{section}"


def runs_of_tables():
    """Every run that a table or figure names, with the table."""
    found = set()
    for path in sorted((ROOT / "workflow/papers/pnoc").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        entries = [*content.get("rows", []), *content.get("columns", []), *content.get("lines", [])]
        found |= {entry["run"] for entry in entries if "run" in entry}
    return found


def test_every_run_of_a_table_is_written_down_above():
    supplement = {"cam_resnet38d", "cam_vgg16", "occse", "occse_oc_resnet101", "occse_oc_vgg16"}
    depths = {f"occse_depth{depth}" for depth in range(1, 8)}
    assert runs_of_tables() <= {*VOC_PRIORS, *SALIENCY, *REFINED, *NETWORKS, *supplement, *depths}


def test_the_rows_of_coco_name_the_runs_of_the_released_models():
    rows = yaml.safe_load((ROOT / "workflow/papers/pnoc/table4.yaml").read_text())["rows"]
    scores = {row["run"]: row["paper"]["coco14"][-1] for row in rows}
    assert scores == {"cam": 33.7, "puzzle": 36.8, "poc_ls": 37.3, "pnoc": 40.7}


@pytest.mark.parametrize("base", ["voc", "coco14", "coco17"])
def test_a_data_set_of_another_name_and_place_has_the_same_recipes(base, tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump({"datasets": {"mine": {"extends": base, "root": "elsewhere"}}}))
    config = read_config([overlay], ROOT)
    recipes = Recipes(config)
    for run in config["runs"]:
        for slot in SLOTS:
            maker, found = recipes.filled("mine", run, slot)
            expected_maker, expected = recipes.filled(base, run, slot)
            assert (maker, found.method, found.references) == (expected_maker, expected.method, expected.references)
            assert found.sections == expected.sections
