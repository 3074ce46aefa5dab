"""From image-level labels to segmentation networks. `snakemake --cores all` makes the targets of config.yaml."""

from pathlib import Path

from snakemake.utils import min_version

from wsss_core.base.jobs import coordinate
from wsss_core.recipes.checks import check_config
from wsss_core.recipes.config import assemble, hold_to_plan

min_version("9.0")


include: "workflow/rules/messages.smk"


# from another folder (--directory), this one's; a config.yaml there is taken in its place
configfile: "config.yaml" if Path("config.yaml").exists() else f"{workflow.basedir}/config.yaml"


assemble(config, workflow.basedir, workflow.configfiles)
hold_to_plan(config, planning=workflow.is_main_process)
if workflow.is_main_process:
    coordinate()
check_config(config, workflow.basedir)


# the first page of snakemake --report
report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/objects.smk"
include: "workflow/rules/reported.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/prior.smk"
include: "workflow/rules/saliency.smk"
include: "workflow/rules/refinement.smk"
include: "workflow/rules/segmentation.smk"
include: "workflow/rules/instances.smk"
include: "workflow/rules/cim.smk"
include: "workflow/rules/scores.smk"
include: "workflow/rules/pictures.smk"
include: "workflow/rules/declared.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/reports.smk"


rule all:
    default_target: True
    input:
        config["targets"],


onsuccess:
    forget_finished_trainings()
