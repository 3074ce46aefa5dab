"""Where every file of the results tree lies: the only place that spells a path."""

from collections.abc import Mapping
from dataclasses import dataclass

# What belongs to a data set, to a run, or to neither, beside the folder of all results. Braces are wildcards of rules.
OF_DATASET = {
    "demo": "VOC2012",
    "classes": "classes.csv",
    "manifest": "manifest/{subset}.csv",
    "coco_masks": "masks/{subset}",
    "instance_truth": "instances/{subset}.zarr",
    "instance_truth_json": "instances/{subset}.json",
    "proposals": "proposals/{subset}.zarr",
    "proposals_recall": "proposals_recall.json",
    "class_properties": "class_properties.csv",
    "table": "tables/{table}",
    "figure": "figures/{figure}",
    "comparison": "compare.html",
}
OF_RUN = {
    "classifier": "classifier.pt",
    "epochs": "classifier.epochs",
    "cams": "cams/{subset}.zarr",
    "hints": "hints/{subset}.zarr",
    "c2am": "c2am.pt",
    "c2am_maps": "c2am_maps/{subset}.zarr",
    "saliency_masks": "saliency_masks/{subset}",
    "poolnet": "poolnet.pt",
    "saliency": "saliency/{subset}",
    "affinity_labels": "affinity_labels/{subset}",
    "affinity": "affinity.pt",
    "random_walk": "random_walk/{subset}.zarr",
    "pseudo_masks": "pseudo_masks/{subset}",
    "segmentation": "segmentation.pt",
    "masks": "masks/{subset}",
    "irn_instances": "irn_instances/{subset}.zarr",
    "components": "components/{subset}.zarr",
    "peaks": "peaks/{subset}.csv",
    "proposal_labels": "proposal_labels/{subset}.npz",
    "cim": "cim.pt",
    "proposal_scores": "proposal_scores/{subset}.zarr",
    "cim_instances": "cim_instances/{subset}.zarr",
    "instance_maps": "instance_maps/{subset}",
    "instance_labels": "instance_labels/{subset}.zarr",
    "maskrcnn": "maskrcnn.pt",
    "detections": "detections/{subset}.zarr",
    "detections_json": "detections/{subset}.json",
    "priors_miou": "priors_miou.json",
    "priors_images": "priors_images.csv",
    "priors_miou_val": "priors_miou_val.json",
    "priors_images_val": "priors_images_val.csv",
    "priors_by_epoch": "priors_by_epoch.json",
    "saliency_miou": "saliency_miou.json",
    "saliency_gt_miou": "saliency_gt_miou.json",
    "pseudo_miou": "pseudo_miou.json",
    "pseudo_images": "pseudo_images.csv",
    "pseudo_miou_val": "pseudo_miou_val.json",
    "pseudo_images_val": "pseudo_images_val.csv",
    "seg_miou": "seg_miou.json",
    "seg_images": "seg_images.csv",
    "irn_ap": "irn_ap.json",
    "components_ap": "components_ap.json",
    "proposal_labels_scores": "proposal_labels.json",
    "cim_ap": "cim_ap.json",
    "detections_ap": "detections_ap.json",
    "health": "health.json",
    "over_seeds": "over_seeds",
    "report": "report.html",
    "pictures": "pictures.png",
    "predictions": "predictions.png",
    "instance_pictures": "instances.png",
    "detection_pictures": "detections.png",
    "predictions_of": "predictions/{subset}.png",
    "instances_of": "instances/{subset}.png",
}
MADE_WITH = {"epochs": "classifier"}  # what the stage of another artefact makes beside it
WEIGHTS = "resources/weights/{backbone}.pt"


@dataclass(frozen=True)
class Tree:
    """Paths of artefacts by name, under the folders of results, logs and benchmarks."""

    results: str = "results"
    logs: str = "logs"
    benchmarks: str = "benchmarks"

    @classmethod
    def of(cls, config: Mapping) -> "Tree":
        """The tree whose folders config.yaml names."""
        return cls(**{name: config[name] for name in ("results", "logs", "benchmarks") if name in config})

    def path(self, artefact: str, **known: str) -> str:
        """The path of an artefact; wildcards that are not known stay as braces.

        Raises:
            KeyError: no artefact has this name.
        """
        if artefact == "weights":
            return _filled(WEIGHTS, known)
        if artefact in OF_DATASET:
            return _filled(f"{self.results}/{{dataset}}/{OF_DATASET[artefact]}", known)
        return _filled(f"{self.results}/{{dataset}}/{{run}}/{OF_RUN[artefact]}", known)

    def history(self, artefact: str, **known: str) -> str:
        """The losses of the training that makes a network, a row an epoch."""
        return self.path(artefact, **known).removesuffix(".pt") + ".history.csv"

    def log(self, rule: str, *wildcards: str) -> str:
        """The log of a rule; its wildcards beyond the data set and the run are in the file's name."""
        return _of_rule(self.logs, rule, wildcards, "log")

    def benchmark(self, rule: str, *wildcards: str) -> str:
        """What Snakemake measures of a rule's jobs: seconds and memory."""
        return _of_rule(self.benchmarks, rule, wildcards, "tsv")


def _of_rule(root: str, rule: str, wildcards: tuple[str, ...], suffix: str) -> str:
    folders = [f"{{{name}}}" for name in wildcards if name in ("dataset", "run")]
    names = [f"{{{name}}}" for name in wildcards if name not in ("dataset", "run")]
    return "/".join([root, *folders, ".".join([rule, *names, suffix])])


def _filled(path: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        path = path.replace(f"{{{name}}}", value)
    return path
