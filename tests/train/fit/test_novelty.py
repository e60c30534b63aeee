"""Unfamiliar input: what is stored is what is computed with, and what is far away scores higher."""

import numpy as np
import pytest

from mla_serve.fusion.formula import Array
from mla_serve.fusion.novelty import Reference, References
from mla_serve.train.fit.novelty import auroc, fit_reference


def features(rows: int, seed: int, shift: float = 0.0, width: int = 12) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    return 4 * np.eye(3, width)[labels] + generator.normal(size=(rows, width)) + shift, labels


@pytest.fixture(params=["knn", "mahalanobis"])
def reference(request: pytest.FixtureRequest) -> Reference:
    train, labels = features(300, 0)
    spoiled = features(200, 2)[0]
    # On the sphere a longer vector is no stranger; under the covariance it is.
    spoiled = -spoiled if request.param == "knn" else spoiled * 3
    fitted, note = fit_reference(train, labels, features(200, 1)[0], spoiled)
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
    train, labels = features(300, 0)
    fitted, _ = fit_reference(train, labels, features(200, 1)[0], features(200, 2, shift=3)[0])
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


def test_auroc_against_its_definition() -> None:
    references, strange = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0])
    wins = [(s > f) + 0.5 * (s == f) for f in references for s in strange]
    assert auroc(references, strange) == pytest.approx(np.mean(wins))
