"""config.yaml and what it includes: the schema is that of the settings, and mistakes stop with the name of the key."""

import re
from copy import deepcopy
from dataclasses import fields

import pytest
import yaml
from snakemake.utils import update_config
from snakemake_cli import ROOT, snakemake

from wsss_core.recipes.backbones import timm_names, unknown_backbone
from wsss_core.recipes.checks import check_config
from wsss_core.recipes.config import RecipeError, assemble, merge, read_config
from wsss_core.recipes.depths import depths
from wsss_core.recipes.document import config_schema, texts
from wsss_core.recipes.methods import METHODS, SECTIONS, SLOTS
from wsss_core.recipes.names import near
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.settings import identity, made, plain
from wsss_core.recipes.tree import OF_DATASET, OF_RUN, Tree

SCHEMA = config_schema()
CONFIG = read_config([], ROOT)
ALL_SECTIONS = {f"{slot}.{name}": kind for slot in SLOTS for name, kind in SECTIONS[slot].items()}


def configuration(overlay=None):
    config = deepcopy(CONFIG)
    update_config(config, overlay or {})
    return config


def test_config_yaml_passes_its_schema():
    check_config(configuration(), ROOT)


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
    assert set(faults) == (set() if dataset in ("voc", "coco14", "coco17") else {"occse_depth6", "occse_depth7"})
    assert all("masking_depth is" in found for found in faults.values())


def test_the_small_data_sets_have_hardly_any_entry_for_a_single_run():
    """P-NOC's runs need none; ReCAM's have a rate of their own on the demo, and thresholds and a network on voc-mini.

    PRM's classifier has momentum and a hundredfold rate of its head, which go with its own rate alone.
    """
    entries = {name: set(CONFIG["datasets"][name].get("runs") or {}) for name in ("demo", "voc-mini", "coco-mini")}
    assert entries == {
        "demo": {"recam", "cam_irn_longer", "prm"}, "voc-mini": {"cam_irn", "recam", "prm"}, "coco-mini": {"prm"},
    }  # fmt: skip


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
        (
            {"settings": {"prior": {"classifier": {"lr": 0.1}}}},
            "settings.prior.classifier.lr: unknown key; did you mean learning_rate?",
        ),
        ({"settings": {"classifier": {}}}, "settings.classifier: unknown key; did you mean prior.classifier?"),
        (
            {"settings": {"prior": {"cams": {"scale": [1.0]}}}},
            "settings.prior.cams.scale: unknown key; did you mean scales?",
        ),
        (of_demo("segmentation", v3plus={"epoch": 3}), "v3plus.epoch: unknown key; did you mean epochs?"),
        (
            {"datasets": {"demo": {"runs": {"pnoc": {"prior": {"classifer": {}}}}}}},
            "classifer: unknown key; did you mean classifier?",
        ),
        ({"datasets": {"voc": {"path": "here"}}}, "datasets.voc.path: unknown key; it has splits, classes, "),
        (
            {"datasets": {"voc": {"kind": "vok"}}},
            "datasets.voc.kind: 'vok' is none of voc, coco, demo, folders; did you mean voc?",
        ),
        ({"datasets": {"mine": {"kind": "folders", "images": "here"}}}, "datasets.mine: it needs labels, names too"),
        ({"runs": {"pnoc": {"prior": {"method": "pnok"}}}}, "runs.pnoc.prior.method: 'pnok' is none of cam, "),
        ({"runs": {"pnoc": {"priors": "cam"}}}, "runs.pnoc.priors: unknown key; did you mean prior?"),
        ({"runs": {"p noc": {}}}, "runs: 'p noc' is no name: use letters, digits, - and _"),
        ({"runs": {"pnoc": {"saliency": "non"}}}, "runs.pnoc.saliency: 'non' is none of c2am, "),
        ({"runs": {"pnoc": {"saliency": 3}}}, "runs.pnoc.saliency: 3 cannot be; it takes a block of keys"),
        (
            {"runs": {"pnoc": {"saliency": {"ordinary": "cam"}}}},
            "runs.pnoc.saliency.ordinary: unknown key; it has method",
        ),
        (
            {"settings": {"prior": {"classifier": {"mixing": {"kind": "mosaic"}}}}},
            "mixing.kind: 'mosaic' is none of cutmix, ",
        ),
        (
            {"settings": {"prior": {"classifier": {"average": {"often": 3}}}}},
            "average.often: unknown key; it has decay",
        ),
        (
            {"settings": {"prior": {"classifier": {"mixing": {"probability": 1.5}}}}},
            "probability: 1.5 cannot be; it takes number ≥ 0 ≤ 1",
        ),
        (
            {"settings": {"prior": {"classifier": {"dropout": "half"}}}},
            "dropout: 'half' cannot be; it takes number > 0 < 1, or null",
        ),
        ({"settings": {"prior": {"erasing": {"class_choice": "rare"}}}}, "class_choice: 'rare' is none of "),
        (
            {"settings": {"prior": {"erasing": {"masking_depth": -1}}}},
            "masking_depth: -1 cannot be; it takes integer ≥ 0",
        ),
        ({"settings": {"prior": {"puzzle": {"pieces": 9}}}}, "pieces: 9 is none of "),
        (
            {"settings": {"segmentation": {"v3plus": {"learning_rate": "1e-4"}}}},
            "learning_rate: '1e-4' cannot be; it takes number ≥ 0 (YAML reads 1e-4 as text: write 0.0001)",
        ),
        (
            {"settings": {"prior": {"cams": {"scales": []}}}},
            "cams.scales: [] cannot be; it takes list of number > 0, not empty",
        ),
        ({"seeds": [-1]}, "seeds[0]: -1 cannot be; it takes integer ≥ 0"),
        ({"results": ""}, "results: '' cannot be; it takes text, not empty"),
        ({"tagets": []}, "tagets: unknown key; did you mean targets"),
    ],
)
def test_a_mistake_stops_with_its_key_and_the_way_out(overlay, message):
    with pytest.raises(RecipeError) as caught:
        check_config(configuration(overlay), ROOT)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_one_mistake_is_said_and_the_others_are_counted():
    wrong = {"lr": 0.1, "epochs": -1, "crop": "big"}
    with pytest.raises(RecipeError, match=r"^settings\.prior\.classifier\.lr: unknown key; .* \(and 2 more\)$"):
        check_config(configuration({"settings": {"prior": {"classifier": wrong}}}), ROOT)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"demo": {"classes": ["brid"]}}, r"datasets\.demo\.classes: unknown class 'brid'; .* \(did you mean bird\?\)"),
        (
            {"demo": {"splits": {"val": "vall"}}},
            r"datasets\.demo\.splits\.val: unknown subset 'vall'; .* \(did you mean val\?\)",
        ),
        ({"demo": {"runs": {"pnok": {}}}}, r"datasets\.demo\.runs: unknown run 'pnok' \(did you mean pnoc\?\)"),
    ],
)
def test_names_that_a_data_set_does_not_have_stop_a_plan(overlay, message):
    with pytest.raises(RecipeError, match=message):
        Recipes(configuration({"datasets": overlay}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", "classifier.backbone: unknown backbone 'resnet5'; did you mean resnet50"),
        ("zzz", "`timm.list_models()` has all names"),
    ],
)
def test_a_backbone_that_nobody_knows_stops_a_plan(name, message):
    recipes = Recipes(configuration(of_demo("prior", classifier={"backbone": name})))
    with pytest.raises(RecipeError, match=re.escape(message)):
        recipes.flat("demo", "cam")


