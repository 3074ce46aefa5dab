"""``wsss import``: a released classifier of P-NOC's authors as the ``classifier.pt`` of a run."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from wsss_core.base.checkpoints import save_model
from wsss_core.classifiers.network import Classifier
from wsss_core.commands.printing import CommandError
from wsss_core.commands.project import Project
from wsss_core.data.classes import Classes, described
from wsss_core.networks.backbones import build_backbone, read_state

# Where their networks keep a ResNet's parts a second time; files of some versions have these names alone.
STAGES = {"stage1.0": "conv1", "stage1.1": "bn1"} | {f"stage{part + 1}.0": f"layer{part}" for part in (1, 2, 3, 4)}
HEAD = "classifier.weight"


def import_classifier(project: Project, file: Path, dataset: str, run: str, *, overwrite: bool = False) -> Path:
    """Write the classifier of a run from a released one; later stages then run without training it.

    The backbone and the classes are those that the run has on the data set, whose labels are in the same order there
    (VOC's by the alphabet, COCO's by the category). What the classifier would be made from has to be there already, so
    that Snakemake does not take the file for older than that.

    Args:
        file: a state dict with the tensors of the backbone under ``model.`` or ``stage1.`` to ``stage5.``, and
            ``classifier.weight``, (classes, channels, 1, 1).

    Returns:
        The checkpoint.

    Raises:
        CommandError: the run has no classifier of its own, or one already; the manifest is not made yet; the file is of
            another network.
        OSError, ValueError: it cannot be read.
    """
    recipes, known = project.recipes, {"dataset": dataset, "run": run}
    if (source := recipes.source(dataset, run, "classifier")) != run:
        raise CommandError(f"{run} takes its classifier from {source}: import it there")
    output = Path(project.tree.path("classifier", **known))
    if output.exists() and not overwrite:
        raise CommandError(f"{output} is there already: add --overwrite to replace it")
    table = Path(project.tree.path("classes", **known))
    manifest = project.tree.path("manifest", subset=recipes.data_set(dataset)["splits"]["train"], **known)
    if missing := [str(path) for path in (table, Path(manifest)) if not path.exists()]:
        raise CommandError(f"make {' and '.join(missing)} first, which the classifier would be trained with: "
                           f"snakemake --cores all -- {' '.join(missing)}")  # fmt: skip
    classes, settings = Classes.read(table), recipes.section(dataset, run, "prior.classifier")
    try:
        state = read_state(file)
    except ValueError as error:
        raise CommandError(str(error)) from error
    network = build_backbone(settings.backbone, output_stride=settings.output_stride)
    model = Classifier(network, len(classes))
    own = renamed(state, getattr(network.network, "from_published", None))
    _load(model, own, file, settings.backbone, len(classes))
    recipe = {"backbone": settings.backbone, "output_stride": settings.output_stride, "classes": len(classes)}
    save_model(output, model, "classifier", {**recipe, **described(classes), "imported": file.name})
    return output


def renamed(state: Mapping[str, Tensor], rename: object = None) -> dict[str, Tensor]:
    """A released classifier's tensors under the names that a ``Classifier`` has for them.

    Args:
        rename: of a backbone's authors' names, see ``networks.resnet38d``.
    """
    inner = state.get("state_dict")
    tensors = inner if isinstance(inner, dict) else state
    tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    trunk = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    if not trunk:
        for name, value in tensors.items():
            if (stage := re.match(r"stage\d\.\d", name)) and stage[0] in STAGES:
                trunk[STAGES[stage[0]] + name[stage.end() :]] = value
    if callable(rename):
        trunk = rename(trunk)
    found = {f"backbone.network.{name}": value for name, value in trunk.items()}
    return found | ({"head.weight": tensors[HEAD]} if HEAD in tensors else {})


def _load(model: Classifier, state: dict[str, Tensor], file: Path, backbone: str, classes: int) -> None:
    own = model.state_dict()
    # files written before PyTorch 0.4.1 have no counters of batches; they do not matter here
    missing = [name for name in own.keys() - state.keys() if not name.endswith("num_batches_tracked")]
    unknown = sorted(state.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if shapes == ["head.weight"]:
        raise CommandError(f"{file} has {len(state['head.weight'])} classes, the data set {classes}")
    if missing or unknown or shapes:
        wrong = [*sorted(missing), *unknown, *shapes]
        raise CommandError(
            f"{file} is no released classifier with the backbone {backbone}: {len(missing)} tensors are missing, "
            f"{len(unknown)} unknown, {len(shapes)} of another shape, such as {wrong[0]}; name a run with its backbone"
        )
    model.load_state_dict(state, strict=False)
