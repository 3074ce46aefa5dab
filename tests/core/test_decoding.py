"""Pictures and masks from files: only what is declared is tried, and pictures lie as they are looked at."""

import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from wsss_core.data import DataError, folder_manifest, make_classes, read_mask, write_mask
from wsss_core.data.decoding import ORIENTATION, PICTURES, opened, upright
from wsss_core.data.manifest import Row
from wsss_core.data.pictures import Pictures, read_image

CLASSES = make_classes(["ant"])
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def header_of(width, height):
    """A PNG that says it has so many pixels, and has none."""
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b""), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture
def folder(tmp_path):
    """Where `manifest_of` finds images, with their labels."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "some.txt").write_text("a\n")
    (tmp_path / "labels.csv").write_text("image_id,classes\na,ant\n")
    return tmp_path


def manifest_of(folder):
    return folder_manifest(
        images=folder / "images",
        masks=folder / "masks",
        split=folder / "some.txt",
        labels=folder / "labels.csv",
        classes=CLASSES,
    )


def test_no_program_is_started_for_a_picture_of_another_format(folder, monkeypatch):
    def started(*_, **__):
        raise AssertionError("Ghostscript")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\nshowpage\n%%EOF\n"
    path = folder / "images/a.jpg"
    path.write_bytes(text)
    message = r"a\.jpg: the image cannot be read, it is broken or none of JPEG, PNG, TIFF, WEBP, BMP"
    with pytest.raises(DataError, match=message):
        manifest_of(folder)
    with pytest.raises(DataError, match=message):
        read_image(path)
    with pytest.raises(DataError, match=r"a\.jpg: the mask or map cannot be read, it is broken or none of PNG"):
        read_mask(path, CLASSES)


def test_a_file_of_too_many_pixels_is_named(folder):
    Image.fromarray(PIXELS).save(folder / "images/a.png")
    (folder / "masks/a.png").write_bytes(header_of(50_000, 50_000))
    with pytest.raises(DataError, match=r"masks/a\.png: the mask or map cannot be read, .*2500000000 pixels"):
        manifest_of(folder)
    (folder / "images/a.png").write_bytes(header_of(50_000, 50_000))
    with pytest.raises(DataError, match=r"images/a\.png: the image cannot be read, .*2500000000 pixels"):
        manifest_of(folder)


def test_a_mask_of_another_size_is_not_decoded(folder):
    (folder / "a.png").write_bytes(header_of(9000, 9000))
    with pytest.raises(DataError, match=r"a\.png: height x width is 9000 x 9000, the image's is 4 x 6"):
        read_mask(folder / "a.png", CLASSES, (4, 6))


@pytest.mark.parametrize("suffix", ["tif", "TIFF", "webp", "bmp", "png", "jpeg"])
def test_own_pictures_are_read_in_these_formats(folder, suffix):
    path = folder / f"images/a.{suffix}"
    Image.fromarray(PIXELS).save(path, **({"lossless": True} if suffix == "webp" else {}))
    (row,) = manifest_of(folder)
    assert (row.image, row.height, row.width) == (str(path), 4, 6)
    if suffix != "jpeg":
        np.testing.assert_array_equal(read_image(path), PIXELS)


def test_pictures_of_other_suffixes_are_refused_with_those_that_are_read(folder):
    Image.fromarray(PIXELS).save(folder / "images/a.gif")
    with pytest.raises(DataError, match=r"with one of the suffixes \.jpg, \.jpeg, \.png, \.tif, .* \(1 of 1\): a"):
        manifest_of(folder)


@pytest.mark.parametrize(("kind", "suffix"), [(np.uint16, "png"), (np.uint16, "tif"), (np.float32, "tif")])
def test_pictures_of_more_than_eight_bits_are_refused_with_the_way_out(folder, kind, suffix):
    path = folder / f"images/a.{suffix}"
    Image.fromarray(np.full((4, 6), 1000, kind)).save(path)
    message = rf"a\.{suffix}: the image has more than 8 bits a pixel .* scale it to 8 bits"
    with pytest.raises(DataError, match=message):
        manifest_of(folder)
    with pytest.raises(DataError, match=message):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_pictures_are_turned_as_their_exif_says_and_so_is_their_size(folder, orientation, suffix):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    path = folder / f"images/a.{suffix}"
    Image.fromarray(PIXELS).save(path, exif=tags, **({"lossless": True} if suffix == "webp" else {}))
    turned = {
        1: PIXELS, 2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 4: PIXELS[::-1], 5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, -1), 7: PIXELS[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(PIXELS),
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(read_image(path), turned)
    write_mask(folder / "masks/a.png", np.zeros(turned.shape[:2], np.uint8), CLASSES)
    manifest = manifest_of(folder)
    (row,) = manifest
    assert (row.height, row.width) == turned.shape[:2]
    np.testing.assert_array_equal(Pictures(manifest.rows)[0], turned)


def test_a_manifest_of_a_picture_that_was_not_turned_is_refused(folder):
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    Image.fromarray(PIXELS).save(folder / "a.png", exif=tags)
    with pytest.raises(DataError, match=r"a\.png has 4 x 6 pixels, its manifest says 6 x 4"):
        Pictures([Row("a", str(folder / "a.png"), "", 4, 6, ())])[0]


@pytest.mark.parametrize("tag", [None, 1, 0, 9])
def test_a_picture_without_an_orientation_is_that_of_its_file(folder, tag):
    tags = Image.Exif()
    if tag is not None:
        tags[ORIENTATION] = tag
    path = folder / "a.jpg"
    Image.fromarray(PIXELS).save(path, exif=tags)
    with opened(path, PICTURES) as picture:
        assert upright(path, picture) is picture
    with Image.open(path) as picture:
        np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("data", [b"Exif\x00\x00nothing", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"Exif\x00\x00"])
def test_a_picture_with_damaged_exif_data_is_that_of_its_file(folder, data):
    Image.fromarray(PIXELS).save(folder / "images/a.jpg", exif=data)
    assert manifest_of(folder).rows[0].width == 6
    with Image.open(folder / "images/a.jpg") as picture:
        np.testing.assert_array_equal(read_image(folder / "images/a.jpg"), picture)


def test_what_cannot_be_read_is_not_called_broken(folder):
    (folder / "images/a.jpg").mkdir()
    with pytest.raises(DataError, match=r"a\.jpg: the image cannot be read: Is a directory"):
        read_image(folder / "images/a.jpg")
