"""Every setting of the pipeline, once: its type, range, default and meaning.

The schema of config.yaml and ``docs/settings.md`` are made from these classes (``python -m wsss_core.recipes write``).
A default is the value of P-NOC's paper and code on Pascal VOC 2012; what differs is said by a method (``methods.py``),
by a data set or by a run (``config/``). Nothing here imports torch or numpy, since the Snakefile reads it.

A setting that is null is off. It is left out of what a job is told, so that a new one, null by default, reruns nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen

T = TypeVar("T")

SCALE = "scale"  # belongs to the data set: where it names a value, that one holds for all runs
SPEED = "speed"  # changes no number, and so reruns nothing
INPUT = "input"  # stands for a file, which is an input of the rule

Scale = Annotated[T, SCALE]
Speed = Annotated[T, SPEED]
Input = Annotated[T, INPUT]

Count = Annotated[int, Ge(1)]
Number = Annotated[int, Ge(0)]
Pixels = Annotated[int, Ge(1)]
Crop = Annotated[int, Ge(16)]
Share = Annotated[float, Ge(0), Le(1)]
Smoothing = Annotated[float, Ge(0), Lt(1)]
NotNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Name = Annotated[str, MinLen(1)]
Sizes = tuple[Pixels, Pixels]
Thresholds = Annotated[tuple[Share, ...], MinLen(1)]
Scales = Annotated[tuple[Positive, ...], MinLen(1)]
Precision = Literal["float32", "float16", "bfloat16"]
Stride = Literal[1, 2, 4, 8]
Factors = tuple[Positive, Positive]

SIXTEEN = tuple(round(0.05 * step, 2) for step in range(1, 17))


class Section:
    """What all sections share: unknown keys are refused, and the strings below fields are their descriptions."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
        "allow_inf_nan": False,
    }


@dataclass(frozen=True)
class Ramp(Section):
    """A weight that rises from ``start`` to ``end`` over a share of the training, see ``fitting.schedules.linear``."""

    start: NotNegative
    """Weight at the first step."""
    end: NotNegative
    """Weight from then on; not below the start."""
    fraction: Share
    """Share of the training after which the end is reached; 0 is the end from the first step on."""


@dataclass(frozen=True)
class LabelCrf(Section):
    """The dense CRF of label maps."""

    iterations: Count = 10
    """Mean-field steps."""
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.7
    """Probability of a pixel's own label, above one over the number of labels."""


@dataclass(frozen=True)
class Steps(Section):
    """Thresholds at equal distances."""

    start: Share
    """The first one."""
    stop: Share
    """The last one; not below the first."""
    step: Annotated[float, Gt(0), Le(1)]
    """From one to the next."""


@dataclass(frozen=True)
class SweepSettings(Section):
    """Thresholds of a score."""

    thresholds: Thresholds | Steps = SIXTEEN
    """Thresholds to try, a list or {start, stop, step}; the best one is reported as such."""
    fixed: Share = 0.3
    """Threshold that was not chosen on the scored images, reported beside the best one."""

    def tried(self) -> list[float]:
        """Those to choose from, rising."""
        if not isinstance(self.thresholds, Steps):
            return sorted(set(self.thresholds))
        start, stop, step = self.thresholds.start, self.thresholds.stop, self.thresholds.step
        return [round(start + index * step, 6) for index in range(1 + int((stop - start) / step + 1e-6))]

    def all(self) -> list[float]:
        """All of them and the fixed one, rising."""
        return sorted({*self.tried(), self.fixed})


# --- prior: a classifier and its class activation maps ----------------------------------------------------------------


@dataclass(frozen=True)
class MixingSettings(Section):
    """Mixed training images; off in all published runs."""

    kind: Literal["cutmix", "mixup", "cut_or_mix"]
    """How an image is mixed with a random partner; the third is one of the two at random."""
    probability: Share = 0.5
    """How often an image is mixed."""


@dataclass(frozen=True)
class AverageSettings(Section):
    """A moving average of a network's weights and BatchNorm statistics; without effect in the published code."""

    decay: Annotated[float, Ge(0), Lt(1)] = 0.99
    """Largest weight of the past."""
    every: Count = 32
    """Updates between two steps of the average."""
    warmup_epochs: Number = 1
    """Epochs during which the average is a copy."""


