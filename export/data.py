"""The run's data set at the time of the export: the rows that it was trained, validated and is measured on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.evaluation.splits import SplitRun, run_rows
from mla_serve.table import Row, Table, read_table
from mla_serve.train.data.split import split_validation
from mla_serve.train.pipeline import VALIDATION_SHARE

log = logging.getLogger("mla_serve")


@dataclasses.dataclass(frozen=True)
class Rows:
    """What the run was trained on: the whole table, and its rows for training and validation."""

    table: Table
    train: Sequence[Row]
    val: Sequence[Row]


def read_own(facts: Mapping[str, Any], data: Path) -> Table:
    """Read a run's data set again. Raises: ConfigError when it is gone or changed."""
    advice = "--data DIR says where the data are now; --precision fp32 needs none"
    if not data.is_dir():
        raise ConfigError(f"{data}: no such folder, but the bundle is measured on it; {advice}")
    table = read_table(data)
    if table.fingerprint != facts["config"]["fingerprint"]:
        raise ConfigError(
            f"{data}: not the tables that the run was trained on, they have another fingerprint; {advice}"
        )
    return table


def read_rows(facts: Mapping[str, Any], data: Path) -> Rows:
    """Read a run's data set again and split it as training did.

    Raises: ConfigError when it is gone or changed, for nothing could be calibrated and measured then.
    """
    table = read_own(facts, data)
    train, val = split_again(facts, table, facts["recipe"]["inputs"])
    return Rows(table, train, val)


def split_again(facts: Mapping[str, Any], table: Table, names: Collection[str]) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the rows for training and validation that have one of the modalities, as the run had them."""
    train, val = (
        [row for row in table.splits.get(split, ()) if row.values.keys() & set(names)] for split in ("train", "val")
    )
    held_out = facts.get("held_out")
    if held_out is None and val:
        return train, val
    if held_out is None:  # a run of an older version
        held = split_validation(train, VALIDATION_SHARE, facts["config"]["seed"])
        return held[0], held[1]
    chosen = set(held_out)
    return [row for row in train if row.id not in chosen], [row for row in train if row.id in chosen]


def run_own_split(facts: Mapping[str, Any], data: Path, predictor: Predictor) -> SplitRun | None:
    """Run what a bundle is measured on through it: test, or validation where there is no test.

    Returns: None, and a warning in the log, where the data set is gone, changed or can no longer be read.
    """
    try:
        table = read_own(facts, data)
        rows = {"test": table.splits.get("test", ()), "val": split_again(facts, table, predictor.names)[1]}
        split = "test" if any(row.values.keys() & set(predictor.names) for row in rows["test"]) else "val"
        return run_rows(predictor, rows[split], split, table.fingerprint)
    except MlaServeError as error:
        log.warning("the bundle is not measured: %s", error)
        return None
