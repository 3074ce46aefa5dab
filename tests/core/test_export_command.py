"""The command wsss export: files that say what the network says, at any size, and carry their classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import padding
from torch import nn

from wsss_core.base.checkpoints import save_model
from wsss_core.commands import export
from wsss_core.commands.app import main
from wsss_core.commands.export import Exported, _same_padding
from wsss_core.data import make_classes
from wsss_core.data.classes import described
from wsss_core.data.transforms import normalize
from wsss_core.networks.caffe_resnet import CaffeResNet
from wsss_core.segmentation.v2 import DeepLabV2, build_deeplabv2
from wsss_core.segmentation.v3plus_training import build_deeplabv3plus

CLASSES = make_classes(["circle", "square", "star"])


class Small(nn.Module):
    """Logits of four classes at half the size of the input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(3, 4, kernel_size=3, stride=2, padding=1)

    def forward(self, x):
        return self.conv(x)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "load_segmentation", lambda path: Small())
    save_model(tmp_path / "seg.pt", Small(), "segmentation", {"network": "small", "classes": 4, **described(CLASSES)})
    return tmp_path / "seg.pt"


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def wsss(capsys, *words):
    code = main(["export", *map(str, words)])
    out = capsys.readouterr()
    return code, (out.out if code == 0 else out.err).strip()


def by_hand(photo: Path) -> np.ndarray:
    """Class probabilities (4, H, W) of the small network, from the photo's pixels."""
    pixels = np.asarray(Image.open(photo))
    with torch.no_grad():
        logits = Small()(torch.from_numpy(normalize(pixels).transpose(2, 0, 1))[None])
    full = nn.functional.interpolate(logits, pixels.shape[:2], mode="bilinear")
    return full.softmax(1)[0].numpy()


def test_a_program_runs_without_the_project_and_carries_its_classes(checkpoint, photo, tmp_path, capsys):
    code, said = wsss(capsys, checkpoint, "--torch", tmp_path / "seg.pt2", "--photo", photo)
    assert (code, said) == (0, f"{tmp_path / 'seg.pt2'}: its probabilities are the network's to 0")
    extra = {"about.json": ""}
    program = torch.export.load(tmp_path / "seg.pt2", extra_files=extra).module()
    pixels = torch.from_numpy(np.array(Image.open(photo)))
    np.testing.assert_allclose(program(pixels[None])[0].detach().numpy(), by_hand(photo), atol=1e-5)
    assert program(pixels[None, :, :33])[0].shape == (4, 45, 33)
    told = json.loads(extra["about.json"])
    assert told["names"] == ["background", "circle", "square", "star"]
    assert told["colours"] == CLASSES.colours.tolist()


def test_an_onnx_file_says_what_the_network_says(checkpoint, photo, tmp_path, capsys):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    code, said = wsss(capsys, checkpoint, "--onnx", tmp_path / "seg.onnx", "--photo", photo)
    assert code == 0, said
    session = runtime.InferenceSession(tmp_path / "seg.onnx")
    (found,) = session.run(None, {"image": np.array(Image.open(photo))[None]})
    np.testing.assert_allclose(found[0], by_hand(photo), atol=1e-5)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["names"]) == ["background", "circle", "square", "star"]
    assert json.loads(told["normalisation"])["mean"] == [0.485, 0.456, 0.406]


@pytest.mark.e2e
def test_a_real_network_is_exported_both_ways(photo, tmp_path, capsys):
    torch.manual_seed(1)
    network = {"backbone": "test_resnet", "output_stride": 16, "norm": "group", "width": 16}
    recipe = {"network": "v3plus", **network, "classes": 4, **described(CLASSES)}
    save_model(tmp_path / "s.pt", build_deeplabv3plus(**network, classes=4, weights=None), "segmentation", recipe)
    words = ("--torch", tmp_path / "s.pt2", "--onnx", tmp_path / "s.onnx", "--photo", photo)
    assert wsss(capsys, tmp_path / "s.pt", *words)[0] == 0


