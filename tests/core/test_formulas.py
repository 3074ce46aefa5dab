"""The index of formulas: every name is there, and is the one of its room."""

from importlib import import_module

import pytest

from wsss_core import formulas

ROOMS = {
    "affinity.labels": ["affinity_labels"],
    "affinity.pairs": ["affinity_loss", "pair_affinities", "pair_labels"],
    "affinity.random_walk": ["random_walk"],
    "classifiers.erasing": ["hard_erase", "soft_erase", "soft_keep"],
    "classifiers.puzzle": ["merge", "reconstruction_loss", "tile"],
    "fitting.schedules": ["linear", "poly"],
    "maps.crf": ["crf_labels", "crf_probabilities"],
    "maps.inference": ["normalize_cam"],
    "maps.store": ["MapStore"],
    "saliency.c2am": ["c2am_loss"],
    "saliency.hints": ["hint_loss"],
    "saliency.poolnet_training": ["saliency_loss"],
    "scores.metrics": ["confusion", "iou", "sweep"],
    "segmentation.losses": ["multi_scale_loss", "segmentation_loss"],
}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in ROOMS.items() for name in names])
def test_a_formula_is_the_one_of_its_room(room, name):
    found = getattr(formulas, name)
    assert callable(found)
    assert found is getattr(import_module(f"wsss_core.{room}"), name)
    assert found.__module__ == f"wsss_core.{room}"  # where it is written, not only known


def test_the_index_is_complete():
    assert len(formulas.__all__) == len(set(formulas.__all__))
    assert set(formulas.__all__) == {name for names in ROOMS.values() for name in names}
