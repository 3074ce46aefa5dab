"""Pictures while a network trains: what is drawn, when, and that no number changes by it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset

from wsss_core.affinity import training as affinity
from wsss_core.classifiers import training as classifier
from wsss_core.data import Row
from wsss_core.data.masks import write_grey
from wsss_core.fitting import loop
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit
from wsss_core.fitting.snapshots import Snapshots, coloured, grey, labelled
from wsss_core.instances import maskrcnn_training as maskrcnn
from wsss_core.instances.store import InstanceWriter, instances_of
from wsss_core.recipes.settings import (
    AffinitySettings,
    C2amSettings,
    DeeplabV3PlusSettings,
    MaskrcnnSettings,
    PoolnetSettings,
    made,
)
from wsss_core.saliency import c2am_training as c2am
from wsss_core.saliency import poolnet_training as poolnet
from wsss_core.segmentation import training as segmentation

CPU = torch.device("cpu")
TINY = "test_resnet"


# --- when, and that nothing else happens ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "epochs", "expected"),
    [(0, 3, []), (1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (2, 4, [2, 4]), (9, 2, [2])],
)
def test_pictures_are_taken_every_few_epochs_and_after_the_last(every, epochs, expected):
    snapshots = Snapshots(every, [], nn.Identity(), lambda photo, row: photo)
    assert [epoch for epoch in range(1, epochs + 1) if snapshots.due(epoch, epochs)] == expected


class Points(Dataset):
    rows = tuple(Row(f"image{index}", "", "", 1, 1, ()) for index in range(8))

    def __len__(self):
        return 8

    def sample(self, index, rng):
        return {"x": torch.from_numpy(rng.standard_normal(4)).float()}


class Training:
    """A network whose numbers depend on torch's generator and on BatchNorm's statistics; one part of it is in eval."""

    def __init__(self):
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.BatchNorm1d(8), nn.Linear(8, 1)
        )
        self.net[3].eval()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        self.looks = 0

    def __call__(self, batch, step):
        loss = (self.net(batch["x"]) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def draw(self, photo, row):
        """One that would do harm: it draws numbers, and sees the network in whatever mode that is."""
        self.looks += 1
        torch.rand(3)
        assert not any(module.training for module in self.net.modules())
        found = self.net(torch.randn(5, 4))
        assert not found.requires_grad
        return photo[0].float() / 255

    def fit(self, output: Path, rows=(), every: int = 0) -> dict[str, torch.Tensor]:
        loader = EpochLoader(Points(), batch_size=2, seed=0, workers=0)
        snapshots = Snapshots(every, rows, self.net, self.draw)
        state = {"model": self.net, "optimizer": self.optimizer}
        fit(step=self, loader=loader, epochs=3, state=state, output=output, digest="d", lr=lambda: 0.1,
            snapshots=snapshots)  # fmt: skip
        return {name: value.clone() for name, value in self.net.state_dict().items()} | {"rng": torch.get_rng_state()}


def events(output: Path) -> EventAccumulator:
    found = EventAccumulator(str(output.with_suffix(".tensorboard")), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def steps_of(output: Path, tag: str) -> list[int]:
    found = events(output)
    return [event.step for event in (found.Images if tag.startswith("maps/") else found.Scalars)(tag)]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_no_number_changes_by_them(tmp_path, tiny):
    alone = Training()
    expected = alone.fit(tmp_path / "alone.pt")
    watched = Training()
    assert same(watched.fit(tmp_path / "watched.pt", tiny.manifest.rows, every=1), expected)
    assert (alone.looks, watched.looks) == (0, 12)
    assert [module.training for module in watched.net] == [True, True, True, False, True]
    kept = [torch.load(tmp_path / f"{name}.resume.pt", weights_only=True) for name in ("alone", "watched")]
    assert torch.equal(kept[0]["rng"], kept[1]["rng"])
    assert same(kept[0]["model"], kept[1]["model"])


def test_a_training_that_dies_while_it_draws_is_in_its_mode_again(tiny):
    net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1).eval())

    def fails(photo, row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Snapshots(1, tiny.manifest.rows, net, fails).take())
    assert [module.training for module in net.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_a_classifier_ends_in_the_same_bits(tmp_path, tiny, classifier_settings, terms_of):
    """With dropout, trained BatchNorm and a moving average."""

    def trained(name: str, pictures: int) -> dict:
        torch.manual_seed(1)
        settings = classifier_settings(epochs=2, dropout=0.5, average={"decay": 0.9, "every": 1, "warmup_epochs": 1})
        classifier.train_classifier(
            manifest=tiny.manifest, classes=tiny.classes, weights=None, ordinary=None, settings=settings,
            terms=terms_of("cam"), output=tmp_path / f"{name}.pt", epochs=tmp_path / f"{name}.epochs", seed=3,
            device=CPU, pictures=pictures,
        )  # fmt: skip
        return torch.load(tmp_path / f"{name}.pt", weights_only=True)

    alone, watched = trained("alone", 0), trained("watched", 1)
    assert alone["recipe"] == watched["recipe"]
    assert same(alone["state"], watched["state"])
    assert not events(tmp_path / "alone.pt").Tags()["images"]
    tags = events(tmp_path / "watched.pt").Tags()["images"]
    assert tags == [f"maps/image{index}" for index in (0, 2, 4, 6)]
    assert steps_of(tmp_path / "watched.pt", tags[0]) == [1, 2]


def test_a_killed_training_keeps_its_pictures_and_shows_each_epoch_once(tmp_path, tiny, monkeypatch):
    output, keep = tmp_path / "net.pt", loop._keep

    def killed(*args):
        if args[-1] == 2:  # after the pictures of the second epoch, before its state is kept
            raise KeyboardInterrupt
        keep(*args)

    monkeypatch.setattr(loop, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        Training().fit(output, tiny.manifest.rows, every=1)
    assert steps_of(output, "loss") == steps_of(output, "maps/image0") == [1, 2]
    monkeypatch.setattr(loop, "_keep", keep)
    Training().fit(output, tiny.manifest.rows, every=1)
    assert steps_of(output, "loss") == steps_of(output, "maps/image0") == [1, 2, 3]


def test_lost_events_are_written_again_as_far_as_the_history_has_them(tmp_path, tiny):
    output = tmp_path / "net.pt"
    Training().fit(output)
    for path in output.with_suffix(".tensorboard").iterdir():
        path.unlink()
    output.with_suffix(".tensorboard").rmdir()
    Training().fit(output)
    assert steps_of(output, "loss") == [1, 2, 3]


def test_a_compiled_network_is_not_compiled_for_pictures(tiny):
    compilations = []

    def backend(graph, inputs):
        compilations.append(len(inputs))
        return graph.forward

    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    net.compile(backend=backend, dynamic=False)
    net(torch.rand(1, 3, 8, 8))
    before = len(compilations)
    assert before
    pictures = Snapshots(1, tiny.manifest.rows, net, lambda photo, row: grey(photo, net(seen(photo))[0, 0]))
    assert len(list(pictures.take())) == 4
    assert len(compilations) == before
    net(torch.rand(1, 3, 8, 8))
    assert len(compilations) == before


# --- what is drawn --------------------------------------------------------------------------------------------------


def seen(photo: torch.Tensor) -> torch.Tensor:
    return photo.permute(0, 3, 1, 2).float() / 255


def test_a_picture_is_the_photo_and_what_is_drawn_beside_it(tiny):
    half = Snapshots(1, tiny.manifest.rows[:1], nn.Linear(1, 1), lambda photo, row: torch.full((32, 48, 3), 0.5))
    ((name, picture),) = half.take()
    row = tiny.manifest.rows[0]
    assert name == row.id
    assert (picture.shape, picture.dtype) == ((32, 96, 3), np.uint8)
    np.testing.assert_array_equal(picture[:, :48], np.asarray(Image.open(row.image)))
    assert (picture[:, 48:] == 128).all()


def test_a_large_photo_is_reduced(tmp_path):
    Image.new("RGB", (1024, 600)).save(tmp_path / "a.png")
    row = Row("a", str(tmp_path / "a.png"), "", 600, 1024, (0,))
    shapes = []

    def draw(photo, row):
        shapes.append(tuple(photo.shape))
        return torch.zeros(photo.shape[1:])

    ((_, picture),) = Snapshots(1, [row], nn.Linear(1, 1), draw).take()
    assert shapes == [(1, 300, 512, 3)]
    assert picture.shape == (300, 1024, 3)


def test_maps_have_their_colours_on_a_darkened_photo():
    photo = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    maps = torch.stack([torch.ones(2, 2), torch.zeros(2, 2)])
    drawn = coloured(photo, maps, np.array([[51, 0, 0], [0, 255, 0]], np.uint8))
    assert drawn.shape == (4, 4, 3)
    torch.testing.assert_close(drawn[1, 2], torch.tensor([0.6, 0.4, 0.4]))
    nothing = coloured(photo, torch.zeros(0, 2, 2), np.zeros((0, 3), np.uint8))
    torch.testing.assert_close(nothing, torch.full((4, 4, 3), 0.4))


def test_logits_become_the_colour_of_the_highest():
    photo = torch.zeros((1, 2, 4, 3), dtype=torch.uint8)
    logits = torch.tensor([[[3.0, -1.0]], [[0.0, 2.0]]])  # (2, 1, 2): the left is class 0, the right class 1
    drawn = labelled(photo, logits, np.array([[0, 0, 0], [255, 0, 51]], np.uint8))
    assert drawn[:, 0].tolist() == [[0, 0, 0]] * 2
    torch.testing.assert_close(drawn[0, 3], torch.tensor([1, 0, 0.2]))


# --- what each training draws ---------------------------------------------------------------------------------------


class Begun(Exception):
    """Stands in for a training: it has the pictures that it would take."""

    def __init__(self, snapshots):
        self.snapshots = snapshots


@pytest.fixture
def begin(tiny, tmp_path, monkeypatch):
    """A function that begins a training and gives its pictures by image, (H, W, 3) of what is drawn."""

    def run(module, train, settings, **inputs) -> dict[str, np.ndarray]:
        def begun(*, snapshots, **_):
            raise Begun(snapshots)

        monkeypatch.setattr(module, "fit", begun)
        torch.manual_seed(2)
        common = {"manifest": tiny.manifest, "weights": None, "output": tmp_path / "net.pt", "seed": 2, "device": CPU}
        with pytest.raises(Begun) as caught:
            train(**common | inputs, settings=settings, pictures=7)
        snapshots = caught.value.snapshots
        assert snapshots.every == 7
        pictures = dict(snapshots.take())
        assert len(pictures) == 4
        for name, picture in pictures.items():
            row = next(row for row in tiny.manifest if row.id == name)
            assert picture.shape == (row.height, 2 * row.width, 3)
        return {name: picture[:, picture.shape[1] // 2 :] for name, picture in pictures.items()}

    return run


def test_a_classifier_shows_the_cams_of_the_images_classes(begin, tiny, classifier_settings, terms_of, tmp_path):
    found = begin(
        classifier, classifier.train_classifier, classifier_settings(), classes=tiny.classes, ordinary=None,
        terms=terms_of("cam"), epochs=tmp_path / "epochs",
    )  # fmt: skip
    # image0 is of one class, whose colour has red alone; beneath it the photo is grey
    assert tiny.manifest.rows[0].labels == (0,)
    red, green, blue = np.moveaxis(found["image0"].astype(int), 2, 0)
    assert (green == blue).all()
    assert (red >= green).all()
    assert (red > green).any()


def test_c2am_poolnet_and_affinitynet_show_grey_maps(begin, tiny, tmp_path):
    for row in tiny.manifest:
        write_grey(tmp_path / "saliency" / f"{row.id}.png", ((tiny.mask(row) > 0) * 255).astype(np.uint8))
    sizes = {"resize": [32, 56], "crop": 32, "batch_size": 4, "epochs": 1}
    drawn = [
        begin(c2am, c2am.train_c2am, made(C2amSettings, {"backbone": TINY, "crop": 32, "batch_size": 4, "epochs": 1}),
              hints=None, hint_settings=None),
        begin(poolnet, poolnet.train_poolnet, made(PoolnetSettings, {"backbone": TINY, "width": 0.0625,
                                                                     "smallest_side": 0}), masks=tmp_path / "saliency"),
        begin(affinity, affinity.train_affinity, made(AffinitySettings, {"backbone": TINY, "radius": 3, **sizes}),
              classes=tiny.classes, labels=tiny.masks),
    ]  # fmt: skip
    for found in drawn:
        picture = found["image0"]
        assert (picture == picture[..., :1]).all()
        assert picture.std() > 0


def test_a_segmentation_network_shows_masks_in_the_palette(begin, tiny):
    settings = {"backbone": TINY, "width": 16, "resize": [32, 56], "crop": 32, "batch_size": 4, "epochs": 1}
    found = begin(
        segmentation, segmentation.train_segmentation, made(DeeplabV3PlusSettings, settings), classes=tiny.classes,
        masks=tiny.masks,
    )  # fmt: skip
    palette = set(map(tuple, tiny.classes.colours.tolist()))
    assert all(set(map(tuple, picture.reshape(-1, 3).tolist())) <= palette for picture in found.values())


def test_a_detector_shows_its_masks(begin, tiny, tmp_path, monkeypatch):
    with InstanceWriter(tmp_path / "truth.zarr", tiny.manifest, about={}) as out:
        for row in tiny.manifest:
            masks = np.stack([tiny.mask(row) == label + 1 for label in row.labels])
            out.write(row.id, instances_of(masks, row.labels))
    # by a network that finds a square of 8 x 8 pixels of the second class, surely, and one of the third, hardly
    found = {
        "boxes": torch.tensor([[8.0, 8, 16, 16], [0, 0, 4, 4]]), "labels": torch.tensor([2, 3]),
        "scores": torch.tensor([0.9, 0.2]), "masks": torch.ones(2, 1, 28, 28),
    }  # fmt: skip
    monkeypatch.setattr(maskrcnn.MaskRCNN, "forward", lambda self, images: [found])
    values = {"backbone": TINY, "width": 8, "shorter_sides": [40, 48], "longest_side": 72, "batch_size": 2, "epochs": 1}
    drawn = begin(
        maskrcnn, maskrcnn.train_maskrcnn, made(MaskrcnnSettings, values), classes=tiny.classes,
        instances=tmp_path / "truth.zarr",
    )["image0"].astype(int)  # fmt: skip
    green = drawn[..., 1] > drawn[..., 0]  # the second class's colour; the rest is grey
    assert green[9:15, 9:15].all()
    assert not green[:7].any()
    assert not green[18:].any()
    assert (drawn[:6, :6, 0] == drawn[:6, :6, 2]).all()
