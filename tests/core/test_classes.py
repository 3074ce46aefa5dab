"""Classes and masks: what a value in a mask file means, and that nothing wrong passes for a class."""

import re

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import (
    VOC_CLASSES,
    VOID,
    Classes,
    DataError,
    make_classes,
    read_grey,
    read_mask,
    voc_palette,
    write_grey,
    write_mask,
)
from wsss_core.data.classes import VOID_COLOUR

NAMES = ("ant", "bee", "cow", "dog")


def test_the_palette_is_that_of_voc():
    palette = voc_palette(256)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128)}
    known |= {8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: VOID_COLOUR}
    assert {index: tuple(palette[index].tolist()) for index in known} == known
    assert len(np.unique(palette, axis=0)) == 256


def test_labels_follow_the_mask_values():
    classes = make_classes(VOC_CLASSES)
    assert len(classes) == 20
    assert classes.label("person") == 14
    assert classes.colours.tolist() == voc_palette(21).tolist()
    assert classes.lookup[[0, 1, 20, 21, 254, 255]].tolist() == [0, 1, 20, -1, -1, VOID]


def test_a_subset_keeps_the_order_of_the_data_set_and_makes_the_rest_void():
    classes = make_classes(NAMES, keep=["dog", "bee"])
    assert classes.names == ("bee", "dog")
    assert classes.lookup[:6].tolist() == [0, VOID, 1, VOID, 2, -1]
    assert classes.label("dog") == 1
    assert classes.label("cow") is None
    assert classes.colours.tolist() == voc_palette(5)[[0, 2, 4]].tolist()
    assert classes.without_subset().names == NAMES


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(DataError, match="unknown classes cat; the data set has ant, bee, cow, dog"):
        make_classes(NAMES, keep=["cow", "cat"])
    with pytest.raises(DataError, match="unknown class 'cat'; the classes are cow, ant, bee, dog"):
        make_classes(NAMES, keep=["cow"]).label("cat")


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a", ""], ["background", "a"], [str(n) for n in range(255)]])
def test_names_that_cannot_be_told_apart_are_an_error(names):
    with pytest.raises(DataError):
        make_classes(names)


def test_an_empty_subset_and_equal_colours_are_errors():
    with pytest.raises(DataError, match="empty"):
        make_classes(NAMES, keep=[])
    with pytest.raises(DataError, match="colours must differ"):
        make_classes(["a", "b"], colours=[(0, 0, 0), (9, 9, 9), (9, 9, 9)])
    with pytest.raises(DataError, match="3 colours"):
        make_classes(["a", "b"], colours=[(0, 0, 0), (9, 9, 9)])


@pytest.mark.parametrize("keep", [None, ["dog", "bee"]])
def test_the_table_comes_back_as_it_was_written(tmp_path, keep):
    classes = make_classes(NAMES, keep=keep)
    classes.write(tmp_path / "classes.csv")
    again = Classes.read(tmp_path / "classes.csv")
    assert (again.names, again.dropped) == (classes.names, classes.dropped)
    assert (again.colours == classes.colours).all()
    assert (again.lookup == classes.lookup).all()
    assert again.lookup.dtype == np.int16


def test_the_table_has_a_row_for_each_value(tmp_path):
    make_classes(NAMES[:2], keep=["bee"]).write(tmp_path / "classes.csv")
    assert (tmp_path / "classes.csv").read_text().splitlines() == [
        "mask_value,name,label,red,green,blue",
        "0,background,,0,0,0",
        "1,ant,,128,0,0",
        "2,bee,0,0,128,0",
    ]


@pytest.mark.parametrize(
    "text", ["", "name\nant\n", "mask_value,name,label,red,green,blue\n0,background,,0,0,0\n1,ant,x,1,1,1\n"]
)
def test_a_table_of_another_form_is_an_error_naming_it(tmp_path, text):
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(DataError, match=r"classes\.csv"):
        Classes.read(tmp_path / "classes.csv")


@pytest.mark.parametrize("keep", [None, ["dog", "bee"]])
def test_a_mask_comes_back_as_it_was_written(tmp_path, keep):
    classes = make_classes(NAMES, keep=keep)
    mask = np.array([[0, 1, 2], [VOID, 2, 1]], np.uint8)
    write_mask(tmp_path / "mask.png", mask, classes)
    assert (read_mask(tmp_path / "mask.png", classes, (2, 3)) == mask).all()


