"""References for unfamiliar input: scores, percentile, excess, and what is stored. The fit is tested in tests/train."""

from __future__ import annotations

import dataclasses
import io
import re

import numpy as np
import pytest

from mla_serve.fusion.formula import Array
from mla_serve.fusion.novelty import (
    BACK_OFF,
    CHUNK,
    MOST_EXCESS,
    QUANTILES,
    NGramReference,
    Reference,
    References,
    hash_ngrams,
)

WIDTH = 5
generator = np.random.default_rng(0)
FEATURES = generator.normal(size=(2 * CHUNK + 3, WIDTH)) * 3 + 1
UNIT = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
SPHERE = generator.normal(size=(7, WIDTH))
SPHERE /= np.linalg.norm(SPHERE, axis=1, keepdims=True)
MEANS = SPHERE * np.linspace(0.5, 6, len(SPHERE))[:, None]
CENTRE, WHITEN = generator.normal(size=WIDTH), generator.normal(size=(WIDTH, WIDTH))


def knn(points: Array = SPHERE, quantiles: Array = QUANTILES) -> Reference:
    return Reference("knn", points, np.zeros(WIDTH), np.eye(WIDTH), quantiles)


def mahalanobis(quantiles: Array = QUANTILES) -> Reference:
    return Reference("mahalanobis", MEANS, CENTRE, WHITEN, quantiles)


def nearest(moved: Array, points: Array) -> Array:
    distances: Array = np.linalg.norm(moved[:, None] - points, axis=2).min(axis=1)
    return distances


PAD = 0
TEXTS = np.array([[5, 6, 7, PAD], [5, 6, PAD, PAD], [7, 7, 7, 7]])


def ngrams(texts: Array = TEXTS) -> NGramReference:
    grams, contexts, valid = hash_ngrams(texts, PAD)
    counted = np.concatenate([*(gram[valid] for gram in grams), *(context[:, 0] for context in contexts)])
    hashes, counts = np.unique(counted, return_counts=True)
    return NGramReference(hashes, counts, int(valid.sum()), len(np.unique(grams[0][valid])), PAD, QUANTILES)


def by_definition(text: list[int]) -> float:
    """Back off from the trigrams of TEXTS to pairs and single tokens, counted with strings."""
    every = [["^", "^", *map(str, row[row != PAD]), "$"] for row in TEXTS]
    tokens = ["^", "^", *map(str, text), "$"]

    def count(part: list[str]) -> int:
        found = sum(row[at : at + len(part)] == part for row in every for at in range(len(row)))
        return found // 2 if part == ["^"] else found

    losses = []
    for at in range(2, len(tokens)):
        p = 1 / 5  # 5, 6, 7, the end, and one more
        for n in (1, 2, 3):
            gram = tokens[at - n + 1 : at + 1]
            context = count(gram[:-1]) if n > 1 else sum(len(row) - 2 for row in every)
            p = (count(gram) + BACK_OFF * p) / (max(context, count(gram)) + BACK_OFF)
        losses.append(-np.log(p))
    return float(np.mean(losses))


@pytest.mark.parametrize("text", [[5, 6, 7], [5], [7, 7, 7, 7], [9, 5], [9, 9, 9, 9]])
def test_ngrams_score_a_text_by_a_trigram_model_that_backs_off(text: list[int]) -> None:
    padded = np.array([text + [PAD] * (4 - len(text))])
    assert ngrams().score(padded)[0] == pytest.approx(by_definition(text))


def test_a_text_does_not_see_its_batch_nor_how_far_it_is_padded() -> None:
    together = ngrams().score(TEXTS)
    alone = [ngrams().score(TEXTS[b : b + 1])[0] for b in range(len(TEXTS))]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(ngrams().score(np.pad(TEXTS, ((0, 0), (0, 9)))), together)


def test_ngrams_are_read_back_as_they_were_written() -> None:
    again = References.from_bytes(References({"words": ngrams()}).to_bytes()).by_modality["words"]
    assert isinstance(again, NGramReference)
    np.testing.assert_array_equal(again.score(TEXTS), ngrams().score(TEXTS))
    assert (again.tokens, again.different, again.pad) == (12, 4, PAD)


@pytest.mark.parametrize(
    "change",
    [
        {"hashes": np.zeros(0, np.uint32), "counts": np.zeros(0)},
        {"counts": np.ones(2)},
        {"hashes": np.arange(3.0), "counts": np.ones(3)},
        {"quantiles": np.full(len(QUANTILES), np.nan)},
    ],
    ids=["none", "lengths differ", "no hashes", "nan"],
)
def test_damaged_ngrams_are_refused(change: dict[str, Array]) -> None:
    content = References({"words": dataclasses.replace(ngrams(), **change)}).to_bytes()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the reference of words is damaged"):
        References.from_bytes(content)


@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_knn_is_the_distance_to_the_nearest_row_on_the_unit_sphere(length: float) -> None:
    np.testing.assert_allclose(knn().score(FEATURES * length), nearest(UNIT, SPHERE), rtol=1e-5)


