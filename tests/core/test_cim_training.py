"""CIM's network, its training, its scores and what is chosen by them."""

import dataclasses
import math
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.base.checkpoints import read_model
from wsss_core.cim.labels import make_proposal_labels
from wsss_core.cim.losses import cluster_loss, image_loss, refinement_losses
from wsss_core.cim.mining import assign, mine, mine_mist, sampled
from wsss_core.cim.network import CimNetwork, MaskFuse, Scores, build_cim, load_cim
from wsss_core.cim.peak_table import write_peaks
from wsss_core.cim.score_store import ScoreStore, write_scores
from wsss_core.cim.scores import score_proposals
from wsss_core.cim.selection import box_overlaps, make_cim_instances, select_instances
from wsss_core.cim.training import CimStep, ProposalPictures, prepared, train_cim, with_proposals
from wsss_core.cim.views import resized, view
from wsss_core.data import DataError, Manifest
from wsss_core.data.pictures import read_image
from wsss_core.data.samples import network_input
from wsss_core.instances.store import InstanceStore, InstanceWriter, instances_of
from wsss_core.maps.shards import StoreError
from wsss_core.proposals.making import make_proposals
from wsss_core.proposals.overlaps import crops, overlaps
from wsss_core.recipes.settings import (
    CimSettings,
    GroupingSettings,
    ProposalLabelSettings,
    ProposalScoreSettings,
    SelectionSettings,
    Warmup,
)

CPU = torch.device("cpu")
NETWORK = {
    "backbone": "test_resnet", "output_stride": 16, "stage": 3, "classes": 3, "hidden": 16, "branches": 3,
    "integrity_head": True,
}  # fmt: skip


def settings(**changes) -> CimSettings:
    values = {
        "backbone": "test_resnet", "hidden": 16, "longer_sides": (48, 64), "batch_size": 2, "iterations": 6,
        "decay_at": (4,), "learning_rate": 0.01, "warmup": Warmup(2, 0.5),
    }  # fmt: skip
    return CimSettings(**values | changes)


@pytest.fixture(scope="module")
def ready(tiny, tmp_path_factory):
    """Proposals and their labels of the tiny data set."""
    folder = tmp_path_factory.mktemp("cim")
    grouping = GroupingSettings(superpixels=30, smallest=0.02, limit=12)
    make_proposals(manifest=tiny.manifest, store=folder / "p.zarr", settings=grouping, about={"run": "own"})
    peaks = [(row.id, label, 4 + 3 * label, 5, 12, 1.0 + label) for row in tiny.manifest for label in row.labels]
    write_peaks(folder / "peaks.csv", peaks)
    make_proposal_labels(
        manifest=tiny.manifest, proposals=folder / "p.zarr", peaks=folder / "peaks.csv", output=folder / "l.npz",
        settings=ProposalLabelSettings(),
    )  # fmt: skip
    return SimpleNamespace(proposals=folder / "p.zarr", labels=folder / "l.npz", store=InstanceStore(folder / "p.zarr"))


# --- network ------------------------------------------------------------------------------------------------------


def test_mask_fuse_by_hand():
    torch.manual_seed(0)
    fuse = MaskFuse(2, 5, 1 / 4)
    features = torch.randn(1, 2, 9, 11)
    boxes, cut = torch.tensor([[0.0, 0, 28, 28], [4, 8, 32, 36]]), torch.rand(2, 7, 7) < 0.5
    # a cell is 4 x 4 pixels of the picture, one cell of the map: its middle is where the map has a value
    of_boxes = torch.stack([features[0, :, :7, :7], features[0, :, 2:9, 1:8]])
    both = torch.cat([of_boxes, cut[:, None] * of_boxes], 1)
    hidden = F.relu(F.conv2d(both, fuse.fuse.weight, fuse.fuse.bias, padding=1)).flatten(1)
    for layer in (fuse.first, fuse.second):
        hidden = F.relu(F.linear(hidden, layer.weight, layer.bias))
    torch.testing.assert_close(fuse(features, boxes, cut), hidden)


def test_the_sizes_of_resnet50_are_the_papers():
    fuse = MaskFuse(1024, 4096, 1 / 16)
    conv, first, second = (sum(p.numel() for p in part.parameters()) for part in (fuse.fuse, fuse.first, fuse.second))
    assert [round(n / 1e6, 1) for n in (conv, first, second)] == [18.9, 205.5, 16.8]


