"""Prediction sets and intervals: the rank of a threshold, whose rows it rests on, and what a set holds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_serve.fusion.formula import Array, pattern_keys
from mla_serve.fusion.intervals import COVERAGES, Intervals, Thresholds
from mla_serve.tasks import Classes, Labels, Number
from mla_serve.tasks.base import log_softmax

A, ONE = ("a",), np.array([[True]])


def sets(scores: dict[str, Array], rule: str = "paper") -> Intervals:
    """Return intervals of classes from the scores of each pattern."""
    return Intervals(Classes(), {rule: {key: Thresholds.of(np.array(values)) for key, values in scores.items()}})


@pytest.mark.parametrize("count", [1, 3, 9, 10, 99, 100, 500, 999, 5_000])
def test_a_threshold_is_the_score_of_rank_ceil_n_plus_1_coverage(count: int) -> None:
    scores = np.random.default_rng(count).normal(size=count)
    found = Thresholds.of(scores)
    for coverage in COVERAGES:
        rank = math.ceil(round((count + 1) * coverage, 9))
        expected = math.inf if rank > count else np.sort(scores)[rank - 1]
        assert found.at(coverage) == pytest.approx(expected, rel=1e-6)
        assert found.at(coverage) >= expected
    assert found.rows == count


def test_a_coverage_between_stored_ones_takes_the_next_higher_one() -> None:
    found = Thresholds.of(np.arange(9_999.0))
    assert found.at(0.9211) == found.at(0.925)
    assert found.at(1e-323) == found.at(0.01)
    assert found.at(0.9991) == math.inf


@given(seed=st.integers(0, 2**32 - 1), coverage=st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_labels_get_the_largest_cut_that_controls_the_risk(seed: int, coverage: float) -> None:
    """The largest lambda with (n R(lambda) + 1) / (n + 1) <= 1 - coverage, found by trying all."""
    generator, task = np.random.default_rng(seed), Labels(tuple("abcd"))
    answers = generator.normal(size=(30, 4))
    targets = (generator.random((30, 4)) < 0.4).astype(np.float32)
    targets[0] = 1
    scores, weights = task.nonconformity(answers, targets)
    threshold = Thresholds.of(scores[weights > 0], weights[weights > 0]).at(coverage)
    some = targets.any(axis=1)
    count = int(some.sum())

    def risk(cut: float) -> float:
        missed = (targets[some] > 0) & (answers[some] < cut)
        return float((missed.sum(axis=1) / targets[some].sum(axis=1)).sum())

    controlled = [cut for cut in answers[targets > 0] if (risk(cut) + 1) / (count + 1) <= 1 - coverage + 1e-9]
    assert threshold == pytest.approx(-max(controlled) if controlled else math.inf, rel=1e-6)


def test_a_pattern_uses_its_own_rows_as_soon_as_they_allow_the_coverage() -> None:
    found = sets({"a": np.full(9, 0.2), "b": np.full(500, 0.7), "a+b": np.full(500, 0.9)})
    assert found.threshold("paper", A, 0.9) == (pytest.approx(0.2), 9, False)
    assert found.threshold("paper", A, 0.91) == (pytest.approx(0.7), 500, True)


def test_else_it_takes_the_most_cautious_of_its_size_and_else_of_all() -> None:
    found = sets({"a": np.full(9, 0.1), "b": np.full(99, 0.7), "c": np.full(300, 0.4), "a+b": np.full(999, 0.9)})
    assert found.threshold("paper", A, 0.95) == (pytest.approx(0.7), 99, True)
    assert found.threshold("paper", A, 0.995) == (pytest.approx(0.4), 300, True)
    assert found.threshold("paper", A, 0.999) == (pytest.approx(0.9), 999, True)
    assert found.threshold("paper", ("d",), 0.5) == (pytest.approx(0.7), 99, True)
    assert found.threshold("paper", ("a", "b", "c"), 0.5) == (pytest.approx(0.9), 999, True)


def test_the_own_rows_of_a_rare_pattern_can_only_make_it_more_cautious() -> None:
    found = sets({"a": np.full(3, 0.8), "b": np.full(99, 0.5)})
    assert found.threshold("paper", A, 0.9) == (pytest.approx(0.8), 99, True)


def test_where_no_rows_are_enough_a_set_holds_everything_and_does_not_blame_a_pool() -> None:
    answers = log_softmax(np.array([[9.0, 0, 0]]))
    for found, rule in ((sets({"a": np.full(8, 0.1)}), "paper"), (sets({"a": np.full(99, 0.1)}), "product")):
        bounds = found.choose(answers, ONE, A, rule, 0.9)
        assert bounds.inside is not None
        assert bounds.inside.all()
        assert bounds.rows.tolist() == [8 if rule == "paper" else 0]
        assert not bounds.pooled.any()
    number = Intervals(Number(), {}).choose(np.array([[0.0, 1.0]]), ONE, A, "paper", 0.5)
    assert (number.low, number.high) == (-np.inf, np.inf)


def test_each_row_is_judged_by_its_own_pattern() -> None:
    found = sets({"a": np.full(99, -0.99), "a+b": np.full(99, 0.0)})
    answers = np.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    bounds = found.choose(answers, np.array([[True, True], [False, True]]), ("a", "b"), "paper", 0.9)
    assert found.task.size(bounds).tolist() == [1, 3]


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12), threshold=st.floats(-1.1, 0.2))
def test_a_set_is_never_empty_holds_the_answer_and_is_the_same_again(seed: int, classes: int, threshold: float) -> None:
    answers = log_softmax(3 * np.random.default_rng(seed).normal(size=(6, classes)))
    found = sets({"a": np.full(99, threshold)})
    present = np.ones((1, 6), dtype=bool)
    bounds = found.choose(answers, present, A, "paper", 0.9)
    assert bounds.inside is not None
    assert bounds.inside[np.arange(6), answers.argmax(axis=1)].all()
    for row in range(6):
        alone = found.choose(answers[[row]] + 1e-13, present[:, [row]], A, "paper", 0.9)
        assert alone.inside is not None
        np.testing.assert_array_equal(alone.inside[0], bounds.inside[row])


def test_a_flatter_answer_has_a_larger_set() -> None:
    found = sets({"a": np.full(99, -0.12)})
    logits = np.zeros((30, 10))
    logits[:, 0] = np.linspace(8, 0.01, 30)
    size = found.task.size(found.choose(log_softmax(logits), np.ones((1, 30), dtype=bool), A, "paper", 0.9))
    assert size[0] == 1
    assert size[-1] >= 8
    assert np.corrcoef(np.arange(30), size)[0, 1] > 0.9


def test_scores_are_told_apart_however_sure_the_model_is() -> None:
    """Probabilities of 1 - 1e-12 and less: rounded, the scores of most rows would be the same, and sets hold everything."""
    generator, task = np.random.default_rng(0), Classes()
    targets = generator.integers(0, 100, 2_000)
    answers = log_softmax(40 * (np.eye(100)[targets] + 0.3 * generator.normal(size=(2_000, 100))))
    scores, _ = task.nonconformity(answers[:1_000], targets[:1_000])
    found = sets({"a": scores[:, 0]})
    bounds = found.choose(answers[1_000:], np.ones((1, 1_000), dtype=bool), A, "paper", 0.98)
    assert 0.965 < task.covered(bounds, targets[1_000:]).mean() < 0.995
    better = (answers[1_000:] > answers[np.arange(1_000, 2_000), targets[1_000:], None]).sum(axis=1)
    assert np.quantile(better, 0.9) > 0
    assert task.size(bounds).mean() <= 1.2 * (1 + np.quantile(better, 0.98))


def test_the_penalty_keeps_sets_of_many_classes_small(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, task = np.random.default_rng(0), Classes()
    targets = generator.integers(0, 100, 4_000)
    places = generator.normal(size=(100, 16))
    noise = np.exp(generator.normal(0.2, 0.6, (4_000, 1)))
    seen = places[targets] + noise * generator.normal(size=(4_000, 16))
    answers = log_softmax(-np.square(seen[:, None] - places).sum(axis=2) / 2.9)

    def size(coverage: float) -> float:
        scores, _ = task.nonconformity(answers[:2_000], targets[:2_000])
        bounds = sets({"a": scores[:, 0]}).choose(
            answers[2_000:], np.ones((1, 2_000), dtype=bool), A, "paper", coverage
        )
        assert task.covered(bounds, targets[2_000:]).mean() == pytest.approx(coverage, abs=0.025)
        return float(task.size(bounds).mean())

    small = [size(0.9), size(0.98)]
    monkeypatch.setattr("mla_serve.tasks.classes.PENALTY", 0.0)
    assert small[0] < 0.65 * size(0.9)
    assert small[1] < 0.75 * size(0.98)


@pytest.mark.parametrize("task", [Classes(("x", "y")), Labels(("x", "y")), Number()])
def test_thresholds_are_restored_from_a_file_and_never_rounded_down(task: Classes | Labels | Number) -> None:
    scores = np.random.default_rng(0).normal(size=200)
    before = Intervals(task, {"paper": {"a": Thresholds.of(scores), "a+b": Thresholds.of(scores[:5])}}, {"b": 2})
    after = Intervals.from_bytes(task, before.to_bytes())
    assert (after.task, after.stages, after.probability) == (task, {"b": 2}, False)
    assert after.rules == ("paper",)
    for key, own in before.thresholds["paper"].items():
        np.testing.assert_array_equal(after.thresholds["paper"][key].values, own.values)
        assert after.thresholds["paper"][key].rows == own.rows
    exact = np.sort(scores)[np.ceil(np.round(201 * COVERAGES[:99], 9)).astype(int) - 1]
    assert (after.thresholds["paper"]["a"].values[:99] >= exact).all()


def test_without_any_thresholds_a_file_is_readable_too() -> None:
    assert Intervals.from_bytes(Number(), Intervals(Number()).to_bytes()).rules == ()


def test_a_damaged_file_is_refused() -> None:
    falling = Thresholds(9, np.linspace(1, 0, len(COVERAGES)).astype(np.float32))
    with pytest.raises(ValueError, match="do not ascend"):
        Intervals.from_bytes(Classes(), Intervals(Classes(), {"paper": {"a": falling}}).to_bytes())


def test_the_file_is_small_with_eight_modalities_and_eleven_rules() -> None:
    generator = np.random.default_rng(0)
    patterns = {
        f"{'+'.join('abcdefgh'[:size])}{at}": Thresholds.of(generator.normal(size=5_000))
        for size in range(1, 9)
        for at in range(9)
    }
    table = {f"rule{number}": patterns for number in range(11)}
    assert len(Intervals(Classes(), table).to_bytes()) < 500_000


def sets_of_format_1(
    scores: Mapping[str, Mapping[str, list[float]]],
    answers: Array,
    pattern: tuple[str, ...],
    rule: str,
    coverage: float,
) -> Array:
    """Choose the sets as the versions did that wrote format 1: the reference."""
    known = scores.get(rule, {})
    found = next((known[key] for key in pattern_keys(pattern) if key in known), [])
    rank = max(1, math.ceil((len(found) + 1) * coverage - 1e-9))
    inside: Array = -np.expm1(answers) <= (math.inf if rank > len(found) else found[rank - 1])
    inside[np.arange(len(inside)), answers.argmax(axis=1)] = True
    return inside


SORTED_SCORES = st.lists(st.floats(0, 1), max_size=60).map(sorted)


@given(
    scores=st.dictionaries(st.sampled_from(["a", "b", "a+b", "b:1", "b:2", "1", "2"]), SORTED_SCORES),
    pattern=st.sampled_from([("a",), ("b",), ("a", "b")]),
    rule=st.sampled_from(["paper", "product"]),
    coverage=st.one_of(st.floats(0.001, 0.9999), st.sampled_from([0.921, 0.9, 0.9995])),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_of_format_1_give_the_sets_they_gave(
    scores: dict[str, list[float]], pattern: tuple[str, ...], rule: str, coverage: float, seed: int
) -> None:
    conformal = {"paper": scores}
    found = Intervals.of_format_1(Classes(), conformal)
    stored = found.extended(Intervals.of_format_1(Classes(), {"paper": {"a+late": [0.1] * 99}}), ["late"])
    answers = log_softmax(3 * np.random.default_rng(seed).normal(size=(20, 5)))
    if exact := scores.get("+".join(pattern)):
        answers[0, 0] = np.log1p(-exact[-1] * 0.999)  # a label at the edge of a set
    expected = sets_of_format_1(conformal, answers, pattern, rule, coverage)
    for each in (found, Intervals.from_bytes(Classes(), stored.to_bytes(), conformal)):
        present = np.array([[name in pattern] * 20 for name in ("a", "b", "late")])
        bounds = each.choose(answers, present, ("a", "b", "late"), rule, coverage)
        np.testing.assert_array_equal(bounds.inside, expected)


def test_sets_of_format_1_say_whose_rows_they_rest_on() -> None:
    found = Intervals.of_format_1(Classes(), {"paper": {"a": [0.5] * 9, "2": [0.3] * 99, "b": [0.1] * 5_000}})
    assert found.threshold("paper", A, 0.9) == (0.5, 9, False)
    assert found.threshold("paper", A, 0.91) == (math.inf, 9, False)
    assert found.threshold("paper", ("a", "b"), 0.9) == (0.3, 99, True)
    assert found.threshold("paper", ("b",), 0.9995) == (0.1, 5_000, False)
    assert found.threshold("paper", ("a", "b", "c"), 0.9) == (math.inf, 0, False)


def test_the_highest_coverage_that_rows_allow_is_listed() -> None:
    found = sets({"a": np.zeros(9), "b": np.zeros(999), "c": np.zeros(0)})
    assert found.highest_coverages() == {"paper": {"a": 0.9, "b": 0.999, "c": 0.0}}
