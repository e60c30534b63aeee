"""The page on unfamiliar input: ways that no fit has seen keep an input's shape, and losses are with minus without."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy.unfamiliar import OTHERS, losses, markdown, spoil_otherwise, worst
from mla_serve.inputs import INPUTS as KINDS
from tests.conftest import INPUTS

COMPARISON = {"patterns": {"a+b": [0.8, 0.9], "a+c": [0.7, 0.6]}, "auroc": 0.75, "above": 0.5}
VERSION = {
    "clean": {"scores": {"accuracy": 0.95}, "alarms": {"a": 0.01}},
    "modalities": {"a": {"noise": COMPARISON, "unseen: chirp": COMPARISON}},
}


@pytest.mark.parametrize(("kind", "way"), [(kind, way) for kind, ways in OTHERS.items() for way in ways])
def test_what_is_spoiled_keeps_its_shape_and_is_another(kind: str, way: str) -> None:
    spec = INPUTS[kind]()
    payload = "several words" if kind == "text" else spec.generate(np.random.default_rng(0))
    clean = spec.decode(payload, kind)
    spoiled = spoil_otherwise(spec, payload, OTHERS[kind][way], np.random.default_rng(0))
    assert spoiled.shape == clean.shape
    assert spoiled.dtype == clean.dtype
    assert not np.array_equal(spoiled, clean, equal_nan=True)


def test_every_kind_has_ways_that_no_fit_has_seen() -> None:
    assert OTHERS.keys() == KINDS.keys()
    assert all(not set(ways) & set(KINDS[kind].corruptions) for kind, ways in OTHERS.items())


def test_the_worst_pattern_is_the_one_that_loses_most() -> None:
    assert worst(COMPARISON) == ("a+b", 0.8, 0.9)
    np.testing.assert_allclose(losses(VERSION, unseen=False), [-0.1, 0.1])
    np.testing.assert_allclose(losses(VERSION, unseen=True), [-0.1, 0.1])


def test_the_page_shows_both_kinds_of_ways() -> None:
    facts = {"model": "m", "split": "test", "rows": 3, "score": "accuracy", "versions": {"as it is": VERSION}}
    page = markdown(facts)
    assert "| as it is | 0.950 | a 1.0% | +0.000 | 50% | +0.000 | 50% |" in page
    assert "| a | unseen: chirp | 0.800, 0.900, a+b | 0.75 |" in page