@pytest.mark.e2e
@pytest.mark.parametrize(("backbone", "option"), [("test_resnet", "--onnx"), ("caffe", "--torch")])
def test_deeplabv2_is_exported(photo, tmp_path, monkeypatch, capsys, backbone, option):
    """Its inputs of three sizes, and of the Caffe network the pooling that rounds up, at photos of any size."""
    torch.manual_seed(1)
    model = build_deeplabv2("test_resnet", classes=4)
    if backbone == "caffe":
        model = DeepLabV2(CaffeResNet(blocks=(1, 1, 1, 1), stage_strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), 4)
        monkeypatch.setattr(export, "load_segmentation", lambda path: model)
    with torch.no_grad():  # a head that was trained is not nearly the same for all classes
        for branch in model.aspp:
            branch.weight.mul_(50)
    recipe = {"network": "v2", "backbone": "test_resnet", "classes": 4, **described(CLASSES)}
    save_model(tmp_path / "s.pt", model, "segmentation", recipe)
    code, said = wsss(capsys, tmp_path / "s.pt", option, tmp_path / "made", "--photo", photo)
    assert code == 0, said
    pixels = np.array(Image.open(photo))
    normalised = torch.from_numpy(normalize(pixels).transpose(2, 0, 1))[None]
    with torch.no_grad():
        logits = nn.functional.interpolate(model.eval()(normalised), pixels.shape[:2], mode="bilinear")
    if option == "--onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "made")
        (found,) = session.run(None, {"image": pixels[None]})
    else:
        with open(tmp_path / "made", "rb") as file:
            found = torch.export.load(file).module()(torch.from_numpy(pixels)[None]).detach().numpy()
    np.testing.assert_allclose(found, logits.softmax(1), atol=1e-3)
    assert logits.softmax(1).max() > 0.5


def test_timms_padding_is_the_same_without_fractions():
    for side in range(1, 70):
        for kernel, stride, dilation in ((2, 2, 1), (3, 2, 1), (7, 2, 1), (3, 1, 2), (2, 1, 1)):
            expected = padding.get_same_padding(side, kernel, stride, dilation)
            assert _same_padding(side, kernel, stride, dilation) == expected


def test_a_file_that_says_something_else_is_not_written(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        export, "_write_program", lambda path, *_: (path.touch(), lambda p: Exported(Small())(p) + 0.1)[1]
    )
    code, said = wsss(capsys, checkpoint, "--torch", tmp_path / "out" / "s.pt2")
    assert code == 2
    assert "s.pt2 is not written: its probabilities differ by 0.1 from the network's" in said
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to write: --onnx FILE or --torch FILE"),
        (["--torch", "photo.png"], "photo.png is there already: add --overwrite"),
        (["--torch", "s.pt2", "--photo", "gone.jpg"], "gone.jpg: the image does not exist"),
        (["--torch", "s.pt2", "--classes", "gone.csv"], "gone.csv: cannot read the table of classes"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(checkpoint, photo, capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    code, said = wsss(capsys, checkpoint, *words)
    assert (code, len(said.splitlines())) == (2, 1)
    assert message in said


def test_missing_libraries_and_other_networks_are_told(checkpoint, tmp_path, monkeypatch, capsys):
    save_model(tmp_path / "c.pt", nn.Linear(2, 2), "classifier", {})
    assert "holds a classifier" in wsss(capsys, tmp_path / "c.pt", "--torch", tmp_path / "c.pt2")[1]
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert "ONNX needs onnxscript: pip install" in wsss(capsys, checkpoint, "--onnx", tmp_path / "s.onnx")[1]


def test_a_network_that_cannot_be_exported_is_told_in_one_line(checkpoint, tmp_path, monkeypatch, capsys):
    class Odd(Small):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x  # what a program cannot follow

    monkeypatch.setattr(export, "load_segmentation", lambda path: Odd())
    code, said = wsss(capsys, checkpoint, "--torch", tmp_path / "s.pt2")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "torch.export does not take this network" in said
