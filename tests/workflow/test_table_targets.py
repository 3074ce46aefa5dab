"""Tables of papers as targets: which trainings each of them asks for, and that their numbers belong somewhere."""

import re
from pathlib import Path

import pytest
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate
from snakemake_cli import ROOT, planned, succeed

from wsss_core.data import VOC_CLASSES
from wsss_core.data.kinds.coco import COCO_CLASSES
from wsss_core.recipes.config import read_config
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.tree import OF_RUN

PAPERS = ROOT / "workflow/papers"
FIGURES = sorted(PAPERS.glob("*/figure*.yaml"))
TABLES = sorted(set(PAPERS.glob("*/*.yaml")) - set(FIGURES))
SCHEMA = str(ROOT / "workflow/schemas/table.schema.yaml")
RESNET38D = "data/weights/ilsvrc-cls_rna-a1_cls1000_ep-0001.params"  # not to be downloaded by the workflow
SEEDS = ("", "@seed1", "@seed2")
NO_SCORES = {"health", "detections_json", "proposal_labels_scores"}  # what a run has as JSON beside its scores


def names(text, suffixes=("",)):
    return {name + suffix for name in text.split() for suffix in suffixes}


# What is trained for each table, from nothing: models by name of their file, runs.
TRAINED = {
    "pnoc_table1": {"classifier": names("cam_nols cam_resnet38d occse puzzle")},
    "pnoc_table2": {
        "classifier": names("cam cam_nols puzzle poc poc_ls pnoc_nols pnoc cam_rs101 puzzle_rs101 poc_rs101", SEEDS)
    },
    "pnoc_table3": {"classifier": names("cam_nols cam_resnet38d occse puzzle poc_ls cam pnoc")},
    "pnoc_table4": {"classifier": names("cam_nols puzzle poc_ls cam pnoc")},
    "pnoc_table5": {"classifier": names("cam_nols puzzle poc_ls cam pnoc")},
    "pnoc_table6": {
        "classifier": names("cam_nols puzzle_rn50 puzzle poc poc_ls cam pnoc"),
        "c2am": names("c2am c2amh_rn50 c2amh_rs101 poc poc_ls pnoc"),
        "poolnet": names("c2am c2amh_rn50 c2amh_rs101 poc poc_ls pnoc"),
    },
    "pnoc_table7": {
        "classifier": names("cam_nols puzzle poc poc_ls cam pnoc"),
        "c2am": names("poc poc_ls pnoc"),
        "poolnet": names("poc poc_ls pnoc"),
        "affinity": names("puzzle_nosal poc_nosal poc_ls_nosal poc poc_ls pnoc_nosal pnoc"),
    },
    "pnoc_table8": {
        "classifier": names("cam_nols puzzle poc cam pnoc"),
        "c2am": names("poc pnoc"),
        "poolnet": names("poc pnoc"),
        "affinity": names("puzzle_nosal poc pnoc"),
        "segmentation": names("supervised_v2 pnoc_v2 supervised_v3 puzzle_nosal poc pnoc"),
    },
    "pnoc_table9": {
        "classifier": names("cam pnoc"),
        "c2am": names("pnoc"),
        "poolnet": names("pnoc"),
        "affinity": names("pnoc"),
        "segmentation": names("pnoc_v2 pnoc"),
    },
    "pnoc_table10": {
        "classifier": names("cam_nols puzzle poc cam pnoc"),
        "c2am": names("poc pnoc"),
        "poolnet": names("poc pnoc"),
        "affinity": names("puzzle_nosal poc pnoc"),
        "segmentation": names("pnoc_v2 puzzle_nosal poc pnoc"),
    },
    "recam_table1": {"classifier": names("cam_irn cam_irn_longer cam_irn_softmax cam_irn_single recam")},
    "recam_table2": {"classifier": names("cam_irn recam"), "affinity": names("cam_irn recam")},
    "recam_table3": {
        "classifier": names("cam_irn recam"),
        "affinity": names("cam_irn recam"),
        "segmentation": names("cam_irn_seeds recam_seeds cam_irn recam"),
    },
    "instances_table1": {
        "classifier": names("cam_irn"),
        "affinity": names("cam_irn_instances"),
        "maskrcnn": names("maskrcnn_irn maskrcnn_components supervised_maskrcnn"),
    },
    "cim_table1": {
        "classifier": names("cam_irn prm"),
        "affinity": names("cam_irn_instances"),
        "cim": names("cim cim_vgg16 cim_mist_vgg16 cim_hrnet48 cim_cam"),
        "maskrcnn": names("maskrcnn_irn maskrcnn_components maskrcnn_cim maskrcnn_cim_cam")
        | {"supervised_maskrcnn_resnet101"},
    },
    "cim_table2": {
        "classifier": names("prm"),
        "cim": names("cim"),
        "maskrcnn": names("supervised_maskrcnn_resnet101 maskrcnn_cim"),
    },
    "cim_table4": {
        "classifier": names("cam_irn prm"),
        "cim": names("cim cim_none cim_agpl cim_agpl_integrity cim_cascade00")
        | names("cim_cam cim_cam_none cim_cam_agpl cim_cam_agpl_integrity cim_cam_cascade00"),
    },
    "cim_table5": {
        "classifier": names("prm"),
        "cim": names("cim") | {f"cim_cascade{rise}" for rise in ("00", "05", "15", "20")},
    },
    "cim_table6": {
        "classifier": names("prm"),
        "cim": names("cim cim_seeds10_all") | names("cim_seeds05 cim_seeds15 cim_seeds20", ("", "_all")),
    },
    "pnoc_supplement": {
        "classifier": names("cam_resnet38d cam_resnet101 cam_vgg16 occse occse_oc_resnet101 occse_oc_vgg16")
        | {f"occse_depth{depth}" for depth in range(1, 8)}
    },
}


