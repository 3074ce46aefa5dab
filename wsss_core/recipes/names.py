"""Names that are nearly right: what may have been meant."""

import difflib
from collections.abc import Iterable

MANY = 15  # names that fit into a line


def near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that somebody may have meant, the likeliest first: misspelt, abbreviated (lr) or cut off."""
    names = list(dict.fromkeys(known))
    alike = difflib.get_close_matches(name, names, n=most)
    short = [other for other in names if len(name) > 1 and (name == _initials(other) or _part_of(name, other))]
    return list(dict.fromkeys([*alike, *short]))[:most]


def meant(name: str, known: Iterable[str]) -> str:
    """``did you mean ...?``, or nothing where no known name is near."""
    found = near(name, known)
    return f"did you mean {' or '.join(found)}?" if found else ""


def unknown(kind: str, name: str, known: Iterable[str], said: str) -> str:
    """What to say of a name that is not there: those that are, and which may have been meant; of many, the first."""
    names = list(known)
    question = meant(name, names)
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    listed = f"; {said} {', '.join(names[:MANY])}{more}" if not (more and question) else ""
    return f"unknown {kind} {name!r}{listed}" + (f" ({question})" if question else "")


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def _part_of(name: str, other: str) -> bool:
    return min(len(name), len(other)) > 2 and (other.startswith(name) or name.startswith(other))
