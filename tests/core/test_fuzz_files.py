"""Random damage to what the stages leave behind: refused with the file's name, or read as what it was."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from damage import CASES, damaged, kept_within
from safetensors.torch import save_file
from torch import nn

from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.data import Manifest
from wsss_core.fitting import loop
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit
from wsss_core.fitting.optim import PolySGD
from wsss_core.fitting.precision import Precision
from wsss_core.maps.store import MapStore, StoreError
from wsss_core.networks.backbones import read_state

pytestmark = pytest.mark.fuzz

KIND = "classifier"
SLOW_CASES = CASES // 2


@pytest.fixture(autouse=True)
def watched(tmp_path):
    with kept_within(tmp_path):
        yield


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def check_message(text: str, path: Path) -> None:
    assert str(path) in text
    assert len(text.splitlines()) == 1, text
    assert len(text) < 1000, text


def attack(path: Path, read: Callable[[], object], check: Callable[[object], bool] = lambda found: True) -> None:
    """Read a file's damaged versions: a ValueError of one line with the file's name, or what passes the check."""
    content, refused = path.read_bytes(), 0
    for seed in range(CASES):
        path.write_bytes(damaged(content, random.Random(f"{path.name} {seed}")))
        case = f"{path.name}, seed {seed}"
        try:
            found = read()
        except ValueError as error:
            refused += 1
            check_message(str(error), path)
        except Exception as error:
            raise AssertionError(case) from error
        else:
            assert path.read_bytes() == content or check(found), case
    assert refused > CASES // 2


def test_damaged_checkpoints(tmp_path):
    path = tmp_path / "model.pt"
    save_model(path, network(), KIND, {"classes": 3})
    recipe, state = read_model(path, KIND)
    attack(path, lambda: read_model(path, KIND), lambda found: found[0] == recipe and same(found[1], state))


def test_damaged_files_of_weights_with_checksums(tmp_path):
    path = tmp_path / "weights.pth"
    state = network().state_dict()
    torch.save(state, path)
    attack(path, lambda: read_state(path), lambda found: same(found, state))


@pytest.mark.parametrize("name", ["weights.safetensors", "old.pth"])
def test_damaged_files_of_weights_without_checksums(tmp_path, name):
    """Damage within a tensor cannot be seen there; all else is a refusal."""
    path = tmp_path / name
    if name == "old.pth":
        torch.save(network().state_dict(), path, _use_new_zipfile_serialization=False)
    else:
        save_file(network().state_dict(), path)
    attack(path, lambda: read_state(path), lambda found: isinstance(found, dict))


# --- stores --------------------------------------------------------------------------------------------------------


def everything(path: Path) -> list[tuple]:
    store = MapStore(path)
    about = sorted(map(str, store.about.items()))
    return [*about, *((id, store.size(id), *(array.tobytes() for array in store[id])) for id in store)]


def spoilt(path: Path, rng: random.Random) -> None:
    """Damage, lose or exchange files of a store."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file, other = rng.sample(files, 2)
    kind = rng.choice(("damaged",) * 5 + ("gone", "folder gone", "another", "empty"))
    if kind == "damaged":
        file.write_bytes(damaged(file.read_bytes(), rng))
    elif kind == "gone":
        file.unlink()
    elif kind == "folder gone":
        shutil.rmtree(file.parent)
    elif kind == "another":
        shutil.copyfile(other, file)
    else:
        file.write_bytes(b"")


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_damaged_stores(tiny, tmp_path, random_maps, write_store, dtype):
    manifest = Manifest.of(tiny.manifest.rows[:3])
    sound, path, refused = tmp_path / "sound.zarr", tmp_path / "cams.zarr", 0
    write_store(sound, manifest, random_maps(manifest), dtype=dtype)
    expected = everything(sound)
    for seed in range(SLOW_CASES):
        shutil.copytree(sound, path)
        spoilt(path, random.Random(f"{dtype} {seed}"))
        try:
            found = everything(path)
        except StoreError as error:
            refused += 1
            check_message(str(error), path)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        else:
            assert found == expected, seed
        shutil.rmtree(path, ignore_errors=True)
    assert refused > SLOW_CASES // 2


# --- states to resume from -----------------------------------------------------------------------------------------


class Numbers:
    rows = tuple(SimpleNamespace(id=f"image{index}") for index in range(4))

    def __len__(self):
        return 4

    def sample(self, index, rng):
        return {"x": torch.from_numpy(rng.standard_normal(3)).float()}


def train(output: Path, epochs: int) -> tuple[dict, list[float]]:
    """The weights and the losses of a training with dropout, in epochs of one batch."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = PolySGD([{"params": list(net.parameters()), "lr": 0.1}], updates=3, momentum=0.9)
    scaler = Precision("float32", torch.device("cpu")).scaler()

    def step(batch, number):
        loss = (net(batch["x"]) ** 2).mean()
        loss.backward()
        optimizer.step(scaler)
        return {"loss": loss.detach()}

    fit(
        step=step,
        loader=EpochLoader(Numbers(), batch_size=4, seed=0, workers=0),
        epochs=epochs,
        state={"model": net, "optimizer": optimizer, "scaler": scaler},
        output=output,
        digest="d",
        lr=lambda: optimizer.lr,
    )
    history = pd.read_csv(output.with_suffix(".history.csv"))
    return {name: value.clone() for name, value in net.state_dict().items()}, history["loss"].tolist()


def test_damaged_states_to_resume_from(tmp_path, monkeypatch, caplog):
    """The training ends in the same weights whether the state is gone on from or not."""
    events = SimpleNamespace(add_scalar=lambda *_: None, close=lambda: None)
    monkeypatch.setattr(loop, "SummaryWriter", lambda folder, purge_step=None: events)
    monkeypatch.setattr(loop, "PACKAGE", tmp_path / "code")
    weights, losses = train(tmp_path / "at_once.pt", 3)
    train(tmp_path / "net.pt", 2)
    state = tmp_path / "net.resume.pt"
    content, warned = state.read_bytes(), 0
    for seed in range(SLOW_CASES):
        state.write_bytes(damaged(content, random.Random(f"state {seed}")))
        caplog.clear()
        with caplog.at_level("WARNING"):
            found, history = train(tmp_path / "net.pt", 3)
        assert same(found, weights), seed
        assert np.allclose(history, losses, rtol=0, atol=0), seed
        assert len(caplog.records) < 2, seed
        warned += any(str(state) in line and len(line.splitlines()) == 1 for line in caplog.messages)
    assert warned > SLOW_CASES // 2
