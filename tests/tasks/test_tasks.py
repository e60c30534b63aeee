"""What every task keeps: shapes, normal forms, and losses that agree with the distributions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_serve.tasks import TASKS, Classes, Labels, Number, Task, task_from_dict
from mla_serve.tasks.base import Array

EXAMPLES: dict[str, Task] = {
    "classes": Classes(("a", "b", "c")),
    "labels": Labels(("x", "y", "z", "w"), (0.5, 0.3, 0.6, 0.5)),
    "number": Number("price", "EUR", log=True, mean=3.0, deviation=2.0),
}
LABELS: dict[str, Callable[[np.random.Generator], object]] = {
    "classes": lambda generator: str(generator.choice(["a", "b", "c"])),
    "labels": lambda generator: frozenset(label for label in "xyzw" if generator.random() < 0.5),
    "number": lambda generator: float(np.exp(generator.normal(3, 2))),
}
PRIORS = {"classes": [0.2, 0.3, 0.5], "labels": [0.1, 0.5, 0.3, 0.9], "number": [0.1, 1.2]}
seeds = st.integers(0, 2**32 - 1)


def test_every_task_has_an_example() -> None:
    assert TASKS.keys() == EXAMPLES.keys() == LABELS.keys() == PRIORS.keys()


@pytest.fixture(params=EXAMPLES)
def name(request: pytest.FixtureRequest) -> str:
    """The name of a task."""
    return str(request.param)


def opinions(task: Task, generator: np.random.Generator, shape: tuple[int, ...] = (2, 5)) -> Array:
    """Draw the outputs of heads."""
    return generator.normal(0, 2, (*shape, task.outputs))


def test_a_task_is_restored_from_json(name: str) -> None:
    task = EXAMPLES[name]
    assert task_from_dict(task.to_dict()) == task
    assert task.to_dict()["name"] == name


@given(seed=seeds)
@pytest.mark.parametrize("name", EXAMPLES)
def test_answers_and_their_parameters_say_the_same(name: str, seed: int) -> None:
    task = EXAMPLES[name]
    eta = task.natural(opinions(task, np.random.default_rng(seed)))
    assert eta.shape[:3] == (2, 5, task.variables)
    answers = task.answers(eta)
    np.testing.assert_allclose(task.answers(task.parameters_of(answers)), answers, atol=1e-9)
    np.testing.assert_allclose(task.answer_entropy(answers), task.entropy(eta).sum(axis=-1), atol=1e-6)


@given(seed=seeds, temperature=st.floats(1.1, 20))
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_higher_temperature_means_more_entropy(name: str, seed: int, temperature: float) -> None:
    task = EXAMPLES[name]
    eta = task.natural(opinions(task, np.random.default_rng(seed)))
    assert (task.entropy(eta / temperature) >= task.entropy(eta) - 1e-9).all()


def test_indicators_describe_what_the_features_of_a_row_depend_on(name: str) -> None:
    """Rows with the same label have the same indicators, and every row has some."""
    task, generator = EXAMPLES[name], np.random.default_rng(0)
    targets = task.encode([LABELS[name](generator) for _ in range(50)])
    indicators = task.indicators(targets)
    assert set(np.unique(indicators)) <= {0.0, 1.0}
    assert (indicators.sum(axis=1) > 0).all()
    same = np.array([[np.array_equal(a, b) for a in targets] for b in targets])
    alike = np.array([[np.array_equal(a, b) for a in indicators] for b in indicators])
    assert alike[same].all()
    assert not alike.all()


def test_labels_that_are_not_known_have_no_indicator() -> None:
    task = EXAMPLES["labels"]
    indicators = task.indicators(task.encode([{"x": True, "y": False}]))
    assert indicators.tolist() == [[1, 0, 0, 0, 1]]


def test_what_a_prior_says_is_what_is_answered_without_any_modality(name: str) -> None:
    task, prior = EXAMPLES[name], PRIORS[name]
    given = task.plain(task.answers(task.prior_parameters(prior)))
    np.testing.assert_allclose(given, [0.1, np.sqrt(1.2)] if name == "number" else prior)


def test_an_opinion_that_is_the_prior_has_no_evidence(name: str) -> None:
    task, prior = EXAMPLES[name], EXAMPLES[name].prior_parameters(PRIORS[name])
    np.testing.assert_allclose(task.without_prior(prior, prior), 0, atol=1e-12)


@given(seed=seeds)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_mixture_of_one_is_that_one(name: str, seed: int) -> None:
    task = EXAMPLES[name]
    answers = task.answers(task.natural(opinions(task, np.random.default_rng(seed), (1, 5))))
    mixed = task.mix(answers, np.ones((1, 5)))
    np.testing.assert_allclose(task.plain(mixed), task.plain(answers[0]), atol=1e-6)


@given(seed=seeds)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_right_answer_costs_least(name: str, seed: int) -> None:
    """Of answers of the same certainty, the one at the truth has the lowest loss."""
    task, generator = EXAMPLES[name], np.random.default_rng(seed)
    targets = task.encode([LABELS[name](generator) for _ in range(4)])
    right = {
        "classes": lambda: np.log(np.where(np.eye(3)[targets] > 0, 0.8, 0.1)),
        "labels": lambda: np.where(targets > 0, 2.0, -2.0),
        "number": lambda: np.stack([targets, np.full(4, 0.5)], axis=1),
    }[name]()
    wrong = right[:, ::-1] if name == "classes" else -right if name == "labels" else right + np.array([1.0, 0.0])
    assert (task.nll(right, targets) <= task.nll(wrong, targets) + 1e-9).all()
    assert (task.support(right, wrong).shape) == (4,)


def test_scores_have_the_main_ones(name: str) -> None:
    task, generator = EXAMPLES[name], np.random.default_rng(0)
    targets = task.encode([LABELS[name](generator) for _ in range(30)])
    scores = task.score(task.answers(task.natural(opinions(task, generator, (30,)))), targets)
    assert {*task.main_scores, "nll"} <= scores.keys()
    assert all(np.isfinite(value) for value in scores.values())


@given(seed=seeds, threshold=st.floats(-2, 3))
@pytest.mark.parametrize("name", EXAMPLES)
def test_inside_is_what_scores_at_most_the_threshold(name: str, seed: int, threshold: float) -> None:
    task, generator = EXAMPLES[name], np.random.default_rng(seed)
    targets = task.encode([LABELS[name](generator) for _ in range(20)])
    answers = task.answers(task.natural(opinions(task, generator, (20,))))
    bounds = task.bounds(answers, np.full(20, threshold), np.full(20, 7), np.zeros(20, dtype=bool))
    scores, weights = task.nonconformity(answers, targets)
    inside = ((scores <= threshold) * weights).sum(axis=1)
    if name == "classes":  # whose sets hold the answer in any case
        inside = np.maximum(inside, answers.argmax(axis=1) == targets)
    some = weights.sum(axis=1) > 0
    np.testing.assert_allclose(weights.sum(axis=1)[some], 1)
    np.testing.assert_allclose(task.covered(bounds, targets)[some], inside[some])
    assert np.isnan(task.covered(bounds, targets)[~some]).all()
    assert (some | (name == "labels")).all()


@given(seed=seeds)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_higher_threshold_takes_nothing_away(name: str, seed: int) -> None:
    task, generator = EXAMPLES[name], np.random.default_rng(seed)
    answers = task.answers(task.natural(opinions(task, generator, (1,)))).repeat(40, axis=0)
    rows, pooled = np.full(40, 7), np.zeros(40, dtype=bool)
    between = {"classes": (-1.5, 1), "labels": (-20, 20), "number": (0, 9)}[name]
    size = task.size(task.bounds(answers, np.linspace(*between, 40), rows, pooled))
    assert (np.diff(size) >= 0).all()
    assert size[-1] > size[0]


def test_labels_that_are_not_known_do_not_count() -> None:
    task = Labels(("x", "y"))
    targets = task.encode([{"x": True}, frozenset({"y"})])
    np.testing.assert_array_equal(targets, [[1, np.nan], [0, 1]])
    assert task.nll(np.array([[0.0, 9.0], [0.0, 0.0]]), targets)[0] == pytest.approx(np.log(2))
    assert task.prior_of(targets) == [0.5, pytest.approx(2 / 3)]


def test_rows_without_any_label_that_get_none_are_right() -> None:
    task, nothing = Labels(("x", "y")), np.full((3, 2), -4.0)
    assert task.score(nothing, np.zeros((3, 2)))["micro_f1"] == 1
    assert task.resampled(nothing, np.zeros((3, 2)), np.ones((1, 3)))["micro_f1"].tolist() == [1]
    assert task.score(-nothing, np.zeros((3, 2)))["micro_f1"] == 0


def test_precision_is_the_share_of_the_answered_labels_that_are_true() -> None:
    task, yes, no = Labels(("x", "y")), 2.0, -2.0
    answers = np.array([[yes, yes], [yes, no], [no, no]])
    assert task.score(answers, np.array([[1, 0], [1, 1], [0, 1]]))["precision"] == pytest.approx(2 / 3)
    assert task.score(answers, np.array([[1, np.nan], [1, 1], [0, 1]]))["precision"] == 1
    assert "precision" not in task.score(np.full((3, 2), no), np.ones((3, 2)))


def test_rows_of_which_nothing_is_known_do_not_lower_the_loss() -> None:
    task, answers = Labels(("x", "y")), np.zeros((4, 2))
    targets = np.array([[1, 0], [np.nan, np.nan], [np.nan, 1], [np.nan, np.nan]])
    assert task.score(answers, targets)["nll"] == pytest.approx(np.log(2))
    np.testing.assert_allclose(
        task.resampled(answers, targets, np.array([[1, 1, 1, 1], [0, 3, 1, 0]]))["nll"], np.log(2)
    )


def test_the_loss_of_a_number_is_that_of_a_normal_distribution() -> None:
    task = Number(mean=10.0, deviation=2.0)
    targets = task.encode([12.0, 8.0])
    np.testing.assert_allclose(targets, [1, -1])
    given = task.nll(np.array([[0.5, 0.25], [0.0, 4.0]]), targets)
    expected = [-math.log(NormalDist(0.5, 0.5).pdf(1)), -math.log(NormalDist(0, 2).pdf(-1))]
    np.testing.assert_allclose(given, expected)


def test_two_equal_independent_opinions_halve_the_variance() -> None:
    task = Number()
    eta = task.natural(np.array([0.3, np.log(0.5)]))
    np.testing.assert_allclose(task.answers(2 * eta), [0.3, 0.25])


def test_a_number_is_restored_in_its_unit() -> None:
    task = Number(log=True, mean=2.0, deviation=0.5)
    np.testing.assert_allclose(task.restore(task.encode([1.0, 20.0, 3e5]).astype(float)), [1.0, 20.0, 3e5], rtol=1e-5)


def test_an_opinion_less_precise_than_the_prior_moves_the_mean_and_adds_no_precision() -> None:
    task, prior = Number(), Number().prior_parameters([0.0, 1.0])
    one = task.without_prior(task.natural(np.array([2.0, np.log(2.0)])), prior)
    np.testing.assert_allclose(task.answers(one + prior), [1, 1])
    np.testing.assert_allclose(task.answers(3 * one + prior), [3, 1])
    precise = task.natural(np.array([2.0, np.log(0.5)]))
    np.testing.assert_allclose(task.without_prior(precise, prior) + prior, precise)


def test_numbers_far_from_0_keep_their_errors() -> None:
    labels = 1.42040575e9 + np.random.default_rng(0).normal(size=200)
    task = Number.from_labels(labels.tolist())
    targets = task.encode(labels.tolist())
    scores = task.score(np.stack([targets.astype(np.float64), np.full(200, 0.01)], axis=1), targets)
    assert scores["mae"] < 1e-5
    np.testing.assert_allclose(task.restore(targets) - 1.42040575e9, labels - 1.42040575e9, atol=1e-5)


@pytest.mark.parametrize(
    "make", [lambda: Classes(("a", "a")), lambda: Labels(("x", 3)), lambda: Labels(("x",), (0.1, 0.2))]
)  # type: ignore[arg-type]
def test_names_that_are_no_names_are_refused(make: Callable[[], Task]) -> None:
    with pytest.raises(ValueError, match=r"expected|thresholds"):
        make()


@given(seed=seeds)
@pytest.mark.parametrize("name", EXAMPLES)
def test_uncertainty_rises_with_the_entropy_to_1_where_nothing_is_said(name: str, seed: int) -> None:
    task, generator = EXAMPLES[name], np.random.default_rng(seed)
    said = task.answer_entropy(task.answers(task.natural(opinions(task, generator, (20,)))))
    shares = [task.uncertainty(nats) for nats in np.sort(said)]
    assert shares == sorted(shares)
    assert shares[0] >= 0
    if name != "number":  # of a number, an opinion may know less than the training targets say
        assert shares[-1] <= 1 + 1e-9


@pytest.mark.parametrize(("name", "outputs"), [("classes", [0, 0, 0]), ("labels", [0, 0, 0, 0]), ("number", [0, 0])])
def test_what_says_nothing_has_an_uncertainty_of_1(name: str, outputs: list[float]) -> None:
    task = EXAMPLES[name]
    nothing = task.answers(task.natural(np.array(outputs, dtype=np.float64)))
    assert task.uncertainty(float(task.answer_entropy(nothing))) == pytest.approx(1)


TWO: dict[str, tuple[list[object], list[object], str]] = {
    "classes": (["a", "b", "a"], ["a", "a"], "one class only, 'a'"),
    "labels": ([frozenset("xy"), frozenset(), frozenset("x")], [frozenset("x")] * 3, "the same labels, x"),
    "number": ([1.0, 2.5, 3.0], [2.0, 2.0], "the same number, 2"),
}
"""Labels from which something can be learned, those from which nothing can, and why."""


def test_a_task_is_made_of_labels_and_knows_them(name: str) -> None:
    labels, same, why = TWO[name]
    task = TASKS[name].from_labels(labels, column="price", unit="EUR")
    assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert not any(task.unknown(label) for label in labels)
    assert set(task.names) == {own for label in labels for own in task.names_in(label)}
    assert np.isfinite(task.encode(labels)).all()
    assert task.describe_labels(labels).startswith(name)
    assert task.find_unlearnable(labels) == ""
    assert task.find_unlearnable(same).startswith(why)
    assert task.find_unlearnable([])


def test_labels_contradict_each_other_where_they_differ(name: str) -> None:
    labels = TWO[name][0]
    task = TASKS[name].from_labels(labels)
    assert not any(task.contradict(label, label) for label in labels)
    assert task.contradict(labels[0], labels[1])
    assert task.contradict(labels[1], labels[0])


def test_each_row_is_of_some_stratum(name: str) -> None:
    generator = np.random.default_rng(0)
    labels = [LABELS[name](generator) for _ in range(40)]
    strata = TASKS[name].strata(labels)
    assert len(strata) == 40
    assert all(strata)
    if TASKS[name].exclusive:
        assert all(len(names) == 1 for names in strata)


def test_labels_that_are_not_known_contradict_nothing() -> None:
    task = Labels(("x", "y"))
    assert not task.contradict({"x": True}, frozenset("xy"))
    assert task.contradict({"x": False}, frozenset("xy"))
    assert (
        task.describe_labels([{"x": True}, frozenset("xy")])
        == "labels, 2 different, 1 to 2 per row, 1 rows with some that are not known"
    )


def test_strata_of_labels_begin_with_the_rarest() -> None:
    labels = [frozenset("x"), frozenset("xy"), frozenset("x"), frozenset()]
    assert Labels.strata(labels) == [("x",), ("y", "x"), ("x",), ("",)]


@pytest.mark.parametrize(
    ("values", "log"),
    [
        (np.random.default_rng(0).lognormal(5, 1.5, 300), True),
        (np.random.default_rng(0).lognormal(5, 1.5, 300) - 5, False),  # not all above 0
        (np.random.default_rng(0).normal(100, 10, 300), False),
        (np.random.default_rng(0).uniform(1, 100, 300), False),
        (1000 + np.random.default_rng(0).exponential(50, 300), False),  # skewed, but all of one magnitude
        (np.arange(1, 61), False),
    ],
)
def test_the_logarithm_is_taken_of_skewed_positive_numbers(values: Array, log: bool) -> None:
    task = Number.from_labels(list(map(float, values)))
    assert task.log is log
    assert (task.encode(list(values)).mean(), task.encode(list(values)).std()) == pytest.approx((0, 1), abs=1e-4)
    assert not Number.from_labels(list(map(float, values)), [-1.0]).log


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([22_000, 400_000, 5_858_000], 0),
        ([1, 2, 3, 4, 5], 2),
        ([0.001, 0.002], 6),
        ([-2.95, 44.1, 92.96], 1),
        ([5.0], 0),
        ([1e-9, 2e-9, 3e-9], 12),
    ],
)
def test_answers_have_as_many_decimals_as_their_deviation_asks(values: list[float], decimals: int) -> None:
    assert Number.from_labels(values).decimals == decimals


@pytest.mark.parametrize(
    ("value", "written"),
    [(3e-10, "3.00e-10"), (3.14159e-9, "3.142e-09"), (0.0, "0.000000000000"), (0.5, "0.500000000000")],
)
def test_errors_of_tiny_numbers_keep_their_digits(value: float, written: str) -> None:
    task = Number.from_labels([1e-9, 2e-9, 3e-9])
    assert task.shown("mae", value) == written
    assert Number(decimals=2).shown("mae", 1234.5) == "1,234.50"
    assert Number(decimals=2).shown("mae", 1.5e-7) == "1.50e-07"
    assert Number().shown("width", float("inf")) == "inf"


def test_equal_numbers_are_of_one_stratum() -> None:
    strata = Number.strata([1.0, 2.0, 3.0, 4.0, 5.0] * 20)
    assert strata == strata[:5] * 20
    assert len(set(strata)) == 5
    assert Number.strata([1.0, 2.0]) == [("0",), ("0",)]


def test_nothing_is_said_of_labels_that_no_row_has() -> None:
    task, none = Labels(("a", "b")), np.zeros((3, 2))
    scores = task.score(np.full((3, 2), -1.0), none)
    assert not {"precision", "fnr"} & scores.keys()
    assert scores["micro_f1"] == 1
    bounds = task.bounds(np.full((3, 2), -1.0), np.zeros(3), np.ones(3), np.zeros(3, dtype=bool))
    assert task.set_scores(bounds, none) == {"set_size": 0.0}
    assert task.score(np.full((3, 2), 1.0), none)["precision"] == 0
