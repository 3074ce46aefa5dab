"""The command wsss init: lists, labels and a config that the pipeline takes, from folders or a table."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from wsss_core.commands.app import main
from wsss_core.commands.project import open_project
from wsss_core.data import make_classes
from wsss_core.data.kinds.folders import manifest_of
from wsss_core.recipes.kinds import completed


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    for seed in range(10):
        draw(Path("photos", ("wren", "robin")[seed % 2], f"p{seed}.jpg"), seed)
    return Path("photos")


@pytest.fixture
def flat(tmp_path):
    for seed in range(6):
        draw(Path("photos", f"p{seed}.png"), seed)
    return Path("photos")


def wsss(capsys, *words):
    code = main(["init", *map(str, words)])
    out = capsys.readouterr()
    return code, (out.out if code == 0 else out.err).strip()


def ids(path):
    return Path(path).read_text().split()


def test_folders_become_lists_and_a_config_that_the_pipeline_takes(folders, capsys):
    code, said = wsss(capsys, folders, "--name", "birds", "--new", "later")
    assert code == 0
    assert "8 photos to train with, 2 held back:" in said
    assert "snakemake --cores all --configfile birds.yaml -- results/birds/own/health.json" in said
    assert "wsss predict results/birds/own/segmentation.pt later" in said
    train, val = ids("birds/train.txt"), ids("birds/val.txt")
    assert (len(train), len(val)) == (8, 2)
    assert sorted(train + val) == [f"p{seed}" for seed in range(10)]
    assert {int(id[1:]) % 2 for id in val} == {0, 1}  # one of each class
    project = open_project([Path("birds.yaml")])
    declared = project.recipes.data_set("birds")
    assert declared["names"] == ["robin", "wren"]
    assert declared["splits"] == {"train": "train", "scored": "train", "val": "val"}
    assert declared["lists"] == {"train": "birds/train.txt", "val": "birds/val.txt", "new": "later"}
    assert project.recipes.flat("birds", "own")["prior.classifier.backbone"] == "resnet50"
    manifest = manifest_of(declared, subset="train", classes=make_classes(declared["names"]), workers=1)
    assert manifest.ids == train
    assert Counter(row.labels for row in manifest) == {(0,): 4, (1,): 4}


def test_few_photos_get_twice_the_epochs(folders, capsys):
    wsss(capsys, folders, "--name", "birds")
    root = open_project().root
    usual = yaml.safe_load((root / "config/own-data.yaml").read_text())["datasets"]["mine"]["settings"]
    epochs = yaml.safe_load(Path("birds.yaml").read_text())["datasets"]["birds"]["settings"]
    for part in (("prior", "classifier"), ("segmentation", "v3plus")):
        assert epochs[part[0]][part[1]]["epochs"] == 2 * usual[part[0]][part[1]]["epochs"]


def test_the_split_follows_the_seed(folders, capsys):
    found = set()
    for seed in (1, 1, 2, 3, 4):
        assert wsss(capsys, folders, "--name", "birds", "--seed", seed, "--overwrite")[0] == 0
        found.add(tuple(ids("birds/val.txt")))
    assert 1 < len(found) < 5


def test_nothing_is_held_back_if_so_asked(folders, capsys):
    assert wsss(capsys, folders, "--val", "0")[0] == 0
    assert len(ids("mine/train.txt")) == 10
    assert not Path("mine/val.txt").exists()
    assert completed(yaml.safe_load(Path("mine.yaml").read_text())["datasets"]["mine"])["splits"]["val"] is None


@pytest.mark.parametrize(
    "table",
    [
        "image_id,classes\np0,a;b\np1,a\np2,b\np3,\n",
        "filename,label\np0.png,a\np0.png,b\np1.png,a\nphotos/p2.png,b\np3.png,\n",
    ],
    ids=["names joined", "a row a class"],
)
def test_a_table_becomes_labels(flat, capsys, table):
    Path("given.csv").write_text(table)
    code, said = wsss(capsys, flat, "--labels", "given.csv", "--val", "0")
    assert code == 0, said
    assert Path("mine/labels.csv").read_text() == "image_id,classes\np0,a;b\np1,a\np2,b\np3,\n"
    declared = open_project([Path("mine.yaml")]).recipes.data_set("mine")
    manifest = manifest_of(declared, subset="train", classes=make_classes(declared["names"]), workers=1)
    assert [row.labels for row in manifest] == [(0, 1), (0,), (1,), ()]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a,b\n1,2\n", "given.csv needs a column of images .* and one of classes .*; it has a, b"),
        ("image,class\np9.png,a\n", "given.csv, line 2: there is no photo p9.png in photos"),
        ("", "given.csv needs a column of images"),
        (None, "given.csv: cannot be read as a table of labels"),
    ],
)
def test_a_table_that_does_not_fit_is_told_in_one_line(flat, capsys, table, message):
    if table is not None:
        Path("given.csv").write_text(table)
    code, said = wsss(capsys, flat, "--labels", "given.csv")
    assert (code, len(said.splitlines())) == (2, 1)
    assert all(part in said for part in message.split(".*"))


def test_photos_without_labels_are_told(flat, capsys):
    assert "name the CSV of their classes with --labels" in wsss(capsys, flat)[1]
    assert "gone: there is no such folder of photos" in wsss(capsys, "gone")[1]


def test_a_photo_that_cannot_be_read_is_told_and_nothing_is_written(folders, capsys):
    Path("photos/wren/p0.jpg").write_bytes(b"no photo")
    code, said = wsss(capsys, folders)
    assert code == 2
    assert "photos/wren/p0.jpg: the image cannot be read" in said
    assert not Path("mine").exists()
    assert not Path("mine.yaml").exists()


def test_nothing_is_replaced_unasked_and_names_are_checked(folders, capsys):
    assert wsss(capsys, folders)[0] == 0
    assert "mine.yaml is there already: choose another --name, or add --overwrite" in wsss(capsys, folders)[1]
    assert wsss(capsys, folders, "--overwrite")[0] == 0
    Path("mine/thesis.txt").touch()
    assert "mine holds more than lists of wsss init" in wsss(capsys, folders, "--overwrite")[1]
    assert "config.yaml has a data set of this name" in wsss(capsys, folders, "--name", "voc")[1]
    assert "use letters, digits, - and _" in wsss(capsys, folders, "--name", "a/b")[1]