def test_a_written_mask_has_the_values_and_colours_of_the_data_set(tmp_path):
    write_mask(tmp_path / "mask.png", np.array([[0, 1, VOID]], np.uint8), make_classes(NAMES, keep=["cow"]))
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        assert np.asarray(image).tolist() == [[0, 3, VOID]]
        assert np.asarray(image.convert("RGB")).tolist() == [[[0, 0, 0], [128, 128, 0], list(VOID_COLOUR)]]


def test_a_mask_value_beyond_the_classes_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="4 classes cannot hold"):
        write_mask(tmp_path / "mask.png", np.array([[5]], np.uint8), make_classes(NAMES))
    with pytest.raises(ValueError, match="uint8"):
        write_mask(tmp_path / "mask.png", np.array([[1]]), make_classes(NAMES))
    assert not list(tmp_path.iterdir())


def test_a_palette_index_is_read_whatever_its_colour(tmp_path):
    image = Image.fromarray(np.array([[0, 4, 255]], np.uint8))
    image.putpalette([7] * 768)
    image.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", make_classes(NAMES)).tolist() == [[0, 4, VOID]]


def test_grey_masks_are_read_by_value(tmp_path):
    Image.fromarray(np.array([[0, 4, 255]], np.uint8)).save(tmp_path / "mask.png")
    classes = make_classes(NAMES, keep=["ant", "dog"])
    assert read_mask(tmp_path / "mask.png", classes).tolist() == [[0, 2, VOID]]


def test_colours_of_an_rgb_mask_become_values(tmp_path):
    colours = np.array([[*voc_palette(5).tolist(), VOID_COLOUR]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "mask.png")
    classes = make_classes(NAMES, keep=["bee", "dog"])
    assert read_mask(tmp_path / "mask.png", make_classes(NAMES)).tolist() == [[0, 1, 2, 3, 4, VOID]]
    assert read_mask(tmp_path / "mask.png", classes).tolist() == [[0, VOID, 1, VOID, 2, VOID]]


def test_an_unknown_colour_is_an_error_not_background(tmp_path):
    Image.fromarray(np.array([[[0, 0, 0], [128, 0, 1]]], np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=re.escape("mask.png: the colour (128, 0, 1)")):
        read_mask(tmp_path / "mask.png", make_classes(NAMES))


def test_a_wrong_value_is_an_error_naming_file_and_value(tmp_path):
    Image.fromarray(np.array([[0, 5, 77]], np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=re.escape("mask.png: mask values [5, 77]")):
        read_mask(tmp_path / "mask.png", make_classes(NAMES))


def test_a_mask_of_another_size_is_an_error_naming_both(tmp_path):
    write_mask(tmp_path / "mask.png", np.zeros((2, 3), np.uint8), make_classes(NAMES))
    with pytest.raises(DataError, match=r"mask\.png: height x width is 2 x 3, the image's is 3 x 2"):
        read_mask(tmp_path / "mask.png", make_classes(NAMES), (3, 2))


def test_an_unreadable_mask_is_an_error_naming_it(tmp_path):
    write_mask(tmp_path / "mask.png", np.ones((40, 40), np.uint8), make_classes(NAMES))
    whole = (tmp_path / "mask.png").read_bytes()
    for name, content in {"cut.png": whole[: len(whole) - 30], "text.png": b"no image"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_mask(tmp_path / name, make_classes(NAMES))
    with pytest.raises(DataError, match=r"absent\.png"):
        read_mask(tmp_path / "absent.png", make_classes(NAMES))


def test_a_mask_of_more_than_8_bits_is_an_error(tmp_path):
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="8-bit"):
        read_mask(tmp_path / "mask.png", make_classes(NAMES))


def test_a_grey_map_comes_back_as_it_was_written(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_grey(tmp_path / "grey.png", grey)
    assert (read_grey(tmp_path / "grey.png", (8, 32)) == grey).all()
    write_mask(tmp_path / "mask.png", np.zeros((2, 3), np.uint8), make_classes(NAMES))
    with pytest.raises(DataError, match="grey"):
        read_grey(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="uint8"):
        write_grey(tmp_path / "grey.png", grey / 255)
