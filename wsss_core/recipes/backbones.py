"""Names of backbones, for a plan; timm itself would load torch, so its sources are read."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from wsss_core.recipes import sources
from wsss_core.recipes.names import near

# those of the papers and of the project; the rest are timm's
OWN = (
    "resnet50", "resnet50_undilated", "resnet101", "resnet101_undilated", "resnet152",
    "resnest50", "resnest101", "resnest200", "resnest269", "resnet38d", "vgg16", "vgg16_torchvision",
    *sources.BACKBONES,
)  # fmt: skip
MODEL = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)


def unknown_backbone(name: str) -> str:
    """What is wrong with a backbone's name, or nothing; a tag behind a dot and models of a hub are left to timm."""
    bare = name.partition(".")[0]
    if bare in OWN or ":" in name or bare in timm_names() or not timm_names():
        return ""
    found = near(bare, [*OWN, *sorted(timm_names())])
    way = f"did you mean {' or '.join(found)}?" if found else "`timm.list_models()` has all names beside the project's"
    return f"unknown backbone {name!r}; {way}"


@cache
def timm_names() -> frozenset[str]:
    """The names of all models of the installed timm; empty where there is none."""
    spec = find_spec("timm")
    folders = spec.submodule_search_locations or [] if spec else []
    files = [path for folder in folders for path in Path(folder, "models").glob("*.py")]
    return frozenset(name for path in files for name in MODEL.findall(path.read_text(encoding="utf-8")))
