"""Training steps against plain loops: NCHW, a loss fetched at every step, one kernel a parameter in the optimiser.

Data is at hand in both, so that the steps alone are compared; ``images`` measures the data. On a GPU the plain loops
use float16 autocast as published code does.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Comparison, Growth, Options, compare, growth
from wsss_core.affinity.network import AffinityNet
from wsss_core.affinity.pairs import pair_labels, pair_offsets, path_pixels
from wsss_core.affinity.training import AffinityStep
from wsss_core.classifiers.class_choice import ClassChoice
from wsss_core.classifiers.network import Classifier, build_classifier
from wsss_core.classifiers.step import ClassifierStep, Training
from wsss_core.classifiers.terms import build_terms
from wsss_core.fitting.loop import placed
from wsss_core.fitting.optim import parameter_groups
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import (
    AffinitySettings,
    ClassifierSettings,
    DeeplabV3PlusSettings,
    DiscriminatorSettings,
    ErasingSettings,
    PoolnetSettings,
    PuzzleSettings,
)
from wsss_core.saliency.poolnet import build_poolnet
from wsss_core.saliency.poolnet_training import PoolnetStep
from wsss_core.segmentation.v3plus import DeepLabV3Plus
from wsss_core.segmentation.v3plus_training import DeeplabV3PlusStep

CLASSES = 20
STEPS = 2  # a call
TERMS = {
    "cam": {},
    "pnoc": {"puzzle": PuzzleSettings(), "erasing": ErasingSettings(), "discriminator": DiscriminatorSettings()},
}


def run(options: Options) -> Iterator[Comparison | Growth]:
    """The steps of a plain classifier, P-NOC, DeepLabV3+, PoolNet and AffinityNet."""
    on_card = options.device == "cuda"
    backbone, batch, side = ("resnest269", 16, 512) if on_card else ("mobilenetv2_100", 8, 192)
    device = torch.device(options.device)
    usual = f"NCHW, {'float16 autocast' if on_card else 'float32'}, losses fetched at every step"
    case = f"{backbone}, {batch} images of {side} px"
    batches = classifier_batches(batch, side)
    for method, name in (("cam", "plain classifier"), ("pnoc", "P-NOC")):
        steps = plain_classifier(method, backbone, device), our_classifier(method, backbone, device)
        yield _pair(name, case, usual, *steps, batches)
    if not on_card:  # the network of the demo
        steps = plain_classifier("pnoc", "test_resnet", device), our_classifier("pnoc", "test_resnet", device)
        yield _pair("P-NOC", "test_resnet, 8 images of 96 px", usual, *steps, classifier_batches(8, 96))
    compiled = our_classifier("pnoc", backbone, device, compiled=True)
    plain = our_classifier("pnoc", backbone, device)
    yield _pair("P-NOC", "`compile: true`", "the same step, not compiled", plain, compiled, batches)
    masked = mask_batches(batch, side)
    yield _pair("DeepLabV3+", case, usual, *deeplab(backbone, device), masked)
    yield _pair("AffinityNet", case, "paths of all pairs gathered by index", *affinity(backbone, device), masked)
    pictures = saliency_batches(375, 500) if on_card else saliency_batches(160, 208)
    network = "resnet50_caffe" if on_card else backbone
    yield _pair("PoolNet", f"{network}, one image at a time", "NCHW", *poolnet(network, device), pictures)

    sides = (256, 384, 512) if on_card else (96, 192, 288)
    step = our_classifier("pnoc", backbone, device)
    yield growth(
        "P-NOC step",
        "side of the crop",
        sides,
        lambda s: partial(losses_of, step, classifier_batches(batch, s)[:1]),
    )
    yield growth(
        "P-NOC step",
        "images a batch",
        (2, 4, 8),
        lambda n: partial(losses_of, step, classifier_batches(n, side)[:1]),
    )


def _pair(name: str, case: str, usual: str, theirs: Callable, ours: Callable, batches: list[dict]) -> Comparison:
    return compare(
        name,
        case,
        usual=usual,
        usual_way=partial(losses_of, theirs, batches),
        our_way=partial(losses_of, ours, batches),
        agreement=apart,
    )


def losses_of(step: Callable[[dict, int], dict[str, Tensor]], batches: list[dict]) -> Tensor:
    """The first loss of every step, fetched at the end as ``fitting.loop.fit`` does."""
    return torch.stack([next(iter(step(batch, number).values())).float() for number, batch in enumerate(batches)]).cpu()


def apart(theirs: Tensor, ours: Tensor) -> str:
    """How far the losses of the last call are apart, after all the updates before it."""
    return f"losses differ by {((ours - theirs).abs() / theirs.abs()).max():.0e} relatively"


def classifier_batches(batch: int, side: int) -> list[dict]:
    """Random images and labels, one to three an image."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(STEPS, batch, 3, side, side, generator=generator)
    labels = torch.zeros(STEPS, batch, CLASSES)
    for row in labels.flatten(0, 1):
        row[torch.randperm(CLASSES, generator=generator)[: int(torch.randint(1, 4, (), generator=generator))]] = 1
    return [{"image": i, "labels": l} for i, l in zip(images, labels, strict=True)]


