"""The fully connected CRF of Krähenbühl and Koltun (NeurIPS 2011), for label maps and for probabilities.

All functions use a Potts compatibility and the symmetric normalisation of the message-passing filters. A picture that
would take more than ``WHOLE_BYTES`` is refined in tiles, which overlap by three deviations of the wider kernel on each
side: that is no longer the CRF of the whole picture, but bounded, whatever its size.
"""

from collections.abc import Iterator

import numpy as np
from pydensecrf.densecrf import DenseCRF2D

from wsss_core.maps.sizes import Span, inside, tiles

# Measured on pictures of noise, whose colours fill the lattice of the bilateral kernel: photos take a third to a half.
PIXEL_BYTES, LABEL_BYTES = 560, 80
WHOLE_BYTES = 3 * 10**9  # of 640 x 640 pixels with 81 labels, the most that COCO asks for: 2.9
LABEL_DEVIATION, PROBABILITY_DEVIATION = 50, 67  # pixels, of the bilateral kernels
DEVIATIONS = 3  # of the wider kernel, by which tiles overlap

TINY = np.finfo(np.float32).tiny  # the logarithm of a probability stays finite


def crf_bytes(pixels: int, n_labels: int) -> int:
    """Memory that the CRF of a picture takes at most."""
    return min(WHOLE_BYTES, pixels * (PIXEL_BYTES + n_labels * LABEL_BYTES))


def crf_tiles(height: int, width: int, n_labels: int, deviation: int) -> Iterator[tuple[Span, Span]]:
    """``sizes.tiles`` of which each with its margins takes at most ``WHOLE_BYTES``; a smaller picture is one of them.

    Args:
        deviation: pixels, of the wider kernel.
    """
    pixels = WHOLE_BYTES // (PIXEL_BYTES + n_labels * LABEL_BYTES)
    whole = height * width <= pixels
    return tiles(height, width, max(height, width) if whole else int(pixels**0.5), DEVIATIONS * deviation)


def crf_labels(
    image: np.ndarray, labels: np.ndarray, n_labels: int, iterations: int = 10, confidence: float = 0.7
) -> np.ndarray:
    """Refine a label map that is right with probability ``confidence`` at every pixel.

    The unary energy is -log(g) for the given label and -log((1 - g) / (n - 1)) for each other one; Gaussian
    kernel of 3 pixels, weight 3; bilateral kernel of 50 pixels and 5 grey levels, weight 10 (the settings of
    IRNet, Ahn et al., CVPR 2019, and of P-NOC).

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) integers in 0..n_labels-1.
        n_labels: number of labels that compete, background included; at least 2.
        iterations: mean-field steps; with 0 the map comes back as it is.
        confidence: g, between 1/n_labels and 1 (both excluded).

    Returns:
        (H, W) of the dtype of ``labels``, values in 0..n_labels-1.

    Raises:
        ValueError: wrong shape or dtype, a label out of range, too few labels, or a confidence out of range.
    """
    return LabelCRF(image, n_labels, iterations, confidence)(labels)


