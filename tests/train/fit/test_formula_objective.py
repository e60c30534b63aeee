"""What the fit minimises, and what it does with rows and patterns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.formula import (
    BOUND,
    MOST_DISCOUNT,
    OWN_SCALE_ROWS,
    PATTERNS_UP_TO,
    RIDGE,
    RIDGE_ROWS,
    Objective,
    fit,
    fit_discounts,
    list_patterns,
)

NAMES = ("a", "b", "c")
PRIOR = (0.6, 0.25, 0.1, 0.05)


def evidence(rows: int = 40, count: int = 3, missing: float = 0.3, seed: int = 0) -> Evidence:
    """Logits of modalities of different accuracy, some of them missing."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, rows)
    sharpness = np.array([1.0, 3.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0])[:count, None, None]
    logits = sharpness * (generator.normal(size=(count, rows, 4)) + 1.2 * np.eye(4)[labels])
    present = generator.random((count, rows)) >= missing
    present[generator.integers(0, count, rows), np.arange(rows)] = True
    return Evidence.of(logits, present, labels, 3 * generator.random((count, rows)))


def subsets(count: int) -> list[list[int]]:
    return [[m for m in range(count) if number >> m & 1] for number in range(1, 2**count)]


def test_every_row_counts_the_same_and_is_spread_over_the_patterns_that_it_has() -> None:
    objective = Objective(evidence(), Fusion.paper(NAMES))
    weights = objective.weights()
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    assert ((weights > 0) == objective.usable).all()
    shares = [weights[usable > 0] for weights, usable in zip(weights.T, objective.usable.T, strict=True)]
    assert all(np.ptp(share) == 0 for share in shares)
    fusion = Fusion({"a": 1.5, "b": 0.7, "c": 1.0}, 1.3, {"a": 0.8, "a+b": 1.6})
    expected = (objective.losses(fusion) * weights).sum(axis=0)
    np.testing.assert_allclose(objective.row_losses(fusion), expected)


def penalised(given: Evidence, fusion: Fusion, ridge: float) -> float:
    """Return what the fit minimises, written from its definition."""
    objective = Objective(given, fusion)
    weights, rows = objective.weights(), len(given.targets)
    share = weights.sum(axis=1) / objective.usable.sum(axis=1)
    by_size = np.log([fusion.scales[str(size)] for size in objective.sizes])
    own = np.log(fusion.scale(objective.patterns.T)) - by_size
    logs = np.log([*fusion.temperatures.values(), fusion.sharpness])
    pull = ridge * RIDGE_ROWS
    penalty = pull * (np.square(logs).sum() + (share * np.square(by_size)).sum())
    penalty += (pull + OWN_SCALE_ROWS) * (share * np.square(own)).sum()
    return float(objective.row_losses(fusion).mean() + penalty / rows)


@pytest.mark.parametrize("ridge", [0.001, 0.1])
def test_fitting_ends_where_nothing_nearby_is_better(ridge: float) -> None:
    given = evidence(rows=120)
    fusion = fit(given, NAMES, ridge)
    best = penalised(given, fusion, ridge)
    generator = np.random.default_rng(0)
    for _ in range(20):
        moved = {
            "temperatures": {
                name: value * np.exp(0.2 * generator.normal()) for name, value in fusion.temperatures.items()
            },
            "scales": {key: value * np.exp(0.2 * generator.normal()) for key, value in fusion.scales.items()},
            "sharpness": fusion.sharpness * np.exp(0.2 * generator.normal()),
        }
        for one in moved:
            assert penalised(given, dataclasses.replace(fusion, **{one: moved[one]}), ridge) > best - 1e-5
    assert not fusion.prior_once
    assert not fusion.prior


def test_fitting_again_from_the_result_ends_there_and_a_ridge_pulls_to_the_papers_point() -> None:
    given = evidence(rows=120)
    fusion = fit(given, NAMES)
    again = fit(given, NAMES, start=fusion)
    assert again.temperatures == pytest.approx(fusion.temperatures, rel=3e-2)
    assert again.sharpness == pytest.approx(fusion.sharpness, rel=3e-2)
    held = fit(given, NAMES, ridge=1e4)
    assert [*held.temperatures.values(), held.sharpness, *held.scales.values()] == pytest.approx([1.0] * 14, abs=1e-3)
    still = fit(given, NAMES, start=dataclasses.replace(fusion, sharpness=0.0))  # its logarithm is out of bounds
    assert np.isfinite(still.sharpness)


