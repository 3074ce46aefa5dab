"""The papers behind what a run does, so that they can be cited."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from wsss_core.recipes.methods import SLOTS
from wsss_core.recipes.recipes import Recipes


class Paper(NamedTuple):
    """A paper as a reference names it; ``page`` is its arXiv page or DOI, empty where there is neither."""

    authors: str
    title: str
    where: str
    page: str


def _arxiv(number: str) -> str:
    return f"https://arxiv.org/abs/{number}"


PAPERS = {
    "voc": Paper(
        "M. Everingham, S. M. A. Eslami, L. Van Gool, C. K. I. Williams, J. Winn, A. Zisserman",
        "The Pascal Visual Object Classes Challenge: A Retrospective", "IJCV 111, 2015",
        "https://doi.org/10.1007/s11263-014-0733-5",
    ),
    "coco": Paper(
        "T.-Y. Lin, M. Maire, S. Belongie, J. Hays, P. Perona, D. Ramanan, P. Dollár, C. L. Zitnick",
        "Microsoft COCO: Common Objects in Context", "ECCV 2014", _arxiv("1405.0312"),
    ),
    "cam": Paper(
        "B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba",
        "Learning Deep Features for Discriminative Localization", "CVPR 2016", _arxiv("1512.04150"),
    ),
    "puzzle": Paper(
        "S. Jo, I.-J. Yu",
        "Puzzle-CAM: Improved Localization via Matching Partial and Full Features", "ICIP 2021", _arxiv("2101.11253"),
    ),
    "occse": Paper(
        "H. Kweon, S.-H. Yoon, H. Kim, D. Park, K.-J. Yoon",
        "Unlocking the Potential of Ordinary Classifier: Class-specific Adversarial Erasing Framework for Weakly "
        "Supervised Semantic Segmentation", "ICCV 2021", "",
    ),
    "pnoc": Paper(
        "L. David, H. Pedrini, Z. Dias",
        "P-NOC: adversarial training of CAM generating networks for robust weakly supervised semantic segmentation "
        "priors", "arXiv preprint, 2024", _arxiv("2305.12522"),
    ),
    "recam": Paper(
        "Z. Chen, T. Wang, X. Wu, X.-S. Hua, H. Zhang, Q. Sun",
        "Class Re-Activation Maps for Weakly-Supervised Semantic Segmentation", "CVPR 2022", _arxiv("2203.00962"),
    ),
    "c2am": Paper(
        "J. Xie, J. Xiang, J. Chen, X. Hou, X. Zhao, L. Shen",
        "C²AM: Contrastive Learning of Class-agnostic Activation Map for Weakly Supervised Object Localization and "
        "Semantic Segmentation", "CVPR 2022", _arxiv("2203.13505"),
    ),
    "poolnet": Paper(
        "J.-J. Liu, Q. Hou, M.-M. Cheng, J. Feng, J. Jiang",
        "A Simple Pooling-Based Design for Real-Time Salient Object Detection", "CVPR 2019", _arxiv("1904.09569"),
    ),
    "affinitynet": Paper(
        "J. Ahn, S. Kwak",
        "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised Semantic "
        "Segmentation", "CVPR 2018", _arxiv("1803.10464"),
    ),
    "irnet": Paper(
        "J. Ahn, S. Cho, S. Kwak",
        "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", "CVPR 2019",
        _arxiv("1904.05044"),
    ),
    "crf": Paper(
        "P. Krähenbühl, V. Koltun",
        "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", "NIPS 2011", _arxiv("1210.5644"),
    ),
    "deeplabv3plus": Paper(
        "L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam",
        "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", "ECCV 2018",
        _arxiv("1802.02611"),
    ),
    "deeplabv2": Paper(
        "L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. L. Yuille",
        "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected "
        "CRFs", "TPAMI 40, 2018", _arxiv("1606.00915"),
    ),
    "cim": Paper(
        "Z. Li, Z. Zeng, Y. Liang, J.-G. Yu",
        "Complete Instances Mining for Weakly Supervised Instance Segmentation", "IJCAI 2023", _arxiv("2402.07633"),
    ),
    "prm": Paper(
        "Y. Zhou, Y. Zhu, Q. Ye, Q. Qiu, J. Jiao",
        "Weakly Supervised Instance Segmentation using Class Peak Response", "CVPR 2018", _arxiv("1804.00880"),
    ),
    "maskrcnn": Paper("K. He, G. Gkioxari, P. Dollár, R. Girshick", "Mask R-CNN", "ICCV 2017", _arxiv("1703.06870")),
    "resnet": Paper(
        "K. He, X. Zhang, S. Ren, J. Sun",
        "Deep Residual Learning for Image Recognition", "CVPR 2016", _arxiv("1512.03385"),
    ),
    "resnest": Paper(
        "H. Zhang, C. Wu, Z. Zhang et al.", "ResNeSt: Split-Attention Networks", "CVPRW 2022", _arxiv("2004.08955"),
    ),
    "resnet38d": Paper(
        "Z. Wu, C. Shen, A. van den Hengel",
        "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition", "Pattern Recognition 90, 2019",
        _arxiv("1611.10080"),
    ),
}  # fmt: skip

# by data set kind, section of settings that a run has, or stage that it goes through
BEHIND = {
    "classifier": ("cam",),
    "puzzle": ("puzzle",),
    "erasing": ("occse",),
    "discriminator": ("pnoc",),
    "reactivation": ("recam",),
    "c2am": ("c2am",),
    "hints": ("pnoc",),
    "poolnet": ("poolnet",),
    "affinity": ("affinitynet", "irnet"),
    "v3plus": ("deeplabv3plus",),
    "v2": ("deeplabv2",),
    "irn": ("irnet",),
    "peaks": ("prm",),
    "cim": ("cim",),
    "maskrcnn": ("maskrcnn",),
}
BACKBONES = ("resnet38d", "resnest", "resnet")  # by the first that a backbone's name begins with


def cited(recipes: Recipes, dataset: str, run: str, stages: Iterable[str]) -> list[str]:
    """The keys of ``PAPERS`` behind a run on a data set, those of the data first.

    Args:
        stages: artefacts that the run goes through; a section counts where one of them reads it.
    """
    kind = recipes.data_set(dataset)["kind"]
    found = [kind] if kind in PAPERS else []
    wanted = set(stages)
    for slot in SLOTS:
        method = recipes.method(dataset, run, slot)
        sections = recipes.filled(dataset, run, slot)[1].sections
        read = [name for stage in (method.stages if method else ()) if stage.makes in wanted for name in stage.sections]
        for name in read:
            settings = sections.get(name)
            if settings is not None:
                found += [*BEHIND.get(name, ()), *_beside(settings)]
    return list(dict.fromkeys(found))


def _beside(settings: Any) -> list[str]:
    """What a section's values bring along: a dense CRF, a backbone."""
    crf = getattr(settings, "crf", None) or getattr(settings, "crf_iterations", 0)
    backbone = getattr(settings, "backbone", "")
    return [*(["crf"] if crf else []), *[name for name in BACKBONES if backbone.startswith(name)][:1]]
