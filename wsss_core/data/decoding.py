"""Pictures and masks from files: which formats are tried, and how a picture lies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from wsss_core.data.classes import DataError

# Pillow goes by a file's content and not by its name, and some of its formats start other programs.
MASKS = ("PNG",)
PUBLISHED = ("JPEG", "PNG")
PICTURES = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
ORIENTATION = 0x0112  # of EXIF; all but these values leave a picture as it is
TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {TURNS[value] for value in (5, 6, 7, 8)}  # these swap width and height


@contextmanager
def opened(path: str | Path, formats: tuple[str, ...], what: str = "the image") -> Iterator[Image.Image]:
    """Open a file of one of the formats; whatever goes wrong inside is an error that names it.

    Raises:
        DataError: a file that is missing, of none of the formats, broken, or of more pixels than Pillow opens.
    """
    try:
        with Image.open(path, formats=formats) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: {what} does not exist") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{path}: {what} cannot be read, it is broken or none of {', '.join(formats)}") from error
    except OSError as error:
        way_out = "" if error.errno else ", replace it"  # the file may be sound where reading it failed
        raise DataError(f"{path}: {what} cannot be read{way_out}: {error.strerror or error}") from error
    except Exception as error:  # what a broken file raises depends on its format and on where it is broken
        raise DataError(f"{path}: {what} cannot be read, replace it: {error}") from error


def upright(path: str | Path, image: Image.Image) -> Image.Image:
    """An opened picture as it is to be looked at: turned as its EXIF orientation says; without one, the same object.

    Raises:
        DataError: more than 8 bits a value, as Pillow would make white of all but the darkest ones.
    """
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{path}: the image has more than 8 bits a pixel (Pillow's mode {image.mode}), and nothing says which of "
            "its values is white: scale it to 8 bits and save it as such"
        )
    image.load()
    turn = _turn_of(image)
    return image if turn is None else image.transpose(turn)


def shrink_while_decoding(image: Image.Image, longest_side: int) -> None:
    """Let a JPEG decode itself at a half, a quarter or an eighth, not below this length of its longer side."""
    times = max(image.size) // longest_side
    if times > 1:
        image.draft(None, (max(1, image.width // times), max(1, image.height // times)))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened picture as it is to be looked at; a JPEG is not decoded for it."""
    if image.format != "JPEG":
        image.load()  # which turns a TIFF
    return image.size[::-1] if _turn_of(image) in SIDEWAYS else image.size


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """What the EXIF data ask for; damaged ones ask for nothing, as the picture is whole without them."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # what damaged data raise depends on where they are damaged
        return None
