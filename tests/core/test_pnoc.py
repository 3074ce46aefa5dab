"""P-NOC's step against a second, straightforward implementation, and the leak into the discriminator."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.models.classifier import Classifier
from wsss_core.training.erasing import choose_classes
from wsss_core.training.pnoc import PnocSettings, PnocStep, Ramp

CPU = torch.device("cpu")
SEED = 5
NO_RAMP = {"start": 0.0, "end": 0.0, "fraction": 0.0}


class ToyBackbone(nn.Module):
    """One convolution with bias and a BatchNorm, at stride 2."""

    channels, strides = (4, 4, 4, 4, 4), (2, 2, 2, 2, 2)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return [torch.tanh(self.norm(self.conv(x)))]


def toy(mode: str) -> Classifier:
    return Classifier(ToyBackbone(), 3, mode=mode).double()


def toy_batches(count: int) -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]], dtype=torch.float64)
    images = torch.randn(count, 4, 3, 8, 8, generator=generator, dtype=torch.float64)
    return [{"image": image, "labels": labels[torch.randperm(4, generator=generator)]} for image in images]


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return toy("normal"), toy("fix")


@pytest.fixture
def make_step(classifier_settings, pnoc_settings):
    def make(nets, steps: int, *, weight_decay=0.0, accumulation=1, learning_rate=0.05, **changes) -> PnocStep:
        settings = classifier_settings(
            weight_decay=weight_decay, accumulation=accumulation, learning_rate=learning_rate
        )
        return PnocStep(*copy.deepcopy(nets), settings, pnoc_settings(**changes), steps, SEED, CPU)

    return make


def state_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


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
    maps = net(torch.cat([x[:, :, :h, :w], x[:, :, :h, w:], x[:, :, h:, :w], x[:, :, h:, w:]]))
    a, b, c, d = maps.split(len(x))
    return torch.cat([torch.cat([a, b], 3), torch.cat([c, d], 3)], 2)


def masks_of(maps, chosen, size):
    rows = [F.interpolate(F.relu(m[c])[None, None], size, mode="bilinear") for m, c in zip(maps, chosen, strict=True)]
    return torch.cat(rows)


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


def train_by_hand(nets, batches, total, settings, pnoc: PnocSettings):
    """Section by section what one micro-step of P-NOC is, for as many steps as there are batches."""
    f, noc = copy.deepcopy(nets)
    lr, wd, acc, a = settings.learning_rate, settings.weight_decay, settings.accumulation, settings.label_smoothing
    every = pnoc.discriminator_every
    first = ByHand(f, lr, wd, total // acc)
    second = ByHand(noc, lr * pnoc.discriminator_rate, wd, total // (acc * every))
    turns = 0
    for t, batch in enumerate(batches):
        x, y = batch["image"], batch["labels"]
        smooth = (1 - a) * y + a / 2
        r = choose_classes(y, torch.Generator().manual_seed(SEED * 2**32 + t))
        rest = y * (1 - F.one_hot(r, y.shape[1]))
        maps, merged = f(x), quarters(f, x)
        mask = masks_of(maps, r, x.shape[2:])
        if pnoc.per_image_maximum:
            soft = torch.stack([i * (1 - m / (m.max() + 1e-5)) for i, m in zip(x, mask, strict=True)])
        else:
            soft = x * (1 - mask / (mask.max() + 1e-5))
        difference = (maps - merged).abs() * y[:, :, None, None]
        erasing = ramp(t, total, 0.3, 1, 1) * bce(noc(soft).mean((2, 3)), (1 - a) * rest + a / 2)
        loss = bce(maps.mean((2, 3)), smooth) + bce(merged.mean((2, 3)), smooth) + erasing
        loss = loss + ramp(t, total, 0, 4, 0.5) * difference.sum() / difference.numel()
        if pnoc.leak:
            second.add(erasing, keep=True)
        first.add(loss)
        maps, soft = maps.detach(), soft.detach()
        if (t + 1) % acc == 0:
            first.update()
        if (t + 1) % every == 0:
            inputs = soft
            if pnoc.discriminator_input == "hard":
                masks = masks_of(maps, r, x.shape[2:])
                kept = [m / (m.max() + 1e-5) <= pnoc.hard_threshold for m in masks]
                inputs = torch.stack([i * k for i, k in zip(x, kept, strict=True)])
            second.add(ramp(t, total, 0, 1, 1) * bce(noc(inputs).mean((2, 3)), smooth))
            turns += 1
            if turns % acc == 0:
                second.update()
    return f, noc


@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulation": 2},
        {"accumulation": 2, "discriminator_every": 2},
        {"discriminator_every": 2, "per_image_maximum": True},
        {"discriminator_input": "soft", "discriminator_rate": 0.5, "hard_threshold": 0.6},
    ],
    ids=lambda changes: ",".join(changes) or "published",
)
def test_steps_agree_with_a_second_implementation(nets, make_step, leak, changes):
    total = 12  # eight steps of it, so that the schedules are met on their way
    batches = toy_batches(8)
    step = make_step(nets, total, weight_decay=0.01, leak=leak, **changes)
    for t, batch in enumerate(batches):
        step(batch, t)
    f, noc = train_by_hand(nets, batches, total, step.settings, step.pnoc)
    for name, value in f.state_dict().items():
        torch.testing.assert_close(step.generator.state_dict()[name], value, msg=f"generator {name}")
    for name, value in noc.state_dict().items():
        torch.testing.assert_close(step.discriminator.state_dict()[name], value, msg=f"discriminator {name}")
    assert not torch.equal(nets[1].head.weight, noc.head.weight)


# --- the leak ------------------------------------------------------------------------------------------------------


def test_without_the_leak_the_discriminator_stays_as_it_is_at_weight_zero(nets, make_step):
    step = make_step(nets, 10, leak=False, discriminator=NO_RAMP)
    for t, batch in enumerate(toy_batches(2)):
        step(batch, t)
    for name, value in step.discriminator.state_dict().items():
        assert torch.equal(value, nets[1].state_dict()[name]), name


def test_with_the_leak_the_discriminator_moves_at_weight_zero(nets, make_step):
    step = make_step(nets, 10, leak=True, discriminator=NO_RAMP)
    step(toy_batches(1)[0], 0)
    moved = [
        name
        for name, value in step.discriminator.named_parameters()
        if not torch.equal(value, nets[1].get_parameter(name))
    ]
    assert moved == ["backbone.conv.weight", "backbone.conv.bias", "head.weight"]


def test_the_leaked_gradient_is_that_of_the_erasing_loss(nets, make_step):
    batch = toy_batches(1)[0]
    with_leak = make_step(nets, 10, leak=True, discriminator=NO_RAMP)
    without = make_step(nets, 10, leak=False, discriminator=NO_RAMP)
    with_leak(batch, 0)
    without(batch, 0)
    chosen = choose_classes(batch["labels"], torch.Generator().manual_seed(SEED * 2**32))
    generator, discriminator = copy.deepcopy(nets)
    mask = masks_of(generator(batch["image"]), chosen, (8, 8)).detach()
    soft = batch["image"] * (1 - mask / (mask.max() + 1e-5))
    targets = 0.9 * batch["labels"] * (1 - F.one_hot(chosen, 3)) + 0.05
    (0.3 * bce(discriminator(soft).mean((2, 3)), targets)).backward()
    moved = with_leak.discriminator.head.weight - without.discriminator.head.weight
    torch.testing.assert_close(moved, -10 * 0.05 * discriminator.head.weight.grad)


def test_the_first_update_of_the_generator_does_not_depend_on_the_leak(nets, make_step):
    batch = toy_batches(1)[0]
    states = []
    for leak in (True, False):
        step = make_step(nets, 10, leak=leak)
        step(batch, 0)
        states.append(state_of(step.generator))
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_the_fixed_batch_norm_of_the_discriminator_never_changes(nets, make_step):
    step = make_step(nets, 4)
    before = state_of(step.discriminator.backbone.norm)
    for t, batch in enumerate(toy_batches(3)):
        step(batch, t)
    for name, value in step.discriminator.backbone.norm.state_dict().items():
        assert torch.equal(value, before[name]), name


# --- what surrounds the step ---------------------------------------------------------------------------------------


def test_optimisers_make_as_many_updates_as_the_schedule_counts(nets, make_step):
    step = make_step(nets, 12, accumulation=2, discriminator_every=3)
    generator, discriminator = [], []
    for t, batch in enumerate(toy_batches(12)):
        step(batch, t)
        generator.append(step.optimizer.decay.last_epoch)
        discriminator.append(step.discriminator_optimizer.decay.last_epoch)
    assert generator == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert discriminator == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2]


def test_losses_are_named_and_carry_no_graph(nets, make_step):
    losses = make_step(nets, 4)(toy_batches(1)[0], 0)
    assert list(losses) == ["class", "merged_class", "reconstruction", "erasing", "discriminator"]
    assert not any(loss.requires_grad for loss in losses.values())
    losses = make_step(nets, 4, discriminator_every=2)(toy_batches(1)[0], 0)
    assert "discriminator" not in losses


def test_the_state_to_resume_from_holds_both_networks_and_their_optimisers(nets, make_step):
    step = make_step(nets, 4)
    assert step.state().keys() == {
        "generator", "optimizer", "scaler", "discriminator", "discriminator_optimizer", "discriminator_scaler",
    }  # fmt: skip


def test_settings_come_from_config_and_a_stray_key_is_refused(pnoc_settings):
    assert pnoc_settings().reconstruction == Ramp(0.0, 4.0, 0.5)
    with pytest.raises(TypeError, match="leek"):
        pnoc_settings(leek=True)
