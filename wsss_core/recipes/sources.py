"""Where files that the pipeline does not fetch are published; imports nothing, so that a plan may say so."""

# Weights that ``weights: pretrained`` wants and that timm does not have, by backbone.
BACKBONES = {
    "resnet38d": "ilsvrc-cls_rna-a1_cls1000_ep-0001.params",
    "resnet50_caffe": "resnet50_caffe.pth",
    "vgg16_caffe": "vgg16_20M.pth",
    "resnet101_caffe": "deeplabv1_resnet101-imagenet.pth",
}
# Pages, by the name that a file has there.
FILES = {
    "ilsvrc-cls_rna-a1_cls1000_ep-0001.params": "README of https://github.com/itijyou/ademxapp",
    "resnet50_caffe.pth": "`pre-trained models` in the README of https://github.com/backseason/PoolNet",
    "vgg16_20M.pth": "`pre-trained models` in the README of https://github.com/backseason/PoolNet",
    "deeplabv1_resnet101-imagenet.pth": "README of https://github.com/jbeomlee93/AdvCAM",
    "deeplabv1_resnet101-coco.pth": "made by convert.py of https://github.com/kazuto1011/deeplab-pytorch",
    "moco_r50_v2-e3b0c442.pth": "README of WSSS in https://github.com/CVI-SZU/CCAM",
}
VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
SBD = "http://home.bharathh.info/pubs/codes/SBD/download.html"
SBD_MASKS = f"SegmentationClassAug, README of https://github.com/DrSleep/tensorflow-deeplab-resnet, or cls of {SBD}"
COCO = "https://cocodataset.org/#download"
# CIM's page links the copies that its numbers were made with
PROPOSALS = (
    "proposals, {image id}.mat with `superpixels`, `labels` and `scores` (COB, "
    "http://www.vision.ee.ethz.ch/~cvlsegmentation/cob/, or MCG, "
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/mcg/) or with `maskmat` (docs/DATASET.md of "
    "https://github.com/ZechengLi19/CIM); or say `proposals: {kind: grouping}`, which needs none"
)


def fetched(backbone: str) -> bool:
    """Whether the pipeline downloads the ImageNet weights of a backbone."""
    return backbone not in BACKBONES


def weights_of(backbone: str) -> str:
    """What has to lie where the weights of a backbone that is not fetched are looked for."""
    return f"weights of {backbone}: {BACKBONES[backbone]}, {FILES[BACKBONES[backbone]]}"


def page_of(file: str) -> str:
    """What a file of weights is, by its name."""
    page = FILES.get(file)
    return f"weights: {page}" if page else "weights of your own, or another file in config.yaml"
