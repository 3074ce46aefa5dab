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
    _check_labels(labels, n_labels, confidence)
    energy = np.full((n_labels, labels.size), -np.log((1 - confidence) / (n_labels - 1)), dtype=np.float32)
    energy[labels.ravel(), np.arange(labels.size)] = -np.log(confidence)
    kernels = {"gaussian": (3, 3), "bilateral": (50, 5, 10)}
    beliefs = _mean_field(image, energy.reshape(n_labels, *labels.shape), iterations, **kernels)
    return beliefs.argmax(axis=0).astype(labels.dtype)


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
    return _mean_field(image, energy, iterations, gaussian=(1, 3), bilateral=(67, 3, 4))


def _mean_field(image, energy, iterations, *, gaussian, bilateral) -> np.ndarray:
    """(C, H, W) beliefs after mean-field steps from unary energies (C, H, W) float32."""
    classes, height, width = energy.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"the image must be ({height}, {width}, 3) uint8 like its map, not {image.shape} {image.dtype}"
        )
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(classes, -1), dtype=np.float32))
    if iterations > 0:  # building the bilateral kernel costs as much as two steps
        xy, weight = gaussian
        crf.addPairwiseGaussian(sxy=xy, compat=weight)
        xy, rgb, weight = bilateral
        writable = np.array(image, order="C")  # pydensecrf refuses the read-only view that Pillow gives
        crf.addPairwiseBilateral(sxy=xy, srgb=rgb, rgbim=writable, compat=weight)
    return np.array(crf.inference(iterations), dtype=np.float32).reshape(energy.shape)


def _check_labels(labels, n_labels, confidence):
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be (height, width) integers, not {labels.shape} {labels.dtype}")
    if n_labels < 2:
        raise ValueError(f"a CRF needs at least 2 labels, not {n_labels}; count the background too")
    if labels.min() < 0 or labels.max() >= n_labels:
        raise ValueError(f"labels {labels.min()} to {labels.max()} do not fit in 0 to {n_labels - 1}")
    if not 1 / n_labels < confidence < 1:
        raise ValueError(f"confidence {confidence} must be between 1/{n_labels} and 1")
