"""Tables of papers, from declared rows to Markdown and CSV, on made-up result files."""

import csv
import json
from pathlib import Path

import pytest

from wsss_core.recipes.config import RecipeError
from wsss_core.recipes.tree import Tree
from wsss_core.reports.paper_tables import Results, files_of, make_table, resolve
from wsss_core.reports.tables import ResultError


class FakeRecipes:
    """Two runs with three seeds; ``pnoc`` has the ordinary classifier ``cam``, and shares its saliency network."""

    def parse(self, run):
        if run not in ("cam", "pnoc"):
            raise RecipeError(f"unknown run {run!r}")

    def seeded(self, run):
        return [run, f"{run}@seed1", f"{run}@seed2"]

    def ordinary(self, dataset, run):
        return run.replace("pnoc", "cam")

    def source(self, dataset, run, artefact):
        return run.replace("pnoc", "cam") if artefact == "c2am" else run


RUNS = {
    "title": "Table 0",
    "kind": "runs",
    "labels": ["method"],
    "scores": [{"name": "train", "score": "pseudo_miou", "key": "miou"}, {"name": "test"}],
    "notes": {"any": ["Always."], "voc": ["A misprint."], "coco14": ["Of COCO."]},
    "rows": [
        {"label": ["P-NOC"], "run": "pnoc", "seeds": True, "paper": {"voc": [75.5, 73.6]}},
        {"label": ["CAM"], "run": "cam", "scores": {"train": {"score": "saliency_gt_miou", "key": "coarse.miou"}}},
        {"label": ["others"], "paper": {"voc": [None, 70.0]}},
    ],
}
CLASSES = {
    "title": "Table 00",
    "kind": "classes",
    "score": "priors_miou",
    "properties": True,
    "sections": ["overall", "deviation", "background", "classes", "groups", "correlations"],
    "columns": [{"name": "CAM", "run": "cam"}, {"name": "others"}],
    "paper": {"voc": {"cat": [10, 20.0, None, 1.5, 50.0, 40.0], "overall": [None, 30, None, None, 61.0, 62.0]}},
}
PROPERTIES = """class,O,%S,%C,L,size,frequency,semantic
background,,60.0,,,,,
cat,10,20.0,25.0,1.5,small,low,
dog,20,40.0,75.0,2.5,large,high,
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the results that the tables above need."""
    monkeypatch.chdir(tmp_path)
    about = {"split": "train", "images": 1464}
    for seed, miou in enumerate((0.70, 0.72, 0.74)):
        write(f"voc/pnoc{f'@seed{seed}' if seed else ''}/pseudo_miou.json", {**about, "seed": seed, "miou": miou})
    write("voc/cam/saliency_gt_miou.json", {"coarse": {"miou": 0.5}, "seed": 0})
    write("voc/cam/priors_miou.json", {**about, "seed": 0, "iou": {"background": 0.9, "cat": 0.5, "dog": 0.7}})
    write("voc/class_properties.csv", PROPERTIES)
    return tmp_path


