"""The terms of which the losses of all classifiers are made (P-NOC paper, section 3).

    class                                    labels          every method
    + merged_class + weight * reconstruction puzzle          Puzzle-CAM, P-OC, P-NOC
    + weight * erasing                       erasing         OC-CSE, P-OC, P-NOC: against an ordinary classifier,
                                             discriminator   which P-NOC goes on training
    + weight * reactivation  reactivation    ReCAM: a second head, by the features under each class's map

A new term is a class in a file of its own, an entry here, and its section of settings in ``recipes``.
"""

from collections.abc import Mapping
from typing import Any

from wsss_core.classifiers.discriminator import DiscriminatorTerm
from wsss_core.classifiers.erasing import ErasingTerm
from wsss_core.classifiers.losses import label_loss, softmax_label_loss
from wsss_core.classifiers.network import logits
from wsss_core.classifiers.peaks import enlarged, peak_scores
from wsss_core.classifiers.puzzle import PuzzleTerm
from wsss_core.classifiers.recam import ReactivationTerm
from wsss_core.classifiers.step import Loss, Term, Training, View
from wsss_core.recipes.methods import SECTIONS
from wsss_core.recipes.settings import ClassifierSettings, made


class LabelTerm(Term[ClassifierSettings]):
    """The image-level labels; all of the plain classifier's loss."""

    def losses(self, view: View) -> dict[str, Loss]:
        maps = view.output.maps
        scores = peak_scores(enlarged(maps.float())) if self.settings.pooling == "peaks" else logits(maps)
        if kind := self.settings.label_loss:
            return {"class": Loss(softmax_label_loss(scores, view.labels, single_only=kind == "softmax_if_single"))}
        return {"class": Loss(label_loss(scores, view.targets))}


# By the name of their settings' section, in the order of the sum and of what one takes from another.
TERMS: dict[str, type[Term[Any]]] = {
    "puzzle": PuzzleTerm,
    "erasing": ErasingTerm,
    "discriminator": DiscriminatorTerm,
    "reactivation": ReactivationTerm,
}


def build_terms(sections: Mapping[str, Any], training: Training) -> dict[str, Term[Any]]:
    """The term of the labels and those with a section of settings, by name.

    Raises:
        ValueError: a section that is no term's.
    """
    unknown = sections.keys() - TERMS.keys()
    if unknown:
        raise ValueError(f"no term of a loss is named {', '.join(sorted(unknown))}; there are {', '.join(TERMS)}")
    terms: dict[str, Term[Any]] = {"labels": LabelTerm(training.settings, training, {})}
    for name, kind in TERMS.items():
        if name in sections:
            terms[name] = kind(sections[name], training, terms)
    return terms


def read_terms(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The sections of the terms from the plain values of a classifier's stage, whose other section is its own."""
    return {name: made(SECTIONS["prior"][name], own) for name, own in values.items() if name != "classifier"}