@pytest.mark.parametrize(
    "name", ["resnet50", "resnet101_caffe", "resnet38d", "mobilenetv2_100", "resnet50.tv_in1k", "hf_hub:a/b"]
)
def test_backbones_of_papers_of_timm_and_of_a_hub_are_known(name):
    assert unknown_backbone(name) == ""


def test_names_of_timm_are_those_that_timm_lists():
    import timm

    assert timm_names() == set(timm.list_models())


def test_names_that_were_meant():
    known = ["learning_rate", "epochs", "weight_decay", "batch_size"]
    assert near("lr", known) == ["learning_rate"]
    assert near("epoch", known) == ["epochs"]
    assert near("batch", known) == ["batch_size"]
    assert near("zzz", known) == []


# --- the same on the terminal ---

MINE = {"kind": "folders", "images": "photos", "labels": "labels.csv", "names": ["cat", "dog"]}
OF_MINE = {"datasets": {"mine": MINE}}


@pytest.mark.parametrize(
    ("target", "config", "line"),
    [
        (
            "demo/pnoc/seg_miou.json",
            {"settings": {"prior": {"classifier": {"lr": 0.1}}}},
            "settings.prior.classifier.lr: unknown key; did you mean learning_rate?",
        ),
        (
            "demo/pnoc/seg_miou.json",
            of_demo("prior", classifier={"crop": "big"}),
            "datasets.demo.settings.prior.classifier.crop: 'big' cannot be; it takes integer ≥ 16",
        ),
        ("demo/pnok/seg_miou.json", {}, "unknown run 'pnok' (did you mean pnoc?)"),
        ("demoo/pnoc/seg_miou.json", {}, "unknown data set 'demoo'; config.yaml has .* (did you mean demo.*"),
        ("demo/tables/pnoc_tabel7.md", {}, "unknown table 'pnoc_tabel7' (did you mean pnoc_table7.*"),
        (
            "demo/pnoc/seg_miou.json",
            {"datasets": {"demo": {"classes": ["brid"]}}},
            "datasets.demo.classes: unknown class 'brid'; there are .* (did you mean bird?)",
        ),
        (
            "mine/cam/masks/train",
            OF_MINE,
            "labels.csv: image a: unknown class 'cta'; names has cat, dog (did you mean cat?)",
        ),
        ("demo/pnoc/masks/vall", {}, "unknown subset 'vall'; the data set has train, val (did you mean val?)"),
        (
            "demo/pnoc/seg_moiu.json",
            {},
            "no rule makes results/demo/pnoc/seg_moiu.json; did you mean results/demo/pnoc/seg_miou.json.*",
        ),
        (
            "demo/seg_miou.json",
            {},
            "no rule makes results/demo/seg_miou.json: name a run, as in results/demo/RUN/seg_miou.json",
        ),
        ("demo/pnoc/masks", {}, "no rule makes results/demo/pnoc/masks; did you mean results/demo/pnoc/masks/.*"),
        (
            "demo/pnoc/seg_miou.json",
            of_demo("prior", classifier={"backbone": "resnet5"}),
            "run .* on data set demo: prior.classifier.backbone: unknown backbone 'resnet5'; did you mean resnet50.*",
        ),
        ("mine/cam/seg_miou.json", OF_MINE, "datasets.mine.splits.val is null, which this needs: .*"),
        ("mine/cam/priors_miou.json", OF_MINE, "datasets.mine.masks is null, so nothing can be scored: .*"),
    ],
)
def test_a_typo_ends_in_one_line(tmp_path, target, config, line):
    """Below it there is nothing, and above it no more than the head that Snakemake prints before any plan."""
    (tmp_path / "photos").mkdir()
    wrong = "cta" if target.endswith("train") else "cat"
    (tmp_path / "labels.csv").write_text(f"image_id,classes\na,{wrong}\n")
    done = snakemake(tmp_path, "--dry-run", "--quiet", "host", targets=[f"results/{target}"], config=config)
    assert done.returncode != 0
    *before, last = done.stdout.splitlines()
    pattern = re.escape(line).replace(re.escape(".*"), ".*")
    assert re.fullmatch(f"Error: {pattern}", last), done.stdout
    assert all(line.startswith(("Config file ", "Assuming unrestricted", "Building DAG")) for line in before), before


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