@dataclass(frozen=True)
class ClassifierSettings(Section):
    """Training of a classifier."""

    backbone: Scale[Name] = "resnest269"
    """resnet50, 101, 152; resnet50_undilated, resnet101_undilated (dilation 1 in the last stage, as in IRNet, CCAM,
    Puzzle-CAM and P-NOC until August 2023; else 1, 2, 2); resnest50, 101, 200, 269; resnet38d, vgg16 (both of output
    stride 8 only); or a timm name."""
    weights: Scale[Input[Name]] = "pretrained"
    """ImageNet weights of the backbone: pretrained (fetched by a rule of its own), none (random), ordinary (the plain
    classifier of this run, with its last layer where that fits), or a file."""
    output_stride: Scale[Literal[8, 16, 32]] = 16
    """Stride of the class maps."""
    batch_norm: Scale[Literal["trained", "statistics", "fixed"]] = "trained"
    """statistics: running statistics stay, scales and shifts are trained; fixed: these stay as well."""
    batch_norm_group: Scale[Annotated[int, Ge(2)] | None] = None
    """Rows of a batch whose statistics BatchNorm shares in training, where they are trained; null is the whole batch.
    The published runs had four GPUs: groups of a quarter of the batch, 4 images and 16 tiles of a batch of 16."""
    frozen: Scale[Literal["none", "stem", "all_but_last", "backbone"]] = "none"
    """What is not trained at all; all_but_last means the stages."""
    dropout: Annotated[float, Gt(0), Lt(1)] | None = None
    """Probability that a channel is dropped before the last layer; 0.5 in PSA's plain classifier."""
    resize: Scale[Sizes] = (320, 640)
    """Smallest and largest longer side of a training image, in pixels; drawn uniformly for each."""
    rescale: Scale[Factors | None] = None
    """Smallest and largest factor of a training image's size, drawn uniformly, in place of ``resize``; 0.5 and 2 in
    P-NOC's paper."""
    crop: Scale[Crop] = 512
    """Side of the random training crop, in pixels; what the image does not cover is the mean colour."""
    augmentation: Scale[Literal["none", "jitter", "randaug"]] = "randaug"
    """jitter: brightness, contrast, saturation, hue; randaug: two random operations and a black square. All images are
    mirrored at random. What colours say about a class belongs to the pictures, hence to the data set."""
    mixing: MixingSettings | None = None
    """Mix images, and their labels in proportion."""
    batch_size: Scale[Count] = 32
    """Images a batch."""
    accumulation: Scale[Count] = 1
    """Batches whose gradients are added up, not averaged, before an update."""
    epochs: Scale[Count] = 15
    """Passes over the training split."""
    learning_rate: Scale[NotNegative] = 0.1
    """Rate of pretrained weights; it falls towards 0 by (1 - n/N)^0.9 over the updates. Biases have twice as much as
    weights."""
    decay_power: NotNegative | None = None
    """Power by which the rate falls; null is 0.9. 1 is the linear decay of P-NOC's paper, 0 a constant rate."""
    head_rate: Literal[1, 10, 100] = 10
    """Factor of the learning rate of new layers; 1 in OC-CSE's own classifier, 100 in PRM's."""
    weight_decay: NotNegative = 1e-4
    """Weight decay."""
    momentum: Annotated[float, Gt(0), Lt(1)] | None = None
    """Momentum of SGD; 0.9 in PRM's. Null, none, is what all others had: IRNet's optimiser, which their codes share,
    takes the weight decay for the momentum (with 0.9, a tenth of the rate is a beginning)."""
    as_irnet: bool | None = None
    """IRNet's way, which ReCAM shares: biases have the rate and the decay of weights, and the last layer starts from
    PyTorch's usual values. Null is that of Puzzle-CAM, OC-CSE and P-NOC."""
    head_bias: bool | None = None
    """The last layer has a bias, as PRM's; null for none."""
    pooling: Literal["peaks"] | None = None
    """How a class map becomes a score for the loss of the labels: null, its mean; peaks, the mean of its peaks once it
    is eight times as large (PRM)."""
    squash: bool | None = None
    """Training images are squashed to crop x crop pixels, whatever their aspect, in place of resize and crop (PRM)."""
    label_loss: Literal["softmax", "softmax_if_single"] | None = None
    """In place of binary cross-entropy, the softmax cross-entropy with the labels over their sum, for all images or for
    those with one class (ReCAM, table 1). Label smoothing has no part in it."""
    label_smoothing: Smoothing = 0.1
    """Share of a label that is pulled towards 1/2."""
    average: AverageSettings | None = None
    """Keep a moving average of the weights instead of the last ones."""
    precision: Precision = "float16"
    """Arithmetic of training on a GPU; a CPU always uses float32."""
    compile: Speed[bool] = False
    """Compile the network (torch.compile); it pays on a GPU, in long trainings."""


@dataclass(frozen=True)
class PuzzleSettings(Section):
    """The term of Puzzle-CAM: maps of tiles agree with the image's."""

    pieces: Literal[4, 16] = 4
    """Tiles of the image; its crop must be a multiple of their root times the output stride."""
    weight: Ramp = Ramp(0.0, 4.0, 0.5)
    """Weight of the difference between maps and merged maps. The loss is a mean over all classes, so a data set with
    few classes needs less."""