@pytest.mark.parametrize(
    ("name", "stride", "stage", "channels", "frozen", "last_frozen"),
    [
        ("test_resnet", 16, 3, 192, "first_stage", "layer1"),
        ("vgg16_torchvision", 8, 4, 512, "first_stage", "features.7"),
        ("hrnet_w18_small", 32, 4, 2048, "second_stage", "stage2"),
    ],
)
def test_backbones_strides_and_frozen_parts(name, stride, stage, channels, frozen, last_frozen):
    changes = {"backbone": name, "output_stride": stride, "stage": stage, "hidden": 4}
    model = prepared(build_cim(**NETWORK | changes), frozen)
    assert model.fuse.fuse.in_channels == 2 * channels
    assert model.fuse.scale == 1 / stride
    still = [key for key, value in model.backbone.network.named_parameters() if not value.requires_grad]
    assert still[-1].startswith(last_frozen)
    assert next(key for key, value in model.backbone.network.named_parameters() if value.requires_grad)
    # sides that no branch of an HRNet likes
    scores = model(torch.randn(1, 3, 50, 75), torch.tensor([[0.0, 0, 20, 30]]), torch.ones(1, 7, 7))
    assert scores.classification.shape == scores.integrity.shape == (4, 1, 4)


def test_stages_that_nobody_reads_are_left_out():
    model = build_cim(**NETWORK)
    assert not list(model.backbone.network.layer4.parameters())
    assert torch.equal(model.backbone(torch.zeros(1, 3, 32, 32))[3], model.backbone(torch.zeros(1, 3, 32, 32))[4])


def test_batch_norm_keeps_its_statistics_and_trains_its_scales():
    model = prepared(build_cim(**NETWORK), "first_stage")
    norm = model.backbone.network.layer3[0].bn1
    before = norm.running_mean.clone()
    model(torch.randn(1, 3, 32, 32), torch.tensor([[0.0, 0, 20, 30]]), torch.ones(1, 7, 7))
    assert torch.equal(norm.running_mean, before)
    assert norm.weight.requires_grad
    assert norm.bias.requires_grad


def test_scores_are_normalised_over_classes_and_over_proposals():
    model = build_cim(**NETWORK).eval()
    boxes = torch.tensor([[0.0, 0, 20, 30], [5, 5, 40, 40], [0, 0, 47, 47]])
    scores = model(torch.randn(1, 3, 48, 48), boxes, torch.ones(3, 7, 7))
    torch.testing.assert_close(scores.classification.sum(2), torch.ones(4, 3))
    torch.testing.assert_close(scores.integrity[0].sum(0), torch.ones(4))
    assert ((scores.integrity > 0) & (scores.integrity < 1)).all()
    expected = (scores.classification[1:] * scores.integrity[1:]).sum(0)[:, 1:] / 3
    torch.testing.assert_close(scores.final(), expected)


def test_without_the_integrity_head_only_the_anti_noise_branch_has_one():
    model = build_cim(**NETWORK | {"integrity_head": False}).eval()
    scores = model(torch.randn(1, 3, 48, 48), torch.tensor([[0.0, 0, 20, 30]]), torch.ones(1, 7, 7))
    assert scores.integrity.shape == (1, 1, 4)
    assert scores.of(0)[1] is not None
    assert scores.of(1)[1] is None
    torch.testing.assert_close(scores.final(), scores.classification[1:].mean(0)[:, 1:])


# --- views --------------------------------------------------------------------------------------------------------


