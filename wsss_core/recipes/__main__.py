"""Write the schema of config.yaml and docs/settings.md, from the settings' classes.

python -m wsss_core.recipes write

What a run is on a data set, and how two of them differ, ``wsss settings`` says.
"""

import argparse
from pathlib import Path

from wsss_core.recipes.document import write

ROOT = Path(__file__).parents[2]


def main(words: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m wsss_core.recipes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["write"], help="write both files; `wsss settings` prints settings")
    parser.parse_args(words)
    write(ROOT)


if __name__ == "__main__":
    main()
