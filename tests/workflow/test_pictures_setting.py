"""``pictures_every``: it reaches every training as a resource, which reruns nothing (test_plan)."""

from snakemake_cli import snakemake
from test_layout import RULES

WITHOUT = {"train_cim"}  # what it sees are proposals


def test_every_training_is_told_as_a_resource():
    trainings = {name for name in RULES if name.startswith("train_")}
    for name in trainings - WITHOUT:
        resources, params = RULES[name].split("    params:")
        assert "pictures=PICTURES," in resources.split("    resources:")[1], name
        assert "PICTURES" not in params
    assert len(trainings) == 7


def test_a_number_below_none_is_refused(tmp_path):
    done = snakemake(tmp_path, "--dry-run", targets=["results/demo/cam/classifier.pt"], config={"pictures_every": -1})
    assert done.returncode != 0
    assert "pictures_every" in done.stdout
