"""The command wsss show: which images, which panels, what it says where something is missing."""

import numpy as np
import pytest
import yaml
from PIL import Image

from wsss_core.commands import show
from wsss_core.commands.app import main
from wsss_core.commands.project import open_project
from wsss_core.commands.run import RunOnDisk
from wsss_core.data import Manifest, write_grey, write_mask
from wsss_core.instances.store import InstanceWriter, instances_of
from wsss_core.reports.road import ACROSS, CELL, Block, draw_blocks, heat_panel
from wsss_core.scores.masks import evaluate_masks


@pytest.fixture
def left(tiny, tmp_path, random_maps, write_store):
    """What the run pnoc, whose plain classifier is cam, left of six tiny images for training and two for val."""
    declared = {
        "kind": "folders", "images": str(tiny.folder), "masks": str(tiny.masks), "labels": "masks",
        "names": list(tiny.classes.names), "lists": {"train": "train.txt", "val": "val.txt"},
        "splits": {"train": "train", "scored": None, "val": "val"},
    }  # fmt: skip
    content = {"results": str(tmp_path / "results"), "datasets": {"tiny": declared}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    folder = tmp_path / "results/tiny"
    train, val = Manifest.of(tiny.manifest.rows[:6]), Manifest.of(tiny.manifest.rows[6:])
    tiny.classes.write(folder / "classes.csv")
    train.write(folder / "manifest/train.csv")
    val.write(folder / "manifest/val.csv")
    write_store(folder / "pnoc/cams/train.zarr", train, random_maps(train))
    write_store(folder / "pnoc/hints/train.zarr", train, random_maps(train, classwise=False), classwise=False)
    rng = np.random.default_rng(0)
    for row in train:
        write_grey(folder / "pnoc/saliency" / "train" / f"{row.id}.png", np.zeros((row.height, row.width), np.uint8))
        mask = np.where(
            rng.random((row.height, row.width)) < 0.5, np.where(tiny.mask(row) == 255, 0, tiny.mask(row)), 0
        )
        write_mask(folder / "pnoc/pseudo_masks/train" / f"{row.id}.png", mask.astype(np.uint8), tiny.classes)
    for row, value in zip(val, (0, 1), strict=True):  # background everywhere is nearer to the truth than circles
        mask = np.full((row.height, row.width), value, np.uint8)
        write_mask(folder / "pnoc/masks/val" / f"{row.id}.png", mask, tiny.classes)
    for name, artefact, manifest in (("pseudo", "pseudo_masks/train", train), ("seg", "masks/val", val)):
        images = folder / f"pnoc/{name}_images.csv"
        evaluate_masks(manifest=manifest, classes=tiny.classes, folder=folder / "pnoc" / artefact, images=images)
    return RunOnDisk(open_project([tmp_path / "tiny.yaml"]), "tiny", "pnoc")


def wsss(capsys, tmp_path, *words):
    code = main(["show", "tiny", *words, "--configfile", str(tmp_path / "tiny.yaml"), "-o", str(tmp_path / "out.png")])
    out = capsys.readouterr()
    return code, (out.err if code else out.out).strip()


def test_an_image_goes_through_all_stages_that_are_there(left, tiny):
    block = show.block_of(left, "image1")
    names = [tiny.classes.names[label] for label in tiny.manifest.rows[1].labels]
    pseudo = left.tables["pseudo"]["image1"].miou
    assert [caption for caption, _ in block.panels] == [
        "photo", *(f"CAM {name}" for name in names), "hints", "saliency (PoolNet)",
        f"pseudo mask  mIoU {100 * pseudo:.1f}", "truth",
    ]  # fmt: skip
    assert block.title == f"image1  (train: {', '.join(names)})  mIoU of the image: pseudo mask {100 * pseudo:.1f}"
    assert [text.split(" (")[0] for _, text in block.legend] == ["background", *names, "void or uncertain"]
    assert "(IoU pseudo mask " in block.legend[1][1]
    assert all(pixels.dtype == np.uint8 and pixels.shape == (48, 32, 3) for _, pixels in block.panels)


def test_an_image_of_val_has_its_prediction(left):
    captions = [caption for caption, _ in show.block_of(left, "image6").panels]
    assert captions[0] == "photo"
    assert captions[1].startswith("prediction  mIoU ")
    assert captions[2:] == ["truth"]


def test_a_store_of_an_earlier_version_is_told(left, capsys, tmp_path):
    marks = tmp_path / "results/tiny/pnoc/hints/train.zarr/zarr.json"
    marks.write_text(marks.read_text().replace("wsss-maps/4", "wsss-maps/1"))
    assert (
        "hints/train.zarr is not a complete store of layout wsss-maps/4" in wsss(capsys, tmp_path, "pnoc", "image1")[1]
    )


def test_instances_are_drawn_too(left, tiny, tmp_path):
    content = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    content["runs"] = {"objects": {"extends": "pnoc", "instances": "components"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    train = left.manifests["train"]
    with InstanceWriter(tmp_path / "results/tiny/objects/components/train.zarr", train, about={}) as out:
        for row in train:
            out.write(row.id, instances_of(tiny.mask(row)[None] == row.labels[0] + 1, [row.labels[0]]))
    run = RunOnDisk(open_project([tmp_path / "tiny.yaml"]), "tiny", "objects")
    assert "instances (components)" in [caption for caption, _ in show.block_of(run, "image1").panels]


def test_the_legend_names_what_the_truth_shows_though_no_label_says_so(left, tiny, tmp_path):
    rows = list(left.manifests["train"].rows)
    bare = [row.__class__(**{**row.__dict__, "labels": ()}) for row in rows]
    Manifest.of(bare).write(tmp_path / "results/tiny/manifest/train.csv")
    left.__dict__.pop("manifests")
    texts = [text for _, text in show.block_of(left, "image0").legend]
    assert any(text.startswith(tiny.classes.names[rows[0].labels[0]]) for text in texts)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"worst": 1}, ["image7"]),
        ({"best": 1}, ["image6"]),
        ({"worst": 1, "best": 2}, ["image7", "image6"]),
        ({"images": ["image3"], "worst": 1}, ["image3", "image7"]),
        ({"worst": 2, "of_class": "star"}, ["image7"]),  # the one of val that shows it
    ],
)
def test_images_are_chosen_by_the_last_stage_that_is_scored(left, words, expected):
    words = {"images": [], **words}
    assert show.chosen(left, words.pop("images"), **words) == expected


