"""A small made-up data set in the layout of VOC, to try every stage on a laptop.

Each kind of object has a small telling part, vivid and patterned, and a larger plain body whose colour and
faint texture vary within a kind: weaker evidence, which a classifier can do without. Objects stand on scenes that go
with their kind more often than not. So the pictures ask what weak supervision is about: a class map that is
content with the telling part, or with the scene, misses the body.
"""

import logging
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wsss_core.base.files import whole
from wsss_core.data.classes import VOID, Classes, make_classes
from wsss_core.data.kinds.voc import voc_manifest
from wsss_core.data.manifest import Manifest
from wsss_core.data.masks import write_mask
from wsss_core.recipes.kinds import Declared

logger = logging.getLogger(__name__)

# What makes the pictures harder or easier.
OBJECT_COUNTS = (0.40, 0.35, 0.25)  # share of the pictures with one, two and three objects, if they fit
OBJECT_AREA = ((0.14, 0.32), (0.10, 0.17), (0.08, 0.11))  # of the picture, each of one, two or three objects
OWN_SCENE = 0.7  # how often the scene is the one that goes with the first object's kind
TOUCHING = 0.5  # how often a further object is put so that it overlaps another one slightly; twins overlap each other
OVERLAP = (0.01, 0.12)  # of the smaller object, where two touch
PORTRAIT = 0.25  # share of the pictures that stand upright
TEXTURE_CONTRAST = 0.10  # of the body's texture, relative to its brightness
HUE_SPREAD = 18.0  # degrees; the kinds' own body hues lie about 70 apart
BODY_SATURATION = (0.35, 0.60)
TONE_GAP = (0.20, 0.32)  # brightness of a body above or below the scene behind it
TILT = 12.0  # degrees that an object is turned at most
LIGHT = (0.75, 1.15)  # gain of the whole picture
LIGHT_SLOPE = 0.25  # how much lighter one side of the picture may be than the middle
COLOUR_CAST = 0.06
NOISE = (0.01, 0.035)  # standard deviation, of a range of 1

SPRITE = 192  # an object is drawn on a square of this side, then shrunk to its place
ATTEMPTS = 60  # places tried for an object
TWIN_ATTEMPTS = 400  # fewer places do for one that touches a certain other one
JPEG_QUALITY = 92

Layer = np.ndarray


@dataclass(frozen=True)
class Sprite:
    """An object before it has its place; (S, S) float32 layers.

    Attributes:
        body: 1 inside the object, telling part included.
        part: 1 inside the telling part.
        pattern: (S, S, 3), colours of the telling part.
        shade: brightness of the body relative to its mean, about -0.5..0.5.
    """

    body: Layer
    part: Layer
    pattern: Layer
    shade: Layer


@dataclass(frozen=True)
class Kind:
    """A kind of object: its drawing, the hue of its body in degrees and the scene that goes with it."""

    draw: Callable[[np.random.Generator], Sprite]
    hue: float
    scene: Callable[[np.random.Generator, int, int], Layer]


@dataclass(frozen=True)
class Placed:
    """An object in the picture: its label and its layers, (H, W) and (H, W, 3), colours times coverage."""

    label: int
    body: Layer
    part: Layer
    pattern: Layer
    shade: Layer


def names_of(declared: Declared) -> tuple[str, ...]:
    """The kinds of objects that there are drawings of."""
    return DEMO_CLASSES


def manifest_of(declared: Declared, *, subset: str, classes: Classes, workers: int) -> Manifest:
    """The manifest of a subset, from where ``make_demo`` has put the pictures."""
    return voc_manifest(root=declared["root"], subset=subset, classes=classes, workers=workers)