def masks_of(*corners) -> np.ndarray:
    masks = np.zeros((len(corners), 30, 40), bool)
    for mask, (top, bottom, left, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def test_a_mirrored_view_is_the_view_of_the_mirrored_picture():
    masks = masks_of((2, 20, 0, 17), (5, 28, 11, 40))
    masks[0, 2:9, 0:5] = False
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    mirrored = view(pixels, instances_of(masks, [-1, -1]), 80, True)
    expected = view(pixels[:, ::-1], instances_of(masks[:, :, ::-1], [-1, -1]), 80, False)
    assert torch.equal(mirrored["boxes"], expected["boxes"])
    assert mirrored["boxes"].tolist() == [[2 * 23, 4, 80, 40], [0, 10, 2 * 29, 56]]
    assert torch.equal(mirrored["pixels"], expected["pixels"])
    # cells of a mirrored crop are counted from the other end; these boxes' sides are not multiples of 7
    assert torch.equal(mirrored["crops"], torch.from_numpy(crops(masks)).flip(2))


def test_the_longer_side_gets_the_length():
    assert resized(np.zeros((30, 40, 3), np.uint8), 60).shape == (45, 60, 3)
    assert resized(np.zeros((41, 30, 3), np.uint8), 20).shape == (20, 15, 3)
    assert resized(np.zeros((1, 200, 3), np.uint8), 20).shape == (1, 20, 3)


def test_resizing_cuts_to_whole_numbers():
    pixels = np.zeros((1, 2, 3), np.uint8)
    pixels[0, 1] = 3
    assert resized(pixels, 4)[0, :, 0].tolist() == [0, 0, 2, 3]  # of 0, 0.75, 2.25, 3


# --- training -----------------------------------------------------------------------------------------------------


def batch_of(tiny, ready, settings, index=0, seed=0):
    from wsss_core.cim.labels import ProposalLabels

    samples = ProposalPictures(tiny.manifest, 3, ready.store, ProposalLabels(ready.labels), settings)
    return samples.sample(index, np.random.default_rng(seed))


def test_a_sample_has_all_that_a_step_needs(tiny, ready):
    sample = batch_of(tiny, ready, settings(), index=1)
    row = tiny.manifest.rows[1]
    found = ready.store[row.id]
    iou, containment = overlaps(found.dense())
    np.testing.assert_allclose(sample["iou"], iou, rtol=1e-6)
    np.testing.assert_allclose(sample["containment"], containment, rtol=1e-6)
    assert sample["columns"].tolist() == [label + 1 for label in row.labels]
    assert sample["present"].nonzero()[:, 0].tolist() == [0, *sample["columns"].tolist()]
    count = len(found.masks)
    assert sample["uniform"].shape == (3, len(row.labels), count)
    assert sample["cluster"].shape == (count,)
    assert sample["clusters"].min() >= 1
    assert max(sample["pixels"].shape[:2]) in (48, 64)
    assert sample["boxes"].max() <= 64
    again = batch_of(tiny, ready, settings(), index=1)
    assert all(torch.equal(again[name], sample[name]) for name in sample)


def test_half_of_the_samples_are_mirrored_at_any_length(tiny, ready):
    samples = [batch_of(tiny, ready, settings(), seed=seed) for seed in range(40)]
    first = {tuple(sample["boxes"][0].tolist()) for sample in samples}
    assert len(first) == 4  # two lengths, two directions


def test_the_loss_is_the_sum_of_its_parts_with_their_factors(tiny, ready):
    torch.manual_seed(0)
    own = settings(cluster_form="ce", cluster_weight=5.0, integrity_weight=2.0, branch_weights=(3.0, 1.0, 0.5))
    model = prepared(build_cim(**NETWORK), "first_stage")
    batch = batch_of(tiny, ready, own, index=1)
    with torch.no_grad():
        scores = model(network_input(batch["pixels"][None]), batch["boxes"], batch["crops"])
    expected = {
        "image": image_loss(*scores.of(0), batch["present"]),
        "cluster": cluster_loss(scores.classification[0], batch["cluster"], batch["clusters"], "ce", 5.0),
    }
    for k, (foreground, whole) in enumerate([(0.25, 0.5), (0.35, 0.6), (0.45, 0.7)], start=1):
        mined = mine(*scores.of(k - 1), batch["iou"], batch["containment"], batch["columns"], 0.1, foreground)
        targets = assign(sampled(mined, batch["columns"], batch["uniform"][k - 1]), batch["iou"], foreground, whole)
        parts = refinement_losses(*scores.of(k), targets, batch["present"], (3.0, 1.0, 0.5)[k - 1])
        expected |= {f"class_{k}": parts["class"], f"integrity_{k}": 2 * parts["integrity"], f"bag_{k}": parts["bag"]}
    found = CimStep(model, own, CPU)(batch, 0)
    assert {name: found[name].item() for name in expected} == pytest.approx({k: v.item() for k, v in expected.items()})
    assert set(found) - set(expected) == {
        f"{name}_{k}" for name in ("mined", "foreground", "weight") for k in (1, 2, 3)
    }
    assert not any(value.requires_grad for value in found.values())


def test_the_ablations_leave_out_what_they_name(tiny, ready):
    torch.manual_seed(0)
    own = settings(strategy="mist", integrity_head=False, cluster_labels=False, bag_loss=False, sampling=False,
                   foreground=0.5, cascade=0.0)  # fmt: skip
    model = prepared(build_cim(**NETWORK | {"integrity_head": False}), "first_stage")
    batch = batch_of(tiny, ready, own, index=1)
    del batch["cluster"], batch["clusters"]
    with torch.no_grad():
        scores = model(network_input(batch["pixels"][None]), batch["boxes"], batch["crops"])
    found = CimStep(model, own, CPU)(batch, 0)
    assert {name.split("_")[0] for name in found} == {"image", "class", "mined", "foreground", "weight"}
    for k in (1, 2, 3):
        mined = mine_mist(*scores.of(k - 1), batch["iou"], batch["columns"], 0.1, 0.5)
        parts = refinement_losses(*scores.of(k), assign(mined, batch["iou"], 0.5, 0.5), batch["present"],
                                  (3.0, 1.0, 1.0)[k - 1])  # fmt: skip
        assert found[f"class_{k}"].item() == pytest.approx(parts["class"].item())
        assert found[f"mined_{k}"].item() == len(mined.places)


def test_gradients_of_an_update_are_averaged_and_biases_have_twice_the_rate(tiny, ready):
    torch.manual_seed(0)
    own = settings(warmup=Warmup(0, 1.0), weight_decay=0.1, momentum=0.0, learning_rate=0.01)
    model = prepared(build_cim(**NETWORK), "first_stage")
    twin = prepared(build_cim(**NETWORK), "first_stage")
    twin.load_state_dict(model.state_dict())
    step, other = CimStep(model, own, CPU), CimStep(twin, own, CPU)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    gradients = []
    for index in (1, 3):
        batch = batch_of(tiny, ready, own, index=index)
        scores = twin(network_input(batch["pixels"][None]), batch["boxes"], batch["crops"])
        losses, _ = other.losses(scores, batch)
        names, values = zip(*((n, p) for n, p in twin.named_parameters() if p.requires_grad), strict=True)
        gradients.append(dict(zip(names, torch.autograd.grad(sum(losses.values()), values), strict=True)))
        step(batch, len(gradients) - 1)
    for name, value in model.named_parameters():
        if name not in gradients[0]:
            assert torch.equal(value, before[name]), name
            continue
        mean = (gradients[0][name] + gradients[1][name]) / 2
        rate, decay = (0.01, 0.1) if "weight" in name else (0.02, 0.0)
        torch.testing.assert_close(value.detach(), before[name] - rate * (mean + decay * before[name]), msg=name,
                                   rtol=1e-4, atol=1e-6)  # fmt: skip


def test_a_long_gradient_is_cut_where_the_settings_say_so(tiny, ready):
    own = settings(warmup=Warmup(0, 1.0), weight_decay=0.0, momentum=0.0, learning_rate=1.0, clip=1e-3, batch_size=1)
    model = prepared(build_cim(**NETWORK), "first_stage")
    before = [value.detach().clone() for value in model.parameters()]
    CimStep(model, own, CPU)(batch_of(tiny, ready, own), 0)
    moved = sum((value.detach() - old).square().sum() for value, old in zip(model.parameters(), before, strict=True))
    assert 0 < math.sqrt(moved) <= 2 * 1e-3  # biases move twice as far


def test_more_proposals_than_memory_are_said_with_the_way_out(tiny, ready, tmp_path, monkeypatch):
    def full(self, *given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nfurther lines")

    monkeypatch.setattr(CimNetwork, "forward", full)
    model, batch = prepared(build_cim(**NETWORK), "none"), batch_of(tiny, ready, settings())
    count = len(batch["boxes"])
    message = rf"^{count} proposals of a picture do not fit .*: set limit of the data set's proposals lower, .* 9 GiB$"
    with pytest.raises(DataError, match=message):
        CimStep(model, settings(), CPU)(batch, 0)
    with pytest.raises(DataError, match="do not fit into the device's memory"):
        scores_of(tiny, ready, tmp_path / "s.zarr", model)


def test_mining_has_no_gradient(tiny, ready):
    """What a branch learns must not teach the branch that it was mined from: the last one alone gets a gradient."""
    own = settings(cluster_labels=False)
    torch.manual_seed(0)
    y, t = torch.randn(4, 12, 4, requires_grad=True), torch.randn(4, 12, 4, requires_grad=True)
    batch = batch_of(tiny, ready, own)
    count = len(batch["iou"])
    scores = Scores(y[:, :count].softmax(2), torch.cat([t[:1, :count].softmax(1), t[1:, :count].sigmoid()]))
    model = prepared(build_cim(**NETWORK), "first_stage")
    losses, _ = CimStep(model, own, CPU).losses(scores, batch)
    (losses["class_3"] + losses["integrity_3"] + losses["bag_3"]).backward()
    assert y.grad[3].any()
    assert not y.grad[:3].any()
    assert not t.grad[:3].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"integrity_head": False}, "strategy cim needs the integrity_head"),
        ({"branches": 2}, "branch_weights has 3 values for 2 branches"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CimStep(nn.Linear(1, 1), settings(**changes), CPU)


@pytest.fixture
def train(tiny, ready, tmp_path):
    def run(name="cim", **changes):
        torch.manual_seed(1)
        given = {"manifest": tiny.manifest, "labels": ready.labels} | {
            key: changes.pop(key) for key in ("manifest", "labels", "workers") if key in changes
        }
        train_cim(classes=tiny.classes, proposals=ready.proposals, weights=None, settings=settings(**changes),
                  output=tmp_path / f"{name}.pt", seed=1, device=CPU, **given)  # fmt: skip
        return tmp_path / f"{name}.pt"

    return run


def test_a_training_leaves_a_network_that_can_be_rebuilt(train):
    path = train()
    recipe, _ = read_model(path, "cim")
    assert recipe["network"] == NETWORK
    assert recipe["proposals"]["run"] == "own"
    assert recipe["names"] == ["circle", "square", "star"]
    assert isinstance(load_cim(path), CimNetwork)
    history = pd.read_csv(path.with_name("cim.history.csv"))
    assert len(history) == 2  # twelve pictures, of which an epoch has eight
    assert {"image", "cluster", "class_1", "integrity_2", "bag_3", "mined_1", "lr"} <= set(history.columns)


def test_the_rate_rises_stays_and_falls_to_a_tenth(tiny, ready):
    own = settings()
    model = prepared(build_cim(**NETWORK), "first_stage")
    step, rates = CimStep(model, own, CPU), []
    for micro in range(12):
        rates.append(step.optimizer.lr)
        step(batch_of(tiny, ready, own), micro)
    expected = [0.005, 0.0075, 0.01, 0.01, 0.001, 0.001]
    assert rates[::2] == pytest.approx(expected)


def test_a_training_gives_the_same_twice_and_with_workers(train):
    states = [read_model(train(name, workers=workers), "cim")[1] for name, workers in (("a", 0), ("b", 0), ("c", 1))]
    for other in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in other.items())