@dataclass(frozen=True)
class ErasingSettings(Section):
    """The term of OC-CSE: an ordinary classifier no longer finds the class that is erased."""

    weight: Ramp = Ramp(0.3, 1.0, 1.0)
    """Weight of what the ordinary classifier still sees of the erased class."""
    by_epoch: bool = False
    """Raise the weight once an epoch, as OC-CSE's own code does, instead of at every step."""
    class_choice: Literal["random", "balanced", "least_chosen", "focal"] = "random"
    """Which of an image's classes is erased: any; with odds of one over how often it was; the one chosen least; with
    odds that grow where the ordinary classifier is wrong."""
    per_image_maximum: bool = False
    """Scale the soft mask by each image's maximum, as in the paper; the code takes the whole batch's."""
    relu_first: bool = True
    """ReLU before the map is resized to the image; OC-CSE's own code does the reverse."""
    masking_depth: Number = 0
    """Group of layers of the ordinary classifier whose output is masked (OC-CSE's supplement): 7 groups in resnet38d
    and vgg16, else 5; 0 masks the image."""


@dataclass(frozen=True)
class DiscriminatorSettings(Section):
    """The term of P-NOC: the ordinary classifier goes on learning from erased images."""

    weight: Ramp = Ramp(0.0, 1.0, 1.0)
    """Weight of the discriminator's own loss; the paper says only that it rises."""
    every: Count = 1
    """Train the discriminator at every so many steps; a symbol in the paper."""
    rate: NotNegative = 1.0
    """Its learning rate, as a factor of the classifier's."""
    input: Literal["hard", "soft"] = "hard"
    """What it learns from: hard or soft erased images."""
    hard_threshold: Share = 0.2
    """Share of the maximum above which a pixel is hidden from it; the paper's formula, read literally, means 0.8."""
    leak: bool = True
    """The gradient of the erasing loss also reaches the discriminator, as in the published code; false is the paper's
    Algorithm 1."""


@dataclass(frozen=True)
class ReactivationSettings(Section):
    """The term of ReCAM: a second head tells a class by the features under its own map. Its rate is that of new layers;
    the first head goes on at that of the backbone."""

    weight: NotNegative = 1.0
    """Weight of the loss, the paper's lambda."""
    detach_masks: bool = False
    """Keep the gradient out of the maps that mask the features; in the code it runs through them."""


@dataclass(frozen=True)
class CamSettings(Section):
    """Inference of class activation maps."""

    scales: Scale[Scales] = (0.5, 1.0, 1.5, 2.0)
    """Test-time scales; each is run with its mirror image, and all are added up."""
    stride: Stride = 4
    """Stride at which maps are kept, on a grid over the next multiples of 16 of the picture's sides; 1 is full size, as
    published (docs/stores.md says what 4 costs)."""
    head: Literal["second", "sum", "product"] | None = None
    """Of the two heads of ReCAM's classifier, what makes the maps: the second one, their sum, or their product; null is
    the first one."""
    dtype: Literal["float16", "uint8"] = "float16"
    """Numbers that maps are kept in; uint8 has steps of 1/254 and takes about half the space."""
    precision: Precision = "float16"
    """Arithmetic of the network on a GPU; a CPU always uses float32."""


@dataclass(frozen=True)
class MonitoringSettings(Section):
    """Scores of the priors after some epochs; nothing is chosen by them."""

    thresholds: Thresholds = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
    """Background thresholds to try."""
    cell: Literal["corner", "middle"] = "corner"
    """Pixel of the true mask that stands for a cell of the maps: the top left one, as published, or the middle one;
    it matters where a cell is a large part of a picture."""


# --- saliency: where there is any object ------------------------------------------------------------------------------


@dataclass(frozen=True)
class C2amSettings(Section):
    """Training of C²AM, with or without hints."""

    backbone: Scale[Name] = "resnest269"
    """As for classifiers."""
    weights: Scale[Input[Name]] = "pretrained"
    """As for classifiers; ordinary is the backbone of the run's plain classifier."""
    squash: Annotated[float, Ge(1)] = 1.15
    """Side of the square that an image is resized to before the crop, as a factor of the crop."""
    crop: Scale[Crop] = 448
    """Side of the square training crop, in pixels."""
    batch_size: Scale[Annotated[int, Ge(2)]] = 32
    """Images a batch; the losses compare all of them with one another, which accumulation does not replace (the
    scripts: 64)."""
    accumulation: Scale[Count] = 1
    """Batches whose gradients are added up before an update."""
    epochs: Scale[Count] = 10
    """Passes over the training split."""
    learning_rate: Scale[NotNegative] = 1e-3
    """Rate of pretrained weights."""
    head_rate: Literal[1, 10] = 1
    """Factor of the learning rate of the new layers; 10 in P-NOC's code since August 2023, after the paper's runs."""
    weight_decay: NotNegative = 1e-4
    """Weight decay."""
    train_batch_norm: bool = False
    """Train weights and biases of BatchNorm; true in P-NOC's code since August 2023."""
    batch_norm_group: Scale[Annotated[int, Ge(2)] | None] = None
    """As for classifiers."""
    alpha: NotNegative = 0.25
    """How fast the weight of a positive pair falls with its rank."""
    precision: Precision = "float16"
    """Arithmetic of training on a GPU; a CPU always uses float32."""
    compile: Speed[bool] = False
    """Compile the network (torch.compile)."""


