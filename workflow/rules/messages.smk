"""What Snakemake says of a plan that cannot work: the one line of a mistake, without where in the code it was found."""

import re

from snakemake.logging import logger

from wsss_core.recipes.targets import nothing_makes

# what Snakemake prints around an error of the Snakefile, and around one of a function that gives inputs or params
AROUND = (
    re.compile(r"^RecipeError in file .*?:\n(.*?)(?:\n  File \".*)?$", re.DOTALL),
    re.compile(
        r"^InputFunctionException.*?\n  RecipeError: (.*?)\nWildcards:", re.DOTALL
    ),
)
NO_RULE = re.compile(r"^MissingRuleException.*?\nNo rule to produce (\S+)", re.DOTALL)
SCRIPT = re.compile(
    r"^RuleException:\nCalledProcessError in .*\.snakemake/scripts/", re.DOTALL
)


def in_one_line(text):
    """The message of a RecipeError, or of a target that nothing makes; other texts as they are."""
    for pattern in AROUND:
        if found := pattern.match(text):
            return f"Error: {found[1]}"
    if found := NO_RULE.match(text):
        return f"Error: {nothing_makes(found[1], TREE, RECIPES)}"
    return text


def short(record):
    """A filter of the logger, which changes errors alone; a script's own last line is there already."""
    if record.levelname == "ERROR" and SCRIPT.match(str(record.msg)):
        return False
    if record.levelname == "ERROR" and isinstance(record.msg, str):
        record.msg = in_one_line(record.msg)
    return True


if not any(getattr(one, "__name__", "") == short.__name__ for one in logger.filters):
    logger.addFilter(short)
