"""config.yaml and what it includes: the schema is that of the settings, and mistakes stop with the name of the key."""

import re
from copy import deepcopy
from dataclasses import fields

import pytest
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config, validate
from snakemake_cli import ROOT

from wsss_core.recipes.__main__ import main
from wsss_core.recipes.config import RecipeError, assemble, merge, read_config
from wsss_core.recipes.depths import depths
from wsss_core.recipes.document import config_schema, texts
from wsss_core.recipes.methods import METHODS, SECTIONS, SLOTS
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.settings import identity, made, plain
from wsss_core.recipes.tree import OF_DATASET, OF_RUN, Tree

SCHEMA_PATH = str(ROOT / "workflow/schemas/config.schema.yaml")
SCHEMA = config_schema()
CONFIG = read_config([], ROOT)
ALL_SECTIONS = {f"{slot}.{name}": kind for slot in SLOTS for name, kind in SECTIONS[slot].items()}


def configuration(overlay=None):
    config = deepcopy(CONFIG)
    update_config(config, overlay or {})
    return config


def test_config_yaml_passes_its_schema():
    validate(configuration(), SCHEMA_PATH, set_default=False)


@pytest.mark.parametrize("path", sorted(texts()))
def test_what_is_made_from_the_settings_is_that_of_the_settings(path):
    mended = "run `python -m wsss_core.recipes write` and commit what it changes"
    assert (ROOT / path).read_text(encoding="utf-8") == texts()[path], mended


def fault(recipes, dataset, run):
    """What is wrong with a run on a data set, in words; empty where nothing is."""
    try:
        recipes.flat(dataset, run)
    except RecipeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("dataset", CONFIG["datasets"])
def test_every_run_is_whole_on_every_data_set(dataset):
    """But for masks that go deeper than the small networks of the small data sets."""
    recipes = Recipes(CONFIG)
    faults = {run: found for run in CONFIG["runs"] if (found := fault(recipes, dataset, run))}
    assert set(faults) == (set() if dataset in ("voc", "coco14") else {"occse_depth6", "occse_depth7"})
    assert all("masking_depth is" in found for found in faults.values())


def test_the_small_data_sets_have_no_entry_for_a_single_run():
    assert [name for name in ("demo", "voc-mini", "coco-mini") if CONFIG["datasets"][name].get("runs")] == []


@pytest.mark.parametrize("name", ALL_SECTIONS)
def test_defaults_are_within_their_own_ranges_and_survive_the_way_to_a_job(name):
    section = ALL_SECTIONS[name]()
    assert made(type(section), plain(section)) == section
    told = made(type(section), identity(section))
    left_out = {key for key in plain(section) if key not in identity(section)}
    assert {f.name for f in fields(section) if getattr(told, f.name) != getattr(section, f.name)} <= left_out


def test_the_schema_names_all_methods_and_sections():
    for slot in SLOTS:
        choices = SCHEMA["$defs"][slot]
        assert choices["then"]["enum"] == [*METHODS[slot], "none"]
        assert set(SECTIONS[slot]) <= set(choices["else"]["properties"])
        assert all(set(method.sections) <= set(SECTIONS[slot]) for method in METHODS[slot].values())


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
    assert len(closed) > 20
    assert all(node["additionalProperties"] is False for node in closed)
    entries = [(name, entry) for node in closed for name, entry in node["properties"].items()]
    assert [name for name, entry in entries if not {"description", "$ref", "anyOf"} & set(entry)] == []
    assert "default" not in yaml.safe_dump(SCHEMA["$defs"]).replace("by default", "").split()


def of_demo(slot, **sections):
    return {"datasets": {"demo": {"settings": {slot: sections}}}}


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"settings": {"prior": {"cams": {"scale": [1.0]}}}}, "'scale' was unexpected"),
        (of_demo("segmentation", v3plus={"epoch": 3}), "'epoch' was unexpected"),
        ({"datasets": {"demo": {"runs": {"pnoc": {"prior": {"classifer": {}}}}}}}, "'classifer' was unexpected"),
        ({"datasets": {"voc": {"path": "here"}}}, "'path' was unexpected"),
        ({"datasets": {"voc": {"kind": "vok"}}}, "'vok' is not one of"),
        ({"runs": {"pnoc": {"prior": {"method": "pnok"}}}}, "'pnok' is not one of"),
        ({"runs": {"pnoc": {"priors": "cam"}}}, "'priors' was unexpected"),
        ({"runs": {"pnoc": {"saliency": "non"}}}, "'non' is not one of"),
        ({"runs": {"pnoc": {"saliency": {"ordinary": "cam"}}}}, "'ordinary' was unexpected"),
        ({"settings": {"prior": {"classifier": {"mixing": {"kind": "mosaic"}}}}}, "mosaic"),
        ({"settings": {"prior": {"classifier": {"average": {"often": 3}}}}}, "average"),
        ({"settings": {"prior": {"classifier": {"mixing": {"probability": 1.5}}}}}, "1.5"),
        ({"settings": {"prior": {"erasing": {"class_choice": "rare"}}}}, "'rare' is not one of"),
        ({"settings": {"prior": {"erasing": {"masking_depth": -1}}}}, "-1 is less than the minimum"),
        ({"settings": {"prior": {"puzzle": {"pieces": 9}}}}, "9 is not one of"),
        # YAML's 1e-4 is text
        ({"settings": {"segmentation": {"v3plus": {"learning_rate": "1e-4"}}}}, "'1e-4' is not of type 'number'"),
        ({"settings": {"prior": {"cams": {"scales": []}}}}, "scales"),
        ({"seeds": [-1]}, "-1 is less than the minimum"),
        ({"results": ""}, "results"),
    ],
)
def test_a_mistake_stops_with_its_name(overlay, message):
    with pytest.raises(WorkflowError, match=message):
        validate(configuration(overlay), SCHEMA_PATH, set_default=False)