def test_images_are_chosen_by_another_stage_and_at_random(left, tiny):
    worst = min(left.tables["pseudo"].values(), key=lambda one: one.miou).image_id
    assert show.chosen(left, [], worst=1, stage="pseudo") == [worst]
    drawn = show.chosen(left, [], anyhow=3, of_class="star", seed=1)
    assert len(drawn) == len([row for row in left.manifests["train"] if 2 in row.labels][:3])
    assert all(2 in tiny.manifest.row(one).labels for one in drawn)
    assert drawn == show.chosen(left, [], anyhow=3, of_class="star", seed=1)


def test_scores_of_what_is_shared_are_those_of_the_run_that_made_it(left, tmp_path):
    content = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    content["runs"] = {"again": {"extends": "pnoc", "segmentation": "v2"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    again = RunOnDisk(open_project([tmp_path / "tiny.yaml"]), "tiny", "again")
    assert again.tables == {"pseudo": left.tables["pseudo"]}
    captions = [caption for caption, _ in show.block_of(again, "image6").panels]
    assert captions == ["photo", "truth"]


def test_the_picture_is_written(left, capsys, tmp_path):
    code, said = wsss(capsys, tmp_path, "pnoc", "image0", "image6")
    assert (code, said) == (0, f"image0, image6: {tmp_path / 'out.png'}")
    with Image.open(tmp_path / "out.png") as drawn:
        assert ACROSS * CELL < drawn.width < 2 * ACROSS * CELL


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pnoc", "imag1"], "unknown image of tiny 'imag1'; there are image0, .*did you mean image"),
        (["pnoc"], "name images, or choose some: --worst 3"),
        (["pnoc", "--worst", "1", "--class", "squar"], "unknown class 'squar'; .*did you mean square"),
        (["pnoc", "--worst", "1", "--scores", "segm"], "unknown stage of --scores 'segm'; .*did you mean seg"),
        (["pnoc", "--worst", "1", "--scores", "priors"], "has no scores by image of priors yet: .*seg_miou.json"),
        (["cam", "--worst", "1"], "cam has no scores by image yet"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(left, capsys, tmp_path, words, message):
    code, said = wsss(capsys, tmp_path, *words)
    assert code == 2
    assert len(said.splitlines()) == 1
    assert message.split(".*")[0] in said
    assert all(part in said for part in message.split(".*"))


def test_nothing_made_yet_is_told(left, capsys, tmp_path):
    (tmp_path / "results/tiny/classes.csv").unlink()
    assert "nothing was made on tiny here yet" in wsss(capsys, tmp_path, "pnoc", "image0")[1]


def test_heat_is_red_where_a_map_is_high_and_grey_where_it_is_nothing(tiny, tmp_path, write_store):
    manifest = Manifest.of(tiny.manifest.rows[:1])
    row = manifest.rows[0]
    maps = np.zeros((len(row.labels), row.height // 4, row.width // 4), np.float32)
    maps[0, :, 8:] = 1
    store = write_store(tmp_path / "one.zarr", manifest, {row.id: maps})
    drawn = heat_panel(store, row.labels[0])(row).astype(int)
    assert (np.ptp(drawn[:, :24], axis=2) == 0).all()
    assert (drawn[:, 40:, 0] > drawn[:, 40:, 2] + 50).all()


def test_a_block_has_as_many_lines_as_its_panels_need(tmp_path):
    panel = np.zeros((10, 20, 3), np.uint8)
    for count, lines in ((1, 1), (ACROSS, 1), (ACROSS + 1, 2)):
        draw_blocks([Block("a", [("p", panel)] * count)], tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as drawn:
            assert abs(drawn.height - lines * CELL // 2) < 40 * (lines + 1)
    with pytest.raises(ValueError, match="nothing to show of a"):
        draw_blocks([Block("a", [])], tmp_path / "a.png")
