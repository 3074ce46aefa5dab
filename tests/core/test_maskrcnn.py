"""Mask R-CNN: sizes of pictures, what is trained, resuming, prediction, and weights that are refused."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as run_lengths
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from wsss_core.base.checkpoints import read_model
from wsss_core.data import DataError, Manifest, Row, make_classes
from wsss_core.data.transforms import MEAN, STD
from wsss_core.fitting import loop
from wsss_core.fitting.schedules import stepped
from wsss_core.instances import maskrcnn_prediction
from wsss_core.instances.maskrcnn import build_maskrcnn, load_maskrcnn, scaled_size
from wsss_core.instances.maskrcnn_prediction import Found, _pasted, cut, predict_instances
from wsss_core.instances.maskrcnn_training import (
    InstancePictures,
    MaskrcnnStep,
    _listed,
    train_maskrcnn,
    with_instances,
)
from wsss_core.instances.store import InstanceStore, InstanceWriter, instances_of
from wsss_core.maps.shards import StoreError
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import MaskrcnnPredictionSettings, MaskrcnnSettings, made

CPU = torch.device("cpu")
TINY = "test_resnet"
SMALL = {
    "width": 8,
    "shorter_side": 48,
    "longest_side": 72,
    "training_proposals": 20,
    "test_proposals": 20,
    "samples": 8,
}


def settings_of(**changes) -> MaskrcnnSettings:
    values = {
        "backbone": TINY,
        "frozen": "none",
        "batch_norm": "trained",
        "width": 8,
        "shorter_sides": [40, 48],
        "longest_side": 72,
        "batch_size": 2,
        "epochs": 2,
        "decay_at": [1],
        "learning_rate": 0.02,
        "warmup": {"iterations": 2, "factor": 0.1},
        "proposals": {"training": 20, "test": 20},
        "samples": 8,
    }
    return made(MaskrcnnSettings, values | changes)


def objects(mask: np.ndarray, labels: tuple[int, ...]) -> tuple[np.ndarray, list[int]]:
    """The tiny data set has one object a class."""
    found = [label for label in labels if (mask == label + 1).any()]
    return np.array([mask == label + 1 for label in found]).reshape(-1, *mask.shape), found


@pytest.fixture
def store(tiny, tmp_path):
    """The true instances; the third picture has none, and the fourth has a crowd beside its objects."""
    with InstanceWriter(tmp_path / "truth.zarr", tiny.manifest, about={"source": "objects"}) as out:
        for index, row in enumerate(tiny.manifest):
            masks, labels = objects(tiny.mask(row), row.labels)
            if index == 2:
                masks, labels = masks[:0], []
            if index == 3:
                masks, labels = np.concatenate([masks, np.ones_like(masks[:1])]), [*labels, 0]
            out.write(row.id, instances_of(masks, labels, crowd=[index == 3 and m.all() for m in masks]))
    return InstanceStore(tmp_path / "truth.zarr")


@pytest.fixture
def common(tiny, store, tmp_path) -> dict:
    torch.manual_seed(5)
    return {
        "manifest": tiny.manifest,
        "classes": tiny.classes,
        "instances": store.path,
        "weights": None,
        "output": tmp_path / "maskrcnn.pt",
        "seed": 5,
        "device": CPU,
    }


# --- how pictures enter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (800, 1067)),
        (640, 427, (1199, 800)),  # 427 * (800 / 427) is less than 800 in floats
        (375, 500, (800, 1067)),
        (500, 333, (1201, 800)),
        (300, 1000, (400, 1333)),  # the longer side decides
        (800, 1333, (800, 1333)),
        (1, 4000, (1, 1333)),  # no side vanishes
    ],
)
def test_sizes_are_exact(height, width, expected):
    assert scaled_size(height, width, 800, 1333) == expected
    assert scaled_size(width, height, 800, 1333) == expected[::-1]


def test_every_shorter_side_is_what_was_asked_for():
    for side in range(100, 801):
        assert scaled_size(side, side + side // 3, 800, 1333)[0] == 800


def test_pictures_and_instances_enter_as_by_torchvisions_own_transform(tiny, store):
    """Where the floats of its sizes are exact, all numbers are."""
    row = tiny.manifest.rows[0]  # 32 x 48
    instances = store[row.id]
    pixels = torch.from_numpy(np.array(Image.open(row.image)))
    transform = GeneralizedRCNNTransform(48, 72, MEAN.tolist(), STD.tolist()).train()
    target = {
        "masks": torch.from_numpy(instances.dense().astype(np.uint8)),
        "boxes": torch.from_numpy(instances.boxes).float(),
    }
    images, (expected,) = transform([pixels.permute(2, 0, 1).float() / 255], [target])

    model = build_maskrcnn(TINY, 4, **SMALL)
    step = MaskrcnnStep(model, settings_of(), 4, CPU)
    batch = {"pixels": [pixels], **{name: [values] for name, values in target.items()}}
    given, (found,) = step.inputs(batch | {"labels": [torch.tensor([1])], "shorter": [torch.tensor(48)]})
    batched, _ = model.transform(given)
    assert batched.image_sizes == images.image_sizes == [(48, 72)]
    assert batched.tensors.shape == images.tensors.shape == (1, 3, 64, 96)
    torch.testing.assert_close(batched.tensors, images.tensors, rtol=0, atol=1e-5)
    assert torch.equal(found["masks"], expected["masks"])
    torch.testing.assert_close(found["boxes"], expected["boxes"])


def test_a_batch_holds_pictures_of_several_sizes():
    images, targets = build_maskrcnn(TINY, 4, **SMALL).transform([torch.ones(3, 40, 60), torch.ones(3, 60, 40)])
    assert images.tensors.shape == (2, 3, 64, 64)
    assert images.tensors.is_contiguous(memory_format=torch.channels_last)
    assert images.tensors.sum() == 2 * 3 * 40 * 60
    assert images.image_sizes == [(40, 60), (60, 40)]
    assert targets is None


def test_samples_are_mirrored_with_their_instances(tiny, store):
    samples = InstancePictures(tiny.manifest, store, (40, 48))
    drawn = [samples.sample(0, np.random.default_rng(seed)) for seed in range(20)]
    assert {int(sample["shorter"]) for sample in drawn} == {40, 48}
    picture = np.array(Image.open(tiny.manifest.rows[0].image))
    mirrored = [not np.array_equal(sample["pixels"], picture) for sample in drawn]
    assert 0 < sum(mirrored) < 20
    for sample, mirror in zip(drawn, mirrored, strict=True):
        turn = -1 if mirror else 1
        assert np.array_equal(sample["pixels"].numpy()[:, ::turn], picture)
        assert np.array_equal(sample["masks"].numpy()[:, :, ::turn], store["image0"].dense())
        assert sample["labels"].tolist() == (store["image0"].labels + 1).tolist()
        for mask, box in zip(sample["masks"], sample["boxes"].int().tolist(), strict=True):
            x0, y0, x1, y1 = box
            assert mask[y0:y1, x0:x1].sum() == mask.sum()
            assert all(edge.any() for edge in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1]))


def test_pictures_without_instances_are_left_out_and_crowds_too(tiny, store):
    kept = with_instances(tiny.manifest, store, tiny.classes)
    assert kept.ids == [row.id for index, row in enumerate(tiny.manifest) if index != 2]
    assert store.count("image3") == len(tiny.manifest.rows[3].labels) + 1
    sample = InstancePictures(tiny.manifest, store, (40,)).sample(3, np.random.default_rng(0))
    assert len(sample["masks"]) == len(tiny.manifest.rows[3].labels)


def test_instances_of_no_class_or_of_other_classes_are_refused(tiny, store):
    with pytest.raises(DataError, match=r"truth\.zarr: the instances of image\d have the classes \[.*there are 1"):
        with_instances(tiny.manifest, store, make_classes(["circle"]))


def test_a_split_without_instances_is_refused(tiny, common, tmp_path):
    with InstanceWriter(tmp_path / "empty.zarr", tiny.manifest, about={}) as out:
        for row in tiny.manifest:
            out.write(row.id, instances_of(np.zeros((0, row.height, row.width)), []))
    with pytest.raises(DataError, match=r"empty\.zarr: none of 8 images has an instance"):
        train_maskrcnn(**common | {"instances": tmp_path / "empty.zarr"}, settings=settings_of())


def test_a_store_of_another_manifest_is_refused(tiny, common):
    other = Manifest.of([dataclasses.replace(row, labels=(0,)) for row in tiny.manifest])
    with pytest.raises(StoreError, match="another manifest"):
        train_maskrcnn(**common | {"manifest": other}, settings=settings_of())


# --- the network --------------------------------------------------------------------------------------------------


def test_the_usual_network_is_torchvisions():
    """But for the names in its backbone, which has FrozenBatchNorm2d there."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    with torch.device("meta"):
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=21)
        own = build_maskrcnn("resnet50", 21)

    def heads(model):
        return {name: value.shape for name, value in model.state_dict().items() if ".body." not in name}

    assert heads(own) == heads(theirs)
    for part in ("score_thresh", "nms_thresh", "detections_per_img"):
        assert getattr(own.roi_heads, part) == getattr(theirs.roi_heads, part)
    assert own.rpn._pre_nms_top_n == theirs.rpn._pre_nms_top_n
    assert own.rpn._post_nms_top_n == theirs.rpn._post_nms_top_n
    body = {name.removeprefix("backbone.body.network."): p for name, p in own.named_parameters() if ".body." in name}
    trained = {name.split(".")[0] for name, p in body.items() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    assert not any(p.requires_grad for name, p in body.items() if "bn" in name or "downsample.1" in name)
    assert not any(m.training for m in own.backbone.body.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_a_backbone_without_the_strides_is_refused():
    with pytest.raises(ValueError, match="needs maps of the strides 4, 8, 16 and 32, not"):
        build_maskrcnn("vgg16", 4)


@pytest.mark.parametrize(
    "state",
    [
        {"backbone.body.conv1.weight": torch.zeros(1), "rpn.head.conv.weight": torch.zeros(1)},  # torchvision
        {"model": {"backbone.conv1.weight": torch.zeros(1), "roi_heads.mask_head.deconv.weight": torch.zeros(1)}},
        {"meta": {}, "state_dict": {"backbone.conv1.weight": torch.zeros(1), "roi_head.mask_head.w": torch.zeros(1)}},
    ],
)
def test_weights_of_a_detector_are_refused_by_name(state, tmp_path):
    torch.save(state, tmp_path / "mask_rcnn_r50.pth")
    with pytest.raises(ValueError, match=r"mask_rcnn_r50\.pth holds a detector \(its tensor (rpn|roi_head)"):
        build_maskrcnn(TINY, 4, weights=tmp_path / "mask_rcnn_r50.pth", **SMALL)


def test_openmmlabs_classifier_starts_a_network_but_its_detector_does_not(tmp_path):
    """Both have the same tensors under ``backbone.``."""
    network = build_backbone(TINY).network.state_dict()
    state = {f"backbone.{name}": value for name, value in network.items()}
    torch.save({"state_dict": state}, tmp_path / "classifier.pth")
    model = build_maskrcnn(TINY, 4, weights=tmp_path / "classifier.pth", **SMALL)
    assert torch.equal(model.backbone.body.network.layer1[0].conv1.weight, network["layer1.0.conv1.weight"])
    torch.save({"state_dict": {**state, "rpn_head.rpn_cls.bias": torch.zeros(1)}}, tmp_path / "detector.pth")
    with pytest.raises(ValueError, match="its tensor rpn_head"):
        build_maskrcnn(TINY, 4, weights=tmp_path / "detector.pth", **SMALL)


# --- training -----------------------------------------------------------------------------------------------------


def test_the_rate_rises_and_falls():
    rates = [stepped(update, decay_at=[6, 8], warmup=4, start=0.2) for update in range(10)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert stepped(0, decay_at=[], warmup=0, start=0.001) == 1


def test_the_optimiser_follows_the_schedule():
    model = build_maskrcnn(TINY, 4, **SMALL)
    step = MaskrcnnStep(model, settings_of(epochs=3, decay_at=[1, 2], accumulation=2), 8, CPU)
    rates = []
    for _ in range(12):
        rates.append(step.optimizer.lr)
        step.optimizer.step(step.scaler)
    # four updates an epoch; two of them warm the rate up, from a tenth of it
    assert rates == pytest.approx([0.02 * f for f in (0.1, 0.55, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01)])


def test_it_learns_a_picture(tmp_path):
    """Three objects of two classes, two of them one kind: the loss falls, and each is found once."""
    torch.manual_seed(0)
    y, x = np.mgrid[:64, :96]
    masks = np.stack(
        [
            (y - 20) ** 2 + (x - 20) ** 2 < 14**2,
            (y - 42) ** 2 + (x - 46) ** 2 < 14**2,
            (x > 69) & (x < 87) & (abs(y - 30) < 20),
        ]
    )
    pixels = np.full((64, 96, 3), 100, np.uint8)
    for mask, colour in zip(masks, ([220, 60, 60], [220, 60, 60], [60, 60, 220]), strict=True):
        pixels[mask] = colour
    Image.fromarray(pixels).save(tmp_path / "one.png")
    manifest = Manifest.of([Row("one", str(tmp_path / "one.png"), "", 64, 96, (0, 1))])
    with InstanceWriter(tmp_path / "one.zarr", manifest, about={}) as out:
        out.write("one", instances_of(masks, [0, 0, 1]))

    settings = settings_of(
        width=16, shorter_sides=[64], longest_side=96, epochs=1, decay_at=[], batch_norm="trained",
        proposals={"training": 50, "test": 50}, samples=32, learning_rate=0.02,
    )  # fmt: skip
    network = {"width": 16, "shorter_side": 64, "longest_side": 96, "training_proposals": 50, "test_proposals": 50}
    model = build_maskrcnn(TINY, 3, samples=32, frozen="none", batch_norm="trained", **network)
    step = MaskrcnnStep(model, settings, 50, CPU)
    samples = InstancePictures(manifest, InstanceStore(tmp_path / "one.zarr"), (64,))
    rng = np.random.default_rng(0)
    totals = []
    for update in range(50):
        losses = step(_listed([samples.sample(0, rng), samples.sample(0, rng)]), update)
        assert set(losses) == {"class", "box", "mask", "objectness", "proposal_box"}
        totals.append(float(sum(losses.values())))
    assert np.mean(totals[-5:]) < 0.4 * totals[0]

    predict_instances(
        model=model, manifest=manifest, store=tmp_path / "found.zarr", settings=MaskrcnnPredictionSettings(),
        about={}, device=CPU,
    )  # fmt: skip
    found = InstanceStore(tmp_path / "found.zarr")["one"].kept(np.arange(3))
    truth = instances_of(masks, [0, 0, 1])
    overlap = run_lengths.iou(found.masks, truth.masks, [0] * 3)
    assert sorted(overlap.argmax(1)) == [0, 1, 2]
    assert (overlap.max(1) > 0.7).all()
    assert found.labels.tolist() == truth.labels[overlap.argmax(1)].tolist()


def state_of(path) -> dict:
    return read_model(path, "maskrcnn")[1]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_seed_decides_about_every_number(common, tmp_path):
    def trained(name: str, seed: int) -> dict:
        torch.manual_seed(seed)
        train_maskrcnn(**common | {"output": tmp_path / name, "seed": seed}, settings=settings_of(epochs=1))
        return state_of(tmp_path / name)

    first = trained("a.pt", 5)
    assert same(first, trained("b.pt", 5))
    assert not same(first, trained("c.pt", 6))


def test_a_killed_training_goes_on_to_the_same_numbers(common, tmp_path, monkeypatch):
    settings = settings_of(accumulation=2)  # three batches an epoch: it ends in the middle of an update
    train_maskrcnn(**common, settings=settings)
    undisturbed = state_of(common["output"])

    keep, epochs = loop._keep, []

    def killed(*args) -> None:
        keep(*args)
        epochs.append(args[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_keep", killed)
    again = common | {"output": tmp_path / "again" / "maskrcnn.pt"}
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        train_maskrcnn(**again, settings=settings)
    assert epochs == [1]
    monkeypatch.setattr(loop, "_keep", keep)
    torch.manual_seed(99)  # what draws regions is restored, whatever happened to it since
    train_maskrcnn(**again, settings=settings)
    assert same(undisturbed, state_of(again["output"]))
    histories = [(out["output"].parent / "maskrcnn.history.csv").read_text().splitlines() for out in (common, again)]
    assert [[row.split(",")[:6] for row in rows] for rows in histories[:1]] == [
        [row.split(",")[:6] for row in rows] for rows in histories[1:]
    ]


def test_a_checkpoint_says_what_it_is_and_predicts_as_it_did(common, tiny, tmp_path):
    train_maskrcnn(**common, settings=settings_of(epochs=1))
    recipe, _ = read_model(common["output"], "maskrcnn")
    assert recipe["names"] == ["circle", "square", "star"]
    assert len(recipe["colours"]) == 4
    assert recipe["instances"]["source"] == "objects"
    assert recipe["network"]["shorter_side"] == 48  # the last of the training sides
    model = load_maskrcnn(common["output"])
    assert not model.training
    with pytest.raises(ValueError, match="holds a detector"):  # nor is it a beginning for another training
        build_maskrcnn(TINY, 4, weights=common["output"], **SMALL)


# --- prediction ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    model = build_maskrcnn(TINY, 4, **SMALL).eval()
    torch.nn.init.ones_(model.roi_heads.mask_predictor.mask_fcn_logits.bias)  # no mask without a pixel
    return model


def predict(model, manifest, path, workers=0, **changes) -> InstanceStore:
    settings = MaskrcnnPredictionSettings(**{"score": 0.0, "limit": 7} | changes)
    predict_instances(model=model, manifest=manifest, store=path, settings=settings, about={"run": "x"}, device=CPU,
                      workers=workers)  # fmt: skip
    return InstanceStore(path)


def test_detections_go_to_a_store_and_back(tiny, network, tmp_path, through_pickles, monkeypatch):
    monkeypatch.setattr(maskrcnn_prediction, "in_processes", through_pickles)
    found = predict(network, tiny.manifest, tmp_path / "found.zarr")
    assert found.about["run"] == "x"
    assert found.about["settings"]["limit"] == 7
    assert list(found) == tiny.manifest.ids
    for row in tiny.manifest:
        instances = found[row.id]
        assert 0 < len(instances.masks) <= 7
        assert instances.dense().shape[1:] == (row.height, row.width)
        assert (np.diff(instances.scores) <= 0).all()
        assert ((instances.labels >= 0) & (instances.labels < 3)).all()
        assert (instances.areas > 0).all()


def test_labels_of_the_photos_are_not_used(tiny, network, tmp_path):
    first = predict(network, tiny.manifest, tmp_path / "a.zarr")
    unlabelled = Manifest.of([dataclasses.replace(row, labels=(), mask="") for row in tiny.manifest])
    second = predict(network, unlabelled, tmp_path / "b.zarr")
    for row in tiny.manifest:
        assert first[row.id].masks == second[row.id].masks
        assert np.array_equal(first[row.id].scores, second[row.id].scores)


def test_score_overlap_and_limit_are_those_of_the_settings(tiny, network, tmp_path):
    def counts(name: str, **changes) -> list[int]:
        store = predict(network, tiny.manifest, tmp_path / f"{name}.zarr", limit=50, **changes)
        return [store.count(id) for id in tiny.manifest.ids]

    every = counts("all", overlap=1.0)
    fewer = counts("fewer", overlap=0.1)
    assert sum(fewer) < sum(every)
    store = InstanceStore(tmp_path / "all.zarr")
    floor = float(np.median(store["image0"].scores))
    above = predict(network, tiny.manifest, tmp_path / "above.zarr", limit=50, overlap=1.0, score=floor)
    assert (above["image0"].scores > floor).all()
    assert above.count("image0") == (store["image0"].scores > floor).sum()


def test_a_photo_in_which_nothing_is_found_has_no_instances(tiny, network, tmp_path):
    store = predict(network, tiny.manifest, tmp_path / "none.zarr", score=1.0)
    assert [store.count(id) for id in tiny.manifest.ids] == [0] * 8


def test_an_error_on_the_way_leaves_no_store(tiny, network, tmp_path):
    broken = build_maskrcnn(TINY, 4, **SMALL)
    broken.load_state_dict(network.state_dict())
    with torch.no_grad():
        broken.backbone.fpn.layer_blocks[0][0].bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match="features of image image0 are not finite: delete its checkpoint"):
        predict(broken, tiny.manifest, tmp_path / "found.zarr")
    assert list(tmp_path.iterdir()) == []


def test_places_of_a_box_are_brought_to_pixels_as_a_grid_samples_them():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(28, 28, generator=generator)
    box = np.array([10.3, -4.2, 41.9, 22.5], np.float32)
    height, width = 30, 50
    x = (torch.arange(width) + 0.5 - 10.3) / (41.9 - 10.3) * 2 - 1
    y = (torch.arange(height) + 0.5 + 4.2) / (22.5 + 4.2) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    expected = F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
    found = _pasted(mask.numpy(), box, (height, width), (0.0, 0.0))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_a_mask_comes_back_to_where_it_was_learnt_from():
    """From a disc to the target that torchvision makes of it, and back: half a pixel counts."""
    y, x = np.mgrid[:40, :60]
    disc = (y - 18.5) ** 2 + (x - 30.5) ** 2 < 10**2
    (row,) = Manifest.of([Row("one", "one.png", "", 40, 60, ())]).rows
    overlaps = {}
    for shift in (0.0, 0.5, 1.0):
        box = np.array([[20, 8, 42, 30]], np.float32)
        target = project_masks_on_boxes(
            torch.from_numpy(disc[None].astype(np.uint8)), torch.from_numpy(box), torch.zeros(1), 28
        )
        found = Found(row, box, np.array([1]), np.array([0.9]), target.numpy(), (shift, shift))
        image_id, instances = cut(found)
        assert (image_id, instances.labels.tolist()) == ("one", [1])
        overlaps[shift] = run_lengths.iou(instances.masks, instances_of(disc[None], [0]).masks, [0]).item()
    assert overlaps[0.5] == pytest.approx(1.0)
    assert max(overlaps[0.0], overlaps[1.0]) < 0.96


def test_a_mask_without_a_pixel_is_dropped():
    (row,) = Manifest.of([Row("one", "one.png", "", 40, 60, ())]).rows
    masks = np.stack([np.zeros((28, 28), np.float32), np.ones((28, 28), np.float32)])
    boxes = np.array([[2, 2, 20, 20], [10, 5, 30, 25]], np.float32)
    _, instances = cut(Found(row, boxes, np.array([0, 2]), np.array([0.9, 0.4]), masks, (0.0, 0.0)))
    assert instances.labels.tolist() == [2]
    assert instances.boxes.tolist() == [[10, 5, 30, 25]]
    assert instances.scores.tolist() == pytest.approx([0.4])