class LabelCRF:
    """``crf_labels`` for several maps of one image: ``LabelCRF(image, n_labels)(labels)``.

    The kernels depend on the image alone and are built once: they are about half of the work for one map.
    """

    def __init__(self, image: np.ndarray, n_labels: int, iterations: int = 10, confidence: float = 0.7):
        if n_labels < 2:
            raise ValueError(f"a CRF needs at least 2 labels, not {n_labels}; count the background too")
        if not 1 / n_labels < confidence < 1:
            raise ValueError(f"confidence {confidence} must be between 1/{n_labels} and 1")
        height, width = image.shape[:2]
        self.shape, self.iterations, self.confidence = (n_labels, height, width), iterations, confidence
        self.image, self.tiles = image, list(crf_tiles(height, width, n_labels, LABEL_DEVIATION))
        if len(self.tiles) == 1:
            self.field = _field(image, self.shape, iterations, gaussian=(3, 3), bilateral=(LABEL_DEVIATION, 5, 10))

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Refine a label map (H, W), see ``crf_labels``."""
        n_labels, *size = self.shape
        _check_labels(labels, n_labels, tuple(size))
        if len(self.tiles) > 1:
            return self._tiled(labels)
        other = (1 - self.confidence) / (n_labels - 1)
        energy = np.full((n_labels, labels.size), -np.log(other), dtype=np.float32)
        energy[labels.ravel(), np.arange(labels.size)] = -np.log(self.confidence)
        beliefs = _beliefs(self.field, energy, self.iterations)
        return beliefs.argmax(axis=0).reshape(labels.shape).astype(labels.dtype)

    def _tiled(self, labels: np.ndarray) -> np.ndarray:
        refined = np.empty_like(labels)
        for part, outer in self.tiles:  # the kernels of one tile at a time
            refine = LabelCRF(self.image[outer], self.shape[0], self.iterations, self.confidence)
            refined[part] = refine(labels[outer])[inside(part, outer)]
        return refined


def crf_probabilities(image: np.ndarray, probabilities: np.ndarray, iterations: int = 10) -> np.ndarray:
    """Refine the class probabilities of a segmentation network; the picture is not cut into tiles.

    The unary energy is -log(p); Gaussian kernel of 1 pixel, weight 3; bilateral kernel of 67 pixels and
    3 grey levels, weight 4 (DeepLab, Chen et al., TPAMI 2018).

    Args:
        image: (H, W, 3) uint8, RGB.
        probabilities: (C, H, W) floats, at least 0, summing to 1 over the classes.
        iterations: mean-field steps; with 0 the probabilities come back as they are, up to rounding.

    Returns:
        (C, H, W) float32, summing to 1 over the classes.

    Raises:
        ValueError: wrong shape or dtype.
    """
    if probabilities.ndim != 3:
        raise ValueError(f"probabilities must be (classes, height, width), not {probabilities.shape}")
    energy = -np.log(np.maximum(probabilities, TINY, dtype=np.float32))
    crf = _field(image, energy.shape, iterations, gaussian=(1, 3), bilateral=(PROBABILITY_DEVIATION, 3, 4))
    return _beliefs(crf, energy.reshape(len(energy), -1), iterations).reshape(energy.shape)


def _field(
    image: np.ndarray,
    shape: tuple[int, ...],
    iterations: int,
    *,
    gaussian: tuple[int, int],
    bilateral: tuple[int, int, int],
) -> DenseCRF2D:
    """A CRF of (C, H, W) nodes with its kernels, if any step needs them, and without unary energies."""
    classes, height, width = shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"the image must be ({height}, {width}, 3) uint8 like its map, not {image.shape} {image.dtype}"
        )
    crf = DenseCRF2D(width, height, classes)
    if iterations > 0:  # building the bilateral kernel costs as much as ten steps of a few labels
        xy, weight = gaussian
        crf.addPairwiseGaussian(sxy=xy, compat=weight)
        xy, rgb, weight = bilateral
        writable = np.array(image, order="C")  # pydensecrf refuses the read-only view that Pillow gives
        crf.addPairwiseBilateral(sxy=xy, srgb=rgb, rgbim=writable, compat=weight)
    return crf


def _beliefs(crf: DenseCRF2D, energy: np.ndarray, iterations: int) -> np.ndarray:
    """(C, H * W) float32 beliefs after mean-field steps from unary energies (C, H * W) float32."""
    crf.setUnaryEnergy(np.ascontiguousarray(energy, dtype=np.float32))
    return np.array(crf.inference(iterations), dtype=np.float32)


def _check_labels(labels: np.ndarray, n_labels: int, size: tuple[int, ...]) -> None:
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be (height, width) integers, not {labels.shape} {labels.dtype}")
    if labels.shape != size:
        raise ValueError(f"labels {labels.shape} do not fit an image {size}")
    if labels.min() < 0 or labels.max() >= n_labels:
        raise ValueError(f"labels {labels.min()} to {labels.max()} do not fit in 0 to {n_labels - 1}")
