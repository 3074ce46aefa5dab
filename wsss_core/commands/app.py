"""What can be typed: the commands of ``wsss`` with their arguments, and how mistakes are told.

The work is in the modules beside this one. They are loaded when their command is called, so that help comes at once.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wsss_core.base.checkpoints import CheckpointError
from wsss_core.commands.printing import CommandError, print_rows
from wsss_core.recipes.config import RecipeError
from wsss_core.recipes.names import unknown

app = typer.Typer(
    name="wsss",
    help="Look at the runs of the pipeline, ask them, and use their networks. Runs are made with snakemake.",
    epilog="Example: wsss show demo pnoc --worst 3. Help with a command: wsss show --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _data_sets(incomplete: str) -> list[str]:
    return _declared("datasets", incomplete)


def _runs(incomplete: str) -> list[str]:
    return _declared("runs", incomplete)


def _declared(key: str, incomplete: str) -> list[str]:
    """Names of config.yaml, for the shell to complete; none where it cannot be read, as the shell has to go on."""
    from wsss_core.commands.project import open_project

    try:
        return [name for name in open_project().recipes.config[key] if name.startswith(incomplete)]
    except (CommandError, RecipeError, OSError):
        return []


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"wsss-core {version('wsss-core')}")
        raise typer.Exit


DataSet = Annotated[
    str,
    typer.Argument(metavar="DATASET", help="A data set of config.yaml, such as voc.", autocompletion=_data_sets),
]
Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run of config.yaml, such as pnoc or pnoc@seed1.", autocompletion=_runs),
]
ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--configfile", metavar="FILE", help="A file to put over config.yaml; may be given several times."),
]


@app.callback()
def wsss(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """What can be asked without a command."""


@app.command(epilog="Example: wsss info results/demo/pnoc/segmentation.pt")
def info(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A store (.zarr), checkpoint (.pt), result (.json) or table (.csv).")
    ],
    check: Annotated[bool, typer.Option("--check", help="Read every image of a store.")] = False,
) -> None:
    """Say what a file is that the pipeline wrote: its form, sizes, what it was made with, counts by label."""
    from wsss_core.commands.info import info as work

    print_rows(work(file, check=check))


@app.command(epilog="Example: wsss settings voc pnoc --diff poc")
def settings(
    dataset: DataSet,
    run: Run,
    diff: Annotated[
        str | None, typer.Option(metavar="RUN", help="Print what differs from this run, or from DATASET/RUN.")
    ] = None,
    configfile: ConfigFiles = None,
) -> int:
    """Print all settings of a run and where each value comes from, or those in which two runs differ.

    With --diff the exit code is 1 where they differ.
    """
    from wsss_core.commands import settings as work
    from wsss_core.commands.project import open_project

    project = open_project(configfile or ())
    project.checked(dataset, run)
    if diff is None:
        print_rows(work.settings_of(project, dataset, run))
        return 0
    found = work.differences(project, dataset, run, diff)
    print_rows(found)
    return int(bool(found))


@app.command(epilog="Example: wsss predict results/voc/pnoc/segmentation.pt photos -o predicted --overlay")
def predict(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A trained segmentation.pt, or maskrcnn.pt for single objects.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of photos.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The folder to write.")],
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write the photos with the classes' colours.")
    ] = False,
    scales: Annotated[
        str | None, typer.Option(metavar="S,S,...", help="Scales to look at photos at; 0.5,1,1.5,2 if left out.")
    ] = None,
    mirror: Annotated[bool, typer.Option(help="Look at mirror images too.")] = True,
    crf: Annotated[bool, typer.Option(help="Bring outlines to the photo's edges by a CRF.")] = True,
    longest_side: Annotated[
        int | None,
        typer.Option(
            min=64, metavar="PIXELS", help="Work on larger photos at this size; that of the data set, if any."
        ),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A classes.csv in place of the checkpoint's own classes.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:1.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="Processes beside the network; 0 is by itself.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier prediction.")] = False,
) -> int:
    """Segment the photos of a folder with a trained network.

    Writes masks/*.png of the photos' own size and shares.csv, the share of pixels of each class.

    Photos that cannot be read are named and left out, and the exit code is 1 then.
    """
    from wsss_core.commands.predict import run as work

    return work(
        checkpoint, folder, out, scales=scales, mirror=mirror, crf=crf, overlay=overlay, longest_side=longest_side,
        classes=classes, device=device, workers=workers, overwrite=overwrite,
    )  # fmt: skip


@app.command(epilog="Example: wsss show voc pnoc --worst 5 --class cat -o cats.png")
def show(
    dataset: DataSet,
    run: Run,
    images: Annotated[list[str] | None, typer.Argument(metavar="IMAGE...", help="Ids of images.")] = None,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Add the images of the lowest scores.")] = 0,
    best: Annotated[int, typer.Option(min=0, metavar="N", help="Add those of the highest.")] = 0,
    at_random: Annotated[int, typer.Option("--random", min=0, metavar="N", help="Add some, whatever they score.")] = 0,
    of_class: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Choose by the IoU of this class, among its images.")
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE", help="Choose by priors, pseudo or seg; by the last one that is scored if left out."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice at random.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="The PNG to write.")] = None,
    configfile: ConfigFiles = None,
) -> None:
    """Draw images through all stages of a run: CAMs, hints, saliency, labels, walk, masks, truth, and their scores.

    Shows what is made so far, and runs nothing.
    """
    from wsss_core.commands import show as work
    from wsss_core.commands.project import open_project
    from wsss_core.commands.run import RunOnDisk

    project = open_project(configfile or ())
    left = RunOnDisk(project, *project.checked(dataset, run))
    ids = work.chosen(
        left, images or (), worst=worst, best=best, anyhow=at_random, of_class=of_class, stage=scores, seed=seed
    )
    output = out or Path(f"{dataset}_{run}_{ids[0]}.png")
    work.show(left, ids, output)
    print(f"{', '.join(ids)}: {output}")


@app.command(
    epilog="Example: wsss compare voc cam poc pnoc --scores priors. A page: wsss compare voc cam pnoc --html a.html"
)
def compare(
    dataset: DataSet,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="Two runs or more; the others are held against the first.", autocompletion=_runs
        ),
    ],
    scores: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="priors, pseudo or seg; the last one that all have if left out."),
    ] = None,
    images: Annotated[int, typer.Option(min=0, metavar="N", help="So many images that won and that lost most.")] = 5,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="The PNG of bars to write.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with all of it, and print nothing else.")
    ] = None,
    configfile: ConfigFiles = None,
) -> None:
    """Compare the scores of runs: stage by stage, class by class, and the images that changed most."""
    from wsss_core.commands import compare as work
    from wsss_core.commands.project import open_project
    from wsss_core.commands.run import STAGES, RunOnDisk

    project = open_project(configfile or ())
    left = [RunOnDisk(project, *project.checked(dataset, run)) for run in runs]
    if html is not None:
        if scores or out:
            raise CommandError("--html has every stage on one page: leave out --scores and -o")
        work.write_page(project, dataset, runs, html)
        print(f"page: {html}")
        return
    found = work.compare(left, scores)
    for table in work.tables(found, images):
        if len(table) > 1:
            print_rows(table)
            print()
    output = out or Path(f"{dataset}_{'_'.join(runs)}.png")
    work.draw_comparison(found, f"{STAGES[found.stage].caption}s on {dataset}", output)
    print(f"bars: {output}")
    if found.images:
        changed = " ".join(dict.fromkeys([found.images[0][0], found.images[-1][0]]))
        print(f"look at them: wsss show {dataset} {runs[-1]} {changed}")


@app.command(epilog="Example: wsss export results/voc/pnoc/segmentation.pt --onnx voc.onnx --photo photos/cat.jpg")
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A trained segmentation.pt.")],
    onnx: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an ONNX file.")] = None,
    program: Annotated[
        Path | None, typer.Option("--torch", metavar="FILE", help="Write a program of torch.export (.pt2).")
    ] = None,
    photo: Annotated[Path | None, typer.Option(metavar="FILE", help="A photo to try the file on.")] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A classes.csv in place of the checkpoint's own classes.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a segmentation network as a file that runs without this project, and check it against the network.

    The file takes RGB bytes of any size, gives class probabilities, and carries names and colours of the classes.
    """
    from wsss_core.commands.export import export as work

    errors = work(checkpoint=checkpoint, onnx=onnx, program=program, photo=photo, classes=classes, overwrite=overwrite)
    for path, error in errors.items():
        print(f"{path}: its probabilities are the network's to {error:.1g}")


@app.command(epilog="Example: wsss init photos --name birds, where photos holds robin/*.jpg and wren/*.jpg")
def init(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folders of photos, one a class; with --labels, a folder of photos."),
    ],
    name: Annotated[str, typer.Option(help="Name of the data set.")] = "mine",
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="A table of file names and classes (several with ; between).")
    ] = None,
    masks: Annotated[Path | None, typer.Option(metavar="FOLDER", help="True masks, if any, for scores.")] = None,
    new: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Photos without labels, to be predicted.")] = None,
    val: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the photos to hold back from training.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the choice of these.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier call wrote.")] = False,
) -> None:
    """Make a data set of your own photos: lists, labels and a config with settings for so many.

    Writes NAME.yaml and the folder NAME, and says what to type next; photos stay where they are.
    """
    from wsss_core.commands import init as work
    from wsss_core.commands.project import open_project

    made = work.init(
        open_project(), folder, name=name, table=labels, masks=masks, new=new, held_back=val, seed=seed,
        overwrite=overwrite,
    )  # fmt: skip
    print("\n".join(work.words_of(made, new)))


@app.command("import", epilog="Example: wsss import resnest269@pnoc.pth voc pnoc")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A classifier that P-NOC's authors published (.pth).")],
    dataset: DataSet,
    run: Run,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run's classifier.")] = False,
    configfile: ConfigFiles = None,
) -> None:
    """Make a published classifier the classifier.pt of a run, so that later stages run without training one."""
    from wsss_core.commands.importing import import_classifier
    from wsss_core.commands.project import open_project

    project = open_project(configfile or ())
    output = import_classifier(project, file, *project.checked(dataset, run), overwrite=overwrite)
    target = project.tree.path("priors_miou", dataset=dataset, run=run)
    print(f"{output}: next, such as snakemake --cores all -- {target}")


@app.command(epilog="Example: wsss wandb voc pnoc --project wsss --offline")
def wandb(
    dataset: DataSet,
    run: Run,
    project: Annotated[str, typer.Option(metavar="NAME", help="The project there.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="Only write the folder wandb, for `wandb sync` later.")
    ] = False,
    configfile: ConfigFiles = None,
) -> None:
    """Send a run's losses, pictures and scores to Weights & Biases. Nothing is ever sent but by this command.

    It can be called while networks train, and again: the run there is replaced.
    """
    from wsss_core.commands.project import open_project
    from wsss_core.commands.tracking import send

    opened = open_project(configfile or ())
    sent = send(opened, *opened.checked(dataset, run), to=project, offline=offline)
    print(f"{'written' if offline else 'sent'}: " + ", ".join(f"{name} ({n} epochs)" for name, n in sent.items()))


@app.command(epilog="Example: wsss doctor voc/pnoc")
def doctor(
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="What is to be made: a path under results, or DATASET/RUN.")
    ] = None,
    configfile: ConfigFiles = None,
) -> int:
    """Say what this machine has, and for a target which jobs are left and which files are missing and published where.

    The exit code is 1 where files are missing. Nothing is run.
    """
    from wsss_core.commands.doctor import doctor as work
    from wsss_core.commands.project import open_project

    tables, whole = work(open_project(configfile or ()), target, configfile or ())
    for table in tables:
        print_rows(table)
        print()
    return int(not whole)


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; exit code 0, or what the command says, or 2 for a mistake, which is told in one line."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        _check_name(words)
        return int(app(args=words, prog_name="wsss", standalone_mode=False) or 0)
    except typer.TyperException as error:
        named = f"wsss {words[0]}" if words and not words[0].startswith("-") else "wsss"
        return _stop(f"{error.format_message().rstrip('.')}; {named} --help has an example")
    except (CommandError, RecipeError, CheckpointError, FloatingPointError) as error:
        return _stop(str(error))
    except OSError as error:
        return _stop(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        if not _is_told(error):
            raise
        return _stop(str(error))


def _check_name(words: Sequence[str]) -> None:
    names = [str(command.name or command.callback.__name__) for command in app.registered_commands if command.callback]
    if words and not words[0].startswith("-") and words[0] not in names:
        raise CommandError(unknown("command", words[0], names, "there are"))


def _is_told(error: ValueError) -> bool:
    """Whether an error is one of those that name their file and the way out; of modules that may not be loaded."""
    from wsss_core.data.classes import DataError
    from wsss_core.maps.shards import StoreError
    from wsss_core.reports.tables import ResultError

    return isinstance(error, (DataError, StoreError, ResultError))


def _stop(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
