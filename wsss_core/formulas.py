"""The formulas of the papers, each a function of arrays that a script may call without the pipeline.

This is an index: what stands behind a name is in the room of the stage that it belongs to, with shapes, dtypes and
where the published code leaves the printed formula. Equations are those of P-NOC (David, Pedrini and Dias) unless
another paper is named.
"""

from wsss_core.affinity.labels import affinity_labels
from wsss_core.affinity.pairs import affinity_loss, pair_affinities, pair_labels
from wsss_core.affinity.random_walk import random_walk
from wsss_core.classifiers.erasing import hard_erase, soft_erase, soft_keep
from wsss_core.classifiers.puzzle import merge, reconstruction_loss, tile
from wsss_core.fitting.schedules import linear, poly
from wsss_core.maps.crf import crf_labels, crf_probabilities
from wsss_core.maps.inference import normalize_cam
from wsss_core.maps.store import MapStore
from wsss_core.saliency.c2am import c2am_loss
from wsss_core.saliency.hints import hint_loss
from wsss_core.saliency.poolnet_training import saliency_loss
from wsss_core.scores.metrics import confusion, iou, sweep
from wsss_core.segmentation.losses import multi_scale_loss, segmentation_loss

__all__ = [  # noqa: RUF022 - in the order of the stages
    # class maps
    "normalize_cam",  # CAM (Zhou et al., CVPR 2016), as IRNet and P-NOC store it: ReLU, divided by its maximum
    "tile",  # Puzzle-CAM (Jo and Yu, ICIP 2021): an image as its pieces
    "merge",  # Puzzle-CAM: maps of the pieces as the map of the image
    "reconstruction_loss",  # Puzzle-CAM: L1 between the maps of an image and the merged ones
    "soft_keep",  # OC-CSE, P-OC and P-NOC: what soft erasing leaves of every pixel
    "soft_erase",  # OC-CSE (Kweon et al., ICCV 2021), P-OC and P-NOC: the image without a class
    "hard_erase",  # P-NOC: what its discriminator sees
    "linear",  # P-NOC: the weight of a part of the loss over the training
    "poly",  # the learning rate of every SGD, (1 - t / T) ** 0.9 (DeepLab, Chen et al., TPAMI 2018)
    # saliency
    "c2am_loss",  # equation 7, after C2AM (Xie et al., CVPR 2022)
    "hint_loss",  # equation 11: the hints of C2AM-H
    "saliency_loss",  # PoolNet (Liu et al., CVPR 2019)
    # affinity
    "crf_labels",  # dense CRF (Krähenbühl and Koltun, NeurIPS 2011) with the settings of IRNet
    "affinity_labels",  # IRNet (Ahn et al., CVPR 2019), and P-NOC's with saliency
    "pair_labels",  # IRNet: which pairs of pixels belong together
    "pair_affinities",  # IRNet: 1 minus the strongest edge between two pixels
    "affinity_loss",  # IRNet: affinity_loss(edge, mask, classes, radius)
    "random_walk",  # IRNet, after AffinityNet (Ahn and Kwak, CVPR 2018)
    # segmentation
    "segmentation_loss",  # DeepLabV3+ (Chen et al., ECCV 2018), with P-NOC's label smoothing
    "multi_scale_loss",  # DeepLabV2 (Chen et al., TPAMI 2018)
    "crf_probabilities",  # dense CRF with the settings of DeepLabV2
    # scores
    "confusion",  # pixels of each pair of true and predicted class
    "iou",  # TP / (P + T - TP) of each class
    "sweep",  # the confusion matrices of a map at many background thresholds
    # maps on disk
    "MapStore",  # what the stages keep of class maps, hints, saliency and walks
]