def name_of(path):
    """The target of a declared table or figure, without its suffix."""
    return f"{path.parent.name}_{path.stem}"


def targets_of(dataset):
    tables = [f"results/{dataset}/tables/{name_of(path)}.md" for path in TABLES]
    return tables + [f"results/{dataset}/figures/{name_of(path)}.png" for path in FIGURES]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """What every table of VOC needs, from nothing: {file to be made: files that its job takes from other jobs}."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / RESNET38D).parent.mkdir(parents=True)
    (folder / RESNET38D).touch()
    jobs = {}
    for line in succeed(folder, "--dry-run", targets=targets_of("voc")).splitlines():
        # such as: Reason: Missing output files: a, b; Input files updated by another job: c, d
        if reason := re.match(
            "Reason: Missing output files: ([^;]+)(?:; Input files updated by another job: (.+))?", line
        ):
            for file in reason[1].split(", "):
                assert file not in jobs, "made twice"
                jobs[file] = reason[2].split(", ") if reason[2] else []
    return jobs


def trained(plan, target):
    """{name of the model's file: runs} of the models that a target needs."""
    needed, waiting = set(), [target]
    while waiting:
        file = waiting.pop()
        if file not in needed:
            needed.add(file)
            waiting += plan[file]
    models = [re.fullmatch(r"results/voc/([^/]+)/(\w+)\.pt", file) for file in needed]
    found = {}
    for run, model in (match.groups() for match in models if match):
        found.setdefault(model, set()).add(run)
    return found


@pytest.mark.parametrize("name", TRAINED)
def test_a_table_plans_each_of_its_trainings_once(plan, name):
    assert trained(plan, f"results/voc/tables/{name}.md") == TRAINED[name]


def test_the_figure_of_curves_plans_the_priors_of_its_lines(plan):
    runs = {"classifier": names("cam_nols puzzle poc_ls cam pnoc")}
    assert trained(plan, "results/voc/figures/pnoc_figure6.png") == runs


def test_figures_of_scores_plan_what_their_points_and_bars_need(plan):
    swept = names("cam_irn cam_irn_longer recam recam_lambda025 recam_lambda05 recam_lambda2 recam_lambda4")
    assert trained(plan, "results/voc/figures/recam_figure6a.png") == {"classifier": swept}
    both = names("cam_irn recam")
    assert trained(plan, "results/voc/figures/recam_figure6b.png") == {"classifier": both, "affinity": both}
    assert trained(plan, "results/voc/figures/recam_figure_gradients.png") == {}


def test_all_tables_and_figures_are_targets_of_the_demo_and_need_no_file_from_elsewhere(tmp_path):
    plan = planned(tmp_path, targets=targets_of("demo"))
    assert (plan["make_table"], plan["make_figure"], plan["make_demo"]) == (len(TABLES), len(FIGURES), 1)
    assert plan["fetch_weights"] == 0


@pytest.mark.parametrize("dataset", ["demo", "demo-instances", "voc", "coco14", "coco17", "voc-mini", "coco-mini"])
def test_no_run_of_a_table_is_refused_on_any_data_set(dataset):
    recipes = Recipes(read_config([], ROOT))
    for path in [*TABLES, *FIGURES]:
        content = yaml.safe_load(path.read_text())
        kinds = ("rows", "columns", "lines", "points", "levels", "bars")
        for entry in (entry for kind in kinds for entry in content.get(kind, [])):
            if "run" in entry and dataset not in entry.get("except", []):
                recipes.behind(dataset, entry["run"], "classifier")  # raises where it cannot be trained


def test_every_table_is_in_the_plan_above():
    assert {name_of(path) for path in TABLES} == set(TRAINED)


@pytest.mark.parametrize("path", [*TABLES, *FIGURES], ids=name_of)
def test_a_table_passes_its_schema(path):
    validate(yaml.safe_load(path.read_text()), SCHEMA)


def test_the_scores_of_tables_are_files_of_runs():
    assert {OF_RUN[name] for name in yaml.safe_load(Path(SCHEMA).read_text())["$defs"]["score"]["enum"]} == {
        file for name, file in OF_RUN.items() if file.endswith(".json") and name not in NO_SCORES
    }


@pytest.mark.parametrize("name", ["table7", "table10"])
def test_a_stray_key_of_a_table_is_refused(name):
    table = yaml.safe_load((PAPERS / f"pnoc/{name}.yaml").read_text())
    with pytest.raises(WorkflowError, match="'seed' was unexpected"):
        validate({**table, "seed": 3}, SCHEMA)


@pytest.mark.parametrize("path", [path for path in TABLES if "kind: classes" in path.read_text()], ids=name_of)
def test_the_papers_rows_are_classes_of_the_data_set(path):
    known = {"voc": VOC_CLASSES, "coco14": COCO_CLASSES}
    for dataset, rows in yaml.safe_load(path.read_text())["paper"].items():
        others = ("background", "overall", "deviation", "size", "frequency", "semantic", "correlation")
        assert {row for row in rows if row.split()[0] not in others} <= set(known[dataset])
        if name_of(path) != "pnoc_table1":  # which has groups alone
            assert set(known[dataset]) <= set(rows)


def test_the_papers_overall_scores_are_the_means_of_its_classes():
    for name, dataset in (("table3", "voc"), ("table5", "coco14"), ("table10", "voc")):
        rows = yaml.safe_load((PAPERS / f"pnoc/{name}.yaml").read_text())["paper"][dataset]
        classes = VOC_CLASSES if dataset == "voc" else COCO_CLASSES
        scores = [rows[row] for row in ("background", *classes)]
        for column, printed in list(enumerate(rows["overall"]))[-4 if name == "table5" else -5 :]:
            assert sum(score[column] for score in scores) / len(scores) == pytest.approx(printed, abs=0.08)
