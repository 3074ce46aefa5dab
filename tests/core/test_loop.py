"""What every training shares: resuming, history, refusals."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from wsss_core.classifiers import training as classifier
from wsss_core.classifiers.training import train_classifier
from wsss_core.data import Manifest, Row
from wsss_core.fitting import loop
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit
from wsss_core.fitting.optim import PolySGD, parameter_groups
from wsss_core.fitting.precision import Precision
from wsss_core.fitting.record import LossRecord

CPU = torch.device("cpu")
EPOCHS = 3


class Noise(Dataset):
    """Ten samples, five batches of two: an odd number, so that epochs end in the middle of an accumulation."""

    rows = tuple(Row(f"image{index}", "", "", 1, 1, ()) for index in range(10))

    def __len__(self):
        return 10

    def sample(self, index, rng):
        return {"x": torch.from_numpy(rng.standard_normal(4)).float() + index, "index": index}


class Training:
    """A network with dropout, which draws from torch's generator, trained with an accumulation of two."""

    def __init__(self, seed: int = 0, workers: int = 0):
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.loader = EpochLoader(Noise(), batch_size=2, seed=seed, workers=workers)
        groups = parameter_groups(self.net, [self.net[3]], 0.01, 1e-3)
        self.optimizer = PolySGD(groups, updates=EPOCHS * len(self.loader) // 2, momentum=0.5)
        self.scaler = Precision("float32", CPU).scaler()
        self.steps: list[int] = []
        self.epochs_over: list[int] = []
        self.dies_at: int | None = None
        self.more: dict = {}  # parts of its state

    def __call__(self, batch, step):
        if step == self.dies_at:
            raise KeyboardInterrupt("killed")
        self.steps.append(step)
        loss = (self.net(batch["x"]) ** 2).mean()
        loss.backward()
        if (step + 1) % 2 == 0:
            self.optimizer.step(self.scaler)
        parts = {"loss": loss.detach()}
        return parts | {"even": torch.tensor(step / 8)} if step % 2 == 0 else parts

    def fit(self, output: Path, digest: str = "d", epochs: int = EPOCHS) -> dict[str, torch.Tensor]:
        fit(
            step=self,
            loader=self.loader,
            epochs=epochs,
            state={"model": self.net, "optimizer": self.optimizer, "scaler": self.scaler, **self.more},
            output=output,
            digest=digest,
            lr=lambda: self.optimizer.lr,
            after_epoch=self.epochs_over.append,
        )
        return {name: value.clone() for name, value in self.net.state_dict().items()}

    def killed(self, output: Path, at: int, digest: str = "d") -> None:
        self.dies_at = at
        with pytest.raises(KeyboardInterrupt):
            self.fit(output, digest)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def at_once(tmp_path) -> dict[str, torch.Tensor]:
    """The weights of a training that nobody stops."""
    return Training().fit(tmp_path / "at_once" / "net.pt")


@pytest.mark.parametrize("dies_at", [5, 8, 12], ids=["between epochs", "in the second", "in the third"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_training_ends_in_the_same_weights(tmp_path, at_once, dies_at, workers):
    output = tmp_path / "net.pt"
    Training(workers=workers).killed(output, dies_at)
    torch.manual_seed(99)  # the state of another process
    resumed = Training(workers=workers)
    torch.rand(7)
    weights = resumed.fit(output)
    assert resumed.steps == list(range(dies_at // 5 * 5, 15))
    assert same(weights, at_once)


def test_a_training_killed_in_its_first_epoch_starts_afresh(tmp_path, at_once):
    output = tmp_path / "net.pt"
    Training().killed(output, 3)
    assert not output.with_suffix(".resume.pt").exists()
    assert same(Training().fit(output), at_once)


def test_a_finished_training_whose_checkpoint_is_lost_has_nothing_left_to_do(tmp_path, at_once):
    output = tmp_path / "net.pt"
    Training().fit(output)
    again = Training(seed=4)
    assert same(again.fit(output), at_once)
    assert again.steps == []
    assert len(pd.read_csv(tmp_path / "net.history.csv")) == EPOCHS


@pytest.mark.parametrize(("at", "first"), [(12, 10), (None, 0)], ids=["not finished", "finished"])
def test_edited_code_goes_on_with_a_training_and_trains_a_finished_one_again(tmp_path, monkeypatch, at, first):
    output = tmp_path / "net.pt"
    Training().killed(output, at) if at else Training().fit(output)
    (tmp_path / "edited.py").write_text("other = 'code'")
    monkeypatch.setattr(loop, "PACKAGE", tmp_path)
    again = Training()
    again.fit(output)
    assert again.steps[0] == first


def damage(content: bytes, kind: str) -> bytes:
    if kind == "flipped in its weights":
        name = b"/data/0"
        place = content.index(name) + len(name)
        place += -place % 64  # data are aligned
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    return {
        "flipped at its start": bytes([content[0] ^ 1]) + content[1:],
        "flipped at its end": content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
        "cut short": content[: len(content) // 2],
        "empty": b"",
    }[kind]


@pytest.mark.parametrize(
    "kind", ["flipped in its weights", "flipped at its start", "flipped at its end", "cut short", "empty"]
)
def test_a_damaged_state_is_named_and_the_training_starts_afresh(tmp_path, at_once, caplog, kind):
    output = tmp_path / "net.pt"
    Training().killed(output, 12)
    state = tmp_path / "net.resume.pt"
    state.write_bytes(damage(state.read_bytes(), kind))
    torch.manual_seed(99)
    again = Training()
    with caplog.at_level("WARNING"):
        assert same(again.fit(output), at_once)
    assert again.steps == list(range(15))
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [f"{state} is damaged"]
    assert caplog.text.rstrip().endswith("starting from the first epoch")
    assert len(pd.read_csv(tmp_path / "net.history.csv")) == EPOCHS
    assert Training().fit(output).keys() == at_once.keys()  # the state is whole again


def test_flipped_bytes_of_a_state_never_train_on_with_other_numbers(tmp_path, at_once):
    output = tmp_path / "net.pt"
    Training().killed(output, 12)
    state = tmp_path / "net.resume.pt"
    content = state.read_bytes()
    for place in range(0, len(content), len(content) // 40):
        state.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert same(Training().fit(output), at_once), place


def test_a_state_that_cannot_be_read_is_no_damage(tmp_path, monkeypatch):
    output = tmp_path / "net.pt"
    Training().killed(output, 12)

    def failing(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(loop, "check_zip", failing)
    with pytest.raises(PermissionError, match=r"Permission denied: .*net\.resume\.pt"):
        Training().fit(output)


def test_other_settings_or_data_start_afresh(tmp_path, at_once):
    output = tmp_path / "net.pt"
    Training().killed(output, 12, digest="other")
    resumed = Training()
    assert same(resumed.fit(output), at_once)
    assert resumed.steps[0] == 0
    assert len(pd.read_csv(tmp_path / "net.history.csv")) == EPOCHS


def test_the_history_has_a_row_an_epoch_also_after_a_resume(tmp_path):
    output = tmp_path / "net.pt"
    Training().killed(output, 12)
    assert pd.read_csv(tmp_path / "net.history.csv")["epoch"].tolist() == [1, 2]
    Training().fit(output)
    Training().fit(tmp_path / "at_once.pt")
    history, reference = pd.read_csv(tmp_path / "net.history.csv"), pd.read_csv(tmp_path / "at_once.history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    same_columns = ["epoch", "loss", "even", "lr"]
    pd.testing.assert_frame_equal(history[same_columns], reference[same_columns])
    assert list((tmp_path / "net.tensorboard").glob("events*"))


def test_what_follows_an_epoch_is_done_once_for_each_also_after_a_resume(tmp_path):
    output = tmp_path / "net.pt"
    killed, resumed = Training(), Training()
    killed.killed(output, 12)
    assert killed.epochs_over == [1, 2]
    resumed.fit(output)
    assert resumed.epochs_over == [3]


class FullDisk(list):
    def append(self, epoch):
        raise OSError("no space left")


def test_an_epoch_is_not_over_before_what_follows_it(tmp_path):
    """What follows may write files: killed there, the epoch is done again."""
    output = tmp_path / "net.pt"
    killed = Training()
    killed.epochs_over = FullDisk()
    with pytest.raises(OSError, match="no space left"):
        killed.fit(output)
    assert killed.steps == list(range(5))
    resumed = Training()
    resumed.fit(output)
    assert resumed.epochs_over == [1, 2, 3]


def test_a_loss_part_is_averaged_over_the_steps_that_have_it(tmp_path):
    Training().fit(tmp_path / "net.pt", epochs=2)
    history = pd.read_csv(tmp_path / "net.history.csv")
    assert history["even"].tolist() == [(0 + 2 + 4) / 3 / 8, (6 + 8) / 2 / 8]


class Losses:
    """A training whose step gives the losses of a table, by the number of the step, and 1 elsewhere."""

    def __init__(self, table: dict[int, float]):
        self.table, self.seen = table, []
        self.loader = EpochLoader(Noise(), batch_size=2, seed=3, workers=0)

    def __call__(self, batch, number):
        self.seen.append([f"image{index}" for index in batch["index"].tolist()])
        return {"good": torch.tensor(1.0), "bad": torch.tensor(self.table.get(number, 1.0))}

    def fit(self, output: Path) -> None:
        fit(step=self, loader=self.loader, epochs=EPOCHS, state={}, output=output, digest="",
            lr=lambda: 0.5 / (1 + len(self.seen)))  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_loss_stops_with_its_step_rate_and_images(tmp_path, monkeypatch, value):
    monkeypatch.setattr(loop, "LOOKS", 1)  # in the whole training: what was broken first is known all the same
    training = Losses({7: value, 8: float("nan")})
    with pytest.raises(FloatingPointError) as found:
        training.fit(tmp_path / "net.pt")
    assert str(found.value) == (
        f"the loss bad of net.pt is {value} in epoch 2, step 3 of 5, at a learning rate of 0.0625, on the images "
        f"{', '.join(training.seen[7])}: lower its learning_rate, or set precision to float32, in config.yaml"
    )
    assert len(training.seen) == 10  # nothing was waited for before the epoch was over
    assert len(pd.read_csv(tmp_path / "net.history.csv")) == 1  # what was good is kept


def test_of_several_broken_losses_that_of_the_first_step_is_named():
    record = LossRecord({})
    for step, (one, other) in enumerate([(1.0, 2.0), (1.0, float("nan")), (float("inf"), 1.0)]):
        record.add({"one": torch.tensor(one), "other": torch.tensor(other)}, rate=float(step))
    fault = record.fetch()
    assert fault[:3] == (1, 1.0, "other")
    record.add({"one": torch.tensor(float("inf"))}, rate=5.0)
    assert record.fetch()[:3] == (3, 5.0, "one")


def test_a_step_without_a_loss_counts_as_a_step():
    record = LossRecord({})
    for step in range(4):
        record.add({"even": torch.tensor(float("nan") if step == 2 else 1.0)} if step % 2 == 0 else {}, rate=0.1)
    assert record.fetch().step == 2


def test_an_explosion_that_stays_finite_stops_the_training(tmp_path):
    with pytest.raises(FloatingPointError, match=r"^net\.pt has diverged in epoch 2: bad 1e\+09 \(at first 2\); lower"):
        Losses({0: 2.0, **dict.fromkeys(range(5, 8), 1e9)}).fit(tmp_path / "net.pt")
    assert pd.read_csv(tmp_path / "net.history.csv")["epoch"].tolist() == [1, 2]
    assert torch.load(tmp_path / "net.resume.pt")["epoch"] == 1  # what exploded is not gone on from


@pytest.mark.parametrize(
    "table",
    [{7: 1e9, 8: -1e9}, {0: 1e-6, **dict.fromkeys(range(1, 10), 90.0)}, dict.fromkeys(range(15), 1e6)],
    ids=["wild steps", "a loss that grows from nothing", "a loss of large numbers"],
)
def test_what_training_may_do_raises_no_alarm(tmp_path, caplog, table):
    with caplog.at_level("WARNING"):
        Losses(table).fit(tmp_path / "net.pt")
    assert not caplog.records


def test_what_a_resumed_training_diverges_from_is_its_very_first_step(tmp_path):
    with pytest.raises(RuntimeError, match="dtype"):
        Losses({0: 2.0, 5: None}).fit(tmp_path / "net.pt")
    resumed = Losses(dict.fromkeys(range(15), 250.0))
    with pytest.raises(FloatingPointError, match=r"in epoch 2: bad 250 \(at first 2\)"):
        resumed.fit(tmp_path / "net.pt")
    assert len(resumed.seen) == 5


def test_losses_that_end_far_above_their_start_are_warned_of(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        Losses(dict.fromkeys(range(8, 15), 7.0)).fit(tmp_path / "net.pt")
    assert [record.getMessage() for record in caplog.records] == [
        "losses of net.pt ended far above where they began: bad 7 (at first 1); if its maps are of no use, lower its "
        "learning_rate, or set precision to float32, in config.yaml"
    ]


# --- states of other code ------------------------------------------------------------------------------------------


def other_layers(training: Training) -> None:
    training.net[3] = nn.Linear(8, 2)


def other_names(training: Training) -> None:
    training.more["average"] = nn.Linear(1, 1)


def other_optimizer(training: Training) -> None:
    training.optimizer = PolySGD([{"params": list(training.net[0].parameters()), "lr": 0.01}], updates=7)


@pytest.mark.parametrize("change", [other_layers, other_names, other_optimizer])
@pytest.mark.parametrize("which", ["kept", "now"])
def test_an_unfinished_state_of_other_code_is_named_and_the_training_starts_afresh(tmp_path, caplog, change, which):
    output = tmp_path / "net.pt"
    kept, now, expected = Training(seed=5), Training(), Training()
    for training in [kept] if which == "kept" else [now, expected]:
        torch.manual_seed(1)
        change(training)
    torch.manual_seed(2)
    weights = expected.fit(tmp_path / "expected" / "net.pt")
    kept.killed(output, 12)
    torch.manual_seed(2)
    with caplog.at_level("WARNING"):
        assert same(now.fit(output), weights)  # nothing of the other state is left in it
    assert now.steps == list(range(15))
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{tmp_path / 'net.resume.pt'} was kept by other code (")
    assert message.endswith("): starting from the first epoch")
    assert "\n" not in message


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, {"digest": "d", "epoch": 1, "history": []}], ids=str)
def test_a_file_that_is_no_state_is_named_and_the_training_starts_afresh(tmp_path, at_once, caplog, content):
    output = tmp_path / "net.pt"
    torch.save(content, tmp_path / "net.resume.pt")
    with caplog.at_level("WARNING"):
        assert same(Training().fit(output), at_once)
    assert "net.resume.pt was kept by other code (" in caplog.text


# --- arithmetic ----------------------------------------------------------------------------------------------------


def test_mixed_precision_is_for_gpus_alone():
    for name in ("float32", "float16", "bfloat16"):
        precision = Precision(name, CPU)
        assert not precision.scaler().is_enabled()
        with precision.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


# --- the trainings themselves --------------------------------------------------------------------------------------


class TinyTraining:
    """A classifier on six images of the tiny data set, in three epochs of three batches, with an accumulation of two.

    So gradients wait for their update where an epoch ends.
    """

    def __init__(self, tiny, folder: Path, settings, terms: dict):
        self.folder, self.settings, self.terms = folder, settings, terms
        self.common = {
            "manifest": Manifest.of(tiny.manifest.rows[:6]),
            "classes": tiny.classes,
            "seed": 3,
            "device": CPU,
        }
        self.ordinary = folder / "oc.pt"
        self("oc", terms={}, ordinary=None, weights=None)

    def __call__(self, name: str = "killed", **changes) -> list[dict[str, torch.Tensor]]:
        """States of the network at the end, after the first epoch and in the middle."""
        torch.manual_seed(1)
        output, epochs = self.folder / f"{name}.pt", self.folder / f"{name}.epochs"
        own = {"terms": self.terms, "ordinary": self.ordinary, "weights": self.ordinary} | changes
        train_classifier(settings=self.settings, output=output, epochs=epochs, **self.common, **own)
        files = (output, epochs / "first.pt", epochs / "middle.pt")
        return [torch.load(file, weights_only=True)["state"] for file in files]

    def left_behind(self, name: str = "killed") -> list[str]:
        return sorted(p.name for p in self.folder.iterdir() if p.name.startswith(name))


WHOLE = [
    *("killed.epochs", "killed.epochs.resume", "killed.history.csv", "killed.pt", "killed.resume.pt"),
    "killed.tensorboard",
]


@pytest.fixture
def make_training(tiny, tmp_path, classifier_settings, terms_of):
    def make(method: str, class_choice: str = "random", **changes) -> TinyTraining:
        settings = classifier_settings(batch_size=2, accumulation=2, epochs=3, augmentation="randaug", **changes)
        return TinyTraining(tiny, tmp_path, settings, terms_of(method, erasing={"class_choice": class_choice}))

    return make


AVERAGE = {"decay": 0.9, "every": 1, "warmup_epochs": 1}


@pytest.mark.parametrize(
    ("method", "changes", "dies_in"),
    [
        ("pnoc", {"class_choice": "focal", "average": AVERAGE}, 1),
        ("pnoc", {"class_choice": "focal", "average": AVERAGE}, 2),
        ("occse", {"class_choice": "balanced", "mixing": {"kind": "cutmix"}}, 1),
        ("occse", {"dropout": 0.5}, 1),
    ],
    ids=["P-NOC, before the middle", "P-NOC, after the middle", "OC-CSE", "OC-CSE with dropout"],
)
def test_a_killed_training_resumes_with_all_that_learns(make_training, monkeypatch, method, changes, dies_in):
    train, epoch_of = make_training(method, **changes), EpochLoader.epoch
    expected = train("at_once")

    def dying(loader, epoch):
        if epoch == dies_in:
            raise KeyboardInterrupt("killed")
        return epoch_of(loader, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(EpochLoader, "epoch", dying)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert "killed.pt" not in train.left_behind()
    assert "killed.epochs" not in train.left_behind()
    assert all(same(found, wanted) for found, wanted in zip(train(), expected, strict=True))
    assert train.left_behind() == WHOLE
    last, first, middle = expected
    assert not any(torch.equal(a["head.weight"], b["head.weight"]) for a, b in ((last, first), (first, middle)))


@pytest.mark.parametrize("dies_at", ["save_model", "copytree"])
def test_a_job_that_counts_as_failed_after_its_training_saves_it_again_in_no_time(make_training, monkeypatch, dies_at):
    """Snakemake removes the outputs before it starts a killed job again."""
    train = make_training("occse")
    expected = train("at_once")

    def killed_after(work):
        def work_and_die(*args, **options):
            work(*args, **options)
            if "killed" in str(args[0]) and "resume" not in Path(args[0]).parent.name:  # not an epoch on the way
                raise KeyboardInterrupt("killed")

        return work_and_die

    place = classifier if dies_at == "save_model" else classifier.shutil
    with monkeypatch.context() as patch:
        patch.setattr(place, dies_at, killed_after(getattr(place, dies_at)))
        with pytest.raises(KeyboardInterrupt):
            train()
    (train.folder / "killed.pt").unlink()
    shutil.rmtree(train.folder / "killed.epochs", ignore_errors=True)
    monkeypatch.setattr(EpochLoader, "epoch", lambda loader, epoch: pytest.fail("it trains"))
    assert all(same(found, wanted) for found, wanted in zip(train(), expected, strict=True))
    assert train.left_behind() == WHOLE


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (1e10, r"the loss \w+ of killed\.pt is nan in epoch 1, step \d of 3, .* on the images image\d, image\d: lower"),
        (1e5, r"killed\.pt (has diverged in epoch 1: class .*e\+|is (nan|inf) in epoch 1)"),
    ],
)
def test_a_training_at_an_absurd_rate_leaves_no_checkpoint(make_training, rate, message):
    train = make_training("occse", mixing={"kind": "cutmix"})
    train.settings = replace(train.settings, learning_rate=rate, accumulation=1)
    with pytest.raises(FloatingPointError, match=message):
        train(weights=None)
    assert not {"killed.pt", "killed.epochs", "killed.resume.pt"} & set(train.left_behind())


def test_a_lost_epoch_is_named_with_the_way_out(make_training):
    train = make_training("occse")
    train()
    (train.folder / "killed.epochs.resume/first.pt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"killed\.epochs\.resume has lost first\.pt: remove .*killed\.resume\.pt"
    ):
        train()


def test_a_seed_decides_a_training_and_workers_do_not(tiny, tmp_path, classifier_settings):
    def train(name: str, seed: int, workers: int):
        torch.manual_seed(seed)
        train_classifier(manifest=tiny.manifest, classes=tiny.classes, weights=None, ordinary=None, terms={}, seed=seed,
                         settings=classifier_settings(epochs=1), output=tmp_path / f"{name}.pt",
                         epochs=tmp_path / name, device=CPU, workers=workers)  # fmt: skip
        return torch.load(tmp_path / f"{name}.pt", weights_only=True)["state"]

    first = train("a", 1, 0)
    assert same(first, train("b", 1, 2))
    assert not same(first, train("c", 2, 0))