def test_a_resumed_training_ends_where_the_whole_one_does(train, monkeypatch, tmp_path):
    whole = read_model(train("whole"), "cim")[1]
    calls = []
    ours = CimStep.__call__

    def dying(self, batch, step):
        calls.append(step)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return ours(self, batch, step)

    monkeypatch.setattr(CimStep, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        train("part")
    monkeypatch.setattr(CimStep, "__call__", ours)
    resumed = read_model(train("part"), "cim")[1]
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_pictures_without_a_proposal_are_left_out(tiny, tmp_path, caplog):
    write_proposals(tmp_path / "p.zarr", tiny.manifest, lambda row: row.id in ("image2", "image5"))
    with caplog.at_level("INFO"):
        kept = with_proposals(tiny.manifest, InstanceStore(tmp_path / "p.zarr"))
    assert kept.ids == ["image2", "image5"]
    assert "6 of 8 images have no proposal" in caplog.text


def write_proposals(path, manifest, has):
    with InstanceWriter(path, manifest, about={}) as out:
        for row in manifest:
            masks = np.zeros((int(has(row)), row.height, row.width), bool)
            masks[:, 3:9, 4:12] = True
            out.write(row.id, instances_of(masks, [-1] * len(masks)))


def test_no_proposal_at_all_is_an_error(tiny, tmp_path):
    write_proposals(tmp_path / "p.zarr", tiny.manifest, lambda row: False)
    with pytest.raises(DataError, match=r"p\.zarr holds no proposal of any of 8 images"):
        with_proposals(tiny.manifest, InstanceStore(tmp_path / "p.zarr"))


def test_labels_are_asked_for_where_they_are_learnt(train):
    with pytest.raises(ValueError, match="cluster_labels needs the labels of proposals"):
        train(labels=None)
    assert read_model(train("without", labels=None, cluster_labels=False), "cim")


def test_proposals_of_another_manifest_are_refused(train, tiny):
    with pytest.raises(StoreError, match="made from another manifest"):
        train(manifest=Manifest.of(tiny.manifest.rows[:5]))


def test_one_picture_can_be_learnt_by_heart(tiny, ready):
    """Far from a proof of the method; but a sign that is wrong anywhere would not get here."""
    torch.manual_seed(0)
    own = settings(iterations=60, decay_at=(50,), learning_rate=0.05, batch_size=1, clip=5.0, longer_sides=(64,))
    model = prepared(build_cim(**NETWORK | {"hidden": 64}), "none")
    step, batch = CimStep(model, own, CPU), batch_of(tiny, ready, own, index=1)
    found = [step(batch, micro) for micro in range(60)]
    for name in ("image", "cluster"):  # the others have weights that grow with the scores
        assert found[-1][name] < 0.1 * found[0][name]


# --- scores -------------------------------------------------------------------------------------------------------


def test_scores_are_means_over_sizes_and_directions(tiny, ready, tmp_path):
    torch.manual_seed(0)
    model = build_cim(**NETWORK)
    own = ProposalScoreSettings(longer_sides=(48, 64))
    score_proposals(model=model, manifest=tiny.manifest, proposals=ready.proposals, store=tmp_path / "s.zarr",
                    settings=own, about={"run": "x"}, device=CPU)  # fmt: skip
    store = ScoreStore(tmp_path / "s.zarr")
    store.check(tiny.manifest, ready.store)
    assert store.about["settings"]["longer_sides"] == [48, 64]
    row = tiny.manifest.rows[3]
    pixels, found = np.asarray(read_image(row.image)), ready.store[row.id]
    expected = 0
    for side in (48, 64):
        for turned in (False, True):
            shown = view(pixels, found, side, turned)
            with torch.inference_mode():
                scores = model(network_input(shown["pixels"][None]), shown["boxes"], shown["crops"])
            expected = expected + (scores.classification[1:] * scores.integrity[1:]).mean(0)[:, 1:] / 4
    np.testing.assert_allclose(store[row.id], expected, rtol=1e-5)


@pytest.fixture
def seen(monkeypatch):
    """The pictures that the network has looked at, by the number of their calls."""
    monkeypatch.setattr("wsss_core.cim.scores.PART", 3)
    calls = []
    ours = CimNetwork.forward
    monkeypatch.setattr(CimNetwork, "forward", lambda self, *given: calls.append(1) or ours(self, *given))
    return calls


def scores_of(tiny, ready, store, model, **changes):
    settings = ProposalScoreSettings(**{"longer_sides": (48,), "mirror": False} | changes)
    score_proposals(model=model, manifest=tiny.manifest, proposals=ready.proposals, store=store, settings=settings,
                    about={}, device=CPU)  # fmt: skip
    found = ScoreStore(store)
    return {name: found[name] for name in found}


@contextmanager
def stopped(monkeypatch, after):
    """Let a job be killed after so many calls of its network."""
    calls, ours = [], CimNetwork.forward

    def dying(self, *given):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return ours(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(CimNetwork, "forward", dying)
        yield


def test_a_killed_job_goes_on_with_the_picture_after_its_last_whole_part(tiny, ready, tmp_path, seen, monkeypatch):
    torch.manual_seed(0)
    model = build_cim(**NETWORK)
    whole = scores_of(tiny, ready, tmp_path / "whole.zarr", model)
    assert len(seen) == 8
    with stopped(monkeypatch, after=7), pytest.raises(KeyboardInterrupt):
        scores_of(tiny, ready, tmp_path / "s.zarr", model)
    assert not (tmp_path / "s.zarr").exists()
    seen.clear()
    resumed = scores_of(tiny, ready, tmp_path / "s.zarr", model)
    assert len(seen) == 2  # of eight pictures, of which three are a part
    assert all(np.array_equal(resumed[name], values) for name, values in whole.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "whole.zarr"]


@pytest.mark.parametrize("change", ["network", "settings"])
def test_parts_of_another_network_or_of_other_settings_are_not_taken(tiny, ready, tmp_path, seen, monkeypatch, change):
    model = build_cim(**NETWORK)
    with stopped(monkeypatch, after=7), pytest.raises(KeyboardInterrupt):
        scores_of(tiny, ready, tmp_path / "s.zarr", model)
    seen.clear()
    if change == "network":
        with torch.no_grad():
            model.classification.bias[-1] += 1
    further = {"longer_sides": (64,)} if change == "settings" else {}
    found = scores_of(tiny, ready, tmp_path / "s.zarr", model, **further)
    assert len(seen) == 8
    expected = scores_of(tiny, ready, tmp_path / "new.zarr", model, **further)
    assert all(np.array_equal(found[name], values) for name, values in expected.items())


def test_scores_that_are_no_numbers_are_not_kept(tiny, ready, tmp_path, seen):
    model = build_cim(**NETWORK)
    with torch.no_grad():
        model.classification.bias[:] = torch.nan
    with pytest.raises(FloatingPointError, match="of image0 is no number"):
        scores_of(tiny, ready, tmp_path / "s.zarr", model)
    assert list(tmp_path.iterdir()) == []


def test_a_mirrored_network_sees_the_same(ready, tiny):
    """Without the mirror image there is one view a size."""
    from wsss_core.cim.scores import _Views

    one = _Views(tiny.manifest.rows, ready.store, ProposalScoreSettings(longer_sides=(48,), mirror=False))[0]
    assert len(one) == 1
    assert len(_Views(tiny.manifest.rows, ready.store, ProposalScoreSettings(longer_sides=(48, 64)))[0]) == 4


def test_pictures_without_proposals_have_no_scores(tiny, tmp_path):
    write_proposals(tmp_path / "p.zarr", tiny.manifest, lambda row: row.id == "image2")
    own = ProposalScoreSettings(longer_sides=(48,))
    score_proposals(model=build_cim(**NETWORK), manifest=tiny.manifest, proposals=tmp_path / "p.zarr",
                    store=tmp_path / "s.zarr", settings=own, about={}, device=CPU)  # fmt: skip
    store = ScoreStore(tmp_path / "s.zarr")
    assert [store[name].shape for name in ("image1", "image2")] == [(0, 3), (1, 3)]
    make_cim_instances(manifest=tiny.manifest, proposals=tmp_path / "p.zarr", scores=tmp_path / "s.zarr",
                       store=tmp_path / "i.zarr", settings=SelectionSettings(), about={})  # fmt: skip
    assert [InstanceStore(tmp_path / "i.zarr").count(name) for name in ("image1", "image2")] == [0, 3]


@pytest.fixture
def scored(tiny, ready, tmp_path, monkeypatch):
    monkeypatch.setattr("wsss_core.cim.score_store.SHARD", 8)
    monkeypatch.setattr("wsss_core.cim.score_store.CHUNK", 4)
    rng = np.random.default_rng(0)
    drawn = {row.id: rng.random((ready.store.count(row.id), 3), np.float32) for row in tiny.manifest}
    write_scores(tmp_path / "s.zarr", tiny.manifest, ready.store, drawn.items(), classes=3, about={"run": "x"})
    return tmp_path / "s.zarr", drawn


def test_scores_come_back_over_the_borders_of_shards(scored):
    path, drawn = scored
    store = ScoreStore(path)
    assert list(store) == list(drawn)
    assert all(np.array_equal(store[name], values) for name, values in drawn.items())
    assert len(list((path / "score" / "c").iterdir())) > 3


def test_a_lost_shard_of_scores_is_an_error(scored, tiny):
    path, _ = scored
    (path / "score" / "c" / "1" / "0").unlink()
    with pytest.raises(StoreError, match="has lost a shard"):
        [ScoreStore(path)[name] for name in tiny.manifest.ids]


def test_scores_of_other_proposals_are_refused(scored, tiny, tmp_path):
    write_proposals(tmp_path / "other.zarr", tiny.manifest, lambda row: True)
    with pytest.raises(StoreError, match="from other proposals"):
        ScoreStore(scored[0]).check(tiny.manifest, InstanceStore(tmp_path / "other.zarr"))


@pytest.mark.parametrize("fault", ["nan", "shape", "order"])
def test_wrong_scores_are_not_written(tiny, ready, tmp_path, fault):
    drawn = [(row.id, np.ones((ready.store.count(row.id), 3), np.float32)) for row in tiny.manifest]
    if fault == "nan":
        drawn[2][1][0, 0] = np.nan
    elif fault == "shape":
        drawn[2] = drawn[2][0], drawn[2][1][:-1]
    else:
        drawn[2], drawn[3] = drawn[3], drawn[2]
    with pytest.raises((ValueError, FloatingPointError), match=r"image2|no number"):
        write_scores(tmp_path / "s.zarr", tiny.manifest, ready.store, drawn, classes=3, about={})


# --- selection ----------------------------------------------------------------------------------------------------


def test_overlaps_of_boxes_count_their_ends_as_pixels():
    boxes = np.array([[0, 0, 9, 9], [5, 0, 14, 9], [10, 0, 19, 9]])
    # of 10 x 10 pixels with their ends; 5 columns are shared by neighbours, and none by the others
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 1 / 3], [0, 1 / 3, 1]]
    np.testing.assert_allclose(box_overlaps(boxes), expected)
    assert box_overlaps(np.array([[0, 0, 9, 9], [9, 0, 18, 9]]))[0, 1] == pytest.approx(10 / 190)  # they touch


