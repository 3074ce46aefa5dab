"""The command wsss predict: any checkpoint on any folder of photos, and what it refuses to write over."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_core.base.checkpoints import save_model
from wsss_core.commands.app import main
from wsss_core.commands.predict import _shares
from wsss_core.data import Classes, Row, make_classes, read_mask, write_mask
from wsss_core.data.classes import classes_of, described
from wsss_core.data.photos import manifest_of_photos
from wsss_core.instances.maskrcnn import build_maskrcnn
from wsss_core.instances.store import InstanceStore
from wsss_core.recipes.settings import PredictionSettings
from wsss_core.segmentation.prediction import predict_masks
from wsss_core.segmentation.training import load_segmentation
from wsss_core.segmentation.v3plus import DeepLabV3Plus
from wsss_core.segmentation.v3plus_training import build_deeplabv3plus

CLASSES = make_classes(["circle", "square", "star"])
QUICK = ("--scales", "1", "--no-crf", "--device", "cpu", "--workers", "1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(1)
    network = {"backbone": "test_resnet", "output_stride": 16, "norm": "group", "width": 16}
    model = build_deeplabv3plus(**network, classes=4, weights=None)
    assert isinstance(model, DeepLabV3Plus)
    path = tmp_path_factory.mktemp("checkpoint") / "segmentation.pt"
    save_model(path, model, "segmentation", {"network": "v3plus", **network, "classes": 4, **described(CLASSES)})
    return path


@pytest.fixture
def photos(tmp_path):
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for name, size in (("a.png", (40, 56)), ("b.JPG", (64, 48)), ("c.tif", (33, 35))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)).save(folder / "turned.jpg", exif=turned)
    return folder


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def predict(checkpoint, photos, out, *further):
    return main(["predict", *map(str, (checkpoint, photos, "-o", out, *QUICK, *further))])


def test_masks_are_those_of_the_pipeline_and_shares_count_their_pixels(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(checkpoint, photos, out, "--overlay") == 0
    assert "4 photos predicted into" in capsys.readouterr().out
    manifest, faults = manifest_of_photos(photos)
    assert (manifest.ids, faults) == (["a", "b", "c", "turned"], [])
    predict_masks(
        model=load_segmentation(checkpoint), manifest=manifest, classes=CLASSES, folder=tmp_path / "masks",
        settings=PredictionSettings(scales=(1.0,), mirror=True, crf_iterations=0), device=torch.device("cpu"),
    )  # fmt: skip
    rows = {row["image_id"]: row for row in table(out / "shares.csv")}
    known = Classes.read(out / "classes.csv")
    for row in manifest:
        assert (out / "masks" / f"{row.id}.png").read_bytes() == (tmp_path / "masks" / f"{row.id}.png").read_bytes()
        mask = read_mask(out / "masks" / f"{row.id}.png", known)
        told = rows[row.id]
        assert mask.shape == (int(told["height"]), int(told["width"])) == (row.height, row.width)
        for value, name in enumerate(("background", "circle", "square", "star")):
            assert float(told[name]) == pytest.approx((mask == value).mean(), abs=1e-6)
        with Image.open(out / "overlays" / f"{row.id}.jpg") as drawn:
            assert drawn.size == (row.width, row.height)
    assert rows["turned"]["height"] == "48"
    about = json.loads((out / "prediction.json").read_text())
    assert about["settings"] == {"scales": [1.0], "mirror": True, "crf_iterations": 0}
    assert about["skipped"] == []


def test_an_overlay_leaves_the_background_as_it_is(tmp_path):
    grey, mask = np.full((20, 40, 3), 100, np.uint8), np.zeros((20, 40), np.uint8)
    mask[:, 16:] = 1  # circles, whose colour is (128, 0, 0)
    Image.fromarray(grey).save(tmp_path / "a.png")
    write_mask(tmp_path / "masks/a.png", mask, CLASSES)
    (tmp_path / "overlays").mkdir()
    shares = _shares(Row("a", str(tmp_path / "a.png"), "", 20, 40, ()), folder=tmp_path, classes=CLASSES, overlay=True)
    assert shares == [0.4, 0.6, 0, 0]
    with Image.open(tmp_path / "overlays/a.jpg") as drawn:
        pixels = np.asarray(drawn, float)
    assert np.abs(pixels[:, :8] - 100).max() < 4
    assert np.abs(pixels[:, 32:] - (114, 50, 50)).max() < 4


def test_larger_photos_are_worked_on_reduced_and_their_masks_have_their_own_size(checkpoint, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (200, 130), "red").save(tmp_path / "photos/large.png")
    assert predict(checkpoint, tmp_path / "photos", tmp_path / "out", "--longest-side", "64") == 0
    mask = read_mask(tmp_path / "out/masks/large.png", CLASSES)
    assert mask.shape == (130, 200)
    columns = (2 * np.arange(200) + 1) * 64 // 400  # as nearest gives it
    assert all((mask[:, columns == one] == mask[:, columns == one][:, :1]).all() for one in range(64))


def test_a_photo_that_cannot_be_read_is_named_and_left_out(checkpoint, photos, tmp_path, capsys):
    (photos / "bad.jpg").write_bytes((photos / "b.JPG").read_bytes()[:300])
    assert predict(checkpoint, photos, tmp_path / "out") == 1
    assert "skipped" in (said := capsys.readouterr().out)
    assert "bad.jpg" in said
    assert len(table(tmp_path / "out/shares.csv")) == 4
    assert "bad.jpg" in json.loads((tmp_path / "out/prediction.json").read_text())["skipped"][0]


def refused(capsys, *arguments):
    capsys.readouterr()
    assert predict(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_nothing_is_replaced_that_was_not_predicted_before(checkpoint, photos, tmp_path, capsys):
    assert f"{photos} holds the photos themselves" in refused(capsys, checkpoint, photos, photos, "--overwrite")
    assert "holds the photos themselves" in refused(capsys, checkpoint, photos, tmp_path, "--overwrite")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    for words in ([], ["--overwrite"]):
        said = refused(capsys, checkpoint, photos, tmp_path / "thesis", *words)
        assert "is there already and is no earlier prediction" in said
    assert predict(checkpoint, photos, tmp_path / "out") == 0
    (photos / "a.png").unlink()
    assert "add --overwrite" in refused(capsys, checkpoint, photos, tmp_path / "out")
    assert predict(checkpoint, photos, tmp_path / "out", "--overwrite") == 0
    assert not (tmp_path / "out/masks/a.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scales", "1,x"], "--scales 1,x: it takes numbers above 0"),
        (["--device", "gpu"], "--device gpu: it takes auto, cpu, cuda"),
        (["--device", "cuda:99"], "--device cuda:99: PyTorch"),
        (["--classes", "gone.csv"], "gone.csv: cannot read the table of classes"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(checkpoint, photos, tmp_path, capsys, words, message):
    assert message in refused(capsys, checkpoint, photos, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_promised_and_cannot_be_used_is_told(checkpoint, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("WSSS_ALLOW_CPU", raising=False)
    said = refused(capsys, checkpoint, photos, tmp_path / "out", "--device", "auto")
    assert "this job was given a GPU (CUDA_VISIBLE_DEVICES=3)" in said
    assert said.endswith("; or say --device cpu")


def test_folders_without_photos_are_told_apart(checkpoint, photos, tmp_path, capsys):
    assert "there are some in" in refused(capsys, checkpoint, tmp_path, tmp_path / "out")
    assert "the folder of photos does not exist" in refused(capsys, checkpoint, tmp_path / "gone", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "there is no photo in it" in refused(capsys, checkpoint, tmp_path / "empty", tmp_path / "out")
    Image.new("RGB", (8, 8)).save(photos / "a.jpg")
    assert "would both be a.png" in refused(capsys, checkpoint, photos, tmp_path / "out")


def test_checkpoints_that_predict_nothing_or_name_no_classes_are_refused(checkpoint, photos, tmp_path, capsys):
    save_model(tmp_path / "classifier.pt", torch.nn.Linear(2, 2), "classifier", {})
    said = refused(capsys, tmp_path / "classifier.pt", photos, tmp_path / "out")
    assert "holds a classifier, which predicts nothing by itself" in said
    content = torch.load(checkpoint, weights_only=True)
    del content["recipe"]["names"]
    torch.save(content, tmp_path / "old.pt")
    assert "does not name its classes" in refused(capsys, tmp_path / "old.pt", photos, tmp_path / "out")
    make_classes(["one", "two"]).write(tmp_path / "classes.csv")
    wrong = ("--classes", tmp_path / "classes.csv")
    assert "has 2 classes, the network 3" in refused(capsys, tmp_path / "old.pt", photos, tmp_path / "out", *wrong)
    CLASSES.write(tmp_path / "classes.csv")
    assert predict(tmp_path / "old.pt", photos, tmp_path / "out", *wrong) == 0


def test_a_maskrcnn_writes_instances(photos, tmp_path):
    torch.manual_seed(0)
    network = {
        "backbone": "test_resnet", "classes": 4, "width": 8, "shorter_side": 48, "longest_side": 72,
        "training_proposals": 20, "test_proposals": 20, "samples": 8, "frozen": "none", "batch_norm": "trained",
    }  # fmt: skip
    save_model(tmp_path / "m.pt", build_maskrcnn(**network), "maskrcnn", {"network": network, **described(CLASSES)})
    assert predict(tmp_path / "m.pt", photos, tmp_path / "out", "--overlay") == 0
    store = InstanceStore(tmp_path / "out/instances.zarr")
    rows = table(tmp_path / "out/counts.csv")
    assert [row["image_id"] for row in rows] == list(store) == ["a", "b", "c", "turned"]
    for row in rows:
        found = store[row["image_id"]]
        assert int(row["star"]) == ((found.scores >= 0.3) & (found.labels == 2)).sum()
        assert (tmp_path / "out/overlays" / f"{row['image_id']}.jpg").exists()
    images = json.loads((tmp_path / "out/instances.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.png", "b.JPG", "c.tif", "turned.jpg"]


def test_what_a_checkpoint_says_of_classes_is_read_back():
    again = classes_of(described(CLASSES))
    assert again.names == CLASSES.names
    assert np.array_equal(again.colours, CLASSES.colours)
