"""The data set of a run, read again at export: the rows of training and validation, and those to measure on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.evaluation.splits import SplitRun, run_rows
from mla_serve.table import Row, Schema, Table, TableOptions, read_table
from mla_serve.table.dataset import leave_out
from mla_serve.table.faults import Fault
from mla_serve.table.split import VALIDATION_FRACTION, split_validation

log = logging.getLogger("mla_serve")
SHOWN = 3  # faults in a warning


@dataclasses.dataclass(frozen=True)
class RunRows:
    """The whole table of a run, and its rows for training and validation."""

    table: Table
    train: Sequence[Row]
    val: Sequence[Row]


def read_table_again(facts: Mapping[str, Any], data: Path) -> Table:
    """Read a run's data set again. Raises: ConfigError when it is gone or changed."""
    advice = "--data DIR says where the data are now; --precision fp32 needs none"
    if not data.exists():
        raise ConfigError(f"{data}: no such table or folder, but the bundle is measured on it; {advice}")
    table = read_table(data, _options(facts))
    if table.fingerprint != facts["config"]["fingerprint"]:
        raise ConfigError(f"{data}: not the tables that the run was trained on: their fingerprint differs; {advice}")
    _warn_of_new(table.faults.restore(facts.get("left_out", ())))
    splits = {split: leave_out(rows, table.faults) for split, rows in table.splits.items()}
    return dataclasses.replace(table, splits=splits)


def _warn_of_new(faults: Sequence[Fault]) -> None:
    """Warn of what is left out although training could use it, such as a file that was removed since."""
    if faults:
        shown = "; ".join(map(str, faults[:SHOWN]))
        log.warning("%s more left out because of faults that were not there at training: %s", len(faults), shown)


def _options(facts: Mapping[str, Any]) -> TableOptions:
    """Return how the run read its table; a run of an older version has no schema."""
    config, table = facts["config"], facts.get("table")
    return TableOptions(
        group=config.get("group"),
        skip_bad=config.get("skip_bad", False),
        skip_bad_values=config.get("skip_bad_values", False),
        advise=False,  # export has no such flags
        schema=Schema.from_dict(table) if table else None,
    )


def read_rows_again(facts: Mapping[str, Any], data: Path) -> RunRows:
    """Read a run's data set again and split it as training did.

    Raises: ConfigError when it is gone or changed: a smaller precision needs it to set int8 scales and to be measured.
    """
    table = read_table_again(facts, data)
    train, val = split_again(facts, table, facts["recipe"]["inputs"])
    return RunRows(table, train, val)


def split_again(facts: Mapping[str, Any], table: Table, names: Collection[str]) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the rows for training and validation that have one of the modalities, split as in the run."""
    train, val = (
        [row for row in table.splits.get(split, ()) if row.values.keys() & set(names)] for split in ("train", "val")
    )
    held_out = facts.get("held_out")
    if held_out is None and val:
        return train, val
    if held_out is None:  # a run of an older version
        held = split_validation(train, VALIDATION_FRACTION, facts["config"]["seed"], table.task)
        return held[0], held[1]
    chosen = set(held_out)
    return [row for row in train if row.id not in chosen], [row for row in train if row.id in chosen]


def run_measured_split(
    facts: Mapping[str, Any], data: Path, predictor: Predictor, rows: RunRows | None = None
) -> SplitRun | None:
    """Run the test rows through a bundle, or the validation rows if there are no test rows.

    Args: rows, those of the run, if they are in memory.
    Returns: None, with a warning in the log, where the data set is gone, changed or can no longer be read.
    """
    try:
        table = rows.table if rows else read_table_again(facts, data)
        val = rows.val if rows else split_again(facts, table, predictor.names)[1]
        test = [row for row in table.splits.get("test", ()) if row.values.keys() & set(predictor.names)]
        known = len(table.faults.found)
        split_run = run_rows(predictor, test or val, "test" if test else "val", table.fingerprint, table.faults)
        _warn_of_new(table.faults.found[known:])
        return split_run
    except MlaServeError as error:
        log.warning("the bundle is not measured: %s", error)
        return None