@dataclass(frozen=True)
class HintSettings(Section):
    """The loss of the hints from the run's CAMs, which makes C²AM-H of C²AM."""

    weight: NotNegative = 1.0
    """Weight of the loss; the code takes a mean over hinted pixels where the paper sums."""
    threshold: Share = 0.4
    """Activation from which a pixel is a hint."""
    label_smoothing: Smoothing = 0.1
    """Share of the target that is pulled towards 1/2; only in the code."""


@dataclass(frozen=True)
class C2amMapSettings(Section):
    """Inference of C²AM and C²AM-H."""

    scales: Scale[Scales] = (0.5, 1.0, 1.5, 2.0)
    """Test-time scales; each is run with its mirror image."""
    stride: Stride = 4
    """Stride at which maps are kept; as for CAMs."""
    activation: Literal["relu", "sigmoid"] = "relu"
    """What is taken of the logits before they are added up."""


@dataclass(frozen=True)
class SaliencyMaskSettings(Section):
    """Binary pseudo-saliency from C²AM's maps."""

    threshold: Share = 0.2
    """Activation above which a pixel is salient."""
    crf: LabelCrf | None = LabelCrf()
    """The CRF of the two labels; the published scripts have a confidence of 0.7 and of 0.9."""


@dataclass(frozen=True)
class PoolnetSettings(Section):
    """Training of PoolNet on the binary pseudo-saliency; null takes C²AM's masks as they are."""

    backbone: Scale[Name] = "resnet50_caffe"
    """resnet50_caffe (the published one), vgg16_caffe, or a backbone of timm."""
    weights: Scale[Input[Name]] = "pretrained"
    """As for classifiers; ordinary needs the backbone of the run's plain classifier."""
    width: Scale[Annotated[float, Gt(0), Le(1)]] = 1.0
    """Factor of the channels of all new layers."""
    epochs: Scale[Count] = 9
    """Passes over the training split."""
    accumulation: Scale[Count] = 10
    """Images an update; the network sees them one at a time, in their own sizes."""
    learning_rate: Scale[NotNegative] = 5e-5
    """Rate of Adam, constant."""
    weight_decay: NotNegative = 5e-4
    """Weight decay."""
    smallest_side: Scale[Number] = 100
    """Images with a side up to this, in pixels, are left out of training, and doubled at inference."""
    padding: Scale[Count | None] = None
    """Side that smaller images are padded to with the mean colour, right and below; null for none."""
    longest_side: Scale[Pixels | None] = 1024
    """Photos with a longer side are seen at this length of it, in training and for maps; null for no bound."""


@dataclass(frozen=True)
class SaliencyScoreSettings(SweepSettings):
    """Scores of saliency with known classes."""

    thresholds: Thresholds | Steps = SIXTEEN
    """Thresholds of the saliency to try."""
    fixed: Share = 0.5
    """Threshold reported beside the best one."""
    crf: LabelCrf | None = None
    """The CRF of PoolNet's map at each threshold; C²AM's has that of ``saliency.masks``."""


# --- refinement: from class maps to pseudo masks ----------------------------------------------------------------------


@dataclass(frozen=True)
class AffinityLabelSettings(Section):
    """Affinity labels with saliency as background; the paper gives no values from here to the pseudo masks."""

    foreground: Share = 0.4
    """A pixel has its class where the CAM exceeds this."""
    background: Share = 0.1
    """A pixel is background where the saliency does not exceed this."""
    crf: LabelCrf | None = LabelCrf()
    """The CRF of each of the maps."""


@dataclass(frozen=True)
class CamLabelSettings(Section):
    """Affinity labels of runs without saliency, as in IRNet."""

    foreground: Share = 0.4
    """A pixel has its class where the CAM exceeds this."""
    background: Share = 0.1
    """A pixel is background where no CAM exceeds this; below the other threshold."""
    crf: LabelCrf | None = LabelCrf()
    """The CRF of each of the maps."""


