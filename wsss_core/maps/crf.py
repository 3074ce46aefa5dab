"""The fully connected CRF of Krähenbühl and Koltun (NeurIPS 2011), for label maps and for probabilities.

Both functions use a Potts compatibility and the symmetric normalisation of the message-passing filters.
"""

import numpy as np
from pydensecrf.densecrf import DenseCRF2D

TINY = np.finfo(np.float32).tiny  # the logarithm of a probability stays finite


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
        self.shape, self.iterations, self.confidence = (n_labels, *image.shape[:2]), iterations, confidence
        self.field = _field(image, self.shape, iterations, gaussian=(3, 3), bilateral=(50, 5, 10))

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Refine a label map (H, W), see ``crf_labels``."""
        n_labels, *size = self.shape
        _check_labels(labels, n_labels, tuple(size))
        other = (1 - self.confidence) / (n_labels - 1)
        energy = np.full((n_labels, labels.size), -np.log(other), dtype=np.float32)
        energy[labels.ravel(), np.arange(labels.size)] = -np.log(self.confidence)
        beliefs = _beliefs(self.field, energy, self.iterations)
        return beliefs.argmax(axis=0).reshape(labels.shape).astype(labels.dtype)


def crf_probabilities(image: np.ndarray, probabilities: np.ndarray, iterations: int = 10) -> np.ndarray:
    """Refine the class probabilities of a segmentation network.

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
    crf = _field(image, energy.shape, iterations, gaussian=(1, 3), bilateral=(67, 3, 4))
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
