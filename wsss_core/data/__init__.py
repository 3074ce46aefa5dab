"""Data sets: their classes, masks and manifests."""

from wsss_core.data.classes import VOID, Classes, DataError, make_classes, voc_palette
from wsss_core.data.kinds.demo import DEMO_CLASSES, make_demo
from wsss_core.data.kinds.folders import folder_manifest
from wsss_core.data.kinds.voc import VOC_CLASSES, VOC_SUBSETS, voc_manifest
from wsss_core.data.manifest import Manifest, Row, build_manifest, read_ids
from wsss_core.data.masks import read_grey, read_mask, write_grey, write_mask

__all__ = [
    "DEMO_CLASSES",
    "VOC_CLASSES",
    "VOC_SUBSETS",
    "VOID",
    "Classes",
    "DataError",
    "Manifest",
    "Row",
    "build_manifest",
    "folder_manifest",
    "make_classes",
    "make_demo",
    "read_grey",
    "read_ids",
    "read_mask",
    "voc_manifest",
    "voc_palette",
    "write_grey",
    "write_mask",
]
