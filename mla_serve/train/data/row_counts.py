"""How many rows each modality has, and what cannot be learned or fitted from so few."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mla_serve.errors import ConfigError
from mla_serve.table import Row
from mla_serve.tasks import Task

FEW = 10  # training rows
MIN_ROWS_TO_FIT = 2
"""Validation rows below which nothing is fitted for a modality or a combination of modalities."""
ONE_ROW = (
    "an encoder that normalises over its batch learns nothing from one; add rows, or leave it out with --modalities"
)


def count_rows(rows: Mapping[str, Sequence[Row]], names: Collection[str]) -> dict[str, dict[str, int]]:
    """Count the rows for training and validation that have each modality: {split: {name: rows}}."""
    return {
        split: {name: sum(name in row.values for row in rows[split]) for name in names} for split in ("train", "val")
    }


def check_modalities(
    rows: Mapping[str, Sequence[Row]], names: Collection[str], task: Task, *, held_out: bool
) -> list[str]:
    """Return a note on each modality from which too little can be learned or fitted.

    Args: held_out, whether the validation rows were taken from the training rows.
    Raises: ConfigError for a modality without a training row.
    """
    counts, notes = count_rows(rows, names), []
    for name in names:
        train, val = counts["train"][name], counts["val"][name]
        if not train:
            held = f"; the {val} that had it were held out for validation" if val and held_out else ""
            raise ConfigError(
                f"modality {name}: no training row has it{held}; add rows, or leave it out with --modalities"
            )
        reason = task.find_unlearnable([row.label for row in rows["train"] if name in row.values], train + 1)
        if train < FEW:
            learned = "little can be learned from so few" if train > 1 else ONE_ROW
            notes.append(f"{name}: only {_rows(train, 'training')} it; {learned}")
        elif reason:
            what = reason.partition(";")[0]  # without what to do about it
            notes.append(f"{name}: the training rows with it have {what}; nothing can be learned from it")
        if val < MIN_ROWS_TO_FIT:
            notes.append(f"{name}: {_rows(val, 'validation')} it; {unfitted(val)}")
    return notes


def _rows(count: int, what: str) -> str:
    return f"{count or 'no'} {what} row{'s have' if count > 1 else ' has'}"


def unfitted(val: int) -> str:
    """Say what so few validation rows prevent."""
    return "its probabilities are not calibrated and it is not measured alone" if not val else "too few to calibrate it"
