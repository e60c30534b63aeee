"""What the fit minimises, against fusion itself: the objective written with `fuse`, and what it does with rows and patterns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.formula import (
    BOUND,
    MOST_DISCOUNT,
    PATTERNS_UP_TO,
    RIDGE,
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


def mean_loss(given: Evidence, fusion: Fusion, excess: bool) -> float:
    """Average the NLL of `fuse` over the patterns that at least two rows have."""
    names, losses = list(fusion.temperatures), []
    for chosen in subsets(len(names)):
        usable = given.present[chosen].all(axis=0)
        if usable.sum() >= 2:
            mask = np.zeros_like(given.present)
            mask[chosen] = True
            log_p = fuse(given.opinions, mask, fusion, excess=given.excess if excess else None).answers
            own = log_p[np.arange(len(given.targets)), given.targets]
            losses.append(-np.mean(own[usable]))
    return float(np.mean(losses))


def prior_of(once: bool) -> dict[str, object]:
    return {"prior": PRIOR, "prior_once": True} if once else {}


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("theta", [[0.0, 0, 0, 0], [0.4, -0.3, 0.8, 0.5], [-1.0, 1.0, 0.2, -0.7]])
def test_the_objective_is_the_loss_of_fusion_with_the_scales_it_chose(theta: list[float], once: bool) -> None:
    given, ridge = evidence(), 0.01
    objective = Objective(given, ridge, dataclasses.replace(Fusion.paper(NAMES), **prior_of(once)))  # type: ignore[arg-type]
    value, _ = objective.value_and_gradient(np.array(theta))
    scales = objective.scales(NAMES)
    fusion = Fusion(dict(zip(NAMES, np.exp(theta[:3]), strict=True)), np.exp(theta[3]), scales, **prior_of(once))  # type: ignore[arg-type]
    penalty = ridge * (np.square(theta).sum() + np.mean(np.square(np.log(list(scales.values())))))
    assert set(scales) == {"+".join(NAMES[m] for m in chosen) for chosen in subsets(3)}
    assert value == pytest.approx(mean_loss(given, fusion, excess=False) + penalty, rel=1e-9)


@pytest.mark.parametrize("once", [False, True])
def test_no_other_scale_of_a_pattern_is_better(once: bool) -> None:
    given, ridge, theta = evidence(), 0.02, np.array([0.2, 0.5, -0.3, 0.4])
    objective = Objective(given, ridge, dataclasses.replace(Fusion.paper(NAMES), **prior_of(once)))  # type: ignore[arg-type]
    objective.value_and_gradient(theta)
    scales = objective.scales(NAMES)
    temperatures = dict(zip(NAMES, np.exp(theta[:3]), strict=True))
    for key, scale in scales.items():

        def loss(u: float, key: str = key) -> float:
            fusion = Fusion(temperatures, np.exp(theta[3]), {**scales, key: np.exp(u)}, **prior_of(once))  # type: ignore[arg-type]
            squares = np.square(np.log(list(fusion.scales.values())))
            return mean_loss(given, fusion, excess=False) + ridge * float(squares.mean())

        best = minimize_scalar(loss, bounds=(-BOUND, BOUND), method="bounded", options={"xatol": 1e-6})
        assert np.log(scale) == pytest.approx(best.x, abs=1e-3)


def test_the_scale_of_one_modality_alone_is_held_by_the_ridge_as_much_as_by_its_rows() -> None:
    given, ridge = evidence(rows=15, count=1, missing=0.0), 0.5
    objective = Objective(given, ridge, Fusion.paper(("a",)))
    value, _ = objective.value_and_gradient(np.zeros(2))

    def loss(u: float) -> float:
        return mean_loss(given, Fusion({"a": 1.0}, scales={"a": np.exp(u)}), excess=False) + ridge * u**2

    best = minimize_scalar(loss, bounds=(-BOUND, BOUND), method="bounded", options={"xatol": 1e-6})
    assert abs(best.x) > 0.02
    assert objective.log_scales == pytest.approx([best.x], abs=1e-4)
    assert value == pytest.approx(loss(objective.log_scales[0]))


@pytest.mark.parametrize("once", [False, True])
def test_the_objective_of_discounts_is_the_loss_of_fusion_under_strain(once: bool) -> None:
    given, ridge, discounts = evidence(), 0.01, {"a": 0.4, "b": 0.0, "c": 1.1}
    fusion = Fusion(
        {"a": 1.5, "b": 0.7, "c": 1.0},
        1.3,
        {"a": 0.8, "b": 1.1, "a+b": 1.6, "a+c": 0.9, "a+b+c": 1.2},
        **prior_of(once),  # type: ignore[arg-type]
    )
    value, _ = Objective(given, ridge, fusion).discounts_value_and_gradient(np.array(list(discounts.values())))
    expected = mean_loss(given, dataclasses.replace(fusion, discounts=discounts), excess=True)
    assert value == pytest.approx(expected + ridge * (0.4**2 + 1.1**2), rel=1e-9)


def test_fitting_ends_where_nothing_nearby_is_better() -> None:
    given = evidence(rows=120)
    fusion, objective = fit(given, NAMES), Objective(given, RIDGE, Fusion.paper(NAMES))
    theta = np.log([*fusion.temperatures.values(), fusion.sharpness])
    best, gradient = objective.value_and_gradient(theta)
    assert np.abs(gradient).max() < 1e-3
    assert objective.scales(NAMES) == pytest.approx(fusion.scales)
    generator = np.random.default_rng(0)
    assert all(objective.value_and_gradient(theta + 0.3 * generator.normal(size=4))[0] > best for _ in range(10))
    assert not fusion.prior_once
    assert not fusion.prior


def test_fitting_again_from_the_result_ends_there_and_a_ridge_pulls_to_the_papers_point() -> None:
    given = evidence(rows=120)
    fusion = fit(given, NAMES)
    again = fit(given, NAMES, start=fusion)
    assert again.temperatures == pytest.approx(fusion.temperatures, rel=1e-2)
    assert again.sharpness == pytest.approx(fusion.sharpness, rel=1e-2)
    held = fit(given, NAMES, ridge=1e4)
    assert [*held.temperatures.values(), held.sharpness, *held.scales.values()] == pytest.approx([1.0] * 11, abs=1e-3)
    still = fit(given, NAMES, start=dataclasses.replace(fusion, sharpness=0.0))  # its logarithm is out of bounds
    assert np.isfinite(still.sharpness)


def test_fitting_takes_up_the_search_where_start_is(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Array] = []

    class Begun(Exception):
        pass

    def minimize(function: object, first: Array, **_: object) -> None:
        begun.append(first)
        raise Begun

    monkeypatch.setattr("mla_serve.train.fit.formula.minimize", minimize)
    starts = [None, Fusion({"a": 2.0, "b": 0.5, "c": 1.0}, 3.0), Fusion(dict.fromkeys("abc", 1.0), 0.0)]
    for start in starts:
        with pytest.raises(Begun):
            fit(evidence(), NAMES, start=start)
    np.testing.assert_allclose(np.exp(begun), [[1, 1, 1, 1], [2, 0.5, 1, 3], [1, 1, 1, np.exp(-BOUND)]])


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
        values = np.log([fusion.temperatures["a"], fusion.scales["a"], fusion.sharpness])
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
    objective, at = Objective(given, RIDGE, fusion), np.array(list(found.discounts.values()))
    best, _ = objective.discounts_value_and_gradient(at)
    assert (at > 0.05).all()
    assert (at <= MOST_DISCOUNT).all()
    for step in 0.2 * np.concatenate([np.eye(3), -np.eye(3)]):
        near = np.clip(at + step, 0, MOST_DISCOUNT)
        assert objective.discounts_value_and_gradient(near)[0] >= best - 1e-9


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
    assert given.opinions.dtype == np.float64
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
    two = Objective(dataclasses.replace(given, present=present), 0.01, Fusion.paper(("a", "b")))
    present = present.copy()
    present[1, 1:] = False
    one = Objective(dataclasses.replace(given, present=present), 0.01, Fusion.paper(("a", "b")))
    for objective, expected in ((two, {"a", "b", "a+b"}), (one, {"a"})):
        objective.value_and_gradient(np.zeros(3))
        assert set(objective.scales(("a", "b"))) == expected


def test_where_no_pattern_has_two_rows_the_papers_point_stays() -> None:
    fusion = fit(evidence(rows=1), NAMES)
    assert [*fusion.temperatures.values(), fusion.sharpness] == pytest.approx([1.0] * 4)
    assert fusion.scales == {}


@pytest.mark.parametrize(("count", "shared"), [(6, False), (7, True)])
def test_scales_are_shared_by_the_number_present_where_patterns_are_sampled(count: int, shared: bool) -> None:
    names = tuple("abcdefg"[:count])
    given = evidence(rows=60, count=count, missing=0.0)
    objective = Objective(given, 0.01, Fusion.paper(names))
    objective.value_and_gradient(np.zeros(count + 1))
    scales = objective.scales(names)
    if not shared:
        assert len(scales) == 2**count - 1
        return
    assert set(scales) == set("1234567")
    alone = objective.log_scales[objective.patterns.sum(axis=1) == 1]
    assert scales["1"] == pytest.approx(np.exp(alone.mean()))
    assert len(alone) == 7


def test_only_listed_patterns_count_where_a_list_is_given() -> None:
    listed = np.array([[True, False, False], [True, True, True]])
    objective = Objective(evidence(), 0.01, Fusion.paper(NAMES), listed)
    objective.value_and_gradient(np.zeros(4))
    assert set(objective.scales(NAMES)) == {"a", "a+b+c"}


def test_very_many_classes_and_the_highest_sharpness_stay_finite() -> None:
    generator = np.random.default_rng(0)
    logits, labels = 0.1 * generator.normal(size=(2, 3, 2000)), generator.integers(0, 2000, 3)
    objective = Objective(Evidence.of(logits, np.ones((2, 3), dtype=bool), labels), 0.01, Fusion.paper(("a", "b")))
    value, gradient = objective.value_and_gradient(np.array([0.0, 0.0, BOUND]))
    assert np.isfinite([value, *gradient]).all()


def test_without_a_fusion_there_is_no_prior() -> None:
    given, at = evidence(), np.array([0.1, 0.2, 0.3, 0.4])
    plain, paper = Objective(given, 0.01), Objective(given, 0.01, Fusion.paper(NAMES))
    assert plain.value_and_gradient(at)[0] == pytest.approx(paper.value_and_gradient(at)[0])


@pytest.mark.parametrize("factor", [1e-3, 1.0, 300.0])
def test_scales_are_found_from_far_away(factor: float) -> None:
    """A pattern whose logits are far too large or too small gets its scale in one go, the bound at most."""
    given = evidence(rows=200, count=1, missing=0.0)
    objective = Objective(dataclasses.replace(given, opinions=given.opinions * factor), 0.0)
    objective.value_and_gradient(np.zeros(2))
    reference = Objective(given, 0.0)
    reference.value_and_gradient(np.zeros(2))
    expected = np.clip(reference.log_scales - np.log(factor), -BOUND, BOUND)
    np.testing.assert_allclose(objective.log_scales, expected, atol=1e-4)
