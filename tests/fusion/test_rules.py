"""Properties of every fusion rule."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mla_serve.fusion.explain import explain
from mla_serve.fusion.formula import Array, Fusion, entropy_weights
from mla_serve.fusion.rules import RULES, TEMPERED, fuse, rules_for
from mla_serve.tasks import Classes, Labels, Number
from mla_serve.tasks.base import log_softmax

every_rule = pytest.mark.parametrize("rule", sorted(RULES))
NAMES = ("a", "b", "c", "d", "e")


@st.composite
def opinions(draw: st.DrawFn, largest: float = 50.0) -> tuple[Array, Array, Fusion]:
    """Logits (M, B, C), present (M, B) one True per column at least, and fitted parameters."""
    count, batch, classes = draw(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(2, 7)))
    values = st.floats(-largest, largest, allow_subnormal=False)
    logits = draw(hnp.arrays(np.float64, (count, batch, classes), elements=values))
    present = draw(hnp.arrays(np.bool_, (count, batch)))
    present[draw(st.integers(0, count - 1))] = True
    positive = st.floats(0.1, 10)
    fusion = Fusion(
        {name: draw(positive) for name in NAMES[:count]},
        draw(st.floats(0, 10)),
        {"1": draw(positive), "a+b": draw(positive), "3": draw(positive)},
        {name: draw(st.floats(0, 3)) for name in NAMES[:count]},
        {name: draw(positive) for name in NAMES[:count]},
        np.random.default_rng(classes).dirichlet(np.ones(classes)).tolist(),
        prior_once=draw(st.booleans()),
    )
    return logits, present, fusion


@every_rule
@settings(deadline=None, max_examples=80)
@given(case=opinions())
def test_weights_sum_to_one_over_the_present_modalities(rule: str, case: tuple[Array, Array, Fusion]) -> None:
    logits, present, fusion = case
    fused = fuse(logits, present, fusion, rule)
    if rule != "energy":
        np.testing.assert_allclose(fused.weights.sum(axis=0), 1, atol=1e-12)
    assert (fused.weights >= 0).all()
    assert (fused.weights[~present] == 0).all()
    np.testing.assert_allclose(np.exp(fused.answers).sum(axis=1), 1, atol=1e-9)


@every_rule
def test_a_rule_that_uses_the_temperatures_is_listed_as_such(rule: str) -> None:
    logits, present = np.array([[[2.0, 0.0, 1.0]], [[0.0, 1.0, 3.0]]]), np.ones((2, 1), bool)
    cold, hot = (dataclasses.replace(Fusion.paper(("a", "b")), temperatures={"a": t, "b": 1.0}) for t in (1.0, 4.0))
    changed = not np.array_equal(fuse(logits, present, cold, rule).answers, fuse(logits, present, hot, rule).answers)
    assert changed == (rule in TEMPERED)


@every_rule
@settings(deadline=None, max_examples=80)
@given(case=opinions())
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(rule: str, case: tuple[Array, Array, Fusion]) -> None:
    logits, present, fusion = case
    together = fuse(logits, present, fusion, rule).answers
    for b in range(logits.shape[1]):
        alone = fuse(logits[:, b : b + 1], present[:, b : b + 1], fusion, rule).answers
        np.testing.assert_allclose(together[b : b + 1], alone, rtol=1e-12, atol=1e-12)


@every_rule
@settings(deadline=None, max_examples=80)
@given(case=opinions())
def test_logits_of_absent_modalities_are_ignored(rule: str, case: tuple[Array, Array, Fusion]) -> None:
    logits, present, fusion = case
    spoiled = np.where(present[..., None], logits, np.nan)
    clean = fuse(logits, present, fusion, rule)
    np.testing.assert_array_equal(fuse(spoiled, present, fusion, rule).answers, clean.answers)


@every_rule
@settings(deadline=None, max_examples=80)
@given(case=opinions(), data=st.data())
def test_permuting_modalities_permutes_weights(
    rule: str, case: tuple[Array, Array, Fusion], data: st.DataObject
) -> None:
    logits, present, fusion = case
    order = data.draw(st.permutations(range(len(logits))))
    names = list(fusion.temperatures)
    # Scales belong to sets of modalities; by number they are the same under any order.
    fusion = dataclasses.replace(fusion, scales={"1": 0.7, "2": 1.3})
    moved = dataclasses.replace(fusion, temperatures={names[m]: fusion.temperatures[names[m]] for m in order})
    before, after = fuse(logits, present, fusion, rule), fuse(logits[order], present[order], moved, rule)
    np.testing.assert_allclose(after.weights, before.weights[order], atol=1e-12)
    np.testing.assert_allclose(after.answers, before.answers, atol=1e-9)


@every_rule
@settings(deadline=None, max_examples=80)
@given(case=opinions())
def test_a_single_modality_has_weight_one_and_keeps_its_ranking(rule: str, case: tuple[Array, Array, Fusion]) -> None:
    logits, _, fusion = case
    logits = np.round(logits, 3)
    present = np.zeros(logits.shape[:2], dtype=bool)
    present[0] = True
    fused = fuse(logits, present, fusion, rule)
    if rule != "energy":
        np.testing.assert_array_equal(fused.weights[0], 1)
    ordered = np.take_along_axis(fused.answers, logits[0].argsort(axis=1), axis=1)
    assert (np.diff(ordered, axis=1) >= -1e-9).all()


@every_rule
@settings(deadline=None, max_examples=80)
@given(case=opinions(largest=1e4))
def test_huge_logits_stay_finite(rule: str, case: tuple[Array, Array, Fusion]) -> None:
    fused = fuse(*case, rule)
    assert np.isfinite(fused.weights).all()
    assert np.isfinite(fused.answers).all()


@settings(deadline=None)
@given(case=opinions())
def test_calibrated_with_every_parameter_1_is_the_papers_rule(case: tuple[Array, Array, Fusion]) -> None:
    logits, present, fusion = case
    point = Fusion.paper(tuple(fusion.temperatures))
    np.testing.assert_allclose(
        fuse(logits, present, point, "calibrated").answers,
        fuse(logits, present, point, "paper").answers,
        atol=1e-12,
    )


def entropies(logits: Array) -> Array:
    """Return the entropy of each softmax: (..., C) -> (..., 1)."""
    return Classes().entropy(Classes().natural(logits))


def test_the_papers_rule_equals_its_formula_written_out() -> None:
    logits = np.array([[[2.0, 0.0]], [[0.0, 0.5]]])
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    h = -(p * np.log(p)).sum(axis=2)[:, 0]
    w = np.exp(h.max() - h) / np.exp(h.max() - h).sum()
    z = w @ logits[:, 0]
    fused = fuse(logits, np.ones((2, 1), dtype=bool), Fusion.paper(("a", "b")), "paper")
    np.testing.assert_allclose(fused.weights[:, 0], w)
    np.testing.assert_allclose(np.exp(fused.answers[0]), np.exp(z) / np.exp(z).sum())


def test_the_more_certain_opinion_has_the_larger_weight() -> None:
    logits = np.array([[[5.0, 0, 0]], [[0.1, 0, 0]]])
    weights = entropy_weights(entropies(logits), np.ones((2, 1), dtype=bool))[..., 0]
    assert weights[0, 0] > 0.7


def test_mean_prob_averages_probabilities() -> None:
    generator = np.random.default_rng(0)
    logits, present = generator.normal(size=(3, 4, 5)), np.ones((3, 4), dtype=bool)
    fused = fuse(logits, present, Fusion.paper(("a", "b", "c")), "mean_prob")
    np.testing.assert_allclose(np.exp(fused.answers), np.exp(log_softmax(logits)).mean(axis=0))


def test_entropy_is_zero_when_sure_and_log_c_when_not() -> None:
    assert entropies(np.array([1e4, 0, 0])) == 0
    assert entropies(np.zeros(7)) == pytest.approx(np.log(7))


@pytest.mark.parametrize(("pattern", "scale"), [([1, 1, 0], 9.0), ([0, 1, 0], 2.0), ([1, 0, 1], 1.0), ([1, 1, 1], 1.0)])
def test_scales_are_looked_up_by_pattern_then_by_number_then_one(pattern: list[int], scale: float) -> None:
    fusion = Fusion({"a": 1.0, "b": 1.0, "c": 1.0}, 1.0, {"a+b": 9.0, "1": 2.0})
    np.testing.assert_array_equal(fusion.scale(np.array([pattern, pattern], dtype=bool).T), [scale, scale])


@every_rule
def test_influence_is_the_change_when_a_modality_is_left_out(rule: str) -> None:
    generator = np.random.default_rng(0)
    logits, present = generator.normal(size=(3, 5, 4)) * 3, np.ones((3, 5), dtype=bool)
    present[2, 1] = present[1, 2] = present[2, 2] = False
    fusion = Fusion({"a": 0.7, "b": 1.4, "c": 1.0}, 2.0, {"a+b": 1.5})
    explained = explain(logits, present, fusion, rule)
    fused, owed = explained.fused, explained.influence
    np.testing.assert_allclose(fused.answers, fuse(logits, present, fusion, rule).answers, atol=1e-12)
    answer = fused.answers[0].argmax()
    rest = present[:, :1].copy()
    rest[1] = False
    without = fuse(logits[:, :1], rest, fusion, rule).answers[0, answer]
    assert owed[1, 0] == pytest.approx(fused.answers[0, answer] - without)
    assert explained.without[1, 0, answer] == pytest.approx(without)
    np.testing.assert_allclose(explained.without[0, 2], -np.log(4))
    assert owed[2, 1] == 0
    assert owed[0, 2] == pytest.approx(fused.answers[2].max() + np.log(4))


def test_an_opinion_on_unfamiliar_input_is_flattened_and_loses_weight() -> None:
    logits = np.array([[[6.0, 0, 0]], [[0, 3.0, 0]]])
    present, fusion = np.ones((2, 1), dtype=bool), Fusion({"a": 1.0, "b": 1.0}, discounts={"a": 1.0, "b": 1.0})
    known = fuse(logits, present, fusion, "calibrated")
    strange = fuse(logits, present, fusion, "calibrated", np.array([[3.0], [0.0]]))
    assert known.answers.argmax() == 0
    assert strange.answers.argmax() == 1
    assert strange.weights[0, 0] < known.weights[0, 0]
    plain = fuse(logits, present, fusion, "undiscounted", np.array([[3.0], [0.0]]))
    np.testing.assert_array_equal(plain.answers, known.answers)


@pytest.mark.parametrize("prior_once", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_a_number_from_unfamiliar_inputs_is_as_uncertain_as_the_training_targets(count: int, prior_once: bool) -> None:
    names = "abc"[:count]
    opinions = np.broadcast_to([2.0, 2 * np.log(0.3)], (count, 1, 2))
    fusion = Fusion(
        dict.fromkeys(names, 1.0), discounts=dict.fromkeys(names, 3.0), prior=[0.0, 1.0], prior_once=prior_once, task=Number()
    )  # fmt: skip
    answers = [
        fuse(opinions, np.ones((count, 1), bool), fusion, excess=np.full((count, 1), excess)).answers[0]
        for excess in (0.0, 0.5, 1.0, 8.0)
    ]
    means, variances = np.array(answers).T
    np.testing.assert_allclose(answers[-1], [0, 1], atol=1e-6)
    assert (np.diff(means) < 0).all()
    assert (np.diff(variances) > 0).all()


def test_a_product_counts_the_prior_once() -> None:
    generator = np.random.default_rng(0)
    prior = generator.dirichlet(np.ones(4))
    likelihood = np.log(generator.dirichlet(np.ones(4), size=(3, 5)))
    fused = fuse(
        likelihood + np.log(prior),
        np.ones((3, 5), dtype=bool),
        Fusion(dict.fromkeys("abc", 1.0), prior=prior.tolist()),
        "product_prior",
    )
    np.testing.assert_allclose(fused.answers, log_softmax(likelihood.sum(axis=0) + np.log(prior)))


def test_means_and_variances_are_added_only_where_the_heads_were_trained_so() -> None:
    apart = Fusion.paper(("a", "b"), Number())
    assert "sum_logit" not in rules_for(apart)
    assert "sum_logit" in rules_for(dataclasses.replace(apart, native="sum_logit"))
    for task in (Classes(("x", "y")), Labels(("x", "y"))):
        assert "sum_logit" in rules_for(Fusion.paper(("a", "b"), task))


def test_static_shares_do_not_depend_on_the_sample() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 6, 3))
    fused = fuse(
        logits, np.ones((2, 6), dtype=bool), Fusion({"a": 1.0, "b": 1.0}, shares={"a": 3.0, "b": 1.0}), "static"
    )
    np.testing.assert_allclose(fused.weights, [[0.75] * 6, [0.25] * 6])


def test_energy_weights_are_those_of_qmf() -> None:
    logits = np.array([[[3.0, 1.0]], [[0.0, 2.0]]])
    u = 0.1 * np.log(np.exp(logits).sum(axis=2))
    fused = fuse(logits, np.ones((2, 1), dtype=bool), Fusion.paper(("a", "b")), "energy")
    np.testing.assert_allclose(fused.weights, u)
    np.testing.assert_allclose(fused.answers, log_softmax((u[..., None] * logits).sum(axis=0)))


def test_sum_logit_counts_the_bias_once_and_native_is_the_rule_of_the_bundle() -> None:
    slices, bias = np.random.default_rng(0).normal(size=(3, 4, 5)), np.arange(5.0)
    fusion = Fusion(dict.fromkeys("abc", 1.0), bias=bias.tolist(), native="sum_logit")
    fused = fuse(slices + bias, np.ones((3, 4), dtype=bool), fusion, "native")
    np.testing.assert_allclose(fused.answers, log_softmax(slices.sum(axis=0) + bias))


def written_out(logits: Array, temperatures: Array, tau: float, scale: float, prior: Array) -> tuple[Array, Array]:
    """Compute the formula of mla_serve/fusion/formula.py for one sample (M, C), step by step: probabilities (C,), weights (M,)."""
    z = (logits - prior) / temperatures[:, None]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    certainty = np.exp(tau * (p * np.log(p)).sum(axis=1))
    weights = certainty / certainty.sum()
    fused = np.exp(scale * weights @ z + prior)
    return fused / fused.sum(), weights


@pytest.mark.parametrize("prior_once", [False, True])
@pytest.mark.parametrize("names", ["a", "ab", "bc", "abc"])
def test_calibrated_equals_the_formula_computed_step_by_step(names: str, prior_once: bool) -> None:
    generator = np.random.default_rng(3)
    logits, prior = generator.normal(size=(3, 1, 4)) * 2, generator.dirichlet(np.ones(4))
    fusion = Fusion(
        {"a": 0.7, "b": 1.6, "c": 1.1}, 2.5, {"1": 0.9, "2": 1.4, "3": 1.2}, prior=prior.tolist(), prior_once=prior_once
    )
    rows = ["abc".index(name) for name in names]
    present = np.zeros((3, 1), dtype=bool)
    present[rows] = True
    fused = fuse(logits, present, fusion)
    counted = np.log(prior) if prior_once and len(names) > 1 else np.zeros(4)
    temperatures, scale = np.array([0.7, 1.6, 1.1])[rows], {1: 0.9, 2: 1.4, 3: 1.2}[len(names)]
    p, weights = written_out(logits[rows, 0], temperatures, 2.5, scale, counted)
    np.testing.assert_allclose(np.exp(fused.answers[0]), p)
    np.testing.assert_allclose(fused.weights[rows, 0], weights)


def test_excess_multiplies_each_temperature_by_the_exponential_of_its_discount() -> None:
    logits = np.random.default_rng(4).normal(size=(2, 1, 3)) * 3
    fusion = Fusion({"a": 0.7, "b": 1.6}, 2.0, discounts={"a": 0.5, "b": 0.2})
    fused = fuse(logits, np.ones((2, 1), dtype=bool), fusion, excess=np.array([[2.0], [3.0]]))
    temperatures = np.array([0.7 * np.exp(1.0), 1.6 * np.exp(0.6)])
    p, weights = written_out(logits[:, 0], temperatures, 2.0, 1.0, np.zeros(3))
    np.testing.assert_allclose(np.exp(fused.answers[0]), p)
    np.testing.assert_allclose(fused.weights[:, 0], weights)


@pytest.mark.parametrize("rule", ["calibrated", "native"])
def test_influence_on_unfamiliar_input_is_the_change_when_a_modality_is_left_out(rule: str) -> None:
    logits = np.random.default_rng(5).normal(size=(3, 2, 4)) * 3
    present, excess = np.array([[True, True], [True, True], [True, False]]), np.array([[2.0, 0], [0, 3.0], [1.0, 0]])
    fusion = Fusion({"a": 0.7, "b": 1.4, "c": 1.0}, 2.0, discounts={"a": 0.9, "b": 0.4, "c": 0.2}, native="calibrated")
    whole = fuse(logits, present, fusion, rule, excess)
    explained = explain(logits, present, fusion, rule, excess)
    fused, owed = explained.fused, explained.influence
    np.testing.assert_allclose(fused.answers, whole.answers)
    np.testing.assert_allclose(fused.weights, whole.weights)
    for m, b in np.argwhere(present):
        rest = present.copy()
        rest[m, b] = False
        answer = whole.answers[b].argmax()
        without = fuse(logits, rest, fusion, rule, excess).answers[b, answer]
        assert owed[m, b] == pytest.approx(whole.answers[b, answer] - without)
    assert owed[2, 1] == 0


def test_the_influence_of_a_single_modality_is_measured_from_the_uniform_distribution() -> None:
    logits, present = np.array([[[2.0, 0, 0]], [[0, 0, 0]]]), np.array([[True], [False]])
    explained = explain(logits, present, Fusion.paper(("a", "b")))
    fused, owed = explained.fused, explained.influence
    np.testing.assert_allclose(owed[:, 0], [fused.answers.max() + np.log(3), 0])
    np.testing.assert_array_equal(fused.weights[:, 0], [1, 0])


def test_weights_stay_finite_when_sharpness_leaves_only_the_most_certain() -> None:
    sure, unsure, flat = [9.0, 0, 0], [1.0, 0, 0], [0.0, 0, 0]
    logits = np.array([[sure, unsure], [unsure, flat]])
    weights = entropy_weights(entropies(logits), np.ones((2, 2), dtype=bool), sharpness=1e4)[..., 0]
    np.testing.assert_allclose(weights, [[1, 1], [0, 0]], atol=1e-12)


def test_mean_logit_averages_logits_of_any_certainty() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)) * 4
    fused = fuse(logits, np.ones((3, 4), dtype=bool), Fusion.paper(("a", "b", "c")), "mean_logit")
    np.testing.assert_allclose(fused.weights, 1 / 3)
    np.testing.assert_allclose(fused.answers, log_softmax(logits.mean(axis=0)))


def test_mean_prob_separates_probabilities_too_small_for_a_float() -> None:
    logits = np.array([[[0.0, -1000, -2000]], [[0.0, -1000, -2000]]])
    fused = fuse(logits, np.ones((2, 1), dtype=bool), Fusion.paper(("a", "b")), "mean_prob")
    np.testing.assert_allclose(fused.answers, [[0, -1000, -2000]])


def test_a_modality_without_a_share_has_share_one() -> None:
    present = np.ones((2, 1), dtype=bool)
    fused = fuse(np.zeros((2, 1, 3)), present, Fusion({"a": 1.0, "b": 1.0}, shares={"a": 3.0}), "static")
    np.testing.assert_allclose(fused.weights[:, 0], [0.75, 0.25])