def test_fitting_takes_up_the_search_where_start_is(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Array] = []

    class Begun(Exception):
        pass

    def minimise(loss: object, first: Array, bounds: object) -> None:
        begun.append(first)
        raise Begun

    monkeypatch.setattr("mla_serve.train.fit.formula.minimise", minimise)
    starts = [None, Fusion({"a": 2.0, "b": 0.5, "c": 1.0}, 3.0), Fusion(dict.fromkeys("abc", 1.0), 0.0)]
    for start in starts:
        with pytest.raises(Begun):
            fit(evidence(), NAMES, start=start)
    np.testing.assert_allclose(np.exp(begun)[:, :4], [[1, 1, 1, 1], [2, 0.5, 1, 3], [1, 1, 1, np.exp(-BOUND)]])


def test_what_was_fitted_says_whether_the_prior_counts_once() -> None:
    fusion = fit(evidence(rows=60), NAMES, prior=PRIOR)
    assert fusion.prior_once
    assert fusion.prior == PRIOR


def test_parameters_stay_within_bounds_where_opinions_are_useless_or_all_right() -> None:
    labels = np.arange(40) % 4
    wrong = fit(Evidence.of(9.0 * np.eye(4)[(labels + 1) % 4][None], np.ones((1, 40), dtype=bool), labels), ("a",), 0.0)
    right = fit(Evidence.of(0.01 * np.eye(4)[labels][None], np.ones((1, 40), dtype=bool), labels), ("a",), 0.0)
    flat, sharp = (fusion.scales["a"] / fusion.temperatures["a"] for fusion in (wrong, right))
    assert flat < 0.02
    assert sharp > 50
    for fusion in (wrong, right):
        values = np.log([fusion.temperatures["a"], fusion.scales["1"], fusion.sharpness])
        assert np.abs(values).max() <= BOUND + 1e-9


def test_discounts_end_where_nothing_nearby_is_better_and_leave_all_else_alone() -> None:
    given = evidence(rows=150)
    spoiled = (
        given.opinions + np.random.default_rng(1).normal(size=given.opinions.shape) * (2.0 * given.excess)[..., None]
    )
    given, fusion = dataclasses.replace(given, opinions=spoiled), Fusion({"a": 1.5, "b": 0.7, "c": 1.0}, 1.3)
    found = fit_discounts(given, NAMES, fusion)
    assert dataclasses.replace(found, discounts={}) == fusion
    assert list(found.discounts) == list(NAMES)

    def loss(at: Array) -> float:
        one = dataclasses.replace(fusion, discounts=dict(zip(NAMES, at, strict=True)))
        penalty = RIDGE * RIDGE_ROWS * np.square(at).sum() / 150
        return float(Objective(given, fusion).row_losses(one).mean() + penalty)

    at = np.array(list(found.discounts.values()))
    best = loss(at)
    assert (at > 0.05).all()
    assert (at <= MOST_DISCOUNT).all()
    for step in 0.2 * np.concatenate([np.eye(3), -np.eye(3)]):
        assert loss(np.clip(at + step, 0, MOST_DISCOUNT)) >= best - 1e-6


def test_discounts_do_not_leave_their_bounds() -> None:
    generator = np.random.default_rng(0)
    labels, excess = np.arange(60) % 4, np.full((1, 60), 0.2)
    wrong = Evidence.of(9.0 * np.eye(4)[(labels + 1) % 4][None], np.ones((1, 60), dtype=bool), labels, excess)
    assert fit_discounts(wrong, ("a",), Fusion({"a": 1.0}), ridge=0.0).discounts["a"] == pytest.approx(MOST_DISCOUNT)
    weak = Evidence.of(0.5 * np.eye(4)[labels][None], np.ones((1, 60), dtype=bool), labels, generator.random((1, 60)))
    assert fit_discounts(weak, ("a",), Fusion({"a": 1.0}), ridge=0.0).discounts["a"] == 0


def test_rows_are_chosen_and_appended_in_all_fields() -> None:
    given, fields = evidence(rows=12), ("opinions", "present", "excess")
    some = given.rows(np.array([7, 2]))
    both = given.and_also(some)
    for field in fields:
        value = getattr(given, field)
        np.testing.assert_array_equal(getattr(some, field), value[:, [7, 2]])
        np.testing.assert_array_equal(getattr(both, field), np.concatenate([value, value[:, [7, 2]]], axis=1))
    np.testing.assert_array_equal(some.targets, given.targets[[7, 2]])
    np.testing.assert_array_equal(both.targets, np.r_[given.targets, given.targets[[7, 2]]])