# --- included files ---


def test_a_file_of_ones_own_wins_over_what_is_included(tmp_path):
    (tmp_path / "mine.yaml").write_text("runs: {pnoc: {prior: {discriminator: {leak: false}}}}\nseeds: [7]\n")
    config = read_config([tmp_path / "mine.yaml"], ROOT)
    assert config["runs"]["pnoc"]["prior"]["discriminator"] == {"leak": False}
    assert config["runs"]["pnoc"]["prior"]["method"] == "pnoc"
    assert config["seeds"] == [7]


def test_included_files_start_from_the_folder_of_config_yaml(tmp_path):
    (tmp_path / "runs.yaml").write_text("runs: {one: {prior: {method: cam}}}\n")
    assert assemble({"include": ["runs.yaml"]}, tmp_path)["runs"] == {"one": {"prior": {"method": "cam"}}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"cannot read the config file .*a\.yaml \(No such file or directory\)"),
        ({"a": "runs: ["}, r"a\.yaml cannot be read as YAML"),
        ({"a": "runs: {x: {}}\nseeds: [1]\nruns: {y: {}}"}, r"(?s)a\.yaml .*the key 'runs' stands twice in one block"),
        ({"a": "- runs"}, r"a\.yaml must hold keys and values"),
        (
            {"a": "runs: {x: {}}", "b": "runs: {x: {}}"},
            r"b\.yaml: runs\.x is declared by another included file as well",
        ),
    ],
)
def test_an_included_file_that_cannot_be_used_is_named(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        assemble({"include": [f"{name}.yaml" for name in (files or "a")]}, tmp_path)


# --- README and the command ---


def snippet(file):
    """The YAML that the README shows for a file of one's own."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return next(yaml.safe_load(block) for block in blocks if block.startswith(f"# {file}"))


@pytest.mark.parametrize("dataset", CONFIG["datasets"])
def test_the_readmes_ablation_differs_in_its_one_setting_on_every_data_set(dataset):
    config = deepcopy(CONFIG)
    merge(config, snippet("mine.yaml"))
    validate(config, SCHEMA_PATH, set_default=False)
    recipes = Recipes(config)
    found = recipes.differences((dataset, "pnoc"), (dataset, "pnoc_no_leak"))
    # the demo and voc-mini train P-NOC without the leak anyway
    expected = {"prior.discriminator.leak": (True, False)}
    assert found == (expected if recipes.section(dataset, "pnoc", "prior.discriminator").leak else {})


def test_the_command_prints_a_run_and_where_its_values_come_from(capsys):
    assert main(["show", "demo/pnoc"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["prior.method", "pnoc"] in lines
    assert ["prior.classifier.crop", "96", "datasets.demo"] in lines
    assert ["prior.erasing.class_choice", "random", "default"] in lines


def test_the_command_prints_how_two_runs_differ(capsys):
    assert main(["diff", "voc/poc", "voc/poc_ls"]) == 1
    assert capsys.readouterr().out.split() == ["prior.classifier.label_smoothing", "0.0", "0.1"]
    assert main(["diff", "voc/poc", "voc/poc"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "pnoc"], "write the data set and the run, such as voc/pnoc"),
        (["show", "vok/pnoc"], "unknown data set 'vok'; config.yaml has voc"),
        (["diff", "voc/pnoc", "voc/pnok"], "unknown run 'pnok'"),
        (["show", "demo/occse_depth7"], "masking_depth is 7"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(capsys, words, message):
    assert main(words) == 2
    assert message in capsys.readouterr().err


# --- paths ---


def test_every_artefact_of_a_method_has_a_path_of_its_own():
    made_by_stages = {stage.makes for slot in SLOTS for m in METHODS[slot].values() for stage in m.stages}
    assert made_by_stages <= set(OF_RUN)
    assert len(set(OF_RUN.values())) == len(OF_RUN)
    assert not set(OF_RUN) & set(OF_DATASET)


def test_folders_of_results_and_logs_can_be_others():
    tree = Tree.of({"results": "trial/results", "logs": "trial/logs"})
    assert tree.path("cams", dataset="demo", run="pnoc") == "trial/results/demo/pnoc/cams/{subset}.zarr"
    assert tree.path("manifest", dataset="demo", subset="val") == "trial/results/demo/manifest/val.csv"
    assert tree.log("dump_cams", "dataset", "run", "subset") == "trial/logs/{dataset}/{run}/dump_cams.{subset}.log"
    assert tree.benchmark("make_demo", "dataset") == "benchmarks/{dataset}/make_demo.tsv"
    assert tree.history("affinity") == "trial/results/{dataset}/{run}/affinity.history.csv"


def test_networks_of_known_depth():
    assert (depths("resnet38d"), depths("vgg16"), depths("resnet50")) == (7, 7, 5)
