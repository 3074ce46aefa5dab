"""What Snakemake would make of MS COCO, from no data at all."""

from snakemake_cli import planned

SCORE, TRAIN, VAL = (
    "results/coco14/pnoc/seg_miou.json",
    "results/coco14/masks/train2014",
    "results/coco14/masks/val2014",
)


def test_the_network_is_planned_whole_with_masks_of_val_alone(tmp_path):
    plan = planned(tmp_path, targets=[SCORE, VAL])
    assert (plan["make_masks"], plan["make_manifest"], plan["make_classes"]) == (1, 2, 1)
    trainings = ("train_c2am", "train_poolnet", "train_affinity", "train_segmentation", "evaluate_segmentation")
    assert {rule: plan[rule] for rule in trainings} == dict.fromkeys(trainings, 1)


def test_masks_of_the_scored_images_come_with_the_score_of_priors(tmp_path):
    plan = planned(tmp_path, targets=["results/coco14/cam/priors_miou.json", TRAIN])
    assert (plan["make_masks"], plan["make_manifest"]) == (1, 1)