def test_evidence_has_zeros_where_a_modality_is_missing() -> None:
    present = np.array([[True, False], [True, True]])
    logits, excess = np.full((2, 2, 3), np.nan, dtype=np.float32), np.full((2, 2), np.nan)
    logits[present], excess[present] = 2.0, 0.5
    given = Evidence.of(logits, present, np.array([0, 1]), excess)
    assert given.opinions.dtype == np.float32
    np.testing.assert_array_equal(given.opinions, np.where(present[..., None], 2.0, 0.0) * np.ones(3))
    np.testing.assert_array_equal(given.excess, np.where(present, 0.5, 0.0))
    np.testing.assert_array_equal(Evidence.of(logits, present, np.array([0, 1])).excess, np.zeros((2, 2)))


@pytest.mark.parametrize("count", [1, 2, 6])
def test_few_modalities_have_all_their_patterns_listed(count: int) -> None:
    listed = list_patterns(count)
    assert {tuple(one) for one in listed.tolist()} == {
        tuple(m in chosen for m in range(count)) for chosen in subsets(count)
    }
    assert len(listed) == 2**count - 1


@pytest.mark.parametrize("count", [7, 12, 40, 70])
def test_of_many_modalities_each_alone_all_together_and_a_sample_are_listed(count: int) -> None:
    listed = list_patterns(count)
    assert listed.dtype == bool
    assert len(listed) == count + 1 + max(PATTERNS_UP_TO - count - 1, count)
    np.testing.assert_array_equal(listed[:count], np.eye(count, dtype=bool))
    assert listed[-1].all()
    sizes = listed[count:-1].sum(axis=1)
    assert set(sizes.tolist()) == set(range(2, count))
    often = np.bincount(sizes)[2:]
    assert often.max() - often.min() <= 1
    np.testing.assert_array_equal(listed, list_patterns(count))  # the same for everybody


def test_a_pattern_counts_from_two_rows_on() -> None:
    given = evidence(rows=20, count=2, missing=0.0)
    present = given.present.copy()
    present[1, 2:] = False
    two = fit(dataclasses.replace(given, present=present), ("a", "b"))
    present = present.copy()
    present[1, 1:] = False
    one = fit(dataclasses.replace(given, present=present), ("a", "b"))
    assert set(two.scales) == {"a", "b", "a+b", "1", "2"}
    assert set(one.scales) == {"a", "1", "2"}
    assert one.temperatures["b"] == pytest.approx(1.0)


def test_where_no_pattern_has_two_rows_the_papers_point_stays() -> None:
    fusion = fit(evidence(rows=1), NAMES)
    assert [*fusion.temperatures.values(), fusion.sharpness] == pytest.approx([1.0] * 4)
    assert fusion.scales == {}


@pytest.mark.parametrize(("count", "shared"), [(6, False), (7, True)])
def test_of_many_modalities_each_alone_has_its_own_scale_and_the_rest_share_theirs(count: int, shared: bool) -> None:
    names = tuple("abcdefg"[:count])
    scales = fit(evidence(rows=60, count=count, missing=0.0), names).scales
    sizes = {str(size) for size in range(1, count + 1)}
    assert set(scales) == sizes | (
        set(names) if shared else {"+".join(names[m] for m in chosen) for chosen in subsets(count)}
    )


def test_very_many_classes_and_the_highest_sharpness_stay_finite() -> None:
    generator = np.random.default_rng(0)
    logits, labels = 0.1 * generator.normal(size=(2, 3, 2000)), generator.integers(0, 2000, 3)
    given = Evidence.of(logits, np.ones((2, 3), dtype=bool), labels)
    start = Fusion({"a": 1.0, "b": 1.0}, float(np.exp(BOUND)))
    assert np.isfinite(Objective(given, start).losses(start)).all()
    assert np.isfinite(list(fit(given, ("a", "b"), start=start).scales.values())).all()