def mask_batches(batch: int, side: int) -> list[dict]:
    """Random images with masks of rectangles."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, CLASSES + 1, (STEPS, batch, 4, 4), generator=generator).byte()
    masks = F.interpolate(masks, (side, side), mode="nearest-exact")
    images = torch.randn(STEPS, batch, 3, side, side, generator=generator)
    return [{"image": i, "mask": m} for i, m in zip(images, masks, strict=True)]


def saliency_batches(height: int, width: int) -> list[dict]:
    """One picture a batch, with binary saliency."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (STEPS, 1, 3, height, width), generator=generator, dtype=torch.uint8)
    saliency = 255 * (images[:, :, :1] > 127).byte()
    return [{"image": i, "saliency": s} for i, s in zip(images, saliency, strict=True)]


def networks(method: str, backbone: str) -> tuple[Classifier, Classifier | None]:
    """A classifier and its ordinary one, the same at every call."""
    torch.manual_seed(0)
    model = build_classifier(backbone, CLASSES, output_stride=16, weights=None)
    other = build_classifier(backbone, CLASSES, output_stride=16, batch_norm="fixed", weights=None)
    return model, other if method == "pnoc" else None


def our_classifier(method: str, backbone: str, device: torch.device, compiled: bool = False) -> ClassifierStep:
    """The step of ``classifiers.step``."""
    model, other = networks(method, backbone)
    settings = ClassifierSettings(learning_rate=1e-4, precision="float16", compile=compiled)
    placed(model, device, compiled=compiled)
    training = Training(model, settings, steps=1000, epoch_length=1000, seed=0, device=device, ordinary=other)
    return ClassifierStep(training, build_terms(TERMS[method], training))


def plain_classifier(method: str, backbone: str, device: torch.device) -> Callable:
    """The same mathematics written straight down."""
    model, other = networks(method, backbone)
    model.to(device)
    optimizers, scaler = [plain_sgd(model, 1e-4)], torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    if other is not None:
        optimizers.append(plain_sgd(other.to(device), 1e-4))
    choices = ClassChoice("random", CLASSES, 0, torch.device("cpu"))

    def step(batch: dict, number: int) -> dict[str, Tensor]:
        images, labels = batch["image"].to(device), batch["labels"].to(device)
        targets = 0.9 * labels + 0.05
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            maps = model.maps(images)
            first = loss = F.binary_cross_entropy_with_logits(maps.mean((2, 3)), targets)
            if other is not None:
                chosen = choices(batch["labels"], number).to(device)
                progress = number / 999
                loss, hard = _pnoc_loss(model, other, images, labels, targets, maps, loss, chosen, progress)
        scaler.scale(loss).backward()
        _update(optimizers[0], scaler)
        if other is not None:
            with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                told = F.binary_cross_entropy_with_logits(other.maps(hard).mean((2, 3)), targets)
            scaler.scale(progress * told).backward()
            _update(optimizers[1], scaler)
            told.item()
        first.item()
        return {"class": first.detach()}

    return step


def _pnoc_loss(model, other, images, labels, targets, maps, loss, chosen, progress):
    """The classifier's loss and the images that the discriminator sees."""
    half_h, half_w = images.shape[2] // 2, images.shape[3] // 2
    rows = (slice(0, half_h), slice(half_h, None)), (slice(0, half_w), slice(half_w, None))
    tiles = torch.cat([images[:, :, y, x] for y in rows[0] for x in rows[1]])
    a, b, c, d = model.maps(tiles).chunk(4)
    merged = torch.cat([torch.cat([a, b], 3), torch.cat([c, d], 3)], 2)
    loss = loss + F.binary_cross_entropy_with_logits(merged.mean((2, 3)), targets)
    weight = 4 * min(progress / 0.5, 1)
    loss = loss + weight * ((maps - merged).abs() * labels[:, :, None, None]).mean()
    active = torch.stack([m[c] for m, c in zip(maps, chosen, strict=True)])[:, None].relu()
    mask = F.interpolate(active, images.shape[2:], mode="bilinear", align_corners=False)
    soft = images * (1 - mask / (mask.max() + 1e-5))
    left = labels.clone()
    left[torch.arange(len(left)), chosen] = 0
    other.eval()
    rest = F.binary_cross_entropy_with_logits(other.maps(soft).mean((2, 3)), 0.9 * left + 0.05)
    mask = mask.detach()
    hard = images * (mask / (mask.amax((1, 2, 3), keepdim=True) + 1e-5) <= 0.2)
    other.train()
    return loss + (0.3 + 0.7 * progress) * rest, hard


