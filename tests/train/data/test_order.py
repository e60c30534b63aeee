"""Rows of rare modalities are gathered, so that over an epoch every row is used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mla_serve.train.data.batches import batches_per_epoch, training_batches
from mla_serve.train.data.order import split_batches
from mla_serve.train.data.samples import Samples
from mla_serve.train.strategies import STRATEGIES, Strategy

CPU = torch.device("cpu")


def draw(rows: int, *shares: float, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    present = [torch.rand(rows, generator=generator) < share for share in shares]
    return torch.randperm(rows, generator=generator), present


def counts_of(batches: list[Tensor], there: Tensor) -> list[int]:
    return [int(there[rows].sum()) for rows in batches]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("shares", "enough"),
    [((1.0, 0.01), 8), ((0.5, 0.02, 1.0), 8), ((0.05, 0.5, 0.02), 2), ((0.1, 0.01, 0.02, 0.03), 2)],
)
def test_a_rare_modality_occurs_in_few_batches_with_enough_rows(
    shares: tuple[float, ...], enough: int, seed: int
) -> None:
    """With several of them, a row has too few places to go to; then two rows are enough."""
    order, present = draw(3000, *shares, seed=seed)
    batches = split_batches(order, present, 64)
    for there in present:
        found = [count for count in counts_of(batches, there) if count]
        assert sum(found) == there.sum()
        assert min(found) >= enough


def test_the_batches_hold_every_row_once_and_keep_their_size() -> None:
    order, present = draw(3000, 1.0, 0.01, 0.02)
    batches = split_batches(order, present, 64)
    assert [len(rows) for rows in batches] == [len(rows) for rows in order.split(64)]
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(3000))


@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.5, 0.7), (1.0, 0.0)])
def test_without_a_rare_modality_the_order_stays(shares: tuple[float, ...]) -> None:
    order, present = draw(3000, *shares)
    assert torch.equal(torch.cat(split_batches(order, present, 64)), order)


@pytest.mark.parametrize(("rows", "sizes"), [(9, [4, 5]), (8, [4, 4]), (10, [4, 4, 2]), (4, [4]), (2, [2])])
def test_a_last_batch_of_one_row_is_joined_to_the_one_before(rows: int, sizes: list[int]) -> None:
    order, present = draw(rows, 1.0)
    assert [len(batch) for batch in split_batches(order, present, 4)] == sizes
    assert batches_per_epoch(rows, 4) == len(sizes)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_over_an_epoch_every_row_of_a_rare_modality_is_used(
    name: str, make_strategy: Callable[..., Strategy], make_samples: Callable[..., Samples]
) -> None:
    strategy, samples = make_strategy(name), make_samples(rows=301)
    rare = torch.arange(301) % 43 == 5
    samples.columns["b"].count[~rare] = 0
    samples.columns["b"].count[rare] = 1
    used: list[int] = []
    part = strategy.part

    def watched(batch: object, modality: str) -> object:
        taken = part(batch, modality)
        used.extend([taken.local.total] if modality == "b" else [])
        return taken

    strategy.part = watched  # type: ignore[method-assign, assignment]
    strategy.prepare(100, len(samples))
    strategy.start_epoch()
    for batch in training_batches(samples, 16, torch.Generator().manual_seed(0), CPU, {}):
        strategy.step(batch)
    assert sum(used) == rare.sum() == 7
    assert min(used) >= 2
