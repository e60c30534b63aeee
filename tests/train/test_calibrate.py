"""Fitting the fusion: it must find what was built in, and never be worse than the paper's rule where it was fitted."""

import numpy as np
import pytest

from mla_serve.fusion import Array, Fusion, fuse
from mla_serve.scores import patterns, score
from mla_serve.train.calibrate import fit_fusion, listed_patterns


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
        nll.append(score(fuse(logits, mask, fusion, rule).log_probabilities, labels)["nll"])
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
    assert set(fusion.scales) == {"a", "c", "a+c"}


def test_many_modalities_share_scales_by_number() -> None:
    logits, present, labels, names = opinions(count=12, rows=200)
    fusion = fit_fusion(logits, present, labels, names)
    assert set(fusion.scales) <= {str(n) for n in range(1, 13)}
    assert {"1", "12"} <= set(fusion.scales)


@pytest.mark.parametrize("count", [7, 12, 40])
def test_where_patterns_are_sampled_every_size_is_there(count: int) -> None:
    listed = listed_patterns(count)
    assert len(listed) < 200
    assert set(listed.sum(axis=1).tolist()) == set(range(1, count + 1))


def test_eight_modalities_are_fitted_better_than_the_papers_rule() -> None:
    logits, present, labels, names = opinions(count=8, rows=500)
    fusion = fit_fusion(logits, present, labels, names)
    assert mean_nll(logits, present, labels, fusion, "calibrated") < mean_nll(logits, present, labels, fusion, "paper")
