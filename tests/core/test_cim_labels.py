"""Peaks of class maps, their choice and their table; labels of proposals from peaks (AGPL)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.cim.labels import ProposalLabels, label_proposals, make_proposal_labels
from wsss_core.cim.peak_table import read_peaks, write_peaks
from wsss_core.cim.peaks import choose_peaks, dump_peaks, enlarged
from wsss_core.classifiers.peaks import find_peaks, peak_scores
from wsss_core.data import Manifest
from wsss_core.data.pictures import read_image
from wsss_core.instances.store import InstanceWriter, instances_of
from wsss_core.recipes.settings import PeakSettings, ProposalLabelSettings

CPU = torch.device("cpu")


# --- peaks --------------------------------------------------------------------------------------------------------


def peaks_by_hand(values: np.ndarray) -> list[tuple[int, int]]:
    median = np.sort(values.ravel())[(values.size - 1) // 2]  # the lower one
    found = []
    height, width = values.shape
    for row in range(height):
        for column in range(width):
            around = [
                (-values[r, c], r, c)
                for r in range(max(row - 1, 0), min(row + 2, height))
                for c in range(max(column - 1, 0), min(column + 2, width))
            ]
            if min(around)[1:] == (row, column) and values[row, column] >= median:
                found.append((row, column))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_peaks_are_first_maxima_from_the_median_on(seed):
    maps = np.random.default_rng(seed).integers(-4, 4, (2, 3, 6, 7)).astype(np.float32)  # with many ties
    expected = [(b, c, *place) for b in range(2) for c in range(3) for place in peaks_by_hand(maps[b, c])]
    assert [tuple(peak) for peak in find_peaks(torch.from_numpy(maps)).tolist()] == expected


def test_a_flat_map_has_its_first_cell_as_peak():
    assert find_peaks(torch.full((1, 1, 4, 4), -2.0)).tolist() == [[0, 0, 0, 0]]


def test_peaks_at_the_rim_count_though_all_is_negative():
    maps = torch.full((1, 1, 5, 5), -3.0)
    maps[0, 0, 0, 4] = -1
    assert [0, 0, 0, 4] in find_peaks(maps).tolist()


def test_a_wider_window_has_fewer_peaks():
    maps = torch.tensor([[[[0.0, 5, 0, 4, 0, 0, 3]]]])
    assert [peak[3] for peak in find_peaks(maps).tolist()] == [1, 3, 6]
    assert [peak[3] for peak in find_peaks(maps, 5).tolist()] == [1, 6]


def test_a_window_without_a_middle_is_refused():
    with pytest.raises(ValueError, match="odd side, not 4"):
        find_peaks(torch.zeros(1, 1, 4, 4), 4)


def test_scores_are_means_over_peaks_and_each_peak_has_the_whole_gradient():
    maps = torch.zeros(1, 2, 5, 5)
    maps[0, 0, 1, 1], maps[0, 0, 3, 3], maps[0, 1, 2, 2] = 4, 2, 7
    maps[0] -= torch.arange(25).view(5, 5) / 1000  # no ties
    maps.requires_grad_()
    scores = peak_scores(maps)
    places = find_peaks(maps)
    expected = [maps[0, c][tuple(places[places[:, 1] == c][:, 2:].T)].mean().item() for c in range(2)]
    assert scores[0].tolist() == pytest.approx(expected)
    (scores * torch.tensor([[2.0, 0.5]])).sum().backward()
    wanted = torch.zeros_like(maps)
    for _, c, row, column in places.tolist():
        wanted[0, c, row, column] = (2.0, 0.5)[c]
    assert torch.equal(maps.grad, wanted)


def test_enlarged_maps_keep_their_corners():
    maps = torch.rand(1, 1, 3, 3)
    large = enlarged(maps, 8)
    assert large.shape == (1, 1, 24, 24)
    torch.testing.assert_close(large[..., [0, 0, -1, -1], [0, -1, 0, -1]], maps[..., [0, 0, -1, -1], [0, -1, 0, -1]])


def test_peaks_above_the_threshold_are_chosen_or_the_highest_one():
    maps = torch.zeros(3, 5, 5)
    maps[0, 0, 0], maps[0, 2, 2], maps[0, 4, 4] = 12, 11, 9
    maps[2, 1, 3], maps[2, 3, 0] = 6, 5
    peaks, values = choose_peaks(maps, torch.tensor([0, 2]), PeakSettings())
    assert peaks.tolist() == [[2, 1, 3], [0, 2, 2], [0, 0, 0]]
    assert values.tolist() == [6, 11, 12]
    relative = PeakSettings(threshold=0.8, relative=True)
    peaks, _ = choose_peaks(maps, torch.tensor([0, 2]), relative)
    assert peaks.tolist() == [[2, 3, 0], [2, 1, 3], [0, 2, 2], [0, 0, 0]]


class Stub(nn.Module):
    """Class maps that are three of the squashed picture's colours, at a stride of 8."""

    def maps(self, images):
        return F.avg_pool2d(images, 8)


