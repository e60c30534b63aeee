"""Unfamiliar input: what is stored is what is computed with, and what is far away scores higher."""

import numpy as np
import pytest

from mla_serve.fusion.formula import Array
from mla_serve.fusion.novelty import MOST_EXCESS, NGramReference, Reference, References
from mla_serve.tasks import Labels, Number, Task
from mla_serve.train.fit.novelty import ComparedInputs, auroc, fit_reference


def features(rows: int, seed: int, shift: float = 0.0, width: int = 12) -> tuple[Array, Array]:
    """Draw features of three classes, and the indicators of the classes."""
    generator = np.random.default_rng(seed)
    indicators = np.eye(3)[generator.integers(0, 3, rows)]
    return 4 * indicators @ np.eye(3, width) + generator.normal(size=(rows, width)) + shift, indicators


@pytest.fixture(params=["knn", "mahalanobis"])
def reference(request: pytest.FixtureRequest) -> Reference:
    train, indicators = features(300, 0)
    spoiled = features(200, 2)[0]
    # On the sphere a longer vector is no stranger; under the covariance it is.
    spoiled = -spoiled if request.param == "knn" else spoiled * 3
    fitted, note = fit_reference(train, indicators, features(200, 1)[0], spoiled)
    assert "knn 0." in note or "knn 1." in note
    assert fitted.method == request.param
    return fitted


def test_what_is_stored_is_what_is_computed_with(reference: Reference) -> None:
    content = References({"a": reference}).to_bytes()
    again = References.from_bytes(content).by_modality["a"]
    values = features(50, 3)[0]
    np.testing.assert_allclose(again.score(values), reference.score(values))
    assert again.method == reference.method


def test_percentiles_are_those_of_validation(reference: Reference) -> None:
    scores = reference.score(features(200, 1)[0])
    assert reference.percentile(scores).mean() == pytest.approx(0.5, abs=0.02)
    assert reference.percentile(np.array([-1.0, 1e9])).tolist() == [0.0, 1.0]
    assert np.mean(reference.excess(scores) > 0) == pytest.approx(0.1, abs=0.02)
    assert (reference.excess(scores) >= 0).all()


def test_what_is_far_away_is_unfamiliar() -> None:
    train, indicators = features(300, 0)
    fitted, _ = fit_reference(train, indicators, features(200, 1)[0], features(200, 2, shift=3)[0])
    assert auroc(fitted.score(features(200, 1)[0]), fitted.score(features(200, 3, shift=3)[0])) > 0.95


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_nearest_in_single_precision_is_as_near_as_the_nearest(reference: Reference, scale: float) -> None:
    values = (features(300, 4)[0] * scale).astype(np.float32)
    moved = (values - reference.centre) @ reference.whiten
    if reference.method == "knn":
        moved = values / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    nearest = np.linalg.norm(moved[:, None] - reference.points.astype(np.float64), axis=2).min(axis=1)
    np.testing.assert_allclose(reference.score(values), nearest, rtol=1e-5, atol=1e-7)


def test_a_sample_does_not_see_its_batch(reference: Reference) -> None:
    values = features(20, 3)[0]
    alone = np.concatenate([reference.score(values[b : b + 1]) for b in range(20)])
    np.testing.assert_allclose(reference.score(values), alone, rtol=1e-6)


def test_classes_have_the_means_of_their_rows() -> None:
    train, indicators = features(300, 0)
    fitted, _ = fit_reference(train, indicators, features(200, 1)[0], features(200, 2)[0] * 3)
    assert fitted.method == "mahalanobis"
    means = [train[indicators[:, c] > 0].mean(axis=0) for c in (2, 1, 0)]
    expected = (np.array(means) - fitted.centre) @ fitted.whiten
    np.testing.assert_allclose(np.sort(fitted.points, axis=0), np.sort(expected, axis=0), atol=1e-3)


@pytest.mark.parametrize("task", [Labels(("a", "b", "c")), Number()], ids=["labels", "number"])
def test_what_is_unfamiliar_is_measured_from_what_the_target_explains(task: Task) -> None:
    """Features move far with the target and little without it: the small deviation is what is unfamiliar."""
    generator = np.random.default_rng(0)

    def draw(rows: int) -> tuple[Array, Array]:
        if isinstance(task, Labels):
            targets = (generator.random((rows, 3)) < 0.4).astype(np.float32)
            moved = 8 * targets @ np.eye(3, 12)
        else:
            targets = generator.normal(size=rows).astype(np.float32)
            moved = 8 * targets[:, None] * np.eye(1, 12)
        return moved + generator.normal(size=(rows, 12)), targets

    (train, targets), (val, _), (fresh, _) = draw(600), draw(300), draw(300)
    off = np.where(np.arange(12) == 5, 5.0, 0.0)
    fitted, _ = fit_reference(train, task.indicators(targets), val, val + off)
    assert fitted.method == "mahalanobis"
    assert auroc(fitted.score(fresh), fitted.score(fresh + off)) > 0.95
    assert np.mean(fitted.percentile(fitted.score(fresh)) > 0.99) < 0.04