def plain_sgd(model: nn.Module, rate: float) -> torch.optim.SGD:
    """Four groups as everywhere, one parameter after another."""
    groups = [
        {"params": [p], "lr": rate * (10 if n.startswith("head") else 1) * (1 if "weight" in n else 2),
         "weight_decay": 1e-4 if "weight" in n else 0.0}
        for n, p in model.named_parameters() if p.requires_grad
    ]  # fmt: skip
    return torch.optim.SGD(groups, foreach=False, fused=False)


def _update(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def deeplab(backbone: str, device: torch.device) -> tuple[Callable, Callable]:
    """A plain step and ours."""
    settings = DeeplabV3PlusSettings(
        accumulation=1, learning_rate=1e-4, weight_decay=1e-4, momentum=0.9, label_smoothing=0.1, precision="float16"
    )
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(DeepLabV3Plus(build_backbone(backbone), CLASSES + 1, "group", 256).train())
    plain, ours = models[0].to(device), placed(models[1], device)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    groups = parameter_groups(plain, [plain.aspp, plain.decoder], 1e-4, 1e-4)
    optimizer = torch.optim.SGD(groups, momentum=0.9, foreach=False, fused=False)

    def step(batch: dict, _: int) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            logits = plain(batch["image"].to(device))
        target = batch["mask"].to(device).long()
        loss = F.cross_entropy(logits.float(), target, ignore_index=255, label_smoothing=0.1)
        scaler.scale(loss).backward()
        _update(optimizer, scaler)
        loss.item()
        return {"loss": loss.detach()}

    return step, DeeplabV3PlusStep(ours, settings, 1000, device)


def affinity(backbone: str, device: torch.device) -> tuple[Callable, Callable]:
    """The step with paths gathered by index, and ours."""
    settings = AffinitySettings(radius=10, learning_rate=0.1, weight_decay=1e-4)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(AffinityNet(build_backbone(backbone)))
    plain, ours = models[0].to(device), placed(models[1], device)
    optimizer = torch.optim.SGD(plain.edge_parameters(), lr=0.1, weight_decay=1e-4, foreach=False, fused=False)

    def step(batch: dict, _: int) -> dict[str, Tensor]:
        edge = torch.sigmoid(plain(batch["image"].to(device)))
        mask = F.interpolate(batch["mask"].to(device)[:, None], edge.shape[2:], mode="nearest-exact")[:, 0]
        height, width = edge.shape[2:]
        radius = settings.radius
        y, x = torch.meshgrid(
            torch.arange(height - radius + 1), torch.arange(radius - 1, width - radius + 1), indexing="ij"
        )
        flat, affinities = edge.flatten(1), []
        for offset in pair_offsets(radius):
            path = torch.stack([((y + dy) * width + x + dx).flatten() for dy, dx in path_pixels(offset)])
            affinities.append(1 - flat[:, path.to(device)].amax(dim=1))
        affinities = torch.stack(affinities, dim=1)
        background, foreground, different = pair_labels(mask, radius, CLASSES + 1)
        positive, negative = -torch.log(affinities + 1e-5), -torch.log(1 - affinities + 1e-5)
        parts = [
            (positive * background).sum() / (background.sum() + 1e-5),
            (positive * foreground).sum() / (foreground.sum() + 1e-5),
            (negative * different).sum() / (different.sum() + 1e-5),
        ]
        loss = (parts[0] + parts[1]) / 4 + parts[2] / 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        return {"positive_background": parts[0].detach()}

    return step, AffinityStep(ours, settings, CLASSES + 1, 1000, device)


def poolnet(backbone: str, device: torch.device) -> tuple[Callable, Callable]:
    """A plain step and ours, one image each and an update at the end."""
    width = 1.0 if backbone == "resnet50_caffe" else 0.125
    settings = PoolnetSettings(accumulation=STEPS, learning_rate=1e-5, weight_decay=0.0)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(build_poolnet(backbone, width=width))
    plain, ours = models[0].to(device), placed(models[1], device)
    optimizer = torch.optim.Adam([p for p in plain.parameters() if p.requires_grad], lr=1e-5, foreach=False)

    def step(batch: dict, number: int) -> dict[str, Tensor]:
        target = batch["saliency"].to(device).float() / 255
        logits = plain(plain.preprocess(batch["image"].to(device).float()))
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / STEPS
        loss.backward()
        if (number + 1) % STEPS == 0:
            optimizer.step()
            optimizer.zero_grad()
        loss.item()
        return {"loss_a_pixel": loss.detach() * STEPS / target.numel()}

    return step, PoolnetStep(ours, settings, 1000, device)
