"""Which class of an image is erased: only present ones, with the odds of each strategy, the same after a resume."""

import pytest
import torch

from wsss_core.classifiers.class_choice import STRATEGIES, ClassChoice

CPU = torch.device("cpu")


def choice(strategy: str, seed: int = 0, **state) -> ClassChoice:
    made = ClassChoice(strategy, 3, seed, CPU)
    made.load_state_dict(made.state_dict() | {name: torch.tensor(values) for name, values in state.items()})
    return made


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_present_classes_are_chosen(strategy):
    labels = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).repeat(20, 1)
    chosen = choice(strategy)(labels, 0)
    assert (chosen.dtype, chosen.shape) == (torch.int64, (60,))
    assert (labels.gather(1, chosen[:, None]) == 1).all()
    assert set(chosen.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_image_without_label_is_refused(strategy):
    with pytest.raises(ValueError, match="no label that could be erased"):
        choice(strategy)(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), 0)


def test_another_strategy_is_refused_with_the_names_of_all():
    with pytest.raises(ValueError, match="'rare': use random, balanced, least_chosen, focal"):
        choice("rare")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_class_of_a_mixed_image_is_present_however_small_its_share(strategy):
    labels = torch.tensor([[0.0, 0.02, 0.0], [0.7, 0.0, 0.0]])
    assert choice(strategy)(labels, 0).tolist() == [1, 0]


@pytest.mark.parametrize("share", [1.0, 0.1])
@pytest.mark.parametrize(
    ("strategy", "state", "odds"),
    [
        ("random", {}, [1, 1, 1]),
        ("random", {"counts": [9.0, 1.0, 1.0], "factors": [9.0, 1.0, 1.0]}, [1, 1, 1]),
        ("balanced", {"counts": [1.0, 2.0, 4.0]}, [4, 2, 1]),
        ("focal", {"factors": [0.5, 0.25, 1.25]}, [2, 1, 5]),
    ],
)
def test_odds_are_those_of_the_strategy(strategy, state, odds, share):
    """A share of less than 1 (of a mixed image) must not change them; ``balanced`` has the same counts at each draw."""
    labels, found = torch.tensor([[1.0, share, 1.0]]), [0, 0, 0]
    for step in range(600):
        found[choice(strategy, **state)(labels, step).item()] += 1
    # 600 draws: 4 standard deviations are at most 49
    assert found == [pytest.approx(600 * odd / sum(odds), abs=49) for odd in odds]


def test_balanced_counts_each_choice():
    made, labels = choice("balanced"), torch.ones(50, 3)
    chosen = made(labels, 0)
    assert made.counts.tolist() == [1 + (chosen == c).sum().item() for c in range(3)]
    again = made(labels, 1)
    total = torch.cat([chosen, again])
    assert made.counts.tolist() == [1 + (total == c).sum().item() for c in range(3)]


def test_the_least_chosen_class_is_taken_and_the_first_of_equal_ones():
    made = choice("least_chosen")
    both = torch.tensor([[1.0, 1.0, 0.0]])
    assert made(both.repeat(5, 1), 0).tolist() == [0, 1, 0, 1, 0]  # counts 4, 3, 1
    assert made(torch.ones(5, 3), 1).tolist() == [2, 2, 1, 2, 0]  # 5, 4, 4
    assert made(torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), 2).tolist() == [1, 0, 2]
    assert made.counts.tolist() == [6, 5, 5]


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_focal_factors_are_those_worked_out_by_hand(share):
    """Classes 0 and 1 in two and one of three images, class 2 in none; whatever a label's share, it is a target."""
    made = choice("focal", factors=[1.0, 0.5, 0.7])
    labels = torch.tensor([[share, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    labels[2, 1] = 0
    target = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    probability = torch.tensor([[0.9, 0.2, 0.5], [0.6, 0.7, 0.5], [0.1, 0.4, 0.5]])
    made.observe(torch.logit(probability), labels, target)
    first = 0.9 * 1.0 + 0.1 * (0.9**2 + (1 - 0.6) ** 2 + 0.1**2) / 2
    second = 0.9 * 0.5 + 0.1 * (0.2**2 + 0.7**2 + 0.4**2) / 1
    torch.testing.assert_close(made.factors, torch.tensor([first, second, 0.7]))


def test_focal_factors_start_at_one_and_remember():
    made = choice("focal")
    labels, target = torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1, 3)
    for _ in range(3):
        made.observe(torch.zeros(1, 3), labels, target)  # wrong by one half each time: 1/4
    torch.testing.assert_close(made.factors, torch.tensor([0.9**3 + (1 - 0.9**3) / 4, 1.0, 1.0]))


@pytest.mark.parametrize("strategy", ["random", "balanced", "least_chosen"])
def test_other_strategies_do_not_look_at_the_ordinary_classifier(strategy):
    made = choice(strategy)
    made.observe(torch.full((1, 3), 9.0), torch.ones(1, 3), torch.zeros(1, 3))
    assert made.factors.tolist() == [1, 1, 1]


@pytest.mark.parametrize("strategy", ["random", "balanced", "focal"])
def test_the_seed_and_the_step_decide(strategy):
    labels = torch.ones(40, 3)

    def first(seed, step):
        return choice(strategy, seed)(labels, step).tolist()

    torch.manual_seed(1)
    found = first(7, 3)
    torch.manual_seed(2)
    assert first(7, 3) == found
    assert first(8, 3) != found
    assert first(7, 4) != found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_training_chooses_the_same(strategy, tmp_path):
    """With weights that only load what is safe to load, as the state to resume from is."""
    generator = torch.Generator().manual_seed(0)
    made, labels = choice(strategy), torch.ones(4, 3)

    def steps(one: ClassChoice, numbers, logits):
        chosen = []
        for number, z in zip(numbers, logits, strict=True):
            chosen.append(one(labels, number).tolist())
            one.observe(z, labels, torch.zeros(4, 3))
        return chosen

    logits = 4 * torch.randn(20, 4, 3, generator=generator)
    steps(made, range(10), logits[:10])
    torch.save(made.state_dict(), tmp_path / "state.pt")
    rest = steps(made, range(10, 20), logits[10:])
    resumed = ClassChoice(strategy, 3, 0, CPU)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert steps(resumed, range(10, 20), logits[10:]) == rest
    assert torch.equal(resumed.counts, made.counts)
    assert torch.equal(resumed.factors, made.factors)