@dataclass(frozen=True)
class AffinitySettings(Section):
    """Training of AffinityNet's edges on a frozen backbone."""

    backbone: Scale[Name] = "resnest269"
    """As for classifiers."""
    weights: Scale[Input[Name]] = "pretrained"
    """As for classifiers; ordinary is the backbone of the run's plain classifier."""
    resize: Scale[Sizes] = (320, 640)
    """Smallest and largest longer side of a training image, in pixels."""
    rescale: Scale[Factors | None] = None
    """Smallest and largest factor of a training image's size, drawn uniformly, in place of ``resize``; 0.5 and 1.5 in
    IRNet."""
    crop: Scale[Crop] = 512
    """Side of the training crop, in pixels; a quarter of it must hold 2 radius - 1 pixels."""
    radius: Annotated[int, Ge(2)] = 10
    """Pairs of pixels are less than this apart, in pixels at stride 4."""
    batch_size: Scale[Count] = 32
    """Images a batch."""
    epochs: Scale[Count] = 3
    """Passes over the training split."""
    learning_rate: Scale[NotNegative] = 0.1
    """Rate of the edge layers."""
    weight_decay: NotNegative = 1e-4
    """Weight decay."""
    displacement: bool | None = None
    """Train IRNet's displacement branch as well, which tells instances apart; the edges are the same without it."""
    displacement_rate: Scale[NotNegative | None] = None
    """Factor of the learning rate of the displacement branch; null is IRNet's 10."""


@dataclass(frozen=True)
class WalkSettings(Section):
    """The random walk; sparse and in double precision, the same walk as squaring the matrix."""

    radius: Annotated[int, Ge(2)] = 5
    """Steps are shorter than this, in pixels at stride 4."""
    beta: Positive = 10.0
    """Power of the affinities; higher values stop at weaker edges."""
    squarings: Annotated[int, Ge(0), Le(12)] = 8
    """The walk has 2 to this power steps."""
    padding: Scale[Number] = 512
    """Side that smaller images are padded to before the edge network, in pixels; the training crop is a good value."""
    power: Positive | None = None
    """Power of the class maps before the walk, 1.5 in AdvCAM; null is 1."""
    swapped_padding: bool = True
    """Pad the width by what the height lacks and the reverse, as most revisions of P-NOC's code do; false as IRNet."""


@dataclass(frozen=True)
class PseudoMaskSettings(Section):
    """Pseudo masks from refined maps."""

    threshold: Share = 0.3
    """A pixel is background where no map exceeds this."""
    each_class: bool | None = None
    """Take each class's map as it is kept, over its own maximum, as CAMs are scored; null divides all by the largest
    one, as IRNet does after the walk."""
    crf: LabelCrf | None = LabelCrf(1, 0.9)
    """The CRF of the labels."""


@dataclass(frozen=True)
class PseudoMaskScoreSettings(SweepSettings):
    """Scores of pseudo masks, each after the CRF."""

    thresholds: Thresholds | Steps = (0.25, 0.3, 0.35)
    """Thresholds to try."""
    fixed: Share = 0.3
    """Threshold reported beside the best one."""


# --- segmentation: the network that is wanted -------------------------------------------------------------------------


@dataclass(frozen=True)
class DeeplabV3PlusSettings(Section):
    """Training of DeepLabV3+."""

    backbone: Scale[Name] = "resnest269"
    """As for classifiers."""
    weights: Scale[Input[Name]] = "pretrained"
    """As for classifiers; ordinary is the backbone of the run's plain classifier."""
    output_stride: Scale[Literal[8, 16]] = 16
    """Stride of the backbone's last map."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation of the new layers; group has four groups."""
    width: Scale[Annotated[int, Ge(4)]] = 256
    """Channels of the new layers, a multiple of 4."""
    resize: Scale[Sizes] = (320, 640)
    """Smallest and largest longer side of a training image, in pixels."""
    crop: Scale[Crop] = 512
    """Side of the training crop, in pixels."""
    augmentation: Literal["none", "jitter"] = "none"
    """Colour changes of training images."""
    batch_size: Scale[Count] = 16
    """Images a batch."""
    accumulation: Scale[Count] = 2
    """Batches whose gradients are averaged before an update (the paper: 1)."""
    epochs: Scale[Count] = 50
    """Passes over the training split."""
    learning_rate: Scale[NotNegative] = 0.007
    """Rate of pretrained weights; new layers and biases as for classifiers."""
    weight_decay: NotNegative = 4e-5
    """Weight decay."""
    momentum: Share = 0.0
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's momentum."""
    label_smoothing: Smoothing = 0.1
    """Share of a pixel's label that is spread over all classes."""
    precision: Precision = "float16"
    """Arithmetic of training on a GPU; a CPU always uses float32."""
    compile: Speed[bool] = False
    """Compile the network (torch.compile)."""


