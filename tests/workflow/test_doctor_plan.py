"""What wsss doctor reads of a plan is what Snakemake says."""

from snakemake_cli import jobs_in, succeed

from wsss_core.commands.doctor import read_plan


def test_jobs_and_missing_files_of_a_plan(tmp_path):
    output = succeed(tmp_path, "--dry-run", targets=["results/voc/pnoc/seg_miou.json"])
    plan = read_plan(output)
    assert plan.jobs == dict(jobs_in(output))
    assert plan.jobs["train_classifier"] == 2
    assert any(line.startswith("data/VOCdevkit/VOC2012: VOC 2012 with ") for line in plan.missing)