@pytest.mark.parametrize("factor", [1e-3, 1.0, 300.0])
def test_scales_are_found_from_far_away(factor: float) -> None:
    """A pattern whose logits are far too large or too small gets a scale that undoes it."""
    given = evidence(rows=200, count=1, missing=0.0)
    far = fit(dataclasses.replace(given, opinions=given.opinions * factor), ("a",), 0.0)
    near = fit(given, ("a",), 0.0)
    strength = [fusion.scales["a"] / fusion.temperatures["a"] for fusion in (far, near)]
    assert strength[0] * factor == pytest.approx(strength[1], rel=0.05)


def complete(rows: int, count: int, seed: int = 0) -> Evidence:
    """Return independent views whose logits are log-likelihood ratios: the best scale of a pattern is its size."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, rows)
    logits = 1.2 * (generator.normal(size=(count, rows, 4)) + 1.2 * np.eye(4)[labels])
    return Evidence.of(logits, np.ones((count, rows), dtype=bool), labels)


def test_a_pattern_that_no_row_has_gets_the_scale_of_its_size() -> None:
    given = complete(600, 3)
    present = given.present.copy()
    present[2, :300] = present[1, 300:] = False  # a+b and a+c, never b+c nor all three
    fusion = fit(dataclasses.replace(given, present=present), NAMES)
    names = np.array([[False, True, True], [True, True, True]])
    pairs = [fusion.scales["a+b"], fusion.scales["a+c"]]
    assert "b+c" not in fusion.scales
    assert "a+b+c" not in fusion.scales
    assert min(pairs) > 1.3
    unseen = fusion.scale(names.T)
    assert (unseen >= 0.95 * min(pairs)).all()
    assert (unseen <= 1.05 * max(pairs)).all()


def test_few_rows_of_a_modality_do_not_make_the_others_worse() -> None:
    """A text in 3 of 500 rows made image and audio worse in 18 of 20 seeds, when patterns counted alike."""
    losses = []
    for seed in range(8):
        given, unseen = complete(500, 3, seed), complete(3000, 3, 100 + seed)
        opinions = given.opinions.copy()
        opinions[2] = np.random.default_rng(seed).normal(size=opinions[2].shape) * 8  # wrong and sure
        present = given.present.copy()
        present[2, 3:] = False
        with_text = fit(Evidence.of(opinions, present, given.targets), NAMES)
        without = fit(Evidence.of(given.opinions[:2], given.present[:2], given.targets), NAMES[:2])
        two = dataclasses.replace(unseen, opinions=unseen.opinions[:2], present=unseen.present[:2])
        mask = np.repeat([[True], [True], [False]], 3000, axis=1)
        nll = [
            unseen.task.nll(fuse(unseen.opinions, mask, with_text).answers, unseen.targets).mean(),
            unseen.task.nll(fuse(two.opinions, two.present, without).answers, unseen.targets).mean(),
        ]
        losses.append(nll[0] - nll[1])
    assert np.mean(losses) < 1e-3
    assert max(losses) < 4e-3


def test_a_weak_view_of_many_answers_no_worse_than_chance() -> None:
    """With more than six modalities all of one size shared a scale: a weak view alone had an NLL above that of guessing."""
    given, unseen = complete(400, 8), complete(2000, 8, 1)
    weak = np.random.default_rng(2)
    for one in (given, unseen):
        one.opinions[7] = 6 * weak.normal(size=one.opinions[7].shape)
    names = tuple("abcdefgh")
    fusion = fit(given, names)
    alone = np.repeat(np.arange(8)[:, None] == 7, 2000, axis=1)
    nll = unseen.task.nll(fuse(unseen.opinions, alone, fusion).answers, unseen.targets).mean()
    assert nll < np.log(4) + 0.05


def test_many_rows_and_large_opinions_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mla_serve.train.fit.formula.MOST_NUMBERS", 60_000)
    monkeypatch.setattr("mla_serve.train.fit.formula.BLOCK_NUMBERS", 5_000)
    given, names = complete(2000, 8), tuple("abcdefgh")
    objective = Objective(given, Fusion.paper(names))
    assert len(np.unique(objective.rows)) == len(objective.rows) < 2000
    assert objective.numbers < 80_000
    weights = objective.weights()
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    assert (weights.sum(axis=1) > 0).all()  # every pattern is there
    fitted = objective.fit(RIDGE)
    loss = Objective(complete(500, 8, 3), Fusion.paper(names))
    assert loss.row_losses(fitted).mean() < loss.row_losses(Fusion.paper(names)).mean() - 0.1