def test_mahalanobis_is_the_distance_to_the_nearest_mean_after_whitening() -> None:
    expected = nearest((FEATURES - CENTRE) @ WHITEN, MEANS)
    np.testing.assert_allclose(mahalanobis().score(FEATURES), expected, rtol=1e-5)


@pytest.mark.parametrize("reference", [knn(), mahalanobis()], ids=["knn", "mahalanobis"])
def test_a_row_scores_the_same_alone_as_in_a_large_batch(reference: Reference) -> None:
    together = reference.score(FEATURES)
    assert together.shape == (len(FEATURES),)
    for at in (0, 1, CHUNK - 1, CHUNK, 2 * CHUNK, len(FEATURES) - 1):
        np.testing.assert_allclose(reference.score(FEATURES[at : at + 1]), together[at : at + 1], rtol=1e-9)


@pytest.mark.parametrize("spread", [0.01, 1.0, 50.0])
def test_excess_is_measured_from_the_90th_percentile_in_units_of_its_distance_from_the_median(spread: float) -> None:
    reference = knn(quantiles=10 + spread * QUANTILES)
    unit, begins = 0.4 * spread, 10 + 0.9 * spread
    scores = np.array([0.0, 10.0, begins, begins + 0.5 * unit, begins + unit, begins + 7 * unit, begins + 99 * unit])
    np.testing.assert_allclose(reference.excess(scores), [0, 0, 0, 0.5, 1, 7, MOST_EXCESS], atol=1e-3)


def test_excess_is_finite_when_all_validation_scores_are_equal() -> None:
    scores = knn(quantiles=np.full(len(QUANTILES), 2.0)).excess(np.array([1.0, 2.0, 2.1]))
    np.testing.assert_array_equal(scores, [0, 0, MOST_EXCESS])


def test_a_percentile_is_the_share_of_validation_below() -> None:
    reference = knn(quantiles=10 + 2 * QUANTILES)
    np.testing.assert_allclose(
        reference.percentile(np.array([0, 10, 10.5, 11, 12, 99])), [0, 0, 0.25, 0.5, 1, 1], atol=1e-5
    )


def test_a_score_that_many_validation_rows_have_is_not_above_them() -> None:
    tied = knn(quantiles=np.concatenate([np.full(151, 0.1), np.linspace(0.2, 1, 50)]).astype(np.float32))
    assert tied.percentile(np.array([0.1, 0.1000000001])).tolist() == [0, 0]
    assert tied.excess(np.array([0.1, 0.1000000001])).tolist() == [0, 0]
    assert knn(quantiles=np.full(len(QUANTILES), 0.1)).percentile(np.array([0.1, 0.2])).tolist() == [0, 1]


def test_training_rows_are_stored_in_half_precision_and_all_else_in_single() -> None:
    content = References({"a": knn(), "b": mahalanobis()}).to_bytes()
    with np.load(io.BytesIO(content)) as arrays:
        kinds = {key: arrays[key].dtype for key in arrays.files if not key.endswith("/method")}
    assert kinds.pop("a/points") == np.float16
    assert set(kinds) == {f"{n}/{field}" for n in "ab" for field in ("points", "centre", "whiten", "quantiles")} - {
        "a/points"
    }
    assert set(kinds.values()) == {np.dtype(np.float32)}


def test_every_reference_is_read_back_as_it_was_written() -> None:
    references = {"a": knn(), "b": mahalanobis()}
    again = References.from_bytes(References(references).to_bytes()).by_modality
    assert list(again) == ["a", "b"]
    for name, reference in references.items():
        assert again[name].method == reference.method
        for field in ("points", "centre", "whiten", "quantiles"):
            np.testing.assert_allclose(getattr(again[name], field), getattr(reference, field), rtol=1e-3, atol=1e-3)
        assert again[name].points.dtype == np.float32  # half the memory of doubles, in every worker
        assert again[name].whiten.dtype == np.float64


@pytest.mark.parametrize(
    "bad",
    [
        knn(np.full((2, WIDTH), np.nan)),
        knn(np.full((2, WIDTH), np.inf)),
        knn(quantiles=np.linspace(0, 1, 200)),
        Reference("vote", SPHERE, np.zeros(WIDTH), np.eye(WIDTH), QUANTILES),
    ],
    ids=["nan", "infinite", "too few quantiles", "unknown method"],
)
def test_a_damaged_reference_is_refused_by_its_name(bad: Reference) -> None:
    content = References({"fine": knn(), "broken": bad}).to_bytes()
    with pytest.raises(ValueError, match=r"the reference of broken is damaged"):
        References.from_bytes(content)


def test_a_file_that_would_run_code_when_read_is_refused() -> None:
    buffer = io.BytesIO()
    arrays = {"a/method": np.array("knn"), "a/points": np.array([re.compile("x")], dtype=object)}
    np.savez(buffer, allow_pickle=True, **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pickle"):
        References.from_bytes(buffer.getvalue())


def test_scores_far_beyond_validation_rows_that_are_all_alike_are_above_all_of_them() -> None:
    alike = Reference("knn", np.eye(2), np.zeros(2), np.eye(2), np.full(201, 2.0, np.float32))
    np.testing.assert_array_equal(alike.percentile(np.array([1.0, 2.0, 1e300])), [0.0, 0.0, 1.0])
