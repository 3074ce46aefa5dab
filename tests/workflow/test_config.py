"""config.yaml, its schema and the settings of the core say the same; mistakes stop with the name of the key."""

from copy import deepcopy
from dataclasses import fields

import pytest
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config, validate
from snakemake_cli import ROOT

from wsss_core.affinity.labels import AffinityLabelSettings
from wsss_core.affinity.pseudo_masks import PseudoMaskSettings
from wsss_core.affinity.training import AffinitySettings
from wsss_core.affinity.walk import WalkSettings
from wsss_core.classifiers.cams import CamSettings
from wsss_core.classifiers.class_choice import STRATEGIES
from wsss_core.classifiers.epochs import MonitoringSettings
from wsss_core.classifiers.training import (
    ClassifierSettings,
    DiscriminatorSettings,
    ErasingSettings,
    Parts,
    PuzzleSettings,
    Ramp,
)
from wsss_core.data.mixing import KINDS
from wsss_core.data.transforms import AUGMENTATIONS
from wsss_core.fitting.averaging import AverageSettings
from wsss_core.networks.backbones import FROZEN
from wsss_core.recipes import METHODS
from wsss_core.saliency.c2am_maps import C2amMapSettings
from wsss_core.saliency.c2am_training import C2amSettings
from wsss_core.saliency.masks import SaliencyMaskSettings
from wsss_core.saliency.poolnet_training import PoolnetSettings
from wsss_core.scores.results import SweepSettings
from wsss_core.scores.saliency import SaliencyScoreSettings
from wsss_core.segmentation.prediction import PredictionSettings
from wsss_core.segmentation.training import DeeplabSettings
from wsss_core.segmentation.v2_training import DeeplabV2Settings

SCHEMA_PATH = ROOT / "workflow/schemas/config.schema.yaml"
SCHEMA = yaml.safe_load(SCHEMA_PATH.read_text())
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
DATACLASSES = {
    "classifier": ClassifierSettings,
    "puzzle": PuzzleSettings,
    "erasing": ErasingSettings,
    "discriminator": DiscriminatorSettings,
    "monitoring": MonitoringSettings,
    "cams": CamSettings,
    "priors": SweepSettings,
    "c2am": C2amSettings,
    "c2am_maps": C2amMapSettings,
    "saliency_masks": SaliencyMaskSettings,
    "saliency_scores": SaliencyScoreSettings,
    "poolnet": PoolnetSettings,
    "affinity_labels": AffinityLabelSettings,
    "affinity": AffinitySettings,
    "walk": WalkSettings,
    "pseudo_masks": PseudoMaskSettings,
    "pseudo_scores": SweepSettings,
    "deeplab": DeeplabSettings,
    "deeplabv2": DeeplabV2Settings,
    "prediction": PredictionSettings,
}


def configuration(overlay=None):
    config = deepcopy(CONFIG)
    update_config(config, overlay or {})
    return config


def test_config_yaml_passes_its_schema():
    validate(configuration(), str(SCHEMA_PATH))


def test_settings_schema_and_dataclasses_have_the_same_sections():
    assert set(configuration()["settings"]) == set(SCHEMA["$defs"]["settings"]["properties"]) == set(DATACLASSES)
    assert set(SCHEMA["properties"]["settings"]["required"]) == set(DATACLASSES)


# Keys that are no field: an input of the stage, the choice between two dataclasses.
INPUTS = {"weights", "network"}
# Fields that are no key of the section: images are looked at as large as the classifier's crops.
FROM_ELSEWHERE = {"monitoring": {"crop"}}


@pytest.mark.parametrize("section", DATACLASSES)
def test_settings_schema_and_dataclass_have_the_same_keys(section):
    in_config = set(configuration()["settings"][section])
    in_schema = SCHEMA["$defs"]["settings"]["properties"][section]["properties"]
    in_class = {field.name for field in fields(DATACLASSES[section])} - FROM_ELSEWHERE.get(section, set())
    assert in_config == set(in_schema) == in_class | (INPUTS & in_config)


