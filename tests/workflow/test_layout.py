"""What readers rely on: a rule, its script and its revision share a name; one lock; nothing in the wrong place."""

import re
import tomllib

import pytest
import yaml
from snakemake_cli import ROOT

from wsss_core.recipes.revisions import REVISION

RULES = {
    name: body
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for name, body in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
}
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))
WITHOUT_REVISION = {"make_classes", "fetch_weights"}  # what they make follows from their params and wildcards alone
NOT_IN_CONDA = ("snakemake", "snakemake-executor-plugin-slurm")


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if not line.startswith("#"))


def test_each_rule_has_a_script_of_its_name():
    assert {path.stem for path in SCRIPTS} == set(RULES)
    assert all(f'"../scripts/{name}.py"' in body for name, body in RULES.items())


def test_each_rule_has_a_revision_among_its_params():
    assert set(REVISION) == set(RULES) - WITHOUT_REVISION
    assert all(f'revision=REVISION["{name}"]' in RULES[name] for name in REVISION)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_reads_no_config(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 35
    assert "config[" not in text
    assert "snakemake.config" not in text


def test_the_conda_environment_has_the_versions_of_the_lock():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    in_conda = dict(line.split("==") for part in listed if isinstance(part, dict) for line in part["pip"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]} - set(NOT_IN_CONDA)
    assert in_conda == {name: pins()[name] for name in direct}


def test_every_direct_dependency_is_in_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    further = project["optional-dependencies"].values()
    direct = [*project["dependencies"], *(name for names in further for name in names)]
    assert {re.match(r"[\w-]+", line)[0] for line in direct} <= set(pins())


def test_no_default_profile_is_shipped():
    # Snakemake would read it by itself, and it would beat --profile profiles/slurm
    assert not (ROOT / "profiles/default").exists()


def test_the_first_entry_of_the_changelog_is_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (.*)", (ROOT / "docs/CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in (version, "Next")
    assert version in headings
