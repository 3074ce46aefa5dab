"""The index of formulas: every name is there, and is the one of its room."""

from importlib import import_module

import pytest

from wsss_core import formulas

ROOMS = {
    "affinity.labels": ["affinity_labels"],
    "affinity.pairs": ["affinity_loss", "displacement_loss", "pair_affinities", "pair_labels"],
    "affinity.random_walk": ["random_walk"],
    "cim.labels": ["label_proposals"],
    "cim.losses": ["cluster_loss", "image_loss", "refinement_losses"],
    "cim.mining": ["assign", "mine", "mine_mist", "sampled"],
    "cim.network": ["MaskFuse"],
    "classifiers.erasing": ["hard_erase", "soft_erase", "soft_keep"],
    "classifiers.network": ["combined_head"],
    "classifiers.peaks": ["find_peaks", "peak_scores"],
    "classifiers.puzzle": ["merge", "reconstruction_loss", "tile"],
    "classifiers.recam": ["class_features", "reactivation_loss"],
    "fitting.schedules": ["linear", "poly"],
    "instances.displacement": ["detect", "find_centroids", "instance_map", "split_by_instance"],
    "maps.crf": ["crf_labels", "crf_probabilities"],
    "maps.inference": ["normalize_cam"],
    "maps.store": ["MapStore"],
    "proposals.overlaps": ["boxes", "overlaps"],
    "saliency.c2am": ["c2am_loss"],
    "saliency.hints": ["hint_loss"],
    "saliency.poolnet_training": ["saliency_loss"],
    "scores.instances": ["instance_ap"],
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