@pytest.mark.parametrize("rows", [100, 500])
@pytest.mark.parametrize("strange", [-1.0, 3.0], ids=["knn", "mahalanobis"])
def test_one_of_a_hundred_ordinary_rows_is_more_unfamiliar_than_99_percent(rows: int, strange: float) -> None:
    """Over re-splits of exchangeable rows, the share of false alarms is 1 %, within its standard error."""
    alarms = []
    for seed in range(60):
        every, indicators = features(300 + 2 * rows, seed)
        train, val, fresh = every[:300], every[300 : 300 + rows], every[300 + rows :]
        fitted, _ = fit_reference(train, indicators[:300], val, val * strange)
        alarms.append(np.mean(fitted.percentile(fitted.score(fresh)) > 0.99))
    assert np.mean(alarms) == pytest.approx(0.01, abs=3 * np.std(alarms) / np.sqrt(len(alarms)) + 0.001)


def texts(rows: int, seed: int, *, shuffled: bool = False) -> Array:
    """Count up from a random token, in order or in disorder; 0 is the end."""
    generator = np.random.default_rng(seed)
    tokens = 1 + (generator.integers(0, 20, (rows, 1)) + np.arange(8)) % 20
    tokens = generator.permuted(tokens, axis=1) if shuffled else tokens
    return np.where(np.arange(8) < generator.integers(3, 9, (rows, 1)), tokens, 0)


def test_a_text_is_judged_by_its_tokens_where_its_features_do_not_show_it() -> None:
    train, indicators = features(300, 0)
    val, copies = features(200, 1)[0], features(200, 2)[0]
    tokens = ComparedInputs(texts(300, 0), texts(200, 1), texts(200, 2, shuffled=True), 0)
    fitted, note = fit_reference(train, indicators, val, copies, inputs=tokens)
    assert isinstance(fitted, NGramReference)
    assert "ngrams of the input 0.9" in note or "ngrams of the input 1.0" in note
    assert auroc(fitted.score(texts(200, 3)), fitted.score(texts(200, 4, shuffled=True))) > 0.9
    again = References.from_bytes(References({"words": fitted}).to_bytes()).by_modality["words"]
    np.testing.assert_array_equal(again.score(texts(50, 5)), fitted.score(texts(50, 5)))
    assert fit_reference(train, indicators, val, val * 3, inputs=tokens)[0].method != "ngrams"


def test_numbers_are_judged_by_themselves_where_features_do_not_show_them() -> None:
    """An encoder that clips what is out of range gives the same features for it as for the largest number of training."""
    generator = np.random.default_rng(0)
    spread = np.array([1000.0, 0.01, 1.0])

    def draw(rows: int, far: float = 0.0) -> Array:
        values = (generator.normal(size=(rows, 3)) + far * generator.choice([-1, 1], (rows, 3))) * spread + 5
        values[generator.random((rows, 3)) < 0.2] = np.nan
        return values.astype(np.float32)

    train, indicators = features(300, 0)
    val, copies = features(200, 1)[0], features(200, 2)[0]
    numbers = ComparedInputs(draw(300), draw(200), draw(200, far=10), None)
    fitted, note = fit_reference(train, indicators, val, copies, inputs=numbers)
    assert fitted.reads_input
    assert "mahalanobis of the input" in note
    assert auroc(fitted.score(draw(200)), fitted.score(draw(200, far=10))) > 0.9
    again = References.from_bytes(References({"facts": fitted}).to_bytes()).by_modality["facts"]
    assert again.reads_input
    np.testing.assert_array_equal(again.score(numbers.val), fitted.score(numbers.val))
    largest = np.full((1, 3), 3e38, np.float32)
    assert again.excess(again.score(largest)).tolist() == [MOST_EXCESS]
    near, far = again.excess(again.score(draw(50, far=10))), again.excess(again.score(draw(50, far=100)))
    assert np.median(far) < 4 * np.median(near) < 4 * MOST_EXCESS


def test_the_most_frequent_ngrams_are_kept_within_the_budget() -> None:
    train, indicators = features(300, 0)
    tokens = ComparedInputs(texts(300, 0), texts(200, 1), texts(200, 2, shuffled=True), 0)
    fitted, _ = fit_reference(train, indicators, train, train, budget=60, inputs=tokens)
    assert isinstance(fitted, NGramReference)
    assert len(fitted.hashes) == 30
    assert (np.diff(fitted.hashes.astype(np.int64)) > 0).all()
    assert np.isfinite(fitted.score(texts(50, 3, shuffled=True))).all()


def test_auroc_against_its_definition() -> None:
    references, strange = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0])
    wins = [(s > f) + 0.5 * (s == f) for f in references for s in strange]
    assert auroc(references, strange) == pytest.approx(np.mean(wins))