@dataclass(frozen=True)
class DeeplabV2Settings(Section):
    """Training of DeepLabV2, as in deeplab-pytorch for VOC."""

    backbone: Scale[Name] = "resnet101_caffe"
    """resnet101_caffe (the published network), or a ResNet of timm such as resnet101.tv_in1k."""
    weights: Scale[Input[Name]] = "pretrained"
    """As for classifiers; ordinary is the backbone of the run's plain classifier."""
    scales: Scale[Scales] = (0.5, 0.75, 1.0, 1.25, 1.5)
    """Factors of a training image's size, one of which is drawn."""
    crop: Scale[Crop] = 321
    """Side of the training crop, in pixels."""
    batch_size: Scale[Count] = 5
    """Images a batch."""
    accumulation: Scale[Count] = 2
    """Batches whose gradients are averaged before an update."""
    updates: Scale[Count] = 20000
    """Length of the training (the paper: 10,000)."""
    decay_every: Count = 10
    """Updates between two changes of the learning rate."""
    learning_rate: Scale[NotNegative] = 2.5e-4
    """Rate of the backbone; the pyramid's weights have 10 times, its biases 20 times as much."""
    weight_decay: NotNegative = 5e-4
    """Weight decay."""
    momentum: Share = 0.9
    """Momentum of SGD."""
    precision: Precision = "float32"
    """Arithmetic of training on a GPU; float32 as published."""
    compile: Speed[bool] = False
    """Compile the network (torch.compile)."""


@dataclass(frozen=True)
class PredictionSettings(Section):
    """Masks of the segmentation network; image-level labels are not used."""

    scales: Scales = (0.5, 1.0, 1.5, 2.0)
    """Test-time scales, whose logits are averaged."""
    mirror: bool = True
    """Add the mirror image's logits (added, not averaged, before the softmax that the CRF sees)."""
    crf_iterations: Number = 10
    """Mean-field steps of the probability CRF; 0 for none."""


# --- instances: single objects of the training images -----------------------------------------------------------------


@dataclass(frozen=True)
class IrnSettings(Section):
    """Instances from the displacement field of AffinityNet, as in IRNet (step make_ins_seg_labels)."""

    iterations: Count = 300
    """Steps from a pixel to the centroid of its object."""
    threshold: Scale[Positive] = 2.5
    """Displacement below which a pixel belongs to a centroid, in pixels at stride 4."""
    background: Share = 0.25
    """A pixel is background where no instance's map exceeds this."""
    smallest: Share = 0.01
    """Pieces below this share of the picture get the score 0."""


@dataclass(frozen=True)
class ComponentSettings(Section):
    """Connected components of the pseudo masks: what one has without telling objects apart."""

    smallest: Share = 0.01
    """Pieces below this share of the picture get the score 0."""
    limit: Count = 100
    """Most components of a picture, the largest ones."""


@dataclass(frozen=True)
class InstanceLabelSettings(Section):
    """Which instances a detector learns from: those of classes that the image is labelled with."""

    score: Share = 0.3
    """Least score."""


@dataclass(frozen=True)
class InstanceScoreSettings(Section):
    """Average precision of instances."""

    thresholds: Thresholds = (0.25, 0.5, 0.7, 0.75)
    """Overlaps (IoU of the masks) from which an instance counts as found."""


# --- detection: the network that tells objects apart ------------------------------------------------------------------


@dataclass(frozen=True)
class Warmup(Section):
    """The first updates of a training, whose learning rate rises linearly."""

    iterations: Number = 500
    """Updates until the full rate; torchvision's own recipe has 1000."""
    factor: Share = 0.001
    """Factor of the rate at the first update."""


@dataclass(frozen=True)
class RegionSettings(Section):
    """Regions that the first stage of Mask R-CNN hands to the second, at most, a picture."""

    training: Count = 2000
    """While it is trained; kept of each level of the pyramid and then of all of them."""
    test: Count = 1000
    """At inference."""


@dataclass(frozen=True)
class MaskrcnnSettings(Section):
    """Training of Mask R-CNN, by the 1x recipe of mmdetection for batches of 16."""

    backbone: Scale[Name] = "resnet50"
    """As for classifiers, but for those without maps of the strides 4, 8, 16 and 32."""
    weights: Scale[Input[Name]] = "pretrained"
    """As for classifiers; ordinary is the backbone of the run's plain classifier. A detector's are refused, since it
    has learnt from boxes or masks."""
    frozen: Scale[Literal["none", "stem", "first_stage"]] = "first_stage"
    """What of the backbone is not trained at all; first_stage includes the stem."""
    batch_norm: Scale[Literal["trained", "statistics", "fixed"]] = "fixed"
    """Of the backbone, as for classifiers; statistics is mmdetection's, fixed torchvision's. New layers have none."""
    width: Scale[Annotated[int, Ge(8)]] = 256
    """Channels of the pyramid and of the heads, whose hidden layers have four times as many."""
    shorter_sides: Scale[Annotated[tuple[Pixels, ...], MinLen(1)]] = (800,)
    """Shorter sides that pictures are resized to, of which one is drawn for each; inference takes the last one."""
    longest_side: Scale[Pixels] = 1333
    """Where the longer side would exceed this, it gets this instead."""
    batch_size: Scale[Count] = 16
    """Images a batch."""
    accumulation: Scale[Count] = 1
    """Batches whose gradients are averaged before an update."""
    epochs: Scale[Count] = 12
    """Passes over the images with an instance."""
    decay_at: Scale[tuple[Count, ...]] = (8, 11)
    """Epochs after which the learning rate is a tenth of what it was."""
    learning_rate: Scale[NotNegative] = 0.02
    """Rate of all layers, for batches of 16; smaller ones (times the accumulation) need as much less."""
    warmup: Scale[Warmup] = Warmup()
    """The rise of the rate at the beginning."""
    weight_decay: NotNegative = 1e-4
    """Weight decay."""
    momentum: Share = 0.9
    """Momentum of SGD."""
    proposals: Scale[RegionSettings] = RegionSettings()
    """Regions a picture."""
    samples: Scale[Annotated[int, Ge(4)]] = 512
    """Regions a picture that the second stage is trained with, at most a quarter of them on objects."""
    precision: Precision = "float32"
    """Arithmetic of training on a GPU; a CPU always uses float32."""


