"""The chain of stages: which methods each slot of a run offers, what their stages take in and what they make.

A run has six slots. What a slot makes is what the next ones take in::

    prior          image-level labels     -> classifier, class maps (CAMs)
    saliency       class maps or nothing  -> where there is any object
    refinement     class maps, saliency   -> pseudo masks
    segmentation   pseudo masks           -> network, masks
    instances      what refines the masks, or a classifier and the data set's proposals
                                          -> masks of single objects, of the training images
    detection      those masks            -> network, masks of single objects

A new method is an entry of ``METHODS``, sections of settings for what is its own, and, where it has a stage that no
other method has, a path in ``tree.py``, a revision and a rule. ``docs/develop.md`` has the steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsss_core.recipes import settings as s

SLOTS = ("prior", "saliency", "refinement", "segmentation", "instances", "detection")
NONE = "none"  # in place of a slot: the run has no such thing

# The sections of settings that a slot may hold, whatever its method.
SECTIONS: dict[str, dict[str, type]] = {
    "prior": {
        "classifier": s.ClassifierSettings,
        "puzzle": s.PuzzleSettings,
        "erasing": s.ErasingSettings,
        "discriminator": s.DiscriminatorSettings,
        "reactivation": s.ReactivationSettings,
        "cams": s.CamSettings,
        "scores": s.SweepSettings,
        "monitoring": s.MonitoringSettings,
    },
    "saliency": {
        "c2am": s.C2amSettings,
        "hints": s.HintSettings,
        "maps": s.C2amMapSettings,
        "masks": s.SaliencyMaskSettings,
        "poolnet": s.PoolnetSettings,
        "scores": s.SaliencyScoreSettings,
    },
    "refinement": {
        "labels": s.AffinityLabelSettings,
        "cam_labels": s.CamLabelSettings,
        "affinity": s.AffinitySettings,
        "walk": s.WalkSettings,
        "masks": s.PseudoMaskSettings,
        "scores": s.PseudoMaskScoreSettings,
    },
    "segmentation": {
        "v3plus": s.DeeplabV3PlusSettings,
        "v2": s.DeeplabV2Settings,
        "prediction": s.PredictionSettings,
    },
    "instances": {
        "irn": s.IrnSettings,
        "components": s.ComponentSettings,
        "peaks": s.PeakSettings,
        "proposal_labels": s.ProposalLabelSettings,
        "cim": s.CimSettings,
        "proposal_scores": s.ProposalScoreSettings,
        "selection": s.SelectionSettings,
        "labels": s.InstanceLabelSettings,
        "scores": s.InstanceScoreSettings,
    },
    "detection": {
        "maskrcnn": s.MaskrcnnSettings,
        "prediction": s.MaskrcnnPredictionSettings,
        "scores": s.InstanceScoreSettings,
    },
}


@dataclass(frozen=True)
class Stage:
    """One artefact of a run, which a rule makes.

    Attributes:
        makes: the artefact, by its name in ``tree.py``.
        takes: artefacts of the same run that it is made from. ``ordinary`` is the classifier of the run that the prior
            names as such; ``objects`` what the saliency slot makes, if the run has one; ``refined`` the class maps
            that the refinement cuts into masks.
        sections: sections of its slot's settings that it depends on, or of another slot's, as ``refinement.walk``.
            Where one of them is null, the stage and those that take what it makes are left out.
    """

    makes: str
    takes: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """What may fill a slot.

    Attributes:
        stages: in the order in which they are made. What the last one makes is the slot's result.
        sections: those of its slot's settings that it has.
        optional: sections that may be null.
        needs: keys that a run has to name beside the method.
        values: what it has in place of the defaults of its sections, as config.yaml would say it.
        maps: of a refinement: the artefact with the class maps that are cut into masks.
        truth: of a refinement: the training masks are the data set's own; of instances: the objects are.
    """

    stages: tuple[Stage, ...]
    sections: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    maps: str | None = None
    truth: bool = False


def _prior(*terms: str, **values: Mapping[str, Any]) -> Method:
    """A classifier whose loss has these terms beside that of the labels; each has a section of its name."""
    looked_at = ("ordinary",) if "erasing" in terms else ()
    needs = looked_at or (("ordinary",) if "reactivation" in terms else ())  # whose weights it goes on from
    return Method(
        stages=(
            Stage("classifier", looked_at, ("classifier", *terms)),
            Stage("cams", ("classifier",), ("cams",)),
        ),
        sections=("classifier", *terms, "cams", "scores", "monitoring"),
        needs=needs,
        values=values,
    )


def _c2am(*hints: str, **values: Mapping[str, Any]) -> Method:
    return Method(
        stages=(
            *(Stage(name, ("cams",)) for name in hints),
            Stage("c2am", hints, ("c2am", *hints)),
            Stage("c2am_maps", ("c2am",), ("maps",)),
            Stage("saliency_masks", ("c2am_maps",), ("masks",)),
            Stage("poolnet", ("saliency_masks",), ("poolnet",)),
            Stage("saliency", ("poolnet",)),
        ),
        sections=("c2am", *hints, "maps", "masks", "poolnet", "scores"),
        optional=("poolnet",),
        values=values,
    )


def _segmentation(network: str) -> Method:
    return Method(
        stages=(
            Stage("segmentation", ("pseudo_masks",), (network,)),
            Stage("masks", ("segmentation",), ("prediction",)),
        ),
        sections=(network, "prediction"),
    )


def _instances(*stages: Stage, **values: Mapping[str, Any]) -> Method:
    """Instances of the training images; those that are sure enough are what a detector learns from."""
    own = [name for stage in stages for name in stage.sections if "." not in name]
    return Method(
        stages=(*stages, Stage("instance_labels", (stages[-1].makes,), ("labels",))),
        sections=(*own, "labels", "scores"),
        values=values,
    )


# With tiles, an image takes twice the memory: the batch comes in two halves. The released models learnt with jitter.
_TILED: Mapping[str, Any] = {"augmentation": "jitter", "batch_size": 16, "accumulation": 2}

METHODS: dict[str, dict[str, Method]] = {
    "prior": {
        "cam": _prior(),  # the plain classifier
        "puzzle": _prior("puzzle", classifier=_TILED),
        "occse": _prior(
            "erasing",  # its own code raises the weight by 0.05 an epoch
            erasing={"weight": {"start": 0.3, "end": 1.05, "fraction": 1.0}, "by_epoch": True, "relu_first": False},
        ),
        "poc": _prior("puzzle", "erasing", classifier=_TILED),
        "pnoc": _prior("puzzle", "erasing", "discriminator", classifier=_TILED),
        "prm": _prior(  # PRM's classifier, whose peaks CIM starts from
            classifier={
                "backbone": "resnet50",
                "output_stride": 32,
                "head_bias": True,
                "pooling": "peaks",
                "squash": True,
                "crop": 448,
                "augmentation": "none",
                "batch_size": 16,
                "epochs": 20,
                "learning_rate": 1e-4,
                "head_rate": 100,
                "momentum": 0.9,
                "decay_power": 0.0,
                "as_irnet": True,
                "label_smoothing": 0.0,
                "precision": "float32",
            },
        ),
        "recam": _prior(
            "reactivation",
            # 5e-4 for the second head, a tenth of it for all that is trained already (the paper has one rate)
            classifier={"weights": "ordinary", "epochs": 4, "learning_rate": 5e-5},
            cams={"head": "product"},
        ),
    },
    "saliency": {
        "c2am": _c2am(
            c2am={
                "backbone": "resnet50_undilated",
                "weights": "data/weights/moco_r50_v2-e3b0c442.pth",
                "squash": 1.143,
                "batch_size": 128,
            }
        ),
        "c2amh": _c2am("hints"),
    },
    "refinement": {
        "affinity": Method(
            stages=(
                Stage("affinity_labels", ("cams", "objects"), ("labels",)),
                Stage("affinity", ("affinity_labels",), ("affinity",)),
                Stage("random_walk", ("affinity", "cams"), ("walk",)),
                Stage("pseudo_masks", ("random_walk",), ("masks",)),
            ),
            sections=("labels", "cam_labels", "affinity", "walk", "masks", "scores"),
            maps="random_walk",
        ),
        "threshold": Method(  # masks straight from the class maps
            stages=(Stage("pseudo_masks", ("cams",), ("masks",)),),
            sections=("masks", "scores"),
            values={"masks": {"each_class": True, "crf": None}},
            maps="cams",
        ),
        "truth": Method(stages=(), truth=True),
    },
    "segmentation": {"v3plus": _segmentation("v3plus"), "v2": _segmentation("v2")},
    "instances": {
        "irn": _instances(Stage("irn_instances", ("affinity", "cams"), ("irn", "refinement.walk"))),
        "components": _instances(Stage("components", ("pseudo_masks", "refined"), ("components",))),
        "cim": _instances(  # its proposals belong to the data set
            Stage("peaks", ("classifier",), ("peaks",)),
            Stage("proposal_labels", ("peaks",), ("proposal_labels",)),
            Stage("cim", ("proposal_labels",), ("cim",)),
            Stage("proposal_scores", ("cim",), ("proposal_scores",)),
            Stage("cim_instances", ("proposal_scores",), ("selection",)),
        ),
        "truth": Method(stages=(), truth=True),
    },
    "detection": {
        "maskrcnn": Method(
            stages=(
                Stage("maskrcnn", ("instance_labels",), ("maskrcnn",)),
                Stage("detections", ("maskrcnn",), ("prediction",)),
            ),
            sections=("maskrcnn", "prediction", "scores"),
        ),
    },
}

# What fills a slot that a run says nothing about.
USUAL = {
    "saliency": "c2amh", "refinement": "affinity", "segmentation": "v3plus", "instances": NONE, "detection": NONE,
}  # fmt: skip
