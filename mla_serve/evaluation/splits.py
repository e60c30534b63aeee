"""Run one split of a data set through a bundle's graphs, and score it under every condition."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from rich.progress import track

from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.console import errors
from mla_serve.errors import ConfigError, DataError, InputError
from mla_serve.evaluation import analysis
from mla_serve.evaluation.details import DETAILS
from mla_serve.evaluation.scores import MISSING_RATES, conditions, evaluate
from mla_serve.evaluation.unknown_cells import describe_unknown
from mla_serve.fusion.intervals import Bounds
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Array, Payload
from mla_serve.table import Row, Schema, Table, TableOptions, read_payload, read_table
from mla_serve.table.check_files import describe_undecodable, find_column
from mla_serve.table.dataset import leave_out
from mla_serve.table.faults import Faults
from mla_serve.table.rows import add_unknown_labels
from mla_serve.table.split_names import split_named

SHOWN_RULES = ("calibrated", "paper", "mean_logit", "undiscounted")
DRAWS = 20
COVERAGE = 0.9


class Payloads(Sequence[Mapping[str, Payload]]):
    """The payloads of rows. A row is read when it is asked for, because all of them may not fit into memory."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Mapping[str, Payload]: ...

    @overload
    def __getitem__(self, at: slice) -> Payloads: ...

    def __getitem__(self, at: int | slice) -> Mapping[str, Payload] | Payloads:
        """Read the payloads of one row."""
        if isinstance(at, slice):
            return Payloads(self._rows[at])
        return {name: read_payload(value) for name, value in self._rows[at].values.items()}

    def take(self, chosen: Iterable[int]) -> Payloads:
        """Return the payloads of some rows."""
        return Payloads([self._rows[at] for at in chosen])


@dataclasses.dataclass(frozen=True)
class SplitRun:
    """One split of a data set and what the graphs gave for it.

    targets are (B, ...); fingerprint is that of the data; notes say what was left out of the whole table because of faults,
    and what of the rows the model cannot use.
    """

    split: str
    rows: Sequence[Row]
    targets: Array
    outputs: GraphOutputs
    fingerprint: str
    notes: Sequence[str] = ()

    def samples(self) -> Payloads:
        """Return the payloads of every row; files are read when a row is asked for."""
        return Payloads(self.rows)


def run_split(
    predictor: Predictor,
    data: Path,
    split: str | None = None,
    *,
    quiet: bool = True,
    options: TableOptions = TableOptions(),  # noqa: B008 (frozen)
) -> SplitRun:
    """Run one split of a data set through the graphs. Raises: DataError when the data do not fit the model."""
    table = read_for(predictor, data, options)
    split = (split_named(split) or split) if split else ("test" if "test" in table.splits else "val")
    if split not in table.splits:
        raise ConfigError(f"--split {split}: the data set has {', '.join(table.splits)}")
    split_run = run_rows(predictor, table.splits[split], split, table.fingerprint, table.faults, quiet=quiet)
    used = [*split_run.rows, *(row for name, rows in table.splits.items() if name != split for row in rows)]
    left_out = table.faults.describe_left_out([row.place for row in used])
    return dataclasses.replace(split_run, notes=[*left_out, *split_run.notes])


def read_for(predictor: Predictor, data: Path, options: TableOptions) -> Table:
    """Read a table as that of the model's training was read. Raises: DataError when it does not fit the model."""
    known = predictor.bundle.manifest.table
    schema = Schema.from_dict(known) if known else None
    task = None if known else predictor.task.name
    return read_table(data, dataclasses.replace(options, schema=schema, task=task, trained=predictor.task))


def run_rows(
    predictor: Predictor, rows: Sequence[Row], split: str, fingerprint: str, faults: Faults, *, quiet: bool = True
) -> SplitRun:
    """Run the rows that have a modality of the model through the graphs.

    Args: faults, of the table: what cannot be used is added, and left out if its policy says so.
    Raises: DataError with all faults that are not left out.
    """
    rows = usable_rows(predictor, rows, split, faults)
    kept, outputs = _run_graphs(predictor, rows, faults, quiet)
    faults.raise_if_any()
    if not kept:
        raise DataError(f"--split {split}: every row has a fault; {faults.write_list() or 'correct them'}")
    targets = predictor.task.encode([row.label for row in kept])
    return SplitRun(split, kept, targets, outputs, fingerprint, describe_unknown(kept, predictor.bundle.inputs))


def usable_rows(predictor: Predictor, rows: Sequence[Row], split: str, faults: Faults) -> list[Row]:
    """Return the rows that have a modality of the model, with these alone; labels that it does not know become faults.

    Raises: DataError when there is no such row.
    """
    usable = [own for row in rows if (own := _own_values(row, predictor.names)).values]
    if not usable:
        raise DataError(f"--split {split}: no row has any of {', '.join(predictor.names)}; choose another split")
    add_unknown_labels(usable, predictor.task, predictor.task.expected_label, faults)
    return usable


