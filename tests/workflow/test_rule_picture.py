"""The picture of the rules in docs is that of the plan."""

import importlib.util

from snakemake_cli import ROOT, succeed


def load():
    spec = importlib.util.spec_from_file_location("rules", ROOT / "docs/pictures/rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_rules_is_that_of_the_plan(tmp_path):
    rules = load()
    text = succeed(tmp_path, "--rulegraph", "mermaid-js", targets=["results/demo/pnoc/seg_miou.json"])
    found, arrows = rules.graph(text)
    assert {"make_demo", "train_c2am", "evaluate_segmentation"} < set(found)
    assert "all" not in found
    assert ("walk_cams", "make_pseudo_masks") in arrows
    assert rules.drawn(text) == rules.OUTPUT.read_text(), "run the command in docs/pictures/rules.py"


def test_rules_come_in_an_order_in_which_they_can_run():
    text = "id0[last]\nid1[middle]\nid2[a_first]\nid2 --> id1\nid1 --> id0\nid2 --> id0\n"
    assert load().graph(text) == (
        ["a_first", "middle", "last"],
        {("a_first", "middle"), ("middle", "last"), ("a_first", "last")},
    )
