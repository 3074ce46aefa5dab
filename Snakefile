"""From image-level labels to segmentation networks. `snakemake --cores all` makes the targets of config.yaml."""

from snakemake.utils import min_version, validate

from wsss_core.recipes.config import assemble, hold_to_plan

min_version("9.0")


configfile: "config.yaml"


assemble(config, workflow.basedir, workflow.configfiles)
hold_to_plan(config, planning=workflow.is_main_process)
validate(config, "workflow/schemas/config.schema.yaml", set_default=False)


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/prior.smk"
include: "workflow/rules/saliency.smk"
include: "workflow/rules/refinement.smk"
include: "workflow/rules/segmentation.smk"
include: "workflow/rules/scores.smk"
include: "workflow/rules/pictures.smk"
include: "workflow/rules/declared.smk"
include: "workflow/rules/tables.smk"


rule all:
    default_target: True
    input:
        config["targets"],


onsuccess:
    forget_finished_trainings()
