"""A step on several batches equals one on a batch as large as all of them; clipping; the time limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from mla_serve.train.clock import Clock
from mla_serve.train.data.samples import Samples
from mla_serve.train.distributed.local_rows import LocalRows
from mla_serve.train.encoders.blocks import group_normed
from mla_serve.train.strategies import STRATEGIES, Strategy, mib
from mla_serve.train.strategies.base import Part

every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))
SGD = {"optimizer": "sgd", "lr": 0.05}  # Adam turns rounding errors of small gradients into whole steps
Make = Callable[..., Strategy]


def without_batch_norm(strategy: Strategy) -> Strategy:
    """Normalise each sample by itself, and drop nothing: parts of a batch draw other random numbers than the whole."""
    for encoder in strategy.encoders.values():
        group_normed(encoder)
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    return strategy


def train(strategy: Strategy, samples: Samples, batch: Callable[..., Any], steps: int = 3) -> list[dict[str, float]]:
    torch.manual_seed(0)
    strategy.start_epoch()
    return [strategy.step(batch(samples, torch.arange(len(samples)))) for _ in range(steps)]


@pytest.fixture
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@every_strategy
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("parts", [2, 5])
def test_a_step_in_parts_equals_a_step_on_the_whole(
    name: str,
    parts: int,
    make_strategy: Make,
    make_samples: Callable[..., Samples],
    fixed_batch: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mib, "draw_per_row", lambda draw, rows: torch.zeros_like(draw(rows)))
    samples = make_samples(missing=0.4)
    whole, split = (without_batch_norm(make_strategy(name, accumulate=n, **SGD)) for n in (1, parts))
    for key, column in samples.columns.items():
        samples.columns[key] = dataclasses.replace(column, windows=column.windows.double())  # type: ignore[index]
    first, second = (train(strategy, samples, fixed_batch) for strategy in (whole, split))
    for one, other in zip(first, second, strict=True):
        assert other == pytest.approx(one, rel=1e-9)
    for key, value in whole.state_dict().items():
        assert torch.allclose(split.state_dict()[key], value, rtol=1e-9, atol=1e-12), key


def test_a_step_in_parts_keeps_the_activations_of_one_part_only(
    make_strategy: Make, make_samples: Callable[..., Samples], fixed_batch: Callable[..., Any]
) -> None:
    strategy, sizes = make_strategy("mla", accumulate=4), []
    strategy.encoders["a"].register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    train(strategy, make_samples(), fixed_batch, steps=1)
    assert sizes == [6] * 8  # each part once for the features, once more for the gradient


def test_every_process_makes_the_same_number_of_parts() -> None:
    for fewest, own in ((1, 5), (3, 5), (3, 3), (0, 0)):
        labels = torch.zeros(own, dtype=torch.int64)
        windows = torch.zeros(max(own, 1), 2)  # a process without a row encodes one that does not count
        part = Part(windows, labels, LocalRows(torch.arange(own), 9, fewest))
        chunks = part.chunks(4)
        assert len(chunks) == max(1, fewest)
        assert sum(len(chunk.targets) for chunk in chunks) == own
        assert all(len(chunk.windows) for chunk in chunks)


@pytest.mark.parametrize("name", ["mla", "joint_concat"])
def test_clipping_bounds_the_norm_of_a_step(
    name: str, make_strategy: Make, make_samples: Callable[..., Samples], fixed_batch: Callable[..., Any]
) -> None:
    """Plain SGD without momentum's past: the first step is the learning rate times the clipped gradient."""
    moved = {}
    for clip in (None, 1e-3):
        strategy = make_strategy(
            name, optimizer="sgd", lr=1.0, weight_decay=0.0, clip=clip, **({"hgm": "off"} if name == "mla" else {})
        )
        before = {key: value.clone() for key, value in strategy.named_parameters()}
        train(strategy, make_samples(), fixed_batch, steps=1)
        rate = 1.0 / 25  # where the one-cycle schedule begins
        norms = torch.stack([(value - before[key]).norm() for key, value in strategy.named_parameters()]).norm() / rate
        moved[clip] = norms.item()
    parts = len(strategy.schedules) if name == "joint_concat" else 4  # mla: two encoders, and the head in two turns
    assert moved[1e-3] <= 1e-3 * parts**0.5 * (2 if name == "mla" else 1) + 1e-6
    assert moved[None] > 10 * moved[1e-3]


class FakeTime:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_clock_tells_the_step_that_is_due() -> None:
    now = FakeTime()
    clock = Clock(minutes=2, now=now)
    assert clock.step(1000) == 0
    now.now += 60
    assert clock.step(1000) == 500
    clock.reserved = 20  # for validating at the end
    assert clock.step(1000) == 600
    now.now += 40
    assert clock.step(1000) == 1000
    now.now += 1000
    assert clock.step(1000) == 1000


def test_the_clock_goes_on_where_it_was() -> None:
    now = FakeTime()
    clock = Clock(minutes=1, now=now)
    now.now += 5  # reading the data again
    clock.add(10)  # of the interrupted run
    now.now += 15
    assert clock.elapsed == 30
    assert clock.step(10) == 5


def test_the_learning_rate_skips_to_where_it_is_after_as_many_steps(make_strategy: Make) -> None:
    slow, fast = make_strategy("mla"), make_strategy("mla")
    for _ in range(40):
        for schedule in slow.schedules.values():
            schedule.advance()
    fast.skip_to(40)
    fast.skip_to(10)  # never back
    rates = [[s.optimizer.param_groups[0]["lr"] for s in one.schedules.values()] for one in (slow, fast)]
    assert rates[0] == pytest.approx(rates[1])
    fast.skip_to(10_000)
    for schedule in fast.schedules.values():
        assert schedule.optimizer.param_groups[0]["lr"] == pytest.approx(2e-3 / 25 / 1e4)  # its lowest