NESTED = masks_of((0, 10, 0, 10), (0, 10, 2, 12), (20, 30, 20, 40), (0, 30, 0, 40))


def test_the_better_one_of_two_alike_is_chosen_in_each_class():
    scores = np.array([[0.5, 0.1], [0.6, 0.05], [0.3, 1e-6], [0.2, 0.0]], np.float32)
    found = select_instances(instances_of(NESTED, [-1] * 4), scores, SelectionSettings())
    assert list(zip(found.labels.tolist(), found.scores.round(3).tolist(), strict=True)) == [
        (0, pytest.approx(0.6)), (0, pytest.approx(0.3)), (0, pytest.approx(0.2)), (1, pytest.approx(0.1)),
    ]  # fmt: skip
    assert np.array_equal(found.dense(), NESTED[[1, 2, 3, 0]])


def test_masks_may_decide_in_place_of_boxes():
    cross = np.zeros((2, 30, 40), bool)
    cross[0, 14:16], cross[0, :, 0], cross[0, :, 39] = True, True, True
    cross[1, :, 19:21], cross[1, 0], cross[1, 29] = True, True, True
    scores = np.array([[0.9], [0.8]], np.float32)
    proposals = instances_of(cross, [-1, -1])
    assert len(select_instances(proposals, scores, SelectionSettings(nms="box")).masks) == 1
    assert len(select_instances(proposals, scores, SelectionSettings(nms="mask")).masks) == 2