def write(name, content):
    path = Path("results", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def resolved(table, dataset="voc"):
    return resolve(table, dataset, FakeRecipes(), Tree())


def made(table, dataset="voc", kind="voc"):
    """Lines of the Markdown, its tables' cells, and the CSV's rows by label and column."""
    output, markdown = Path("out.csv"), Path("results/t.md")
    make_table(resolved=resolved(table, dataset), dataset=dataset, kind=kind, output=output, table=markdown)
    lines = markdown.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    return lines, cells, {(next(iter(row.values())), row["column"]): row for row in rows}


def test_a_table_needs_the_file_of_each_seed_that_is_averaged_once():
    table = {**RUNS, "rows": [*RUNS["rows"], RUNS["rows"][0]]}
    assert files_of(resolved(table, "demo")) == [
        "results/demo/pnoc/pseudo_miou.json",
        "results/demo/pnoc@seed1/pseudo_miou.json",
        "results/demo/pnoc@seed2/pseudo_miou.json",
        "results/demo/cam/saliency_gt_miou.json",
    ]
    assert files_of(resolved(CLASSES, "demo")) == [
        "results/demo/cam/priors_miou.json",
        "results/demo/class_properties.csv",
    ]


@pytest.mark.parametrize(("of", "run"), [("ordinary", "cam"), ("c2am", "cam"), ("cams", "pnoc")])
def test_a_column_may_score_the_run_that_an_artefact_comes_from(of, run):
    score = {"name": "there", "score": "priors_miou", "key": "miou", "of": of}
    table = {**RUNS, "scores": [score], "rows": [{"label": ["OC"], "run": "pnoc"}]}
    assert files_of(resolved(table)) == [f"results/voc/{run}/priors_miou.json"]


def test_files_lie_where_the_tree_has_them():
    found = files_of(resolve(CLASSES, "voc", FakeRecipes(), Tree(results="elsewhere")))
    assert found == ["elsewhere/voc/cam/priors_miou.json", "elsewhere/voc/class_properties.csv"]


def test_a_run_that_config_lacks_is_an_error_with_its_name():
    with pytest.raises(RecipeError, match="unknown run 'pnok'"):
        resolved({**RUNS, "rows": [{"label": ["x"], "run": "pnok"}]})


def test_a_row_that_cannot_be_made_on_a_data_set_is_left_out_there(folder):
    (folder / "results/voc").rename(folder / "results/demo")
    rows = [*RUNS["rows"], {"label": ["deep"], "run": "cam", "except": ["demo"]}]
    _, _, made_rows = made({**RUNS, "rows": rows}, "demo", "demo")
    assert ("deep", "train") not in made_rows
    assert "results/voc/cam/pseudo_miou.json" in files_of(resolved({**RUNS, "rows": rows}))


@pytest.mark.parametrize(
    "table",
    [
        {**RUNS, "rows": [{"label": ["P-NOC"], "run": "pnoc", "paper": {"voc": [75.5]}}]},
        {**CLASSES, "paper": {"voc": {"P-NOC": [75.5]}}},
    ],
)
def test_a_number_of_the_paper_too_few_is_an_error_with_its_row(table):
    with pytest.raises(ResultError, match=r"the row 'P-NOC.*1 numbers of the paper for [26] columns"):
        resolved(table)


def test_a_row_has_mean_and_deviation_over_seeds_the_papers_number_and_the_difference(folder):
    _, cells, rows = made(RUNS)
    assert cells[0] == ["method", "run", "train", "train, paper", "difference", "test, paper"]
    # deviation: sqrt((2² + 0² + 2²) / (3 - 1)); difference: 72 - 75.5
    assert cells[2] == ["P-NOC", "pnoc", "72.00 ± 2.00", "75.5", "-3.50", "73.6"]
    assert rows["P-NOC", "train"] == {
        "method": "P-NOC", "run": "pnoc", "column": "train", "value": "72.0", "standard_deviation": "2.0",
        "seeds": "3", "paper": "75.5", "difference": "-3.5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("of_table", "of_row", "dataset", "files"),
    [
        (True, None, "voc", 3),
        (["demo"], None, "demo", 3),
        (["demo"], None, "voc", 1),
        (True, False, "voc", 1),
        (False, ["voc"], "voc", 3),
    ],
)
def test_means_over_seeds_are_asked_for_by_table_or_row_and_on_which_data_sets(of_table, of_row, dataset, files):
    row = {"label": ["CAM"], "run": "cam", **({} if of_row is None else {"seeds": of_row})}
    table = {**RUNS, "seeds": of_table, "rows": [row]}
    assert len(files_of(resolved(table, dataset))) == files
    column = {"name": "CAM", **{key: row[key] for key in ("run", "seeds") if key in row}}
    table = {**CLASSES, "properties": False, "seeds": of_table, "columns": [column], "paper": {}}
    assert len(files_of(resolved(table, dataset))) == files


def test_a_row_may_take_its_score_from_a_file_of_its_own(folder):
    _, cells, rows = made(RUNS)
    assert cells[3] == ["CAM", "cam", "50.00", "", "", ""]
    assert [rows["CAM", "train"][key] for key in ("seeds", "standard_deviation", "difference")] == ["1", "", ""]


def test_a_row_without_a_run_has_the_papers_number_and_says_that_nothing_was_measured(folder):
    _, cells, rows = made(RUNS)
    assert cells[4] == ["others", "", "not measured here", "", "", "70.0"]
    assert (rows["others", "test"]["value"], rows["others", "test"]["paper"]) == ("", "70.0")


def test_a_data_set_without_numbers_of_the_paper_has_no_columns_for_them(folder):
    (folder / "results/voc").rename(folder / "results/demo")
    lines, cells, rows = made(RUNS, "demo", "demo")
    assert cells[0] == ["method", "run", "train"]
    assert [row[0] for row in cells[2:]] == ["P-NOC", "CAM"]
    assert ("others", "train") not in rows
    assert any(line.startswith("- Demo scores") for line in lines)
    assert any("The paper has no numbers for this data set" in line for line in lines)


def test_a_table_says_what_it_is_in_front(folder):
    lines, *_ = made(RUNS)
    assert lines[0] == "# Table 0"
    assert lines[2:9] == [
        "- Data set `voc`.",
        "- `pseudo_miou.json`: 1464 images of `train`.",
        "- Seeds 0, 1, 2: mean ± standard deviation.",
        "- Scores are in per cent. Differences are measured minus paper, in percentage points.",
        "- Made by `snakemake --cores all -- results/t.md`.",
        "- Always.",
        "- A misprint.",
    ]


def test_other_images_than_the_papers_are_pointed_out(folder):
    write("voc/pnoc/pseudo_miou.json", {"split": "train", "images": 900, "seed": 0, "miou": 0.7})
    lines, *_ = made(RUNS)
    assert "- The paper scored 1464 images of `train`, here it is 900: no fair comparison." in lines


def test_a_table_of_classes_has_their_scores_groups_and_correlations(folder):
    _, cells, rows = made(CLASSES)
    measured = {row: float(rows[row, "CAM"]["value"]) for row, column in rows if column == "CAM"}
    assert measured == pytest.approx(
        {
            "overall": 70.0,
            "deviation": 200**0.5,  # of 50 and 70: sqrt(2 * 10² / (2 - 1))
            "background": 90.0,
            "cat": 50.0,
            "dog": 70.0,
            "size small": 50.0,
            "size large": 70.0,
            "frequency low": 50.0,
            "frequency high": 70.0,
            "correlation O": 100.0,
            "correlation %S": 100.0,
            "correlation %C": 100.0,
            "correlation L": 100.0,
        },
        abs=1e-4,
    )
    assert float(rows["overall", "%S"]["value"]) == 40.0  # with the background
    assert float(rows["overall", "O"]["value"]) == 15.0
    heads = [row for row in cells if row[:2] == ["row", "classes"]]
    assert heads == [
        ["row", "classes", "O", "O, paper", "difference", "%S", "%S, paper", "difference", "%C", "L", "L, paper",
         "difference"],
        ["row", "classes", "CAM", "CAM, paper", "difference", "others, paper"],
    ]  # fmt: skip
    assert ["cat", "", "50.00", "50.0", "+0.00", "40.0"] in cells
    assert ["size large", "dog", "70.00", "", "", ""] in cells


def test_more_columns_than_a_page_holds_go_below_each_other(folder):
    columns = [{"name": f"run {i}", "run": "cam"} for i in range(7)]
    table = {**CLASSES, "properties": False, "sections": ["classes"], "columns": columns, "paper": {}}
    _, cells, _ = made(table)
    assert [row for row in cells if row[0] == "row"] == [
        ["row", "run 0", "run 1", "run 2", "run 3", "run 4"],
        ["row", "run 5", "run 6"],
    ]


def test_a_class_that_is_nowhere_has_no_score(folder):
    write("voc/cam/priors_miou.json", {"iou": {"background": 0.9, "cat": None, "dog": 0.7}})
    _, cells, rows = made(CLASSES)
    assert ["cat", "", "-", "50.0", "", "40.0"] in cells
    assert float(rows["overall", "CAM"]["value"]) == 80.0


def test_columns_of_other_classes_are_refused(folder):
    write("voc/pnoc/priors_miou.json", {"iou": {"background": 0.9, "cat": 0.5}})
    columns = [{"name": "CAM", "run": "cam"}, {"name": "P-NOC", "run": "pnoc"}]
    with pytest.raises(ResultError, match="scores of other classes"):
        made({**CLASSES, "columns": columns, "paper": {}})


@pytest.mark.parametrize("content", ["", "[1]", '{"miou": null}', '{"iou": 0.5}'])
def test_a_result_without_the_score_is_refused_with_its_path(folder, content):
    write("voc/pnoc@seed1/pseudo_miou.json", content)
    with pytest.raises(ResultError, match=r"results/voc/pnoc@seed1/pseudo_miou\.json"):
        made(RUNS)
    assert not (folder / "results/t.md").exists()


def test_a_key_may_end_in_a_name_with_a_dot(tmp_path):
    path = tmp_path / "irn_ap.json"
    path.write_text(json.dumps({"ap": {"voc": {"0.5": 0.25}}, "touching": {"ap": {"voc": {"0.5": None}}}}))
    results = Results()
    assert results.score(str(path), "ap.voc.0.5") == 25
    for key in ("ap.voc.0.7", "touching.ap.voc.0.5", "ap.voc"):
        with pytest.raises(ResultError, match=f"has no score '{key}'"):
            results.score(str(path), key)
