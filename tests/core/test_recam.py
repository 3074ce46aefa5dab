"""ReCAM: the features under each class's map, the loss of its second head, and the maps of both heads."""

import math

import pytest
import torch
import torch.nn.functional as F

from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.classifiers.losses import softmax_label_loss
from wsss_core.classifiers.network import Classifier, build_classifier, combined_head, load_classifier
from wsss_core.classifiers.recam import class_features, reactivation_loss
from wsss_core.classifiers.step import ClassifierStep, Training, View
from wsss_core.classifiers.terms import build_terms
from wsss_core.fitting.optim import PolySGD
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import ReactivationSettings

CPU = torch.device("cpu")
RECIPE = {"backbone": "test_resnet", "output_stride": 16, "classes": 3}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def explicit_features(features, head):
    """As the paper has it: the features times each class's mask, then global average pooling."""
    maps = F.conv2d(features, head[:, :, None, None]).relu()
    masks = maps / (maps.amax((2, 3), keepdim=True) + 1e-5)
    return (masks[:, :, None] * features[:, None]).mean((3, 4))


def explicit_loss(features, labels, head, second):
    total = torch.zeros(())
    for pooled, own in zip(explicit_features(features, head), labels.bool(), strict=True):
        if own.any():
            present = own.nonzero()[:, 0]
            total = total + F.cross_entropy(pooled[present] @ second.t(), present)
    return total / len(labels)


# --- formulas ---


def test_class_features_are_the_pooled_masked_features_with_their_gradients():
    features, head = drawn(3, 8, 5, 6).requires_grad_(), drawn(4, 8, seed=1).requires_grad_()
    found, wanted = class_features(features, head), explicit_features(features, head)
    assert found.shape == (3, 4, 8)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    target = drawn(3, 4, 8, seed=2)
    for one, other in zip(
        torch.autograd.grad((found * target).sum(), (features, head)),
        torch.autograd.grad((wanted * target).sum(), (features, head)),
        strict=True,
    ):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_pooling_divides_by_all_cells_and_not_by_the_mask():
    features = torch.zeros(1, 1, 4, 4)
    features[0, 0, 0, 0] = 2.0  # the mask is 1 there, and 0 elsewhere
    found = class_features(features, torch.ones(1, 1))
    assert found.item() == pytest.approx(2.0 * 2.0 / (2.0 + 1e-5) / 16)


def test_the_losses_are_those_written_out():
    features, labels = drawn(4, 8, 5, 5), torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]])
    head, second = drawn(3, 8, seed=1), drawn(3, 8, seed=2)
    losses = reactivation_loss(features, labels, head, second)
    scores = F.conv2d(features, head[:, :, None, None]).mean((2, 3))
    assert losses["class"].item() == pytest.approx(F.multilabel_soft_margin_loss(scores, labels).item(), rel=1e-5)
    assert losses["reactivation"].item() == pytest.approx(
        explicit_loss(features, labels, head, second).item(), rel=1e-5
    )


def test_two_classes_and_one_label_have_a_closed_form():
    features, head, second = drawn(1, 8, 3, 3), drawn(2, 8, seed=1), drawn(2, 8, seed=2)
    (pooled,) = explicit_features(features, head)
    scores = pooled[1] @ second.t()
    found = reactivation_loss(features, torch.tensor([[0.0, 1.0]]), head, second)["reactivation"]
    assert found.item() == pytest.approx(math.log1p(math.exp(scores[0] - scores[1])), rel=1e-5)


def test_images_without_labels_add_nothing_and_count():
    features = drawn(2, 8, 3, 3).requires_grad_()
    head, second = drawn(3, 8, seed=1).requires_grad_(), drawn(3, 8, seed=2).requires_grad_()
    losses = reactivation_loss(features, torch.zeros(2, 3), head, second)
    assert losses["reactivation"] == 0
    gradients = torch.autograd.grad(losses["reactivation"] + losses["class"], (features, head, second))
    assert all(g.isfinite().all() for g in gradients)
    labels = torch.tensor([[0.0, 1, 0], [0, 0, 0]])
    with_it = reactivation_loss(features, labels, head, second)["reactivation"]
    alone = reactivation_loss(features[:1], labels[:1], head, second)["reactivation"]
    assert with_it.item() == pytest.approx(alone.item() / 2)


def test_heads_are_combined_as_table_1_has_them():
    first, second = torch.tensor([[1.0, -2.0]]), torch.tensor([[-3.0, -4.0]])
    wanted = {"first": [1, -2], "second": [-3, -4], "sum": [-2, -6], "product": [-3, 8]}
    for which, weights in wanted.items():
        assert combined_head(first, second, which).tolist() == [weights]
    with pytest.raises(ValueError, match="first, second, sum or product"):
        combined_head(first, second, "mean")


# --- one head with other losses ---


