"""Facts about networks by their names; imports nothing, so that the plan of a workflow may ask."""

MASKING_DEPTHS = {"resnet38d": 7, "vgg16": 7}
OTHER_DEPTHS = 5  # the stem and four stages


def depths(name: str) -> int:
    """How many depths a mask may be applied at inside a backbone, see ``backbones.masked``."""
    return MASKING_DEPTHS.get(name, OTHER_DEPTHS)
