"""What holds on a cluster: jobs that read the config again, times and memory by attempt, profiles."""

import re

import pytest
from snakemake_cli import ROOT, snakemake, succeed
from snakemake_executor_plugin_slurm.partitions import read_partition_file

# Snakemake starts a `run:` rule as a process that reads the config again, as every job on a cluster does.
LATE = """

rule other:
    output: "other.txt"
    shell: "{edit}; touch {{output}}"

rule late:
    input: "other.txt"
    output: "late.txt"
    run:
        open(output[0], "w").close()
"""


@pytest.fixture
def copied(tmp_path):
    """A copy of the workflow with a job that edits the config, and one that starts after it."""

    def copy(edit):
        for name in ("config.yaml", "config", "workflow"):
            (tmp_path / name).symlink_to(ROOT / name)
        (tmp_path / "Snakefile").write_text((ROOT / "Snakefile").read_text() + LATE.format(edit=edit))
        return tmp_path

    return copy


@pytest.fixture
def states(tmp_path):
    """What a finished and an unfinished training would resume from."""
    run = tmp_path / "results/demo/cam"
    (run / "classifier.epochs.resume").mkdir(parents=True)
    for name in ("classifier.pt", "classifier.resume.pt", "c2am.resume.pt"):
        (run / name).touch()
    return lambda: sorted(path.name for path in run.glob("*.resume*"))


def late(folder):
    words = ["--snakefile", str(folder / "Snakefile"), "--config", "targets=[late.txt]"]
    return snakemake(folder, *words, targets=["late.txt"])


@pytest.mark.parametrize("edit", ["true", "echo '# a comment' >> overlay.yaml"])
def test_a_job_of_an_unchanged_config_runs_and_finished_trainings_need_no_state_any_more(copied, states, edit):
    done = late(copied(edit))
    assert done.returncode == 0, done.stdout
    assert states() == ["c2am.resume.pt"]


def test_a_job_whose_config_was_edited_after_the_plan_stops_with_the_way_out(copied, states):
    folder = copied("echo 'seeds: [7]' > overlay.yaml")
    done = late(folder)
    assert done.returncode != 0
    assert done.stdout.count("was edited after this job was planned: wait until no job is queued") == 1
    assert (folder / "other.txt").exists()
    assert not (folder / "late.txt").exists()
    assert len(states()) == 3


def test_every_job_says_its_memory_and_time_so_that_profiles_need_no_defaults():
    text = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    at_home = set(re.findall(r"^    (\w+),$", "".join(re.findall(r"^localrules:\n((?:    .*\n)+)", text, re.M)), re.M))
    rules = {part.partition(":")[0]: part for part in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]}
    assert at_home == {"fetch_weights", "make_classes", "mean_over_seeds", "make_table", "make_figure"}
    assert [name for name in rules.keys() - at_home if not re.search(r"mem_mb=.*\n +runtime=", rules[name])] == []


def test_ones_own_profile_goes_over_the_shipped_one(tmp_path):
    own = ROOT / "profiles/mine.example"
    output = succeed(
        *(tmp_path, "--dry-run", "--profile", str(ROOT / "profiles/slurm"), "--profile", str(own)),
        targets=["results/demo/manifest/train.csv"],
    )
    assert "make_manifest" in output
    cpu, gpu = read_partition_file(own / "partitions.yaml")
    assert (cpu.limits.max_gpu, cpu.limits.max_runtime, gpu.limits.max_gpu) == (0, 2 * 24 * 60, 4)


@pytest.fixture
def growth():
    """What a resource function of common.smk gives at the first three attempts, where no file is missing."""
    source = (ROOT / "workflow/rules/common.smk").read_text()
    functions = source[source.index("def by_attempt") : source.index("def forget_finished")]
    names = {"config": {"max_mem_mb": 60000}, "say_what_is_missing": lambda: None}
    exec(functions, names)
    return lambda name, amount: [names[name](amount)(None, attempt) for attempt in (1, 2, 3)]


def test_a_retry_has_twice_the_memory_once_and_no_more_than_the_cap(growth):
    assert growth("by_attempt", 8000) == [8000, 16000, 16000]
    assert growth("by_attempt", 48000) == [48000, 60000, 60000]
    assert growth("by_attempt", 64000) == [60000] * 3


def test_jobs_that_begin_again_have_twice_the_time_in_a_retry(growth):
    assert growth("hours", 12) == [720, 1440, 1440]
