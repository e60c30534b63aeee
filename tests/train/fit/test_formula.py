"""Fitting the fusion: it must find what was built in, and never be worse than the paper's rule where it was fitted."""

import numpy as np
import pytest

from mla_serve.evaluation.scores import patterns
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.tasks import Classes
from mla_serve.tasks.base import log_softmax
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.formula import fit, list_patterns


def fit_fusion(logits: Array, present: Array, labels: Array, names: tuple[str, ...]) -> Fusion:
    return fit(Evidence.of(logits, present, labels), names)


def opinions(
    count: int = 3, rows: int = 600, sharpen: tuple[float, ...] = (1.0, 4.0, 0.5), seed: int = 0
) -> tuple[Array, Array, Array, tuple[str, ...]]:
    """Independent opinions whose logits are true log-likelihood ratios times a factor for each modality."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, rows)
    logits = []
    for m in range(count):
        evidence = generator.normal(size=(rows, 4)) + 1.5 * np.eye(4)[labels]
        logits.append(evidence * 1.5 * sharpen[m % len(sharpen)])
    return np.array(logits), np.ones((count, rows), dtype=bool), labels, tuple("abcdefghijkl"[:count])


def mean_nll(logits: Array, present: Array, labels: Array, fusion: Fusion, rule: str) -> float:
    nll = []
    for pattern in patterns(len(logits)):
        mask = np.broadcast_to(pattern[:, None], present.shape)
        nll.append(Classes().score(fuse(logits, mask, fusion, rule).answers, labels)["nll"])
    return float(np.mean(nll))


def test_over_confidence_is_tempered() -> None:
    logits, present, labels, names = opinions()
    fusion = fit_fusion(logits, present, labels, names)
    alone = {m: fusion.temperatures[m] / fusion.scales[m] for m in names}
    assert alone["a"] == pytest.approx(1, rel=0.3)
    assert alone["b"] == pytest.approx(4, rel=0.3)
    assert alone["c"] == pytest.approx(0.5, rel=0.3)


def test_it_beats_the_papers_rule_on_unseen_rows_of_the_same_kind() -> None:
    fitted = opinions(seed=0)
    unseen = opinions(seed=1)
    fusion = fit_fusion(*fitted)
    assert mean_nll(*unseen[:3], fusion, "calibrated") < 0.9 * mean_nll(*unseen[:3], fusion, "paper")


def test_where_the_papers_point_is_right_it_stays_near() -> None:
    logits, present, labels, names = opinions(count=1, sharpen=(1.0,))
    fusion = fit_fusion(logits, present, labels, names)
    assert fusion.temperatures["a"] / fusion.scales["a"] == pytest.approx(1, rel=0.15)


def test_missing_modalities_in_the_rows_are_left_out() -> None:
    logits, present, labels, names = opinions()
    present = np.random.default_rng(0).random(present.shape) < 0.7
    spoiled = np.where(present[..., None], logits, 1e3)
    clean = fit_fusion(np.where(present[..., None], logits, 0.0), present, labels, names)
    assert fit_fusion(spoiled, present, labels, names) == clean


def test_rows_that_are_all_right_keep_everything_finite() -> None:
    labels = np.arange(40) % 4
    logits = np.stack([8 * np.eye(4)[labels], 9 * np.eye(4)[labels]])
    fusion = fit_fusion(logits, np.ones((2, 40), dtype=bool), labels, ("a", "b"))
    values = [*fusion.temperatures.values(), fusion.sharpness, *fusion.scales.values()]
    assert np.isfinite(values).all()


def test_a_modality_that_never_occurs_in_validation_keeps_the_papers_point() -> None:
    logits, present, labels, names = opinions()
    present = present.copy()
    present[1] = False
    fusion = fit_fusion(logits, present, labels, names)
    assert fusion.temperatures["b"] == pytest.approx(1, abs=0.01)
    assert set(fusion.scales) == {"a", "c", "a+c", "1", "2", "3"}


def test_many_modalities_share_scales_by_number() -> None:
    logits, present, labels, names = opinions(count=12, rows=200)
    fusion = fit_fusion(logits, present, labels, names)
    assert set(fusion.scales) == {str(n) for n in range(1, 13)} | set(names)


@pytest.mark.parametrize("count", [7, 12, 40])
def test_where_patterns_are_sampled_every_size_is_there(count: int) -> None:
    listed = list_patterns(count)
    assert len(listed) < 200
    assert set(listed.sum(axis=1).tolist()) == set(range(1, count + 1))


def test_eight_modalities_are_fitted_better_than_the_papers_rule() -> None:
    logits, present, labels, names = opinions(count=8, rows=500)
    fusion = fit_fusion(logits, present, labels, names)
    assert mean_nll(logits, present, labels, fusion, "calibrated") < mean_nll(logits, present, labels, fusion, "paper")


PRIOR = (0.6, 0.25, 0.1, 0.05)


def unbalanced(rows: int = 2000, seed: int = 0) -> tuple[Evidence, Array]:
    """Two opinions that are true posteriors by independent evidence, and the posterior by both: (N, C) logits."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(4, rows, p=PRIOR)
    seen = generator.normal(size=(2, rows, 4)) + np.eye(4)[labels]  # log-likelihood ratios
    return Evidence.of(np.log(PRIOR) + seen, np.ones((2, rows), dtype=bool), labels), np.log(PRIOR) + seen.sum(axis=0)


def test_counted_once_the_prior_of_unbalanced_classes_gives_the_true_posterior() -> None:
    evidence, posterior = unbalanced()
    rule = Fusion({"a": 1.0, "b": 1.0}, sharpness=0.0, scales={"a+b": 2.0}, prior=PRIOR, prior_once=True)
    given = fuse(evidence.opinions, evidence.present, rule).answers
    np.testing.assert_allclose(given, log_softmax(posterior), atol=1e-9)


def test_fitted_with_the_prior_once_fusion_gains_on_unseen_rows() -> None:
    (seen, _), (unseen, posterior) = unbalanced(), unbalanced(seed=1)
    once, twice = (fit(seen, ("a", "b"), prior=prior) for prior in (PRIOR, ()))
    losses = {
        fusion.prior_once: Classes().score(fuse(unseen.opinions, unseen.present, fusion).answers, unseen.targets)["nll"]
        for fusion in (once, twice)
    }
    best = Classes().score(log_softmax(posterior), unseen.targets)["nll"]
    assert losses[True] < losses[False] - 0.01
    assert losses[True] < best + 0.02


def test_alone_an_opinion_keeps_its_ranking_where_the_prior_counts_once() -> None:
    evidence, _ = unbalanced(rows=50)
    fusion = Fusion({"a": 3.0, "b": 0.4}, scales={"a": 0.5, "b": 2.0}, prior=PRIOR, prior_once=True)
    for m in range(2):
        mask = np.repeat(np.arange(2)[:, None] == m, 50, axis=1)
        given = fuse(evidence.opinions, mask, fusion).answers
        np.testing.assert_array_equal(given.argsort(axis=1), evidence.opinions[m].argsort(axis=1))