def _own_values(row: Row, names: Sequence[str]) -> Row:
    """Return the row with the modalities of the model only."""
    return dataclasses.replace(row, values={name: row.values[name] for name in row.values if name in names})


def score_split(
    predictor: Predictor, split_run: SplitRun, draws: int, rules: Sequence[str], coverage: float = COVERAGE
) -> dict[str, Any]:
    """Score a split under every condition, and its prediction sets when the bundle has scores for them.

    Args: draws, see `conditions` in scores.py; coverage, that of the prediction sets.
    Returns: {"split", "rows", "condition_rows": {condition: rows}, "draws", "fingerprint", "asked_coverage",
    "conditions": {condition: {rule: {score: value}}}}.
    """
    outputs, bundle, names = split_run.outputs, predictor.bundle, predictor.names

    def choose_sets(answers: Array, present: Array, rule: str) -> Bounds:
        return bundle.intervals.choose(answers, present, names, rule, coverage)

    results = evaluate(
        outputs.opinions,
        outputs.present,
        split_run.targets,
        bundle.fusion,
        rules,
        masks_of(split_run.rows, names),
        draws,
        outputs.excess,
        choose_sets if set(rules) <= set(bundle.intervals.rules) else None,
    )
    masks = conditions(outputs.present, names, masks_of(split_run.rows, names))
    facts = {
        "split": split_run.split,
        "rows": len(split_run.rows),
        "condition_rows": {name: int(drawn[0].any(axis=0).sum()) for name, drawn in masks},
        "draws": draws,
        "fingerprint": split_run.fingerprint,
    }
    return facts | {"asked_coverage": coverage, "conditions": results}


def measure_more(predictor: Predictor, split_run: SplitRun, draws: int, rules: Sequence[str]) -> dict[str, Any]:
    """Measure more than the conditions: a curve over missing rates, leave one out, bootstrap intervals, and what only this
    task has (details.py), such as the confusion of classes.
    """
    outputs, targets, names = split_run.outputs, split_run.targets, predictor.names
    masks = [(name, drawn[0]) for name, drawn in conditions(outputs.present, names, masks_of(split_run.rows, names))]
    answers = analysis.fused_answers(predictor, outputs, DEFAULT_RULE, outputs.present)
    groups = [row.groups for row in split_run.rows]
    grouped_by, resampled = analysis.resampled_groups(groups)
    details = DETAILS[predictor.task.name]
    return {
        "missing_rates": analysis.missing_curve(predictor, outputs, targets, rules, draws),
        "leave_one_out": analysis.leave_one_out(predictor, outputs, targets, rules),
        "intervals": analysis.intervals(predictor, outputs, targets, rules, dict(masks), resampled),
        "resampled": f"groups of {grouped_by}" if grouped_by else "rows",
        "groups": analysis.by_group(predictor.task, answers, targets, groups),
        details.name: {"rule": DEFAULT_RULE, "rows": details.table(predictor.task, answers, targets)},
    }


def _run_graphs(
    predictor: Predictor, rows: Sequence[Row], faults: Faults, quiet: bool
) -> tuple[list[Row], GraphOutputs]:
    """Run rows through the graphs, in batches. Once a fault is refused, only look for further ones.

    Returns: the rows that were not left out, and the outputs for them.
    """
    kept: list[Row] = []
    outputs: list[GraphOutputs] = []
    starts = range(0, len(rows), analysis.BATCH)
    for at in track(starts, "measuring", console=errors, transient=True, disable=quiet):
        batch = rows[at : at + analysis.BATCH]
        decoded = {row.place: decode_row(predictor, row, faults) for row in batch}
        usable = () if faults.refuses else leave_out(batch, faults)
        samples = [{name: decoded[row.place][name] for name in predictor.names if name in row.values} for row in usable]
        if samples:
            found, refused = predictor.run_usable(samples)
            for index, error in refused.items():
                faults.add(usable[index].place, error.message, error.field)
            kept += [row for index, row in enumerate(usable) if index not in refused]
            outputs.append(found)
    return kept, analysis.concatenate(outputs) if outputs else predictor.run_graphs([])


def decode_row(predictor: Predictor, row: Row, faults: Faults) -> dict[str, Array]:
    """Decode the values of a row; those that cannot be decoded become faults."""
    decoded = {}
    for name, value in row.values.items():
        try:
            decoded[name] = predictor.decode_one(name, read_payload(value))
        except (InputError, DataError) as error:
            described = describe_undecodable(error, value, faults.folder)
            faults.add_value(row.place, name, described, find_column(error, name))
    return decoded


def masks_of(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Array]:
    """Collect the masks of the data set, for the missing rates that every row has one for: {rate: (M, B) bool}."""
    rates = [str(rate) for rate in MISSING_RATES if all(str(rate) in row.present for row in rows)]
    return {rate: np.array([[name in row.present[rate] for row in rows] for name in names]) for rate in rates}
