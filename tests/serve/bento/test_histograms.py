"""Many values at once leave in a histogram what each value by itself leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from mla_serve.serve.bento.histograms import fits, observe_many
from mla_serve.serve.metrics import observe_each

BOUNDS = (0.0, 0.5, 1.0, 2.0)


def make() -> Histogram:
    return Histogram("seconds", "Some.", ("stage",), buckets=BOUNDS, registry=CollectorRegistry()).labels("decode")


def samples(histogram: Histogram) -> list[tuple[str, float]]:
    return [(f"{each.name}{each.labels}", each.value) for metric in histogram.collect() for each in metric.samples]


@given(st.lists(st.sampled_from([*BOUNDS, -1.0, 0.25, 1.5, 7.0]), min_size=1, max_size=30))
def test_many_at_once_equal_one_by_one(values: list[float]) -> None:
    at_once, each = make(), make()
    observe_many(at_once, values)
    observe_each(each, values)
    assert [name for name, _ in samples(at_once)] == [name for name, _ in samples(each)]
    assert [value for _, value in samples(at_once)] == pytest.approx([value for _, value in samples(each)])


def test_a_histogram_without_these_parts_does_not_fit() -> None:
    histogram = make()
    assert fits(histogram)
    del histogram._sum
    assert not fits(histogram)
