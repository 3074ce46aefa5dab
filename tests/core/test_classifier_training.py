"""The training of classifiers: its loss, its step and what it leaves behind."""

import copy
import math
from functools import partialmethod

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from wsss_core.base.checkpoints import read_model
from wsss_core.classifiers.losses import label_loss, smooth
from wsss_core.classifiers.network import Classifier, load_classifier, logits
from wsss_core.classifiers.peaks import find_peaks
from wsss_core.classifiers.step import ClassifierStep, Learner, Training
from wsss_core.classifiers.terms import build_terms
from wsss_core.classifiers.training import label_batches, train_classifier
from wsss_core.data import make_classes
from wsss_core.fitting.optim import parameter_groups
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.revisions import REVISION

CPU = torch.device("cpu")


@pytest.fixture
def train(tiny, tmp_path, classifier_settings):
    """A function that trains a plain classifier on the tiny data set and gives its checkpoint's path."""

    def run(name="classifier", *, classes=tiny.classes, weights=None, ordinary=None, terms=None, **changes):
        output = tmp_path / f"{name}.pt"
        torch.manual_seed(1)
        train_classifier(
            manifest=tiny.manifest,
            classes=classes,
            weights=weights,
            ordinary=ordinary,
            settings=classifier_settings(**changes),
            terms=terms or {},
            output=output,
            epochs=tmp_path / f"{name}.epochs",
            seed=1,
            device=CPU,
        )
        return output

    return run


def plain_step(model, settings, steps):
    training = Training(model=model, settings=settings, steps=steps, epoch_length=steps, seed=0, device=CPU)
    return ClassifierStep(training, build_terms({}, training))


# --- the loss ------------------------------------------------------------------------------------------------------


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


# --- the step of a plain classifier (tests/core/test_methods.py has all methods) -----------------------------------


def test_gradients_are_summed_over_an_accumulation_not_averaged(classifier_settings):
    """Without BatchNorm in training mode, two half batches at half the rate make the step of the whole one."""
    torch.manual_seed(0)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, 0]])
    models = [Classifier(build_backbone("test_resnet"), 2, batch_norm="fixed") for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    whole = plain_step(models[0], classifier_settings(learning_rate=0.02), 4)
    halves = plain_step(models[1], classifier_settings(learning_rate=0.01, accumulation=2), 8)
    whole({"image": images, "labels": labels}, 0)
    for step, part in enumerate((slice(0, 2), slice(2, 4))):
        assert halves.learner.optimizer.decay.last_epoch == 0
        halves({"image": images[part], "labels": labels[part]}, step)
    # weight decay is inside: the sum of two gradients at half the rate decays half as much
    torch.testing.assert_close(models[1].head.weight, models[0].head.weight, rtol=1e-4, atol=1e-5)


def test_the_step_reports_the_loss_of_the_smoothed_labels(classifier_settings):
    torch.manual_seed(0)
    model = Classifier(build_backbone("test_resnet"), 2, batch_norm="fixed")
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([[1.0, 0], [0, 1]])
    expected = label_loss(logits(model.maps(images)), 0.9 * labels + 0.05)
    losses = plain_step(model, classifier_settings(), 2)({"image": images, "labels": labels}, 0)
    assert losses.keys() == {"class"}
    torch.testing.assert_close(losses["class"], expected.detach())
    assert not losses["class"].requires_grad


def test_labels_of_mixed_images_are_learnt_as_they_are(classifier_settings):
    """A share of 0.7 is a target of 0.7, not of 1."""
    torch.manual_seed(0)
    model = Classifier(build_backbone("test_resnet"), 2, batch_norm="fixed")
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([[0.7, 0.3], [0.0, 1.0]])
    z = logits(model.maps(images)).detach()
    expected = -(labels * torch.sigmoid(z).log() + (1 - labels) * torch.sigmoid(-z).log()).mean()
    losses = plain_step(model, classifier_settings(label_smoothing=0.0), 2)({"image": images, "labels": labels}, 0)
    torch.testing.assert_close(losses["class"], expected)


def test_scores_may_be_those_of_the_peaks_of_larger_maps(classifier_settings):
    torch.manual_seed(0)
    model = Classifier(build_backbone("test_resnet"), 2, batch_norm="fixed", head_bias=True)
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([[1.0, 0], [0, 1]])
    maps = F.interpolate(model.maps(images), scale_factor=8, mode="bilinear", align_corners=True).detach()
    scores = torch.zeros(2, 2)
    for image, label, *_ in find_peaks(maps).tolist():
        own = find_peaks(maps[image : image + 1, label : label + 1])[:, 2:]
        scores[image, label] = maps[image, label][own[:, 0], own[:, 1]].mean()
    settings = classifier_settings(pooling="peaks", label_smoothing=0.0)
    losses = plain_step(model, settings, 2)({"image": images, "labels": labels}, 0)
    torch.testing.assert_close(losses["class"], F.binary_cross_entropy_with_logits(scores, labels))
    assert (scores - logits(maps)).abs().min() > 1e-3  # the maps' means are others


@pytest.mark.parametrize("mixing", [None, {"kind": "mixup", "probability": 1.0}], ids=["none", "mixup"])
def test_batches_are_mixed_where_the_settings_say_so(tiny, classifier_settings, mixing):
    settings = classifier_settings(mixing=mixing)
    labels = torch.cat([b["labels"] for b in label_batches(tiny.manifest, 3, settings, 0, 0).epoch(0)])
    assert ((labels > 0) & (labels < 1)).any() == (mixing is not None)


# --- the head's rate -----------------------------------------------------------------------------------------------


def test_a_head_at_the_rate_of_the_rest_goes_a_tenth_of_the_way(classifier_settings):
    torch.manual_seed(0)
    batch = {"image": torch.randn(2, 3, 32, 32), "labels": torch.tensor([[1.0, 0], [0, 1]])}
    start = Classifier(build_backbone("test_resnet"), 2, batch_norm="fixed")
    moved = {}
    for rate in (1, 10):
        model = copy.deepcopy(start)
        plain_step(model, classifier_settings(head_rate=rate, learning_rate=0.1, weight_decay=0.01), 4)(batch, 0)
        moved[rate] = {name: value.detach() - start.get_parameter(name) for name, value in model.named_parameters()}
    torch.testing.assert_close(10 * moved[1]["head.weight"], moved[10]["head.weight"], rtol=1e-4, atol=1e-6)
    assert moved[1]["head.weight"].any()
    assert all(torch.equal(value, moved[10][name]) for name, value in moved[1].items() if name != "head.weight")


def test_the_network_of_occse_has_its_head_among_the_pretrained_layers(classifier_settings):
    """Sizes of the published groups; conv1a and b2 are frozen, and so are all BatchNorms."""
    with torch.device("meta"):
        model = Classifier(build_backbone("resnet38d"), 20, batch_norm="fixed", frozen="stem")
    assert [len(group["params"]) for group in parameter_groups(model, (), 0.01, 5e-4)] == [36, 0, 0, 0]
    for rate, sizes in ((1, [36]), (10, [35, 1]), (100, [35, 1])):  # the optimiser has no empty groups
        settings = classifier_settings(head_rate=rate, learning_rate=0.01)
        training = Training(model=model, settings=settings, steps=8, epoch_length=8, seed=0, device=CPU)
        groups = Learner(model, training).optimizer.sgd.param_groups
        assert [len(group["params"]) for group in groups] == sizes
        assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.01 * rate][: len(sizes)])


