"""Defaults that depend on the number of training rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mla_serve.train.config import TrainConfig
from mla_serve.train.defaults import with_defaults


@pytest.mark.parametrize(("rows", "epochs"), [(10, 100), (100, 100), (300, 43), (1000, 30), (100_000, 30)])
def test_fewer_rows_get_more_epochs(rows: int, epochs: int) -> None:
    chosen, notes = with_defaults(TrainConfig(data=Path("x")), rows, {})
    assert (chosen.epochs, chosen.batch_size, chosen.rows_per_step) == (epochs, 64, 64)
    assert notes == [f"defaults for {rows} training rows: --epochs {epochs}, --batch-size 64"]


def test_what_is_given_stays_and_the_generated_data_have_an_own_number() -> None:
    given = TrainConfig(data=Path("x"), epochs=4, batch_size=16, accumulate=3)
    assert with_defaults(given, 100, {}) == (given, [])
    assert given.rows_per_step == 48
    assert with_defaults(TrainConfig(), 2000, {})[0].epochs == 12


def test_a_resumed_run_keeps_its_own() -> None:
    chosen, _ = with_defaults(TrainConfig(data=Path("x")), 100, {"epochs": 30, "batch_size": 32})
    assert (chosen.epochs, chosen.batch_size) == (30, 32)
