"""Checkpoints and files of weights: damage that torch does not see, numbers that are not finite, disks that fail."""

import errno

import pytest
import torch
from torch import nn

from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.networks.backbones import read_state

KIND = "classifier"


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    save_model(tmp_path / "model.pt", model, KIND, {"classes": 3})
    return tmp_path / "model.pt"


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_is_found_or_does_no_harm(saved, bit):
    content, (recipe, state) = saved.read_bytes(), read_model(saved, KIND)
    places = [*range(0, len(content), 13), *range(len(content) - 100, len(content))]
    found = harmless = 0
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        saved.write_bytes(flipped)
        try:
            again = read_model(saved, KIND)
        except ValueError as error:
            message = str(error)
            found += f"{saved} is damaged (" in message and message.endswith("): delete it and run its rule again")
            with pytest.raises(ValueError, match=r"model\.pt is (damaged|not a readable weights file) "):
                read_state(saved)
        else:
            harmless += again[0] == recipe and same(again[1], state) and same(read_state(saved)["state"], state)
    assert found + harmless == len(places)
    assert found > 100


def test_a_flipped_bit_of_a_weight_names_its_member(saved):
    weight = read_model(saved, KIND)[1]["0.weight"].numpy().tobytes()
    content = bytearray(saved.read_bytes())
    content[content.index(weight) + 5] ^= 1
    saved.write_bytes(content)
    assert torch.load(saved, weights_only=True)  # torch sees nothing
    with pytest.raises(ValueError, match=r"model\.pt is damaged \(member .*/data/0 .*: delete it and run"):
        read_model(saved, KIND)
    with pytest.raises(ValueError, match=r"model\.pt is damaged \(member .*/data/0 .*: download it again"):
        read_state(saved)


def test_files_of_old_versions_of_pytorch_pass(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_state(tmp_path / "old.pth"), {"weight": torch.ones(2)})


@pytest.mark.parametrize("read", [lambda path: read_model(path, KIND), read_state], ids=["read_model", "read_state"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
def test_a_failure_to_read_is_not_called_damage(saved, monkeypatch, read, number):
    def fail(archive):
        raise OSError(number, "of the disk")

    monkeypatch.setattr("zipfile.ZipFile.testzip", fail)
    with pytest.raises(OSError, match=rf"^\[Errno {number}\] of the disk: '.*model\.pt'$"):
        read(saved)


# --- numbers that are not finite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_network_is_not_saved(tmp_path, value):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[1].running_var[0] = value
    message = r"model\.pt is not written: 1 of its 7 tensors are not finite, the first is 1\.running_var; lower"
    with pytest.raises(FloatingPointError, match=message):
        save_model(tmp_path / "model.pt", model, KIND, {})
    assert list(tmp_path.iterdir()) == []


def test_a_broken_network_is_not_read(saved):
    content = torch.load(saved, weights_only=True)
    content["state"]["0.bias"][3] = torch.nan
    torch.save(content, saved)
    with pytest.raises(FloatingPointError, match=r"model\.pt holds a broken network: .* 0\.bias; delete it"):
        read_model(saved, KIND)