def test_the_power_of_the_decay_is_that_of_the_settings(classifier_settings):
    with torch.device("meta"):
        model = Classifier(build_backbone("test_resnet"), 3)
    for power, factors in ((None, [1.0, 0.75**0.9, 0.5**0.9]), (1.0, [1.0, 0.75, 0.5]), (0.0, [1.0, 1.0, 1.0])):
        settings = classifier_settings(learning_rate=0.01, decay_power=power)
        training = Training(model=model, settings=settings, steps=4, epoch_length=4, seed=0, device=CPU)
        optimizer, found = Learner(model, training).optimizer, []
        for _ in factors:
            found.append(optimizer.lr)
            optimizer.sgd.step()
        assert found == pytest.approx([0.01 * factor for factor in factors])


# --- the whole training --------------------------------------------------------------------------------------------


def test_a_training_leaves_checkpoints_a_history_and_its_state_until_the_workflow_has_succeeded(train, tmp_path):
    output = train()
    assert load_classifier(output, batch_norm="fixed").head.weight.shape == (3, 96, 1, 1)
    history = pd.read_csv(tmp_path / "classifier.history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert list(history.columns) == ["epoch", "class", "lr", "seconds", "gpu_memory_mb"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "classifier.epochs",
        "classifier.epochs.resume",
        "classifier.history.csv",
        "classifier.pt",
        "classifier.resume.pt",
        "classifier.tensorboard",
    ]


def test_prms_classifier_is_trained_and_read_again(train, tmp_path):
    how = {"pooling": "peaks", "squash": True, "head_bias": True, "head_rate": 100, "learning_rate": 1e-3}
    model = load_classifier(train(**how, momentum=0.9, as_irnet=True))
    assert model.head.bias is not None
    assert pd.read_csv(tmp_path / "classifier.history.csv")["class"].is_monotonic_decreasing


