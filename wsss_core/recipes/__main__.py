"""What a run is on a data set, and how two of them differ.

python -m wsss_core.recipes show voc/pnoc
python -m wsss_core.recipes diff voc/poc voc/pnoc
python -m wsss_core.recipes write                     the schema and docs/settings.md, from the settings' classes
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from wsss_core.recipes.config import RecipeError, read_config
from wsss_core.recipes.methods import SLOTS
from wsss_core.recipes.recipes import Recipes

ROOT = Path(__file__).parents[2]


def main(words: list[str] | None = None) -> int:
    """Run the command; exit code 0, or 1 where `diff` found a difference, or 2 for a mistake."""
    parser = argparse.ArgumentParser(prog="python -m wsss_core.recipes", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="all settings of a run, and where each value comes from")
    show.add_argument("run", help="data set and run, such as voc/pnoc")
    diff = commands.add_parser("diff", help="the settings in which two runs differ")
    diff.add_argument("first", help="data set and run, such as voc/poc")
    diff.add_argument("second", help="the other one")
    for command in (show, diff):
        command.add_argument("--configfile", nargs="+", default=[], help="files to put over config.yaml")
    commands.add_parser("write", help="write the schema of config.yaml and docs/settings.md")
    call = parser.parse_args(words)
    if call.command == "write":
        from wsss_core.recipes.document import write  # needs more than a plan does

        write(ROOT)
        return 0
    try:
        recipes = Recipes(read_config(call.configfile, ROOT))
        if call.command == "show":
            _print(_shown(recipes, *_parsed(recipes, call.run)))
            return 0
        found = recipes.differences(_parsed(recipes, call.first), _parsed(recipes, call.second))
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _print((key, _told(one), _told(two)) for key, (one, two) in found.items())
    return int(bool(found))


def _parsed(recipes: Recipes, text: str) -> tuple[str, str]:
    dataset, slash, run = text.partition("/")
    if not slash:
        raise RecipeError(f"{text!r}: write the data set and the run, such as voc/pnoc")
    recipes.data_set(dataset)
    recipes.parse(run)
    return dataset, run


def _shown(recipes: Recipes, dataset: str, run: str) -> Iterable[tuple[str, ...]]:
    origins = {
        f"{slot}.{key}": origin for slot in SLOTS for key, origin in recipes.slot(dataset, run, slot).origins.items()
    }
    for key, value in recipes.flat(dataset, run).items():
        owner = next((name for name in (key, key.rpartition(".")[0]) if name in origins), "")
        yield key, _told(value), origins.get(owner, "")


def _told(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _print(rows: Iterable[tuple[str, ...]]) -> None:
    table = list(rows)
    widths = [max((min(len(row[column]), 48) for row in table), default=0) for column in range(2)]
    try:
        for row in table:
            print(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {'  '.join(row[2:])}".rstrip())
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as head, has seen enough; nothing is left to be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