def test_at_most_so_many_are_chosen_but_for_ties():
    apart = masks_of(*((0, 2, 3 * n, 3 * n + 2) for n in range(10)))
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01], np.float32)[:, None]
    proposals = instances_of(apart, [-1] * 10)
    assert len(select_instances(proposals, scores, SelectionSettings(limit=5)).masks) == 5
    found = select_instances(proposals, scores, SelectionSettings(limit=2))
    assert found.scores.tolist() == pytest.approx([0.9, 0.5, 0.5, 0.5])


def test_the_least_score_is_strict():
    scores = np.array([[1e-5], [2e-5], [0.0], [1e-5]], np.float64)
    found = select_instances(instances_of(NESTED, [-1] * 4), scores, SelectionSettings())
    assert np.array_equal(found.dense(), NESTED[[1]])


def test_instances_of_a_split(tiny, ready, scored, tmp_path, monkeypatch, through_pickles):
    monkeypatch.setattr("wsss_core.cim.selection.in_processes", through_pickles)
    path, drawn = scored
    own = dataclasses.replace(SelectionSettings(), limit=4)
    make_cim_instances(manifest=tiny.manifest, proposals=ready.proposals, scores=path, store=tmp_path / "i.zarr",
                       settings=own, about={"run": "x"}, workers=2)  # fmt: skip
    store = InstanceStore(tmp_path / "i.zarr")
    store.check(tiny.manifest)
    for row in tiny.manifest:
        expected = select_instances(ready.store[row.id], drawn[row.id], own)
        assert store[row.id].masks == expected.masks
        assert np.array_equal(store[row.id].labels, expected.labels)
    assert (np.diff(store["image0"].scores) <= 0).all()
    assert store.about["supervision"].startswith("nothing")