# --- README ---


def snippet(file):
    """The YAML that the README shows for a file of one's own."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return next(yaml.safe_load(block) for block in blocks if block.startswith(f"# {file}"))


@pytest.mark.parametrize("dataset", CONFIG["datasets"])
def test_the_readmes_ablation_differs_in_its_one_setting_on_every_data_set(dataset):
    config = deepcopy(CONFIG)
    merge(config, snippet("mine.yaml"))
    check_config(config, ROOT)
    recipes = Recipes(config)
    found = recipes.differences((dataset, "pnoc"), (dataset, "pnoc_no_leak"))
    # the demo and voc-mini train P-NOC without the leak anyway
    expected = {"prior.discriminator.leak": (True, False)}
    assert found == (expected if recipes.section(dataset, "pnoc", "prior.discriminator").leak else {})


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


# --- data sets like others ---


def test_a_data_set_takes_what_another_one_says_and_what_is_said_over_it():
    config = {
        "datasets": {
            "third": {"extends": "second", "kind": "demo"},
            "second": {"extends": "first", "settings": {"prior": {"cams": {"scales": [2.0]}}}},
            "first": {"seed": 1, "settings": {"prior": {"cams": {"scales": [0.5, 1.0], "stride": 4}}}},
        }
    }
    found = assemble(config, ".")["datasets"]
    settings = {"prior": {"cams": {"scales": [2.0], "stride": 4}}}
    assert found["second"] == {"seed": 1, "settings": settings}
    assert found["third"] == {"seed": 1, "settings": settings, "kind": "demo"}
    assert found["first"]["settings"]["prior"]["cams"]["scales"] == [0.5, 1.0]
    assert assemble(found_again := {"datasets": dict(found)}, ".")["datasets"] == found_again["datasets"]


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"a": {"extends": "b"}}, r"datasets\.a\.extends names the data set 'b', which is not in config\.yaml"),
        ({"a": {"extends": "b"}, "b": {"extends": "a"}}, r"datasets\.b\.extends leads back to itself: a -> b -> a"),
        ({"a": {"extends": "a"}}, r"datasets\.a\.extends leads back to itself: a -> a"),
    ],
)
def test_a_data_set_cannot_extend_what_is_not_there_or_itself(datasets, message):
    with pytest.raises(RecipeError, match=message):
        assemble({"datasets": datasets}, ".")


def test_the_demo_with_twins_is_the_demo_in_all_else():
    demo, twins = CONFIG["datasets"]["demo"], CONFIG["datasets"]["demo-instances"]
    assert {key for key in twins if twins[key] != demo.get(key)} == {"twins"}
