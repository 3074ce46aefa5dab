"""The command wsss: what it says of files and settings, and mistakes in one line."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wsss_core.base.checkpoints import save_model
from wsss_core.commands.app import app, main
from wsss_core.data import Manifest
from wsss_core.instances.store import InstanceWriter, instances_of
from wsss_core.scores.results import write_result

ROOT = Path(__file__).parents[2]


@pytest.fixture
def wsss(capsys):
    """A function that calls the command: exit code, and what it prints as lines of words."""

    def call(*words):
        code = main([str(word) for word in words])
        out = capsys.readouterr()
        return code, out.out.splitlines() if code != 2 else out.err.splitlines()

    return call


def columns(lines):
    return [re.split(r"\s{2,}", line) for line in lines]


# --- what all have in common ---------------------------------------------------------------------------------------


def test_every_command_has_an_example_of_itself():
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert command.epilog.startswith(f"Example: wsss {name} ")
        assert command.callback.__doc__


def test_the_version_is_that_of_the_package(wsss):
    assert wsss("--version") == (0, [f"wsss-core {version('wsss-core')}"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("wsss comp", ["compare"]),
        ("wsss show de", ["demo", "demo-instances"]),
        ("wsss compare demo cam pnoc_no", ["pnoc_nols", "pnoc_nosal"]),
        ("wsss settings demo nothing_like_it", []),
    ],
)
def test_the_shell_completes_commands_data_sets_and_runs(words, expected):
    asked = {"_WSSS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-c", "from wsss_core.commands.app import main; main([])"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | asked, cwd=ROOT)
    assert [name for name in expected if name in done.stdout.split()] == expected
    assert expected or not done.stdout.split()


def test_help_loads_no_library_of_numbers():
    code = "import sys; from wsss_core.commands.app import main; main(['info', '--help']); "
    code += "print([name for name in ('torch', 'numpy', 'zarr', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inof"], "unknown command 'inof'; .* \\(did you mean info\\?\\)"),
        (["settings", "demo"], "Missing argument 'RUN'; wsss settings --help has an example"),
        (["settings", "demo", "cam", "--dif", "x"], "No such option: --dif .*--diff.*"),
        (["settings", "vok", "pnoc"], "unknown data set 'vok'; config.yaml has voc, .*"),
        (["settings", "voc", "pnok"], "unknown run .pnok. .*did you mean pnoc.*"),
        (["settings", "voc", "pnoc", "--diff", "pnok"], "unknown run .pnok. .*did you mean pnoc.*"),
        (["settings", "demo", "occse_depth7"], ".*masking_depth is 7.*"),
        (["settings", "voc", "pnoc", "--configfile", "gone.yaml"], "cannot read the config file gone.yaml .*"),
        (["info", "gone.pt"], "gone.pt: there is no such file or folder"),
    ],
)
def test_a_mistake_ends_in_one_line(wsss, words, message):
    code, lines = wsss(*words)
    assert code == 2
    assert len(lines) == 1
    assert re.fullmatch(f"error: {message}", lines[0]), lines


# --- settings ------------------------------------------------------------------------------------------------------


def test_settings_are_printed_with_where_they_come_from(wsss):
    code, lines = wsss("settings", "demo", "pnoc")
    assert code == 0
    found = [line.split() for line in lines]
    assert ["prior.method", "pnoc"] in found
    assert ["prior.classifier.crop", "96", "datasets.demo"] in found
    assert ["prior.erasing.class_choice", "random", "default"] in found


@pytest.mark.parametrize("other", ["poc_ls", "voc/poc_ls"])
def test_settings_say_how_two_runs_differ(wsss, other):
    code, lines = wsss("settings", "voc", "poc", "--diff", other)
    assert code == 1
    assert [line.split() for line in lines] == [["prior.classifier.label_smoothing", "0.0", "0.1"]]
    assert wsss("settings", "voc", "poc", "--diff", "poc") == (0, [])


def test_a_file_of_ones_own_is_put_over_the_config(wsss, tmp_path):
    (tmp_path / "mine.yaml").write_text("runs: {mine: {extends: cam, prior: {cams: {stride: 1}}}}")
    code, lines = wsss("settings", "demo", "cam", "--diff", "mine", "--configfile", tmp_path / "mine.yaml")
    assert (code, [line.split() for line in lines]) == (1, [["prior.cams.stride", "4", "1"]])


# --- info ----------------------------------------------------------------------------------------------------------


def told(wsss, *words):
    code, lines = wsss("info", *words)
    assert code == 0, lines
    return {name: rest for name, *rest in columns(lines)}


def test_info_on_maps_counts_labels_by_the_names_near(wsss, tiny, tmp_path, random_maps, write_store):
    tiny.classes.write(tmp_path / "classes.csv")
    path = tmp_path / "pnoc" / "cams.zarr"
    write_store(path, tiny.manifest, random_maps(tiny.manifest))
    found = told(wsss, path)
    assert found["what"] == ["a store of maps"]
    assert found["layout"] == ["wsss-maps/4"]
    assert found["images"] == ["8"]
    assert found["pictures"] == ["32 to 48 high, 32 to 48 wide"]
    rows = sum(len(row.labels) for row in tiny.manifest)
    assert found["array map"] == [f"{rows} x 12 x 12 float16"]
    assert found["label 2"] == [str(sum(2 in row.labels for row in tiny.manifest)), "star"]
    assert found["run"] == ["test"]
    assert found["checked"] == ["its tables and marks; --check reads every image"]


def test_info_finds_a_lost_shard_only_when_it_reads_all(wsss, tiny, tmp_path, random_maps, write_store):
    path = tmp_path / "cams.zarr"
    write_store(path, tiny.manifest, random_maps(tiny.manifest))
    assert told(wsss, path, "--check")["checked"] == ["every image"]
    (path / "map/c/0/0/0").unlink()
    assert told(wsss, path)["images"] == ["8"]
    code, lines = wsss("info", path, "--check")
    assert code == 2
    assert "has lost a shard (image image0): delete it and run its rule again" in lines[0]


def test_info_says_that_a_store_is_unfinished_or_foreign(wsss, tiny, tmp_path, random_maps, write_store):
    path = tmp_path / "cams.zarr"
    write_store(path, tiny.manifest, random_maps(tiny.manifest))
    about = json.loads((path / "zarr.json").read_text())
    about["attributes"]["wsss"]["complete"] = False
    (path / "zarr.json").write_text(json.dumps(about))
    code, lines = wsss("info", path)
    assert (code, len(lines)) == (2, 1)
    assert "is not a complete store of layout wsss-maps/4" in lines[0]
    about["attributes"]["wsss"]["layout"] = "wsss-maps/1"
    (path / "zarr.json").write_text(json.dumps(about))
    assert "is a store of layout wsss-maps/1; this version reads wsss-maps/4" in wsss("info", path)[1][0]
    (path / "zarr.json").write_text("{")
    assert "is damaged" in wsss("info", path)[1][0]


def test_info_on_instances(wsss, tiny, tmp_path):
    manifest = Manifest.of(tiny.manifest.rows[:2])
    with InstanceWriter(tmp_path / "i.zarr", manifest, about={"run": "mine"}) as out:
        for row in manifest:
            masks = np.zeros((2, row.height, row.width), np.uint8)
            masks[:, 2:5, 2:5] = 1
            out.write(row.id, instances_of(masks, [1, 2]))
    found = told(wsss, tmp_path / "i.zarr", "--check")
    assert found["what"] == ["a store of instances"]
    assert (found["images"], found["label 1"], found["label 2"]) == (["2"], ["2"], ["2"])


def test_info_on_a_checkpoint(wsss, tmp_path):
    recipe = {"network": "v3plus", "classes": 3, "names": ["cat", "dog"], "colours": [[0, 0, 0], [1, 2, 3], [4, 5, 6]]}
    save_model(tmp_path / "seg.pt", nn.Linear(4, 5), "segmentation", recipe)
    found = told(wsss, tmp_path / "seg.pt")
    assert found["what"] == ["a checkpoint of a segmentation"]
    assert found["tensors"] == ["2 with 0.00 million numbers, all finite"]
    assert found["network"] == ["v3plus"]
    assert found["label 1"] == ["dog", "(4, 5, 6)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\x03\x04 cut short", "is damaged"), (None, "was not written by this pipeline")],
    ids=["damaged", "foreign"],
)
def test_info_on_a_file_that_is_no_checkpoint(wsss, tmp_path, content, message):
    path = tmp_path / "seg.pt"
    path.write_bytes(content) if content else torch.save({"weight": torch.ones(1)}, path)
    code, lines = wsss("info", path)
    assert (code, len(lines)) == (2, 1)
    assert f"{path} {message}" in lines[0]


def test_info_on_a_result(wsss, tmp_path):
    scores = {"miou": 0.512, "iou": {"background": 0.9, "cat": None}, "images": 4}
    made_with = {"cams": {"run": "cam", "cams": {"stride": 4}}}
    write_result(tmp_path / "m.json", scores, stage="priors", dataset="tiny", run="pnoc", made_with=made_with)
    found = told(wsss, tmp_path / "m.json")
    assert found["what"] == ["a result file: priors"]
    assert (found["miou"], found["iou background"], found["iou cat"]) == (["0.5120"], ["90.0 %"], ["-"])
    assert found["made with cams"] == ["of run cam"]
    (tmp_path / "m.json").write_text("{")
    assert "is damaged" in wsss("info", tmp_path / "m.json")[1][0]


def test_info_on_a_manifest_says_which_photos_are_gone(wsss, tiny, tmp_path):
    tiny.classes.write(tmp_path / "classes.csv")
    tiny.manifest.write(tmp_path / "manifest" / "train.csv")
    found = told(wsss, tmp_path / "manifest" / "train.csv")
    assert (found["what"], found["images"], found["masks"]) == (["a manifest"], ["8"], ["8"])
    assert found["label 0"][1] == "circle"
    assert told(wsss, tmp_path / "classes.csv")["label 2"] == ["star", "(128, 128, 0)"]
    table = (tmp_path / "manifest" / "train.csv").read_text()
    (tmp_path / "manifest" / "train.csv").write_text(table.replace("image3.png", "gone.png"))
    assert "of which 1 are not there" in told(wsss, tmp_path / "manifest" / "train.csv")["images"][0]