def test_peaks_of_a_split_go_through_their_table(tiny, tmp_path):
    settings = PeakSettings(size=64, enlarge=2, threshold=0.5, relative=True)
    dump_peaks(model=Stub(), manifest=tiny.manifest, output=tmp_path / "peaks.csv", settings=settings, device=CPU,
               batch_size=3)  # fmt: skip
    table = read_peaks(tmp_path / "peaks.csv")
    assert list(table) == tiny.manifest.ids
    row = tiny.manifest.rows[4]
    pixels = torch.from_numpy(np.array(read_image(row.image).resize((64, 64), 2))).permute(2, 0, 1)[None] / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    maps = F.avg_pool2d((pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1), 8)
    expected, values = choose_peaks(enlarged(maps, 2)[0], torch.tensor(row.labels), settings)
    peaks, scores, grid = table[row.id]
    assert peaks.tolist() == expected.tolist()
    assert scores.tolist() == pytest.approx(values.tolist(), rel=1e-5)
    assert grid == 16


def test_broken_maps_are_an_error(tiny, tmp_path):
    class Broken(Stub):
        def maps(self, images):
            return super().maps(images) * torch.nan

    with pytest.raises(FloatingPointError, match="class maps of image0"):
        dump_peaks(model=Broken(), manifest=tiny.manifest, output=tmp_path / "p.csv", settings=PeakSettings(size=64),
                   device=CPU)  # fmt: skip
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "", "image_id,label,row,column,grid,score\nx,0,1,2,y,3\n"])
def test_another_table_is_refused(tmp_path, text):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=r"p\.csv cannot be read as peaks"):
        read_peaks(tmp_path / "p.csv")


# --- labels of proposals ------------------------------------------------------------------------------------------