def test_settings_within_settings_have_the_same_keys():
    average = SCHEMA["$defs"]["settings"]["properties"]["classifier"]["properties"]["average"]["oneOf"][1]
    for node, kind in ((average, AverageSettings), (SCHEMA["$defs"]["ramp"], Ramp)):
        assert set(node["properties"]) == {field.name for field in fields(kind)}
    assert set(average["required"]) == set(average["properties"])  # config.yaml has none that would fill it up


def test_the_settings_of_a_classifier_make_all_parts_of_every_method():
    settings = configuration()["settings"]
    for method, sections in METHODS.items():
        parts = Parts.from_config({"classifier": settings["classifier"]} | {name: settings[name] for name in sections})
        made = {name for name in METHODS["pnoc"] if getattr(parts, name)}
        assert made == set(sections), method
        assert all(isinstance(getattr(parts, name), DATACLASSES[name]) for name in sections)


def test_methods_of_the_schema_are_those_of_the_recipes():
    assert SCHEMA["$defs"]["run"]["properties"]["method"]["enum"] == list(METHODS)
    choices = SCHEMA["$defs"]["settings"]["properties"]
    assert choices["erasing"]["properties"]["class_choice"]["enum"] == list(STRATEGIES)
    assert choices["classifier"]["properties"]["mixing"]["enum"] == ["none", *KINDS]
    assert choices["classifier"]["properties"]["frozen"]["enum"] == list(FROZEN)
    assert choices["classifier"]["properties"]["augmentation"]["enum"] == list(AUGMENTATIONS)


def objects_of(node):
    """Every part of the schema that describes an object."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        for value in node.values():
            yield from objects_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects_of(value)


def test_every_key_is_described_and_unknown_ones_are_refused():
    closed = [node for node in objects_of(SCHEMA) if "properties" in node and "allOf" not in node]
    assert all(node["additionalProperties"] is False for node in closed)
    entries = [(name, entry) for node in closed for name, entry in node["properties"].items()]
    assert [name for name, entry in entries if not {"description", "$ref"} & set(entry)] == []
    assert all("description" in definition for definition in SCHEMA["$defs"].values())


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"settings": {"cams": {"scale": [1.0]}}}, "'scale' was unexpected"),
        ({"datasets": {"demo": {"settings": {"deeplab": {"epoch": 3}}}}}, "'epoch' was unexpected"),
        ({"datasets": {"demo": {"runs": {"pnoc": {"classifer": {}}}}}}, "'classifer' was unexpected"),
        ({"datasets": {"voc": {"path": "here"}}}, "'path' was unexpected"),
        ({"datasets": {"voc": {"kind": "vok"}}}, "'vok' is not one of"),
        ({"runs": {"pnoc": {"method": "pnok"}}}, "'pnok' is not one of"),
        ({"runs": {"pnoc": {"prior": "cam"}}}, "'prior' was unexpected"),
        ({"settings": {"classifier": {"mixing": "mosaic"}}}, "'mosaic' is not one of"),
        ({"settings": {"classifier": {"average": {"decay": 0.9}}}}, "average"),
        ({"settings": {"classifier": {"mixing_probability": 1.5}}}, "1.5 is greater than the maximum"),
        ({"settings": {"erasing": {"class_choice": "rare"}}}, "'rare' is not one of"),
        ({"settings": {"erasing": {"masking_depth": -1}}}, "-1 is less than the minimum"),
        ({"settings": {"puzzle": {"pieces": 9}}}, "9 is not one of"),
        ({"settings": {"deeplab": {"learning_rate": "1e-4"}}}, "'1e-4' is not of type 'number'"),  # YAML's 1e-4
        ({"settings": {"cams": {"scales": []}}}, "scales"),
        ({"seeds": [-1]}, "-1 is less than the minimum"),
    ],
)
def test_a_mistake_stops_with_its_name(overlay, message):
    with pytest.raises(WorkflowError, match=message):
        validate(configuration(overlay), str(SCHEMA_PATH))
