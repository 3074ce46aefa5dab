"""The formulas of the papers, each a function of arrays that a script may call without the pipeline.

This is an index: what stands behind a name is in the room of the stage that it belongs to, with shapes, dtypes and
where the published code leaves the printed formula. Equations are those of P-NOC (David, Pedrini and Dias) unless
another paper is named.
"""

from wsss_core.affinity.labels import affinity_labels
from wsss_core.affinity.pairs import affinity_loss, displacement_loss, pair_affinities, pair_labels
from wsss_core.affinity.random_walk import random_walk
from wsss_core.cim.labels import label_proposals
from wsss_core.cim.losses import cluster_loss, image_loss, refinement_losses
from wsss_core.cim.mining import assign, mine, mine_mist, sampled
from wsss_core.cim.network import MaskFuse
from wsss_core.classifiers.erasing import hard_erase, soft_erase, soft_keep
from wsss_core.classifiers.network import combined_head
from wsss_core.classifiers.peaks import find_peaks, peak_scores
from wsss_core.classifiers.puzzle import merge, reconstruction_loss, tile
from wsss_core.classifiers.recam import class_features, reactivation_loss
from wsss_core.fitting.schedules import linear, poly
from wsss_core.instances.displacement import detect, find_centroids, instance_map, split_by_instance
from wsss_core.maps.crf import crf_labels, crf_probabilities
from wsss_core.maps.inference import normalize_cam
from wsss_core.maps.store import MapStore
from wsss_core.proposals.overlaps import boxes, overlaps
from wsss_core.saliency.c2am import c2am_loss
from wsss_core.saliency.hints import hint_loss
from wsss_core.saliency.poolnet_training import saliency_loss
from wsss_core.scores.instances import instance_ap
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
    "class_features",  # ReCAM (Chen et al., CVPR 2022): the pooled features under each class's map
    "reactivation_loss",  # ReCAM, equations 1 and 7
    "combined_head",  # ReCAM, table 1: the weights that make its maps
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
    "displacement_loss",  # IRNet: displacement_loss(displacement, mask, classes, radius)
    # instances
    "find_centroids",  # IRNet: where each pixel ends that follows the displacements
    "instance_map",  # IRNet: the instance of each pixel, whatever its class
    "split_by_instance",  # IRNet: class maps cut into instances
    "detect",  # IRNet: objects of walked instance maps, with scores
    "overlaps",  # CIM (Li et al., IJCAI 2023): IoU of proposals, and which share of one lies in another
    "boxes",  # tight boxes of masks, their ends exclusive
    "find_peaks",  # PRM (Zhou et al., CVPR 2018): first maxima of class maps
    "peak_scores",  # PRM: the mean over peaks, whose gradient each peak has whole
    "label_proposals",  # CIM: AGPL, the peak that a proposal belongs to
    "MaskFuse",  # CIM: features of a proposal's box, and of its box under its mask
    "mine",  # CIM, algorithm 1: pseudo truth, whole instances around seeds
    "mine_mist",  # MIST (Ren et al., CVPR 2020), as CIM's ablation has it: the seeds
    "sampled",  # CIM: draws among pseudo truth, against noise
    "assign",  # CIM, equations 4 to 6: what proposals learn from pseudo truth
    "image_loss",  # CIM, equation 7, first term
    "cluster_loss",  # CIM, equation 7, second term, after PCL (Tang et al., TPAMI 2018)
    "refinement_losses",  # CIM, equation 3, and a term of its published code
    # segmentation
    "segmentation_loss",  # DeepLabV3+ (Chen et al., ECCV 2018), with P-NOC's label smoothing
    "multi_scale_loss",  # DeepLabV2 (Chen et al., TPAMI 2018)
    "crf_probabilities",  # dense CRF with the settings of DeepLabV2
    # scores
    "confusion",  # pixels of each pair of true and predicted class
    "iou",  # TP / (P + T - TP) of each class
    "sweep",  # the confusion matrices of a map at many background thresholds
    "instance_ap",  # average precision of instances, as COCO takes it or as the literature on VOC
    # maps on disk
    "MapStore",  # what the stages keep of class maps, hints, saliency and walks
]
