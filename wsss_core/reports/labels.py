"""What a result is told by in a few words; the rules import this, so neither numpy nor matplotlib."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

AP = "0.5"  # the overlap of the average precision that is told first


def headline(found: Mapping[str, Any]) -> tuple[str, float | None]:
    """The measure of a result and its value: mIoU, of instances AP at an overlap of 0.5 (COCO); None without either."""
    if "ap" in found:
        return "AP50", found["ap"]["coco"].get(AP)
    return "mIoU", found.get("miou")


def score_labels(path: str | Path) -> dict[str, str]:
    """What was scored and how well, of a result file, for readers: ``images`` and, if it has one, ``score``."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    measure, value = headline(found)
    told = {"images": f"{found['images']} of {found['split']}"}
    return told if value is None else told | {"score": f"{measure} {100 * value:.1f} %"}
