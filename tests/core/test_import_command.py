"""The command wsss import: files as P-NOC's authors publish them, written here, become the classifier of a run."""

from pathlib import Path

import pytest
import torch
import yaml

from wsss_core.base.checkpoints import read_model
from wsss_core.classifiers.network import build_classifier, load_classifier
from wsss_core.commands.app import main
from wsss_core.data import make_classes

STAGES = {"conv1": "stage1.0", "bn1": "stage1.1"} | {f"layer{part}": f"stage{part + 1}.0" for part in (1, 2, 3, 4)}


@pytest.fixture
def trained():
    torch.manual_seed(5)
    return build_classifier("test_resnet", 3, output_stride=16, weights=None)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a config of a data set of three classes, its table of classes and its manifest."""
    monkeypatch.chdir(tmp_path)
    declared = {"kind": "folders", "images": "i", "labels": "l.csv", "names": ["circle", "square", "star"]}
    declared["settings"] = {"prior": {"classifier": {"backbone": "test_resnet"}}}
    Path("my.yaml").write_text(yaml.safe_dump({"datasets": {"my": declared}}))
    make_classes(declared["names"]).write("results/my/classes.csv")
    Path("results/my/manifest").mkdir()
    Path("results/my/manifest/train.csv").touch()
    return tmp_path


def published(model, layout="both", prefix=""):
    """The state dict of the authors' module: the backbone as ``model`` and a second time as five stages."""
    state = {}
    for name, value in model.backbone.network.state_dict().items():
        part, _, rest = name.partition(".")
        if layout != "stages":
            state[f"{prefix}model.{name}"] = value
        if layout != "model":
            state[f"{prefix}{STAGES[part]}.{rest}"] = value
    return state | {f"{prefix}classifier.weight": model.head.weight.detach()}


def wsss(capsys, *words):
    code = main(["import", *map(str, words), "--configfile", "my.yaml"])
    out = capsys.readouterr()
    return code, (out.out if code == 0 else out.err).strip()


@pytest.mark.parametrize("layout", ["both", "model", "stages"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_released_classifier_looks_at_images_as_before(place, trained, capsys, layout, prefix):
    torch.save(published(trained, layout, prefix), "released.pth")
    code, said = wsss(capsys, "released.pth", "my", "cam")
    assert code == 0, said
    assert (
        said == "results/my/cam/classifier.pt: next, such as snakemake --cores all -- results/my/cam/priors_miou.json"
    )
    images = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = trained.eval().cams(images)
        found = load_classifier("results/my/cam/classifier.pt").eval().cams(images)
    assert expected.max() > 0
    assert torch.equal(found, expected)
    recipe, _ = read_model("results/my/cam/classifier.pt", "classifier")
    assert (recipe["names"], recipe["imported"]) == (["circle", "square", "star"], "released.pth")


def test_what_does_not_fit_is_told_in_one_line(place, trained, capsys):
    state = published(trained)
    larger = torch.zeros(20, *state["classifier.weight"].shape[1:])
    foreign = "is no released classifier with the backbone test_resnet"
    unknown = "1 unknown, 0 of another shape, such as backbone.network.aspp.weight"
    cases = [
        (state | {"classifier.weight": larger}, "has 20 classes, the data set 3"),
        ({name: value for name, value in state.items() if "layer4" not in name}, foreign),
        ({"weight": torch.ones(1)}, foreign),
        (state | {"model.aspp.weight": torch.ones(1)}, unknown),
    ]
    for content, message in cases:
        torch.save(content, "released.pth")
        code, said = wsss(capsys, "released.pth", "my", "cam")
        assert (code, len(said.splitlines())) == (2, 1)
        assert message in said
    Path("released.pth").write_bytes(b"no file of torch")
    assert "is not a readable weights file" in wsss(capsys, "released.pth", "my", "cam")[1]
    assert "does not exist" in wsss(capsys, "gone.pth", "my", "cam")[1]
    assert not Path("results/my/cam").exists()


def test_a_classifier_is_not_replaced_unasked_and_needs_what_it_is_made_from(place, trained, capsys):
    torch.save(published(trained), "released.pth")
    Path("results/my/manifest/train.csv").unlink()
    said = wsss(capsys, "released.pth", "my", "cam")[1]
    assert "make results/my/manifest/train.csv first" in said
    Path("results/my/manifest/train.csv").touch()
    assert wsss(capsys, "released.pth", "my", "cam")[0] == 0
    assert "is there already: add --overwrite" in wsss(capsys, "released.pth", "my", "cam")[1]
    assert wsss(capsys, "released.pth", "my", "cam", "--overwrite")[0] == 0


def test_a_run_that_takes_its_classifier_from_another_is_told_which(place, trained, capsys):
    config = yaml.safe_load(Path("my.yaml").read_text())
    config["runs"] = {"again": {"extends": "cam", "segmentation": "v2"}}
    Path("my.yaml").write_text(yaml.safe_dump(config))
    torch.save(published(trained), "released.pth")
    assert "again takes its classifier from cam: import it there" in wsss(capsys, "released.pth", "my", "again")[1]