def rectangles(size: tuple[int, int], *corners: tuple[int, int, int, int]) -> np.ndarray:
    masks = np.zeros((len(corners), *size), bool)
    for mask, (top, bottom, left, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def label_by_loop(masks, peaks, scores, grid, support=0.7, overlap=0.5):
    """Peak by peak, overwriting what lower ones have said."""
    count, height, width = masks.shape
    owner, touched = np.zeros(count, int), np.zeros(count, bool)
    for j, place in enumerate(np.argsort(scores, kind="stable"), start=1):
        _, row, column = peaks[place]
        around = masks[:, row * height // grid, column * width // grid]
        if not around.any():
            continue
        area = masks[around].mean(0) > support
        iou = np.array([(mask & area).sum() / max((mask | area).sum(), 1) for mask in masks])
        owner[iou > overlap] = j
        touched |= iou > 0
    return np.where(owner > 0, owner, np.where(touched, -1, 0))


@pytest.mark.parametrize("seed", range(6))
def test_labels_against_a_loop_over_peaks(seed, monkeypatch):
    monkeypatch.setattr("wsss_core.cim.labels.PIXELS", 100)
    rng = np.random.default_rng(seed)
    corners = [(a, a + h, b, b + w) for a, b, h, w in rng.integers(1, 14, (60, 4))]
    masks = rectangles((26, 30), *corners)
    peaks = np.stack([rng.integers(0, 5, 7), rng.integers(0, 16, 7), rng.integers(0, 16, 7)], 1)
    scores = rng.random(7)
    cluster, classes = label_proposals(masks, peaks, scores, 16)
    assert cluster.tolist() == label_by_loop(masks, peaks, scores, 16).tolist()
    assert classes.tolist() == peaks[np.argsort(scores), 0].tolist()
    with_batch = label_proposals(masks, np.concatenate([np.zeros((7, 1), int), peaks], 1), scores, 16)
    assert np.array_equal(with_batch[0], cluster)


def test_rows_and_columns_of_a_squashed_picture_have_factors_of_their_own():
    masks = rectangles((20, 40), (14, 16, 8, 10), (4, 6, 28, 30))
    cluster, _ = label_proposals(masks, np.array([[3, 7, 2]]), np.array([1.0]), 10)  # pixel (14, 8)
    assert cluster.tolist() == [1, 0]


def test_of_two_peaks_the_higher_one_has_a_proposal():
    masks = rectangles((10, 10), (0, 10, 0, 10))
    peaks = np.array([[4, 1, 1], [2, 8, 8], [0, 5, 5]])
    cluster, classes = label_proposals(masks, peaks, np.array([0.2, 0.9, 0.1]), 10)
    assert cluster.tolist() == [3]
    assert classes.tolist() == [0, 4, 2]


def test_support_and_overlap_are_strict():
    # 7 of 10 proposals share the left part: 0.7 of them are not more than 0.7
    masks = rectangles((4, 8), *[(0, 4, 0, 8)] * 7, *[(0, 4, 4, 8)] * 3)
    cluster, _ = label_proposals(masks, np.array([[0, 0, 7]]), np.array([1.0]), 8)
    # the support is the right half, which is exactly half of the first ones
    assert cluster.tolist() == [-1] * 7 + [1] * 3


def test_a_share_that_is_met_exactly_is_none_whatever_the_rounding():
    masks = rectangles((4, 8), *[(0, 4, 0, 8)] * 63, *[(0, 4, 4, 8)] * 27)  # 0.7 * 90 is a little less than 63
    cluster, _ = label_proposals(masks, np.array([[0, 0, 7]]), np.array([1.0]), 8)
    assert cluster.tolist() == [-1] * 63 + [1] * 27


def test_a_peak_in_no_proposal_labels_nothing():
    masks = rectangles((10, 10), (0, 4, 0, 4))
    assert label_proposals(masks, np.array([[1, 9, 9]]), np.array([1.0]), 10)[0].tolist() == [0]


def test_without_a_peak_all_is_background():
    cluster, classes = label_proposals(rectangles((4, 4), (0, 2, 0, 2)), np.zeros((0, 3)), np.zeros(0))
    assert (cluster.tolist(), classes.tolist()) == ([-1], [])


def test_without_proposals_there_is_nothing_to_label():
    cluster, classes = label_proposals(np.zeros((0, 4, 4), bool), np.array([[1, 1, 1]]), np.ones(1), 4)
    assert (cluster.tolist(), classes.tolist()) == ([], [1])


def test_a_peak_beyond_the_grid_is_an_error():
    with pytest.raises(ValueError, match="beyond the grid of 10 x 10"):
        label_proposals(np.ones((1, 4, 4), bool), np.array([[0, 3, 10]]), np.ones(1), 10)


@pytest.fixture
def labelled(tmp_path):
    """A file of labels, and what it was made of: three pictures, one without a peak and one without a proposal."""
    from wsss_core.data import Row

    manifest = Manifest.of([Row(name, f"{name}.jpg", "", 8, 10, (1,)) for name in "abc"])
    masks = {"a": rectangles((8, 10), (0, 4, 0, 5), (4, 8, 5, 10), (0, 5, 0, 5)), "b": rectangles((8, 10)),
             "c": rectangles((8, 10), (2, 4, 2, 4))}  # fmt: skip
    with InstanceWriter(tmp_path / "p.zarr", manifest, about={}) as out:
        for name, own in masks.items():
            out.write(name, instances_of(own, [-1] * len(own)))
    write_peaks(tmp_path / "peaks.csv", [("a", 4, 1, 1, 5, 0.5), ("a", 2, 4, 4, 5, 0.25), ("b", 0, 0, 0, 5, 1.0)])
    make_proposal_labels(
        manifest=manifest, proposals=tmp_path / "p.zarr", peaks=tmp_path / "peaks.csv", output=tmp_path / "l.npz",
        settings=ProposalLabelSettings(),
    )  # fmt: skip
    return tmp_path, manifest


def test_labels_of_a_split_go_through_their_file(labelled):
    folder, _ = labelled
    labels = ProposalLabels(folder / "l.npz")
    found = {name: [part.tolist() for part in labels[name]] for name in "abc"}
    assert found == {"a": [[2, 1, 2], [2, 4]], "b": [[], [0]], "c": [[-1], []]}


def test_labels_of_other_proposals_are_refused(labelled):
    from wsss_core.instances.store import InstanceStore

    folder, manifest = labelled
    labels, store = ProposalLabels(folder / "l.npz"), InstanceStore(folder / "p.zarr")
    labels.check(manifest, store)
    with pytest.raises(ValueError, match="another manifest or from other proposals"):
        labels.check(Manifest.of(manifest.rows[:2]), store)


def test_a_damaged_file_of_labels_is_named(labelled):
    path = labelled[0] / "l.npz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"l\.npz cannot be read as labels of proposals .*: delete it"):
        ProposalLabels(path)
    np.savez(path, layout="something else")
    with pytest.raises(ValueError, match="it has the layout something else"):
        ProposalLabels(path)