def test_the_softmax_loss_spreads_the_target_over_the_labels():
    scores, labels = drawn(3, 4), torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    log = F.log_softmax(scores, 1)
    wanted = -((log[0, 0] + log[0, 2]) / 2 + log[1, 1]) / 3
    assert softmax_label_loss(scores, labels).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_the_softmax_loss_of_single_labels_leaves_the_others_to_binary_cross_entropy():
    scores, labels = drawn(3, 4), torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    binary = F.binary_cross_entropy_with_logits(scores, labels, reduction="none").mean(1)
    wanted = (binary[0] - F.log_softmax(scores, 1)[1, 1] + binary[2]) / 3
    assert softmax_label_loss(scores, labels, single_only=True).item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("p", "q", "binary", "softmax"),
    [
        (-10, 10, (0.5, 0.5), (1, 1)),
        (10, -10, (0, 0), (0, 0)),
        (10, 10, (0, 0.5), (0.5, 0.5)),
        (-10, -10, (0.5, 0), (0.5, 0.5)),
    ],
    ids=["wrong", "right", "both high", "both low"],
)
def test_the_gradients_of_both_losses_are_those_of_the_papers_analysis(p, q, binary, softmax):
    """Two classes, the first one positive: only the softmax loss moves both logits whenever they are close."""
    labels = torch.tensor([[1.0, 0.0]])
    for loss, wanted, closed in (
        (F.binary_cross_entropy_with_logits, binary, lambda z: (z.sigmoid() - labels) / 2),
        (softmax_label_loss, softmax, lambda z: z.softmax(1) - labels),
    ):
        z = torch.tensor([[float(p), float(q)]], requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(z, labels), z)
        torch.testing.assert_close(gradient, closed(z.detach()))
        assert gradient.abs()[0].tolist() == pytest.approx(list(wanted), abs=1e-3)


# --- the term ---


@pytest.fixture
def stage_a(tmp_path):
    """A trained classifier's checkpoint."""
    torch.manual_seed(0)
    path = tmp_path / "cam.pt"
    save_model(path, Classifier(build_backbone("test_resnet", output_stride=16), 3), "classifier", RECIPE)
    return path


@pytest.fixture
def step_of(classifier_settings):
    """A function that makes a step of ReCAM from weights."""

    def make(weights, classes: int = 3, **changes) -> ClassifierStep:
        settings = classifier_settings(as_irnet=True, label_smoothing=0.0, **changes.pop("classifier", {}))
        model = build_classifier("test_resnet", classes, output_stride=16, weights=weights)
        training = Training(model, settings, steps=10, epoch_length=5, seed=0, device=CPU)
        return ClassifierStep(training, build_terms({"reactivation": ReactivationSettings(**changes)}, training))

    return make


BATCH = {"image": drawn(4, 3, 64, 64, seed=3), "labels": torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]])}


def test_a_step_has_both_losses(stage_a, step_of):
    step = step_of(stage_a, weight=0.5)
    model, second = step.training.model, step.terms["reactivation"].second
    features = model.train()(BATCH["image"]).features[-1]
    wanted = reactivation_loss(features, BATCH["labels"], model.head.weight.flatten(1), second.weight.flatten(1))
    values = step(BATCH, 0)
    for name in ("class", "reactivation"):
        assert values[name].item() == pytest.approx(wanted[name].item(), rel=1e-4)


def test_only_the_second_head_is_new(stage_a, step_of):
    step = step_of(stage_a, classifier={"head_rate": 10, "learning_rate": 0.1})
    model, second = step.training.model, step.terms["reactivation"].second
    rates = {id(p): group["lr"] for group in rate_groups(step.learner.optimizer) for p in group["params"]}
    assert rates[id(second.weight)] == pytest.approx(10 * rates[id(model.head.weight)])
    assert len(set(rates.values())) == 2


def rate_groups(optimizer: PolySGD):
    return [{"lr": group["initial_lr"], "params": group["params"]} for group in optimizer.sgd.param_groups]


@pytest.mark.parametrize("detach", [False, True])
def test_the_masks_carry_gradient_unless_they_are_detached(stage_a, step_of, detach):
    step = step_of(stage_a, detach_masks=detach, classifier={"frozen": "backbone"})
    model, term = step.training.model, step.terms["reactivation"]
    view = View(BATCH, BATCH["image"], BATCH["labels"], BATCH["labels"], model(BATCH["image"]), 0)
    ((value, _),) = term.losses(view).values()
    head, second = torch.autograd.grad(value, (model.head.weight, term.second.weight), allow_unused=True)
    assert (head is None) == detach
    assert second.abs().max() > 0


@pytest.mark.parametrize("classes", [None, 4], ids=["no classifier", "another number of classes"])
def test_recam_needs_a_classifier_of_its_classes(stage_a, step_of, classes):
    with pytest.raises(ValueError, match=r"goes on from a classifier that was trained for these"):
        step_of(stage_a if classes else None, classes=classes or 3)


# --- maps of the heads ---


@pytest.fixture
def two_heads(stage_a, step_of, tmp_path):
    """A checkpoint of ReCAM."""
    step = step_of(stage_a)
    step(BATCH, 0)
    path = tmp_path / "recam.pt"
    save_model(path, step.result, "classifier", RECIPE)
    return path


@pytest.mark.parametrize("which", ["second", "sum", "product"])
def test_maps_of_a_combination_are_those_of_its_weights(two_heads, which):
    state = read_model(two_heads, "classifier")[1]
    model = load_classifier(two_heads, head=which).eval()
    wanted = combined_head(state["head.weight"], state["heads.reactivation.weight"], which)
    features = model(BATCH["image"]).features[-1]
    torch.testing.assert_close(model.maps(BATCH["image"]), F.conv2d(features, wanted))


def test_a_second_head_of_ones_leaves_the_product_as_the_first(two_heads):
    recipe, state = read_model(two_heads, "classifier")
    model = load_classifier(two_heads)
    model.add_head("reactivation", torch.nn.Conv2d(model.head.in_channels, 3, 1, bias=False))
    torch.nn.init.ones_(model.heads["reactivation"].weight)
    save_model(two_heads, model, "classifier", recipe)
    product, plain = load_classifier(two_heads, head="product"), load_classifier(two_heads)
    assert torch.equal(product.head.weight, plain.head.weight)
    assert torch.equal(plain.head.weight, state["head.weight"])


def test_a_classifier_with_one_head_has_no_second_one(stage_a):
    with pytest.raises(ValueError, match=r"cam\.pt has one head"):
        load_classifier(stage_a, head="product")