def test_checkpoints_say_what_their_classes_and_their_input_are(train, tiny, tmp_path):
    output = train(epochs=1)
    for path in (output, tmp_path / "classifier.epochs/first.pt"):
        recipe = torch.load(path, weights_only=True)["recipe"]
        assert recipe["classes"] == 3
        assert recipe["names"] == ["circle", "square", "star"]
        assert recipe["colours"] == tiny.classes.colours.tolist()
        assert len(recipe["colours"]) == 4
        assert recipe["normalisation"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_a_group_of_the_whole_batch_trains_as_without_groups(train):
    plain, whole, halves = (
        read_model(train(f"{group}", epochs=1, batch_norm_group=group), "classifier")[1] for group in (None, 4, 2)
    )
    assert all(torch.equal(value, whole[name]) for name, value in plain.items())
    assert plain.keys() == halves.keys()
    assert not torch.equal(plain["head.weight"], halves["head.weight"])


def test_groups_must_fill_the_batch(train):
    with pytest.raises(
        ValueError, match="batch of 4 images is not a whole number of groups of 3: set batch_norm_group"
    ):
        train(batch_norm_group=3)


@pytest.mark.parametrize(("epochs", "middle"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_the_first_epoch_the_middle_one_and_the_last_are_kept(train, tmp_path, epochs, middle):
    output = train(epochs=epochs)
    folder = tmp_path / "classifier.epochs"
    assert sorted(p.name for p in folder.iterdir()) == ["first.pt", "middle.pt"]
    found = [read_model(path, "classifier")[0]["epoch"] for path in (folder / "first.pt", folder / "middle.pt", output)]
    assert found == [1, middle, epochs]


def test_a_checkpoint_of_an_epoch_is_the_network_as_it_was_after_it(train, tmp_path, monkeypatch):
    """Where nothing is learnt after the first epoch, the last network is that of the first checkpoint."""
    step = ClassifierStep.__call__

    def first_epoch_only(self, batch, number):
        return step(self, batch, number) if number < self.training.epoch_length else {"class": torch.tensor(0.0)}

    monkeypatch.setattr(ClassifierStep, "__call__", first_epoch_only)
    last = read_model(train(epochs=3), "classifier")[1]
    monkeypatch.undo()
    longer = read_model(train("longer", epochs=3), "classifier")[1]
    states = {name: read_model(tmp_path / f"longer.epochs/{name}.pt", "classifier")[1] for name in ("first", "middle")}
    assert all(torch.equal(value, last[key]) for key, value in states["first"].items())
    assert not torch.equal(states["middle"]["head.weight"], last["head.weight"])
    assert not torch.equal(states["middle"]["head.weight"], longer["head.weight"])


def test_the_kept_network_is_the_average_where_one_is_asked_for(train):
    plain = read_model(train("plain", epochs=1), "classifier")[1]
    same = {"decay": 0.0, "every": 1, "warmup_epochs": 0}
    copied = read_model(train("copied", epochs=1, average=same), "classifier")[1]
    averaged = read_model(train("averaged", epochs=1, average=same | {"decay": 0.9}), "classifier")[1]
    assert torch.equal(copied["head.weight"], plain["head.weight"])
    assert not torch.equal(averaged["head.weight"], plain["head.weight"])


def test_a_trained_classifier_serves_as_weights_with_its_head_if_that_fits(train):
    first = train("a", epochs=1)
    second = train("b", epochs=1, learning_rate=0.0, weights=first)
    third = train("c", epochs=1, learning_rate=0.0, weights=first, classes=make_classes(["a", "b", "c", "d"]))
    a, b, c = (dict(load_classifier(path).named_parameters()) for path in (first, second, third))
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
        assert torch.equal(value, c[name]) or name == "head.weight", name
    assert c["head.weight"].shape == (4, 96, 1, 1)


@pytest.mark.parametrize("method", ["cam", pytest.param("pnoc", marks=pytest.mark.e2e)])  # ten seconds for P-NOC
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # by the capture itself
def test_a_compiled_training_is_the_plain_one_up_to_rounding(train, terms_of, monkeypatch, method):
    """All passes, captured as graphs; the code that a compiler makes of them is left to the compiler."""
    capture = partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", capture)
    terms = terms_of(method, **({"discriminator": {"leak": False}} if method == "pnoc" else {}))
    ordinary = train("oc", epochs=1)
    plain, compiled = (
        read_model(train(f"{on}", epochs=1, ordinary=ordinary, terms=terms, compile=on), "classifier")[1]
        for on in (False, True)
    )
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_erasing_needs_an_ordinary_classifier(train, terms_of):
    with pytest.raises(ValueError, match="give the ordinary classifier's checkpoint"):
        train(terms=terms_of("occse"))


def test_masks_deeper_than_the_ordinary_classifier_are_refused(train, terms_of):
    with pytest.raises(ValueError, match="masking depth 6: this backbone has 5 groups"):
        train("occse", ordinary=train("oc", epochs=1), terms=terms_of("occse", erasing={"masking_depth": 6}))


@pytest.mark.parametrize("change", ["classes", "revision"])
def test_a_kept_state_of_other_classes_or_of_an_older_revision_is_not_gone_on_from(train, tiny, monkeypatch, change):
    before = read_model(train(), "classifier")[1]["head.weight"]
    calls = []
    step = ClassifierStep.__call__
    monkeypatch.setattr(ClassifierStep, "__call__", lambda *given: (calls.append(1), step(*given))[1])
    assert torch.equal(read_model(train(), "classifier")[1]["head.weight"], before)
    assert not calls  # the same training was over
    if change == "revision":
        monkeypatch.setitem(REVISION, "train_classifier", REVISION["train_classifier"] + 1)
        train()
    else:
        train(classes=make_classes(["circle", "square", "sun"]))
    assert len(calls) == 4