@dataclass(frozen=True)
class MaskrcnnPredictionSettings(Section):
    """Instances of Mask R-CNN in photos, at one scale; image-level labels are not used."""

    score: Share = 0.005
    """Lowest score of an instance; torchvision's usual 0.05 costs recall where a network is unsure."""
    overlap: Share = 0.5
    """IoU of boxes above which the lower score of two instances of a class is dropped."""
    limit: Count = 100
    """Instances a picture, those of the highest scores."""


# --- instances: CIM ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupingSettings(Section):
    """Our own proposals, unions of superpixels; for pictures without published ones."""

    superpixels: Count = 300
    """About so many a picture."""
    smallest: Share = 0.0015
    """Least share of the picture."""
    largest: Share = 0.85
    """Largest share of the picture."""
    duplicates: Share = 0.95
    """Overlap (IoU) with a better one from which on a candidate is left out. Lower values find more small objects, but
    AGPL's labels live on proposals that are nearly alike."""
    diversity: Share = 0.2
    """Weight of the overlap with those before it, against the score, in the order of candidates."""
    limit: Count = 200
    """Most proposals a picture."""


@dataclass(frozen=True)
class PeakSettings(Section):
    """Peaks of class maps, where CIM's labels of proposals start."""

    size: Scale[Pixels] = 448
    """Side of the square that a picture is squashed to."""
    enlarge: Count = 8
    """Factor by which class maps are enlarged before peaks are looked for."""
    window: Annotated[int, Ge(3)] = 3
    """Side of the window that a peak is the maximum of, in cells; odd."""
    threshold: Scale[float] = 10.0
    """Value above which all peaks of a class count, else its highest one alone. A logit of PRM's own network: another
    one needs another value, or a relative one."""
    relative: Scale[bool] = False
    """The threshold is a share of the class's highest peak."""


@dataclass(frozen=True)
class ProposalLabelSettings(Section):
    """Labels of proposals from peaks (AGPL)."""

    support: Share = 0.7
    """Share of the proposals around a peak above which a pixel belongs to its support."""
    overlap: Share = 0.5
    """Overlap (IoU) with a support above which a proposal belongs to its peak."""


