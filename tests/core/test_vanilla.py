"""The plain classifier: its loss, its step and what a training leaves behind."""

import math

import pandas as pd
import pytest
import torch

from wsss_core.models.backbones import build_backbone
from wsss_core.models.classifier import Classifier, load_classifier, logits
from wsss_core.training.vanilla import VanillaStep, label_loss, smooth, train_vanilla

CPU = torch.device("cpu")


def test_smoothing_pulls_labels_towards_one_half():
    labels = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(smooth(labels, 0.1), torch.tensor([[0.05, 0.95]]))
    assert torch.equal(smooth(labels, 0.0), labels)


def test_label_loss_is_the_mean_over_images_and_classes():
    scores = torch.tensor([[2.0, -1.0], [0.0, 0.5]])
    targets = torch.tensor([[0.95, 0.05], [0.05, 0.95]])
    expected = 0.0
    for z, y in zip(scores.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        expected -= y * math.log(p) + (1 - y) * math.log(1 - p)
    assert label_loss(scores, targets).item() == pytest.approx(expected / 4)
    soft_margin = torch.nn.MultiLabelSoftMarginLoss()(scores, targets)
    torch.testing.assert_close(label_loss(scores, targets), soft_margin)


def test_gradients_are_summed_over_an_accumulation_not_averaged(classifier_settings):
    """Without BatchNorm in training mode, two half batches at half the rate make the step of the whole one."""
    torch.manual_seed(0)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, 0]])
    models = [Classifier(build_backbone("test_resnet"), 2, mode="fix") for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    whole = VanillaStep(models[0], classifier_settings(learning_rate=0.02), 4, CPU)
    halves = VanillaStep(models[1], classifier_settings(learning_rate=0.01, accumulation=2), 8, CPU)
    whole({"image": images, "labels": labels}, 0)
    for step, part in enumerate((slice(0, 2), slice(2, 4))):
        assert halves.optimizer.decay.last_epoch == 0
        halves({"image": images[part], "labels": labels[part]}, step)
    # weight decay is inside: the sum of two gradients at half the rate decays half as much
    torch.testing.assert_close(models[1].head.weight, models[0].head.weight, rtol=1e-4, atol=1e-5)


def test_the_step_reports_the_loss_of_the_smoothed_labels(classifier_settings):
    torch.manual_seed(0)
    model = Classifier(build_backbone("test_resnet"), 2, mode="fix")
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([[1.0, 0], [0, 1]])
    expected = label_loss(logits(model(images)), 0.9 * labels + 0.05)
    losses = VanillaStep(model, classifier_settings(), 2, CPU)({"image": images, "labels": labels}, 0)
    assert losses.keys() == {"loss"}
    torch.testing.assert_close(losses["loss"], expected.detach())
    assert not losses["loss"].requires_grad


def test_a_training_leaves_a_checkpoint_and_a_history_and_nothing_to_resume_from(tiny, tmp_path, classifier_settings):
    output = tmp_path / "classifier.pt"
    train_vanilla(
        manifest=tiny.manifest,
        classes=3,
        weights=None,
        settings=classifier_settings(),
        output=output,
        seed=1,
        device=CPU,
    )
    model = load_classifier(output, mode="fix")
    assert model.head.weight.shape == (3, 96, 1, 1)
    history = pd.read_csv(tmp_path / "classifier.history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert list(history.columns) == ["epoch", "loss", "lr", "seconds", "gpu_memory_mb"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "classifier.history.csv",
        "classifier.pt",
        "classifier.tensorboard",
    ]


def test_a_trained_classifier_serves_as_weights_with_its_head_if_that_fits(tiny, tmp_path, classifier_settings):
    common = {"manifest": tiny.manifest, "seed": 1, "device": CPU}
    first, second, third = (tmp_path / name for name in ("a.pt", "b.pt", "c.pt"))
    train_vanilla(weights=None, classes=3, settings=classifier_settings(epochs=1), output=first, **common)
    still = classifier_settings(epochs=1, learning_rate=0.0)
    train_vanilla(weights=first, classes=3, settings=still, output=second, **common)
    train_vanilla(weights=first, classes=4, settings=still, output=third, **common)
    a, b, c = (dict(load_classifier(path).named_parameters()) for path in (first, second, third))
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
        assert torch.equal(value, c[name]) or name == "head.weight", name
    assert c["head.weight"].shape == (4, 96, 1, 1)
