"""The step of all five methods against a second, straightforward implementation; the leak into the discriminator."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.classifiers.class_choice import ClassChoice
from wsss_core.classifiers.network import Classifier
from wsss_core.classifiers.step import ClassifierStep, Training
from wsss_core.classifiers.terms import build_terms
from wsss_core.networks.backbones import Backbone
from wsss_core.networks.batch_norm import group_batch_norm
from wsss_core.recipes.settings import Ramp

CPU = torch.device("cpu")
METHODS = ("cam", "puzzle", "occse", "poc", "pnoc")
SEED, EPOCH = 5, 3  # micro-steps an epoch
NO_RAMP = {"start": 0.0, "end": 0.0, "fraction": 0.0}


class ToyNetwork(nn.Module):
    """A convolution with bias at stride 2, and a BatchNorm: two groups of layers, five maps that are the same."""

    groups, num_features = ("conv", "norm"), 4
    feature_info = tuple({"module": "norm", "num_chs": 4, "reduction": 2} for _ in range(5))

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward_intermediates(self, x):
        final = torch.tanh(self.norm(self.conv(x)))
        return final, [final] * 5


def toy(batch_norm: str) -> Classifier:
    return Classifier(Backbone(ToyNetwork()), 3, batch_norm=batch_norm).double()


def toy_batches(count: int) -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]], dtype=torch.float64)
    images = torch.randn(count, 4, 3, 8, 8, generator=generator, dtype=torch.float64)
    return [{"image": image, "labels": labels[torch.randperm(4, generator=generator)]} for image in images]


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return toy("trained"), toy("fixed")


@pytest.fixture
def make_step(classifier_settings, terms_of):
    def make(
        nets, steps: int, method: str = "pnoc", *, weight_decay=0.0, accumulation=1, learning_rate=0.05,
        average=None, **changes,
    ) -> ClassifierStep:  # fmt: skip
        settings = classifier_settings(
            weight_decay=weight_decay, accumulation=accumulation, learning_rate=learning_rate, average=average
        )
        model, ordinary = copy.deepcopy(nets)
        terms = terms_of(method, **changes)
        training = Training(
            model=model,
            settings=settings,
            steps=steps,
            epoch_length=EPOCH,
            seed=SEED,
            device=CPU,
            ordinary=ordinary if "erasing" in terms else None,
        )
        return ClassifierStep(training, build_terms(terms, training))

    return make


def ordinary_of(step: ClassifierStep) -> Classifier | None:
    """The classifier that looks at erased images."""
    return step.terms["erasing"].ordinary if "erasing" in step.terms else None


def state_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(net: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


# --- the second implementation -------------------------------------------------------------------------------------


def bce(logits, targets):
    """-[y log s(z) + (1 - y) log(1 - s(z))], mean over batch and classes."""
    p = 1 / (1 + torch.exp(-logits))
    return -(targets * torch.log(p) + (1 - targets) * torch.log(1 - p)).mean()


def ramp(t, total, start, end, fraction):
    return end if fraction == 0 else min(start + (end - start) * t / (fraction * total), end)


def quarters(net, x):
    """Maps of the four quarters of the images, stitched."""
    h, w = x.shape[2] // 2, x.shape[3] // 2
    maps = net.maps(torch.cat([x[:, :, :h, :w], x[:, :, :h, w:], x[:, :, h:, :w], x[:, :, h:, w:]]))
    a, b, c, d = maps.split(len(x))
    return torch.cat([torch.cat([a, b], 3), torch.cat([c, d], 3)], 2)


def masks_of(maps, chosen, size, relu_first=True):
    first, last = (F.relu, lambda m: m) if relu_first else (lambda m: m, F.relu)
    rows = [
        last(F.interpolate(first(m[c])[None, None], size, mode="bilinear")) for m, c in zip(maps, chosen, strict=True)
    ]
    return torch.cat(rows)


def seen(net, x, keep, depth):
    """Logits of a toy classifier for images, the first convolution's maps or the BatchNorm's maps times ``keep``."""
    small = F.interpolate(keep, [x.shape[2] // 2, x.shape[3] // 2], mode="bilinear")
    layers = net.backbone.network
    maps = layers.conv(x * keep if depth == 0 else x)
    maps = layers.norm(maps * small if depth == 1 else maps)
    return net.head(torch.tanh(maps * small if depth == 2 else maps)).mean((2, 3))


class ByHand:
    """Gradients by autograd.grad, summed by hand, and plain SGD with the decay (1 - n / N) ** 0.9."""

    def __init__(self, net, lr, decay, updates):
        self.net, self.lr, self.decay, self.updates, self.n = net, lr, decay, updates, 0
        self.named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
        self.clear()

    def clear(self):
        self.sums = [torch.zeros_like(p) for _, p in self.named]

    def add(self, loss, keep=False):
        for total, gradient in zip(
            self.sums, torch.autograd.grad(loss, [p for _, p in self.named], retain_graph=keep), strict=True
        ):
            total += gradient

    def update(self):
        rate = self.lr * (1 - self.n / self.updates) ** 0.9
        for (name, p), gradient in zip(self.named, self.sums, strict=True):
            factor = (10 if name.startswith("head") else 1) * (1 if "weight" in name else 2)
            decay = self.decay if "weight" in name else 0
            p.data -= factor * rate * (gradient + decay * p.data)
        self.n += 1
        self.clear()


def train_by_hand(nets, batches, total, step: ClassifierStep):
    """Section by section what one micro-step is, for as many steps as there are batches; networks and losses."""
    f, oc = copy.deepcopy(nets)
    own = {name: term.settings for name, term in step.terms.items()}
    settings, puzzle, erasing, noc = own["labels"], own.get("puzzle"), own.get("erasing"), own.get("discriminator")
    lr, wd, acc, a = settings.learning_rate, settings.weight_decay, settings.accumulation, settings.label_smoothing
    first = ByHand(f, lr, wd, total // acc)
    second = ByHand(oc, lr * noc.rate, wd, total // (acc * noc.every)) if noc else None
    choice = ClassChoice(erasing.class_choice, 3, SEED, CPU) if erasing else None
    turns, history = 0, []
    for t, batch in enumerate(batches):
        x, y = batch["image"], batch["labels"]
        smooth = (1 - a) * y + a / 2
        maps = f.maps(x)
        losses = {"class": bce(maps.mean((2, 3)), smooth)}
        loss = losses["class"]
        if puzzle:
            merged = quarters(f, x)
            difference = (maps - merged).abs() * y[:, :, None, None]
            losses["merged_class"] = bce(merged.mean((2, 3)), smooth)
            losses["reconstruction"] = difference.sum() / difference.numel()
            loss = loss + losses["merged_class"] + ramp(t, total, 0, 4, 0.5) * losses["reconstruction"]
        if erasing:
            r = choice(y, t)
            rest = y * (1 - F.one_hot(r, y.shape[1]))
            masks = masks_of(maps, r, x.shape[2:], erasing.relu_first)
            peaks = [m.max() if erasing.per_image_maximum else masks.max() for m in masks]
            keep = torch.stack([1 - m / (peak + 1e-5) for m, peak in zip(masks, peaks, strict=True)])
            remains = seen(oc, x, keep, erasing.masking_depth)
            choice.observe(remains.detach(), y, rest)
            losses["erasing"] = bce(remains, (1 - a) * rest + a / 2)
            weighted = ramp(t // EPOCH * EPOCH if erasing.by_epoch else t, total, 0.3, 1, 1) * losses["erasing"]
            loss = loss + weighted
            if noc and noc.leak:
                second.add(weighted, keep=True)
        first.add(loss)
        if (t + 1) % acc == 0:
            first.update()
        if noc and (t + 1) % noc.every == 0:
            inputs = x * keep.detach()
            if noc.input == "hard":
                own = masks_of(maps.detach(), r, x.shape[2:])
                kept = [m / (m.max() + 1e-5) <= noc.hard_threshold for m in own]
                inputs = torch.stack([i * k for i, k in zip(x, kept, strict=True)])
            losses["discriminator"] = bce(oc.maps(inputs).mean((2, 3)), smooth)
            second.add(ramp(t, total, 0, 1, 1) * losses["discriminator"])
            turns += 1
            if turns % acc == 0:
                second.update()
        history.append({name: value.detach() for name, value in losses.items()})
    return f, oc, choice, history


def check_against_hand(nets, make_step, method, share=1.0, by_hand=None, **changes):
    total = 12  # eight steps of it, so that the schedules are met on their way
    batches = [{"image": b["image"], "labels": share * b["labels"]} for b in toy_batches(8)]
    step = make_step(nets, total, method, weight_decay=0.01, **changes)
    found = [step(batch, t) for t, batch in enumerate(batches)]
    f, oc, choice, expected = train_by_hand(by_hand or nets, batches, total, step)
    for t, (losses, by_hand) in enumerate(zip(found, expected, strict=True)):
        assert list(losses) == list(by_hand)
        torch.testing.assert_close(losses, by_hand, msg=lambda text, t=t: f"step {t}: {text}")
    torch.testing.assert_close(dict(step.training.model.state_dict()), dict(f.state_dict()))
    if "erasing" in step.terms:
        torch.testing.assert_close(dict(ordinary_of(step).state_dict()), dict(oc.state_dict()))
        torch.testing.assert_close(step.terms["erasing"].choice.state_dict(), choice.state_dict())
    return step


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_each_method_agrees_with_a_second_implementation(nets, make_step, method, accumulation):
    step = check_against_hand(nets, make_step, method, accumulation=accumulation)
    assert not torch.equal(step.training.model.head.weight, nets[0].head.weight)


@pytest.mark.parametrize("method", METHODS)
def test_labels_of_mixed_images_are_shares(nets, make_step, method):
    check_against_hand(nets, make_step, method, share=0.6)


@pytest.mark.parametrize(
    "erasing",
    [
        {"by_epoch": True, "relu_first": False},  # OC-CSE's own code
        {"per_image_maximum": True},
        {"masking_depth": 1},
        {"masking_depth": 2, "per_image_maximum": True},
        {"class_choice": "balanced"},
        {"class_choice": "focal"},
    ],
    ids=lambda changes: ",".join(changes),
)
@pytest.mark.parametrize("method", ["occse", "poc"])
def test_each_way_of_erasing_agrees_with_a_second_implementation(nets, make_step, method, erasing):
    check_against_hand(nets, make_step, method, erasing=erasing)


@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize(
    ("erasing", "discriminator", "accumulation"),
    [
        ({}, {"every": 2}, 2),
        ({"per_image_maximum": True}, {"every": 2}, 1),
        ({}, {"input": "soft", "rate": 0.5}, 1),
        ({"masking_depth": 1}, {"input": "soft"}, 1),
        ({"relu_first": False}, {"hard_threshold": 0.6}, 1),
    ],
    ids=["accumulation and every", "every, images apart", "soft", "masking depth", "threshold"],
)
def test_each_discriminator_agrees_with_a_second_implementation(
    nets, make_step, leak, erasing, discriminator, accumulation
):
    changes = {"erasing": erasing, "discriminator": discriminator | {"leak": leak}, "accumulation": accumulation}
    step = check_against_hand(nets, make_step, "pnoc", **changes)
    assert not torch.equal(ordinary_of(step).head.weight, nets[1].head.weight)


class OnTwoCards(nn.BatchNorm2d):
    """What DataParallel makes of a BatchNorm on two cards: halves of the batch, and the first card's running values."""

    def forward(self, x):
        halves = []
        for card, rows in enumerate((slice(0, len(x) // 2), slice(len(x) // 2, None))):
            mean, variance = x[rows].mean((0, 2, 3)), x[rows].var((0, 2, 3), unbiased=False)
            scale = self.weight / (variance + 1e-5).sqrt()
            halves.append(x[rows] * scale[:, None, None] + (self.bias - mean * scale)[:, None, None])
            if card == 0:
                self.running_mean += 0.1 * (mean.detach() - self.running_mean)
                self.running_var += 0.1 * (x[rows].detach().var((0, 2, 3)) - self.running_var)
                self.num_batches_tracked += 1
        return torch.cat(halves)


@pytest.mark.parametrize("method", ["cam", "puzzle", "pnoc"])
def test_groups_agree_with_a_second_implementation_on_two_cards(nets, make_step, method):
    """Tiles are stacked piece by piece: the first card has the upper half of every image, the second the lower."""
    model, ordinary = nets
    on_cards = copy.deepcopy(model)
    on_cards.backbone.network.norm = OnTwoCards(4).double()
    on_cards.load_state_dict(model.state_dict())
    whole = make_step(nets, 12, method)(toy_batches(1)[0], 0)
    group_batch_norm(model, 4, 2)
    check_against_hand((model, ordinary), make_step, method, by_hand=(on_cards, ordinary))
    grouped = make_step(nets, 12, method)(toy_batches(1)[0], 0)
    assert not torch.isclose(grouped["class"], whole["class"])


# --- the ordinary classifier ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("erasing", [{}, {"masking_depth": 2}], ids=["images", "features"])
@pytest.mark.parametrize("method", ["occse", "poc"])
def test_the_frozen_ordinary_classifier_is_the_same_to_the_last_bit(nets, make_step, method, erasing):
    step = make_step(nets, 6, method, erasing=erasing)
    before = state_of(nets[1])
    for t, batch in enumerate(toy_batches(4)):
        step(batch, t)
    assert same(ordinary_of(step), before)
    assert all(p.grad is None and not p.requires_grad for p in ordinary_of(step).parameters())
    assert not any(module.training for module in ordinary_of(step).modules())
    assert not ordinary_of(step).backbone.network.conv._forward_hooks


def test_without_the_leak_the_discriminator_stays_as_it_is_at_weight_zero(nets, make_step):
    step = make_step(nets, 10, discriminator={"leak": False, "weight": NO_RAMP})
    for t, batch in enumerate(toy_batches(2)):
        step(batch, t)
    assert same(ordinary_of(step), nets[1].state_dict())


def test_with_the_leak_the_discriminator_moves_at_weight_zero(nets, make_step):
    step = make_step(nets, 10, discriminator={"leak": True, "weight": NO_RAMP})
    step(toy_batches(1)[0], 0)
    moved = [
        name
        for name, value in ordinary_of(step).named_parameters()
        if not torch.equal(value, nets[1].get_parameter(name))
    ]
    assert moved == ["backbone.network.conv.weight", "backbone.network.conv.bias", "head.weight"]


def test_the_leaked_gradient_is_that_of_the_erasing_loss(nets, make_step):
    batch = toy_batches(1)[0]
    with_leak = make_step(nets, 10, discriminator={"leak": True, "weight": NO_RAMP})
    without = make_step(nets, 10, discriminator={"leak": False, "weight": NO_RAMP})
    with_leak(batch, 0)
    without(batch, 0)
    chosen = ClassChoice("random", 3, SEED, CPU)(batch["labels"], 0)
    model, discriminator = copy.deepcopy(nets)
    mask = masks_of(model.maps(batch["image"]), chosen, (8, 8)).detach()
    soft = batch["image"] * (1 - mask / (mask.max() + 1e-5))
    targets = 0.9 * batch["labels"] * (1 - F.one_hot(chosen, 3)) + 0.05
    (0.3 * bce(discriminator.maps(soft).mean((2, 3)), targets)).backward()
    moved = ordinary_of(with_leak).head.weight - ordinary_of(without).head.weight
    torch.testing.assert_close(moved, -10 * 0.05 * discriminator.head.weight.grad)


def test_the_first_update_of_the_classifier_does_not_depend_on_the_leak(nets, make_step):
    batch = toy_batches(1)[0]
    states = []
    for leak in (True, False):
        step = make_step(nets, 10, discriminator={"leak": leak})
        step(batch, 0)
        states.append(step.training.model)
    assert same(states[0], states[1].state_dict())


def test_the_fixed_batch_norm_of_the_discriminator_never_changes(nets, make_step):
    step = make_step(nets, 4)
    before = state_of(ordinary_of(step).backbone.network.norm)
    for t, batch in enumerate(toy_batches(3)):
        step(batch, t)
    assert same(ordinary_of(step).backbone.network.norm, before)


# --- what surrounds the step ---------------------------------------------------------------------------------------


def test_optimisers_make_as_many_updates_as_the_schedule_counts(nets, make_step):
    step = make_step(nets, 12, accumulation=2, discriminator={"every": 3})
    classifier, discriminator = [], []
    for t, batch in enumerate(toy_batches(12)):
        step(batch, t)
        classifier.append(step.learner.optimizer.decay.last_epoch)
        discriminator.append(step.terms["discriminator"].learner.optimizer.decay.last_epoch)
    assert classifier == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert discriminator == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2]


def test_the_moving_average_takes_part_in_updates_and_is_what_is_kept(nets, make_step):
    """Every network after an update: a copy of the one at the end of the warm-up, then a mean over all since."""
    step = make_step(nets, 12, "cam", accumulation=2, average={"decay": 0.999, "every": 1, "warmup_epochs": 1})
    weights = []
    for t, batch in enumerate(toy_batches(7)):
        step(batch, t)
        if t % 2 == 1:
            weights.append(step.training.model.head.weight.detach().clone())
    assert step.result is step.average.model
    # an epoch has three steps and one update: the first one is the warm-up; 1 - 1 / (1 + n) weighs all the same
    torch.testing.assert_close(step.result.head.weight, sum(weights) / len(weights))
    assert len(weights) == 3


def test_without_an_average_the_classifier_itself_is_kept(nets, make_step):
    step = make_step(nets, 4, "cam")
    assert step.result is step.training.model


def test_losses_carry_no_graph_and_the_discriminator_has_none_where_it_is_not_trained(nets, make_step):
    losses = make_step(nets, 4)(toy_batches(1)[0], 0)
    assert list(losses) == ["class", "merged_class", "reconstruction", "erasing", "discriminator"]
    assert not any(loss.requires_grad for loss in losses.values())
    losses = make_step(nets, 4, discriminator={"every": 2})(toy_batches(1)[0], 0)
    assert "discriminator" not in losses


OWN = {"model", "optimizer", "scaler"}
CHOICE = {"erasing.choice"}
OTHER = {"discriminator.network", "discriminator.optimizer", "discriminator.scaler"}


@pytest.mark.parametrize(
    ("method", "names"),
    [("cam", OWN), ("puzzle", OWN), ("occse", OWN | CHOICE), ("pnoc", OWN | CHOICE | OTHER)],
)
def test_the_state_to_resume_from_holds_all_that_learns(nets, make_step, method, names):
    assert set(make_step(nets, 4, method).state()) == names
    averaged = make_step(nets, 4, method, average={"decay": 0.9, "every": 1, "warmup_epochs": 0})
    assert set(averaged.state()) == names | {"average"}


def test_terms_come_from_config_and_a_stray_key_is_refused(terms_of):
    assert terms_of("puzzle")["puzzle"].weight == Ramp(0.0, 4.0, 0.5)
    terms = terms_of("occse")
    assert terms["erasing"].weight == Ramp(0.3, 1.0, 1.0)
    assert set(terms) == {"erasing"}
    with pytest.raises(ValueError, match="leek"):
        terms_of("pnoc", discriminator={"leek": True})
