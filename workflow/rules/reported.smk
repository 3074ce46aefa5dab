"""How outputs appear in Snakemake's own report (snakemake --report FILE): categories, captions, labels."""

from wsss_core.reports.labels import score_labels


def labelled(what):
    """Labels of a file in the report: its data set, its run if it has one, and what it has."""
    return lambda wildcards: {
        "data set": wildcards.dataset,
        **({"run": wildcards.run} if "run" in wildcards.keys() else {}),
        "what": what.format(**dict(wildcards.items())),
    }


def with_score(what):
    """Labels of a result file: as ``labelled``, with its score, which is read when the report is made."""
    return lambda wildcards, output: labelled(what)(wildcards) | score_labels(output[0])


def as_score(path, what):
    """A result file, for the report."""
    caption = "../report/scores.rst"
    return report(path, caption=caption, category="Scores", labels=with_score(what))


def as_images(path, what):
    """A table of scores by image, for the report."""
    caption, category = "../report/images.rst", "Scores by image"
    return report(path, caption=caption, category=category, labels=labelled(what))


def as_curve(path, what):
    """The losses of a training, for the report."""
    caption = "../report/curves.rst"
    return report(path, caption=caption, category="Curves", labels=labelled(what))