def make_demo(
    *,
    folder: str | Path,
    seed: int,
    images: dict[str, int],
    size: tuple[int, int] = (96, 128),
    twins: float | None = None,
) -> None:
    """Write the data set: JPEGImages, Annotations, SegmentationClass, SegmentationObject and ImageSets/Segmentation.

    A picture depends on the seed, its split and its number alone: more images keep the first ones.

    Args:
        folder: the folder to make, as ``VOCdevkit/VOC2012`` of VOC.
        seed: not negative.
        images: number of images of each split, such as ``{"train": 300, "val": 100}``.
        size: (height, width) of most pictures; some stand upright instead.
        twins: share of the pictures with a further object of a kind that is there already, where it fits; None is 0.
    """
    with whole(folder) as root:
        for part in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
            (root / part).mkdir(parents=True)
        for split, count in images.items():
            ids = [f"{split}_{index:05d}" for index in range(count)]
            every = max(1, count // 20)
            for index, id in enumerate(ids):
                picture, mask, boxes, objects = draw_picture(
                    seed=seed, split=split, index=index, size=size, twins=twins or 0.0
                )
                _write(root, id, picture, mask, boxes)
                write_mask(root / "SegmentationObject" / f"{id}.png", objects, _NUMBERS)
                if (index + 1) % every == 0:
                    logger.info("%s: drew %d of %d pictures", split, index + 1, count)
            list_path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
            list_path.write_text("".join(f"{id}\n" for id in ids), encoding="utf-8")


def draw_picture(
    *, seed: int, split: str, index: int, size: tuple[int, int], twins: float = 0.0
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, tuple[int, int, int, int]]], np.ndarray]:
    """Draw one picture.

    Args:
        twins: how likely there is a further object of a kind that is there already; the others are as without.

    Returns:
        The picture, (H, W, 3) uint8; its mask, (H, W) uint8 with a border of 255 one pixel wide around each
        object; (name, (xmin, ymin, xmax, ymax)) of each object, from 1 and inclusive as in VOC; and the mask once more,
        with the numbers of the objects, from 1, in place of their classes.
    """
    stream = (seed, zlib.crc32(split.encode()))
    rng = np.random.default_rng((*stream, index))
    # Five pictures in a row begin with the five kinds, so that small splits are balanced.
    turn = np.random.default_rng((*stream, index // len(KINDS), 1)).permutation(len(KINDS))
    first = int(turn[index % len(KINDS)])
    h, w = size[::-1] if rng.random() < PORTRAIT else size
    scene = _scene_of(rng, first)(rng, h, w)
    objects = _place_objects(rng, _choose_labels(rng, first), h, w)
    twin = np.random.default_rng((*stream, index, 2))  # of its own: whatever there was keeps its numbers
    if twin.random() < twins:
        objects += _place_twin(twin, objects, h, w)
    picture = scene
    for thing in objects:
        picture = _paint(rng, picture, scene, thing)
    return _photograph(rng, picture), *_annotate(objects, h, w)


def _choose_labels(rng: np.random.Generator, first: int) -> list[int]:
    count = 1 + int(rng.choice(len(OBJECT_COUNTS), p=OBJECT_COUNTS))
    others = rng.permutation([label for label in range(len(KINDS)) if label != first])
    return [first, *others[: count - 1].tolist()]


def _scene_of(rng: np.random.Generator, label: int) -> Callable:
    scenes = [kind.scene for kind in KINDS.values()]
    own = scenes.pop(label)
    return own if rng.random() < OWN_SCENE else scenes[rng.integers(len(scenes))]


def _place_objects(rng: np.random.Generator, labels: list[int], h: int, w: int) -> list[Placed]:
    """Find places that cover no object by much; an object for which there is none is left out."""
    kinds = list(KINDS.values())
    placed: list[Placed] = []
    for label in labels:
        area = rng.uniform(*OBJECT_AREA[len(labels) - 1]) * h * w
        sprite = _shrink(rng, kinds[label].draw(rng), area, min(h, w))
        touching = placed and rng.random() < TOUCHING
        for attempt in range(ATTEMPTS):
            wanted = OVERLAP if touching and attempt < ATTEMPTS // 2 else (0.0, 0.0)
            thing = _put(rng, sprite, label, h, w)
            most = max((_overlap(thing.body, other.body) for other in placed), default=0.0)
            if wanted[0] <= most <= wanted[1]:
                placed.append(thing)
                break
    return placed


def _place_twin(rng: np.random.Generator, placed: list[Placed], h: int, w: int) -> list[Placed]:
    """A further object of the kind of one that is there, touching it or apart from all; none if there is no place."""
    partner = int(rng.integers(len(placed)))
    label = placed[partner].label
    area = rng.uniform(*OBJECT_AREA[-1]) * h * w
    sprite = _shrink(rng, list(KINDS.values())[label].draw(rng), area, min(h, w))
    touching = rng.random() < TOUCHING
    for _ in range(TWIN_ATTEMPTS):
        thing = _put(rng, sprite, label, h, w)
        overlaps = [_overlap(thing.body, other.body) for other in placed]
        least, most = OVERLAP if touching else (0.0, 0.0)
        if least <= overlaps[partner] <= most and max(overlaps) <= most:
            return [thing]
    return []


def _overlap(one: Layer, other: Layer) -> float:
    return float(np.minimum(one, other).sum() / min(one.sum(), other.sum()))


def _shrink(rng: np.random.Generator, sprite: Sprite, area: float, longest: int) -> Sprite:
    """Turn the sprite slightly, maybe mirror it, and scale it to an area in pixels."""
    turn = cv2.getRotationMatrix2D((SPRITE / 2, SPRITE / 2), rng.uniform(-TILT, TILT), 1.0)
    scale = np.sqrt(area / sprite.body.sum())
    stretch = rng.uniform(0.9, 1.1)
    mirrored = rng.random() < 0.5
    ys, xs = np.nonzero(sprite.body)
    scale = min(scale, 0.95 * longest / (max(np.ptp(ys), np.ptp(xs)) * max(stretch, 1 / stretch)))
    side = [max(1, round(SPRITE * scale * factor)) for factor in (stretch, 1 / stretch)]

    def change(layer: Layer) -> Layer:
        turned = cv2.warpAffine(layer, turn, (SPRITE, SPRITE))
        small = cv2.resize(turned, side, interpolation=cv2.INTER_AREA)
        return small[:, ::-1] if mirrored else small

    part = sprite.part[..., None]
    return Sprite(
        body=change(sprite.body),
        part=change(sprite.part),
        pattern=change(sprite.pattern * part),
        shade=change(sprite.shade * (sprite.body - sprite.part)),
    )


def _put(rng: np.random.Generator, sprite: Sprite, label: int, h: int, w: int) -> Placed:
    """Put the sprite at a random place inside the picture."""
    ys, xs = np.nonzero(sprite.body > 0.5)
    top, left = ys.min(), xs.min()
    high, wide = ys.max() + 1 - top, xs.max() + 1 - left
    y, x = rng.integers(0, max(1, h - high + 1)), rng.integers(0, max(1, w - wide + 1))

    def paste(layer: Layer) -> Layer:
        canvas = np.zeros((h, w, *layer.shape[2:]), np.float32)
        inside = layer[top : top + high, left : left + wide]
        canvas[y : y + high, x : x + wide] = inside[: h - y, : w - x]
        return canvas

    return Placed(label, *(paste(layer) for layer in (sprite.body, sprite.part, sprite.pattern, sprite.shade)))


def _paint(rng: np.random.Generator, picture: Layer, scene: Layer, thing: Placed) -> Layer:
    """Lay an object over the picture, its body lighter or darker than the scene behind it."""
    body, part = thing.body[..., None], thing.part[..., None]
    behind = float((scene.mean(-1) * thing.body).sum() / thing.body.sum())
    gap = rng.uniform(*TONE_GAP)
    tone = behind - gap if behind - gap > 0.15 and (behind + gap > 0.85 or rng.random() < 0.5) else behind + gap
    hue = list(KINDS.values())[thing.label].hue + rng.normal(0, HUE_SPREAD)
    colour = _colour(hue, rng.uniform(*BODY_SATURATION), tone)
    shaded = (body - part) + thing.shade[..., None]
    return picture * (1 - body) + colour * shaded + thing.pattern


def _photograph(rng: np.random.Generator, picture: Layer) -> np.ndarray:
    """Light, colour cast, a slight blur and noise; (H, W, 3) uint8."""
    h, w, _ = picture.shape
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    slope = 1 + LIGHT_SLOPE * rng.random() * (np.cos(angle) * x + np.sin(angle) * y)
    cast = 1 + rng.uniform(-COLOUR_CAST, COLOUR_CAST, 3)
    lit = picture * rng.uniform(*LIGHT) * slope[..., None] * cast
    blurred = cv2.GaussianBlur(lit, (0, 0), 0.45)
    noisy = blurred + rng.normal(0, rng.uniform(*NOISE), picture.shape)
    return (noisy.clip(0, 1) * 255).round().astype(np.uint8)


def _annotate(objects: list[Placed], h: int, w: int) -> tuple[np.ndarray, list, np.ndarray]:
    """The mask, the boxes and the numbers of what is seen of the objects, the later ones in front."""
    number = np.zeros((h, w), np.uint8)
    for index, thing in enumerate(objects, start=1):
        number[thing.body > 0.5] = index
    mask = np.array([0, *(thing.label + 1 for thing in objects)], np.uint8)[number]
    # The line lies on the side of the lower number: outside an object, and on the one behind where two meet.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    border = cv2.dilate(number, cross) > number
    mask[border] = VOID
    boxes = []
    for index, thing in enumerate(objects, start=1):
        ys, xs = np.nonzero(number == index)
        box = int(xs.min()) + 1, int(ys.min()) + 1, int(xs.max()) + 1, int(ys.max()) + 1
        boxes.append((DEMO_CLASSES[thing.label], box))
    return mask, boxes, np.where(border, VOID, number).astype(np.uint8)


def _write(root: Path, id: str, picture: np.ndarray, mask: np.ndarray, boxes: list) -> None:
    Image.fromarray(picture).save(root / "JPEGImages" / f"{id}.jpg", quality=JPEG_QUALITY)
    write_mask(root / "SegmentationClass" / f"{id}.png", mask, make_classes(DEMO_CLASSES))
    h, w, _ = picture.shape
    tree = ET.Element("annotation")
    ET.SubElement(tree, "filename").text = f"{id}.jpg"
    _add(ET.SubElement(tree, "size"), width=w, height=h, depth=3)
    ET.SubElement(tree, "segmented").text = "1"
    for name, (xmin, ymin, xmax, ymax) in boxes:
        thing = ET.SubElement(tree, "object")
        _add(thing, name=name, truncated=0, difficult=0)
        _add(ET.SubElement(thing, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    ET.indent(tree)
    ET.ElementTree(tree).write(root / "Annotations" / f"{id}.xml", encoding="utf-8")


def _add(element: ET.Element, **values: object) -> None:
    for name, value in values.items():
        ET.SubElement(element, name).text = str(value)


# Drawing: coordinates are fractions of the sprite's side, angles are in degrees.


def _polygon(*points: tuple[float, float]) -> Layer:
    layer = np.zeros((SPRITE, SPRITE), np.float32)
    cv2.fillPoly(layer, [np.round(np.array(points) * SPRITE).astype(np.int32)], 1.0)
    return layer


def _ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Layer:
    layer = np.zeros((SPRITE, SPRITE), np.float32)
    centre, axes = (round(x * SPRITE), round(y * SPRITE)), (round(rx * SPRITE), round(ry * SPRITE))
    cv2.ellipse(layer, centre, axes, angle, 0, 360, 1.0, -1)
    return layer


def _box(left: float, top: float, right: float, bottom: float) -> Layer:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _union(*layers: Layer) -> Layer:
    return np.maximum.reduce(layers)


def _grid() -> tuple[Layer, Layer]:
    y, x = np.mgrid[0:SPRITE, 0:SPRITE].astype(np.float32) / SPRITE
    return x, y


def _over(base: Layer, mask: Layer, colour: tuple[float, float, float]) -> Layer:
    return base * (1 - mask[..., None]) + np.array(colour, np.float32) * mask[..., None]


def _flat(colour: tuple[float, float, float]) -> Layer:
    return np.broadcast_to(np.array(colour, np.float32), (SPRITE, SPRITE, 3))


def _colour(hue: float, saturation: float, tone: float) -> np.ndarray:
    """(3,) float32 RGB of a hue in degrees whose mean is about ``tone``."""
    wheel = np.cos(np.deg2rad(hue - np.array([0.0, 120.0, 240.0])))
    return (tone * (1 + saturation * wheel)).clip(0, 1).astype(np.float32)


def _clouded(rng: np.random.Generator, h: int, w: int, cells: int) -> Layer:
    """(h, w) float32 smooth noise in about -1..1, ``cells`` blobs across, with two finer octaves."""
    total = np.zeros((h, w), np.float32)
    for octave in range(3):
        grid = rng.uniform(-1, 1, (cells << octave, cells << octave)).astype(np.float32)
        total += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / 1.4


def _bird(rng: np.random.Generator) -> Sprite:
    """A bird whose head is striped in yellow and black."""
    plump = rng.uniform(0.17, 0.22)
    torso = _ellipse(0.46, 0.56, 0.27, plump, -12)
    tail = _polygon((0.26, 0.50), (0.02, 0.50), (0.03, 0.66), (0.28, 0.68))
    legs = _union(_box(0.44, 0.72, 0.47, 0.90), _box(0.53, 0.70, 0.56, 0.90))
    head = _ellipse(0.72, 0.38, 0.098, 0.092)
    beak = _polygon((0.80, 0.33), (0.92, 0.40), (0.80, 0.43))
    wing = _ellipse(0.40, 0.54, 0.17, 0.09, 18)
    x, y = _grid()
    ripples = np.sin((y + 0.05 * np.sin(14 * x)) * rng.uniform(70, 90))
    stripes = (np.sin((x + 0.5 * y) * 75) > 0).astype(np.float32)
    pattern = _over(_flat((1.0, 0.85, 0.05)), stripes, (0.05, 0.05, 0.05))
    pattern = _over(pattern, beak, (1.0, 0.45, 0.0))
    pattern = _over(pattern, _ellipse(0.745, 0.36, 0.032, 0.032), (1.0, 1.0, 1.0))
    pattern = _over(pattern, _ellipse(0.75, 0.36, 0.017, 0.017), (0.0, 0.0, 0.0))
    shade = TEXTURE_CONTRAST * ripples - 0.16 * wing - 0.3 * legs + 0.2 * (0.5 - y)
    return _sprite(_union(torso, tail, legs), _union(head, beak), pattern, shade)


def _fish(rng: np.random.Generator) -> Sprite:
    """A fish with an orange face that has white bars."""
    ry = rng.uniform(0.20, 0.25)
    torso = _ellipse(0.54, 0.5, 0.36, ry)
    tail = _polygon((0.26, 0.5), (0.03, 0.28), (0.09, 0.5), (0.03, 0.72))
    fin = _polygon((0.40, 0.34), (0.58, 0.14), (0.70, 0.34))
    belly = _polygon((0.48, 0.68), (0.50, 0.82), (0.62, 0.68))
    x, y = _grid()
    face = torso * (x > 0.745)
    scales = np.cos(60 * x) * np.cos(60 * y + np.pi * np.round(60 * x / np.pi))
    bars = (np.abs((x - 0.765) / 0.10 - np.round((x - 0.765) / 0.10)) < 0.24).astype(np.float32)
    pattern = _over(_flat((1.0, 0.38, 0.0)), bars, (1.0, 1.0, 1.0))
    pattern = _over(pattern, _ellipse(0.82, 0.45, 0.030, 0.030), (0.0, 0.0, 0.0))
    shade = TEXTURE_CONTRAST * scales - 0.15 * _union(fin, tail, belly) + 0.35 * (0.5 - y)
    return _sprite(_union(torso, tail, fin, belly), face, pattern, shade)


def _car(rng: np.random.Generator) -> Sprite:
    """A car on wheels of black and white rings."""
    roof = rng.uniform(0.26, 0.32)
    lower = _polygon((0.03, 0.50), (0.10, 0.46), (0.92, 0.46), (0.98, 0.54), (0.98, 0.68), (0.03, 0.68))
    cabin = _polygon((0.20, 0.47), (0.30, roof), (0.66, roof), (0.80, 0.47))
    panes = _union(
        _polygon((0.26, 0.46), (0.33, roof + 0.04), (0.46, roof + 0.04), (0.46, 0.46)),
        _polygon((0.50, 0.46), (0.50, roof + 0.04), (0.64, roof + 0.04), (0.73, 0.46)),
    )
    wheels, pattern = np.zeros((SPRITE, SPRITE), np.float32), _flat((0.05, 0.05, 0.05))
    for axle in (0.24, 0.76):
        wheels = _union(wheels, _ellipse(axle, 0.68, 0.088, 0.088))
        pattern = _over(pattern, _ellipse(axle, 0.68, 0.064, 0.064), (1.0, 1.0, 1.0))
        pattern = _over(pattern, _ellipse(axle, 0.68, 0.038, 0.038), (0.75, 0.0, 0.10))
    _, y = _grid()
    gloss = np.cos((y - 0.5) * rng.uniform(35, 50)) * (y > 0.46)
    shade = TEXTURE_CONTRAST * gloss - 0.38 * panes + 0.2 * (0.5 - y)
    return _sprite(_union(lower, cabin), wheels, pattern, shade)


def _house(rng: np.random.Generator) -> Sprite:
    """A house with a blue door and a blue window in white frames."""
    eaves = rng.uniform(0.40, 0.46)
    wall = _box(0.14, eaves, 0.86, 0.92)
    roof = _polygon((0.05, eaves + 0.02), (0.28, 0.12), (0.72, 0.12), (0.95, eaves + 0.02))
    chimney = _box(0.62, 0.05, 0.71, 0.20)
    door, window = (0.24, 0.64, 0.39, 0.92), (0.52, 0.60, 0.74, 0.76)
    x, y = _grid()
    course = np.floor(y * 22)
    mortar = (np.abs(y * 22 - course) < 0.2) | (np.abs((x * 11 + 0.5 * (course % 2)) % 1) < 0.1)
    pattern = _over(_flat((1.0, 1.0, 1.0)), _inset(door, 0.025), (0.05, 0.20, 0.85))
    pattern = _over(pattern, _inset(window, 0.025), (0.10, 0.55, 1.0))
    pattern = _over(pattern, _union(_box(0.62, 0.60, 0.64, 0.76), _box(0.52, 0.67, 0.74, 0.69)), (1.0, 1.0, 1.0))
    shade = TEXTURE_CONTRAST * (1 - 2 * mortar) - 0.28 * _union(roof, chimney) + 0.1 * (0.5 - x)
    return _sprite(_union(wall, roof, chimney), _union(_box(*door), _box(*window)), pattern, shade)


def _tree(rng: np.random.Generator) -> Sprite:
    """A tree with a bunch of red fruits."""
    angles = np.arange(7) * 2 * np.pi / 7 + rng.uniform(0, 1)
    radii = rng.uniform(0.15, 0.20, 7)
    around = zip(0.5 + 0.19 * np.cos(angles), 0.36 + 0.16 * np.sin(angles), radii, strict=True)
    crown = _union(_ellipse(0.5, 0.36, 0.22, 0.20), *(_ellipse(x, y, r, r * 0.95) for x, y, r in around))
    trunk = _polygon((0.45, 0.55), (0.55, 0.55), (0.58, 0.95), (0.42, 0.95))
    bunch = _ellipse(0.60, 0.42, 0.145, 0.125)
    pattern = _flat((0.10, 0.22, 0.08))
    for x, y in ((0.52, 0.38), (0.60, 0.34), (0.68, 0.39), (0.55, 0.47), (0.64, 0.48), (0.60, 0.41)):
        pattern = _over(pattern, _ellipse(x, y, 0.045, 0.045), (0.95, 0.03, 0.08))
        pattern = _over(pattern, _ellipse(x - 0.013, y - 0.013, 0.014, 0.014), (1.0, 0.9, 0.9))
    height = _grid()[1]
    leaves = _clouded(rng, SPRITE, SPRITE, 12)
    shade = 1.5 * TEXTURE_CONTRAST * leaves - 0.35 * trunk * (1 - crown) + 0.3 * (0.4 - height) * crown
    return _sprite(_union(crown, trunk), bunch, pattern, shade)


def _inset(box: tuple[float, float, float, float], by: float) -> Layer:
    left, top, right, bottom = box
    return _box(left + by, top + by, right - by, bottom - by)


def _sprite(body: Layer, part: Layer, pattern: Layer, shade: Layer) -> Sprite:
    plain = _union(body, part) - part
    shade = shade - (shade * plain).sum() / plain.sum()
    return Sprite(plain + part, part, pattern.astype(np.float32), shade.astype(np.float32))


def _blend(low: tuple, high: tuple, weight: Layer) -> Layer:
    """(h, w, 3): from one colour to the other as ``weight``, (h, w) or (h, 1), goes from 0 to 1."""
    weight = weight.clip(0, 1)[..., None]
    return (1 - weight) * np.array(low) + weight * np.array(high)


def _sky(rng: np.random.Generator, h: int, w: int) -> Layer:
    """Clouds on blue."""
    down = np.linspace(0, 1, h)[:, None] + np.zeros((1, w))
    blue = _blend((0.30, 0.52, 0.80), (0.62, 0.76, 0.90), down)
    clouds = _clouded(rng, h, w, 4) * 1.6 - rng.uniform(-0.2, 0.5)
    return blue + (0.92 - blue) * (0.75 * clouds.clip(0, 1))[..., None]


def _water(rng: np.random.Generator, h: int, w: int) -> Layer:
    """Waves with light on them."""
    y, x = np.mgrid[0:h, 0:w] / 96
    bend = _clouded(rng, h, w, 3)
    waves = np.sin(2 * np.pi * (y * rng.uniform(7, 11) + 0.8 * bend + 0.3 * np.sin(9 * x)))
    glint = (np.sin(2 * np.pi * (3 * x + 2 * bend)) * waves).clip(0, 1) ** 3
    base = _blend((0.16, 0.45, 0.52), (0.08, 0.30, 0.44), y / y.max())
    return base + 0.05 * waves[..., None] + 0.22 * glint[..., None]


def _street(rng: np.random.Generator, h: int, w: int) -> Layer:
    """Asphalt with a lane, a pavement and a wall behind."""
    y, x = np.mgrid[0:h, 0:w] / np.array([h, w]).reshape(2, 1, 1)
    kerb, lane = rng.uniform(0.18, 0.32), rng.uniform(0.62, 0.85)
    grain = rng.normal(0, 0.035, (h, w)) + 0.05 * _clouded(rng, h, w, 5)
    tone = np.where(y < kerb, 0.55, np.where(y < kerb + 0.07, 0.66, 0.40)) + grain
    panels = (y < kerb) & ((x * rng.integers(5, 9)) % 1 < 0.1)
    dashes = (np.abs(y - lane) < 0.018) & ((x * 4 + rng.random()) % 1 < 0.55)
    tone = np.where(panels, tone - 0.10, np.where(dashes, 0.78, tone))
    return tone[..., None] * np.where((y < kerb)[..., None], (1.08, 0.98, 0.90), (0.98, 1.0, 1.04))


def _meadow(rng: np.random.Generator, h: int, w: int) -> Layer:
    """Grass with flowers under a strip of sky."""
    y, x = np.mgrid[0:h, 0:w] / np.array([h, w]).reshape(2, 1, 1)
    horizon = rng.uniform(0.12, 0.28) + 0.03 * np.sin(2 * np.pi * (x * rng.uniform(0.6, 1.4) + rng.random()))
    blades = cv2.GaussianBlur(rng.normal(0, 1, (h, w)), (1, 5), 0)
    grass = _blend((0.45, 0.62, 0.28), (0.24, 0.46, 0.14), (y - horizon) + 0.25 * _clouded(rng, h, w, 4))
    grass = grass + 0.06 * blades[..., None]
    flowers = (rng.random((h, w)) < 0.006)[..., None]
    grass = np.where(flowers, (0.92, 0.88, 0.60), grass)
    return np.where((y < horizon)[..., None], _blend((0.55, 0.72, 0.88), (0.80, 0.87, 0.92), y / 0.3), grass)


def _field(rng: np.random.Generator, h: int, w: int) -> Layer:
    """Furrows that run to hills on the horizon."""
    y, x = np.mgrid[0:h, 0:w] / np.array([h, w]).reshape(2, 1, 1)
    horizon = rng.uniform(0.15, 0.25)
    depth = (y - horizon).clip(0.02)
    furrows = np.sin((x - rng.uniform(0.3, 0.7)) / (depth + 0.15) * rng.uniform(14, 20))
    soil = _blend((0.80, 0.68, 0.42), (0.62, 0.46, 0.24), depth + 0.2 * _clouded(rng, h, w, 5))
    soil = soil * (1 + 0.09 * furrows + rng.normal(0, 0.04, (h, w)))[..., None]
    ridge = horizon - 0.10 * (0.6 + 0.4 * np.sin(2 * np.pi * (x * rng.uniform(0.8, 1.6) + rng.random())))
    far = np.where((y < ridge)[..., None], (0.86, 0.82, 0.80), (0.50, 0.50, 0.56))
    return np.where((y < horizon)[..., None], far, soil)


KINDS = {
    "bird": Kind(_bird, 30.0, _sky),
    "fish": Kind(_fish, 260.0, _water),
    "car": Kind(_car, 330.0, _street),
    "house": Kind(_house, 180.0, _meadow),
    "tree": Kind(_tree, 100.0, _field),
}
DEMO_CLASSES = tuple(KINDS)
_NUMBERS = make_classes([f"object {number}" for number in range(1, 10)])  # of a picture