@dataclass(frozen=True)
class CimSettings(Section):
    """Training of CIM, as in its code for VOC with ResNet-50."""

    backbone: Scale[Name] = "resnet50"
    """As for classifiers; or vgg16_torchvision, hrnet_w48."""
    weights: Scale[Input[Name]] = "pretrained"
    """As for classifiers; ordinary is the backbone of the run's plain classifier."""
    output_stride: Scale[Literal[8, 16, 32]] = 16
    """Stride of the backbone's last stages; 8 for vgg16_torchvision, 32 for hrnet_w48."""
    stage: Scale[Literal[1, 2, 3, 4]] = 3
    """Stage whose map the features of proposals are cut from; later ones are left out. 4 for vgg16_torchvision and
    hrnet_w48."""
    frozen: Scale[Literal["none", "stem", "first_stage", "second_stage", "backbone"]] = "first_stage"
    """What of the backbone is not trained at all, with all before it; second_stage for hrnet_w48, backbone for short
    trainings. BatchNorm keeps its statistics anywhere."""
    hidden: Scale[Count] = 4096
    """Units of the two hidden layers."""
    branches: Count = 3
    """Branches that refine one after the other."""
    strategy: Literal["cim", "mist"] = "cim"
    """How pseudo truth is mined: whole instances around seeds, or the seeds themselves."""
    integrity_head: bool = True
    """The branches also say how whole a proposal is; the CIM strategy needs it."""
    cluster_labels: bool = True
    """Learn from the labels of proposals (AGPL), too."""
    seeds: Share = 0.1
    """Share of the proposals that are looked at for seeds, in each class."""
    foreground: Share = 0.25
    """Overlap (IoU) with pseudo truth from which a proposal has its class, and that keeps a seed from being another
    one; in the first branch."""
    integrity: Share = 0.5
    """Overlap above which it is whole; in the first branch."""
    cascade: Share = 0.1
    """By how much both rise from branch to branch."""
    containment: Share = 0.85
    """Share of a proposal above which another one contains it."""
    largest: Annotated[float, Gt(0)] = 0.9
    """A proposal that contains this share of all is never pseudo truth; not in the paper. 2 is no limit."""
    sampling: bool = True
    """Draw among the pseudo truth by its weights, against noise."""
    cluster_form: Literal["bce", "ce"] = "bce"
    """Loss of AGPL's labels: over all classes, or of the own class alone, as in the paper."""
    cluster_weight: NotNegative = 12.0
    """Weight of this loss."""
    bag_loss: bool = True
    """The highest scores of a branch also have to match the picture's labels; not in the paper."""
    branch_weights: Annotated[tuple[NotNegative, ...], MinLen(1)] = (3.0, 1.0, 1.0)
    """Factors of the branches' losses; in the paper all 1."""
    integrity_weight: NotNegative = 3.0
    """Factor of the loss of integrity; in the paper 1."""
    longer_sides: Scale[Annotated[tuple[Pixels, ...], MinLen(1)]] = (480, 576, 688, 864, 1200)
    """Longer sides of a training picture, in pixels, one of which is drawn."""
    batch_size: Scale[Count] = 4
    """Pictures an update; they pass one by one, and their gradients are averaged."""
    iterations: Scale[Count] = 45000
    """Updates."""
    decay_at: Scale[tuple[Count, ...]] = (30000,)
    """Updates after which the rate falls to a tenth."""
    learning_rate: Scale[NotNegative] = 1e-3
    """Rate of weights; biases have twice as much, without decay. The code's 2.5e-4 goes with gradients that are added
    up."""
    warmup: Scale[Warmup] = Warmup(500, 1 / 3)
    """The first steps."""
    weight_decay: NotNegative = 5e-4
    """Weight decay."""
    momentum: Share = 0.9
    """Momentum of SGD."""
    clip: Scale[Positive | None] = None
    """Length that the gradient of all parameters is cut to; null for none, as published."""
    precision: Precision = "float32"
    """Arithmetic of the network on a GPU, in training; a CPU always uses float32. Losses always do."""


@dataclass(frozen=True)
class ProposalScoreSettings(Section):
    """Scores of proposals by CIM's network; image-level labels are not used."""

    longer_sides: Scale[Annotated[tuple[Pixels, ...], MinLen(1)]] = (480, 576, 688, 864, 1200)
    """Longer sides of a picture, in pixels, whose scores are averaged."""
    mirror: bool = True
    """Also those of its mirror images."""
    precision: Precision = "float32"
    """Arithmetic of the network on a GPU; a CPU always uses float32."""


@dataclass(frozen=True)
class SelectionSettings(Section):
    """Which proposals are instances, by their scores."""

    score: Share = 1e-5
    """Score above which a proposal may be one."""
    nms: Literal["box", "mask"] = "box"
    """What must not overlap a better instance of the class: the boxes, as published, or the masks."""
    overlap: Annotated[float, Gt(0), Le(1)] = 0.3
    """Overlap (IoU) from which on it does."""
    limit: Count = 100
    """Most instances of a picture; those that tie with the last one are kept."""


# --- reading and telling ----------------------------------------------------------------------------------------------


@cache
def marks(section: type) -> dict[str, frozenset[str]]:
    """The marks (``SCALE``, ``SPEED``, ``INPUT``) of each field of a section."""
    hints = get_type_hints(section, include_extras=True)
    return {field.name: frozenset(m for m in get_args(hints[field.name])[1:] if isinstance(m, str))
            for field in fields(section)}  # fmt: skip


def marked(section: type, mark: str) -> frozenset[str]:
    """The fields of a section with this mark."""
    return frozenset(name for name, own in marks(section).items() if mark in own)


def plain(section: Any) -> dict[str, Any]:
    """A section's values as config.yaml would have them, all of them; tuples are lists."""
    return {field.name: _plain(getattr(section, field.name)) for field in fields(section)}


def identity(section: Any) -> dict[str, Any]:
    """What decides about a result: a section's values without those of speed alone, of files, and without nulls."""
    kind = type(section)
    left_out = marked(kind, SPEED) | marked(kind, INPUT)
    return {name: value for name, value in plain(section).items() if name not in left_out and value is not None}


def made(section: type[T], values: Mapping[str, Any], **further: Any) -> T:
    """A section from plain values; what they leave out has its default, and is null where it can be null.

    Raises:
        ValueError: an unknown key, or a value of another type or range than the section's.
    """
    kind: Any = section  # mypy takes the type of a type variable for something that has no hash
    return _reader(kind).validate_python({**dict.fromkeys(_optional(kind)), **values, **further})


@cache
def _reader(section: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(section)


@cache
def _optional(section: Any) -> frozenset[str]:
    return frozenset(name for name, hint in get_type_hints(section).items() if type(None) in get_args(hint))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return plain(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
