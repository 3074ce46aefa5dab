"""Instances of a split by IRNet, against its formulas one after the other."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from wsss_core.affinity.network import AffinityNet
from wsss_core.affinity.pseudo_masks import finish_maps
from wsss_core.affinity.random_walk import random_walk
from wsss_core.affinity.walk import walk_start
from wsss_core.data import Manifest, read_mask
from wsss_core.data.pictures import read_image
from wsss_core.data.samples import network_input
from wsss_core.instances import irn
from wsss_core.instances.displacement import detect, find_centroids, instance_map, split_by_instance
from wsss_core.instances.irn import dump_instance_maps, dump_irn_instances, irn_objects
from wsss_core.instances.store import InstanceStore
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import IrnSettings, WalkSettings

CPU = torch.device("cpu")
SETTINGS = IrnSettings(iterations=20, threshold=1.5, background=0.3, smallest=0.02)
WALK = WalkSettings(radius=3, beta=4, squarings=3, padding=64)


class Fields(nn.Module):
    """In place of AffinityNet: edges and displacements that depend on the picture."""

    def both(self, x):
        small = F.avg_pool2d(x, 4, ceil_mode=True)
        return small[:, :1] - 1, 3 * small[:, 1:]


@pytest.fixture
def cams(tiny, tmp_path, random_maps, write_store):
    return write_store(tmp_path / "cams.zarr", tiny.manifest, random_maps(tiny.manifest))


def dump(manifest, cams, path, model=None, walk=WALK):
    dump_irn_instances(model=model or Fields(), cams=cams, manifest=manifest, store=path, settings=SETTINGS, walk=walk,
                       about={"run": "test"}, device=CPU)  # fmt: skip
    return InstanceStore(path)


def fields_of(row):
    """Edges and displacements of a picture, padded as the walk's settings say and cropped again."""
    pixels = network_input(torch.from_numpy(np.array(read_image(row.image)))[None])
    padded = F.pad(pixels, (0, 64 - row.height, 0, 64 - row.width))  # swapped
    (ahead, displacement), (back, _) = (
        Fields().both(padded),
        Fields().both(F.pad(pixels.flip(3), (0, 64 - row.height, 0, 64 - row.width))),
    )
    h, w = row.height // 4, row.width // 4
    edge = torch.sigmoid((ahead[0, 0, :h, :w] + back[0, 0, :h, :w].flip(1)) / 2)
    return edge, displacement[0, :, :h, :w].numpy()


def formulas(start, labels, edge, displacement, size, walk=WALK):
    instances = instance_map(find_centroids(displacement, 20), displacement, 1.5)
    maps = random_walk(split_by_instance(start, instances), edge.numpy(), walk.radius, walk.beta, walk.squarings)
    return detect(finish_maps(maps, *size), labels, instances, 0.3, 0.02)


def test_the_store_holds_what_the_formulas_say(tiny, cams, tmp_path):
    store = dump(tiny.manifest, cams, tmp_path / "irn.zarr")
    several = 0
    for row in tiny.manifest:
        labels, maps = cams[row.id]
        start = walk_start(maps, row.height, row.width).numpy()
        scores, found, masks = formulas(start, labels, *fields_of(row), (row.height, row.width))
        kept = store[row.id]
        np.testing.assert_array_equal(kept.labels, found)
        np.testing.assert_allclose(kept.scores, scores, rtol=1e-5)
        np.testing.assert_array_equal(kept.dense((row.height, row.width)), masks)
        assert set(found) <= set(row.labels)
        several += len(found) > len(row.labels)
    assert several
    assert store.about["settings"]["threshold"] == 1.5
    assert store.about["walk"]["beta"] == 4
    assert (store.about["run"], store.about["source"]) == ("test", str(cams.path))


def test_the_power_of_the_walk_comes_before_the_instances(tiny, cams, tmp_path):
    walk = WalkSettings(radius=3, beta=4, squarings=3, padding=64, power=2.0)
    store = dump(tiny.manifest, cams, tmp_path / "irn.zarr", walk=walk)
    row = tiny.manifest.rows[0]
    labels, maps = cams[row.id]
    start = walk_start(maps, row.height, row.width).numpy() ** 2
    scores, _, masks = formulas(start, labels, *fields_of(row), (row.height, row.width))
    np.testing.assert_allclose(store[row.id].scores, scores, rtol=1e-5)
    np.testing.assert_array_equal(store[row.id].dense(), masks)


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_many_instances_walk_a_few_at_a_time(monkeypatch, at_once):
    monkeypatch.setattr(irn, "WALKS_AT_ONCE", at_once)
    rng = np.random.default_rng(1)
    start = torch.from_numpy(rng.random((2, 12, 15), np.float32)).where(torch.arange(15) % 4 > 0, torch.tensor(0.0))
    edge = torch.from_numpy(rng.random((12, 15), np.float32))
    displacement = np.zeros((2, 12, 15), np.float32)
    displacement[:, np.indices((12, 15)).sum(0) % 2 > 0] = 2  # every second pixel is the middle of an instance
    expected = formulas(start.numpy(), [4, 9], edge, displacement, (47, 58))
    assert instance_map(find_centroids(displacement, 20), displacement, 1.5).max() > 80
    found = irn_objects(start, [4, 9], edge, displacement, (47, 58), SETTINGS, WALK)
    assert len(found[0]) > 3
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[2], expected[2])


def test_pictures_without_labels_have_no_instances(tiny, tmp_path, random_maps, write_store):
    row = tiny.manifest.rows[0]
    manifest = Manifest.of([type(row)(row.id, row.image, row.mask, row.height, row.width, ())])
    cams = write_store(tmp_path / "none.zarr", manifest, random_maps(manifest))
    assert dump(manifest, cams, tmp_path / "irn.zarr").count(row.id) == 0


def test_a_network_without_displacements_is_refused_and_leaves_no_store(tiny, cams, tmp_path):
    with pytest.raises(ValueError, match="`displacement: true`"):
        dump(tiny.manifest, cams, tmp_path / "irn.zarr", model=AffinityNet(build_backbone("test_resnet")))
    assert [path.name for path in tmp_path.iterdir()] == ["cams.zarr"]


def test_instance_maps_are_of_all_classes_at_the_pictures_size(tiny, tmp_path):
    common = {"model": Fields(), "manifest": tiny.manifest, "settings": SETTINGS, "walk": WALK, "device": CPU}
    dump_instance_maps(**common, folder=tmp_path / "all")
    dump_instance_maps(**common, folder=tmp_path / "objects", masks=tiny.masks, classes=tiny.classes)
    for row in tiny.manifest:
        displacement = fields_of(row)[1]
        instances = instance_map(find_centroids(displacement, 20), displacement, 1.5)
        expected = np.kron(instances + 1, np.ones((4, 4), np.int64))
        with Image.open(tmp_path / "all" / f"{row.id}.png") as image:
            assert image.mode == "I;16"
            np.testing.assert_array_equal(np.array(image), expected)
        inside = read_mask(row.mask, tiny.classes) > 0
        masked = np.array(Image.open(tmp_path / "objects" / f"{row.id}.png"))
        np.testing.assert_array_equal(masked, np.where(inside, expected, 0))
