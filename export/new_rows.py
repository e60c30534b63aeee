"""Labelled rows to fit a finished bundle to: which of a table they are, and whether they are enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import ConfigError, DataError
from mla_serve.evaluation.splits import read_for
from mla_serve.export.copied_rows import trained_on
from mla_serve.table import Row, TableOptions
from mla_serve.table.faults import Faults
from mla_serve.table.split_names import split_named
from mla_serve.train.data.row_counts import MIN_ROWS_TO_FIT
from mla_serve.train.fit.cross_validate import FEW_ROWS
from mla_serve.train.notes import DATA


@dataclasses.dataclass(frozen=True)
class NewRows:
    """Labelled rows for a bundle.

    fitted: rows that everything is fitted to, and their split. train: rows that the model was trained on, for the references;
    may be empty. measured: rows to measure on, and their split; those of `fitted` where there are no others. table: the
    schema's fields, for a bundle without one. fingerprint: of the data; empty where they are in memory. copies: how many rows
    to measure on were left out, because they are fitted.
    """

    split: str
    fitted: Sequence[Row]
    train: Sequence[Row]
    measured_split: str
    measured: Sequence[Row]
    fingerprint: str
    faults: Faults
    table: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    copies: int = 0

    @classmethod
    def of_splits(
        cls,
        splits: Mapping[str, Sequence[Row]],
        chosen: str,
        faults: Faults,
        fingerprint: str = "",
        table: Mapping[str, Any] = MappingProxyType({}),
    ) -> Self:
        """Fit to one split, measure on the split `test`, and compare with `train`, where there are these beside it."""
        others = {name: rows for name, rows in splits.items() if name != chosen}
        measured = "test" if "test" in others else chosen
        train = others.get("train", ())
        return cls(chosen, splits[chosen], train, measured, splits[measured], fingerprint, faults, table)

    def fitted_alone(self) -> Self:
        """Measure on the rows that are fitted, for want of others."""
        return dataclasses.replace(self, measured_split=self.split, measured=self.fitted)

    @property
    def measured_again(self) -> bool:
        """Whether the rows to measure on are those that everything is fitted to."""
        return self.measured_split == self.split


def read_new_rows(
    base: Bundle,
    data: Path,
    split: str | None = None,
    options: TableOptions = TableOptions(),  # noqa: B008 (frozen)
) -> NewRows:
    """Read the rows of a data set. Args: split, of the rows to fit to. Default: val; of a table without splits, all rows.

    Raises: DataError when the data do not fit the model; ConfigError for a split that they lack, or that trained the model.
    """
    predictor = Predictor(base)
    table = read_for(predictor, data, options)
    known = table.fingerprint in trained_on(base.manifest.training)
    chosen = choose_split(table.splits, split, str(table.folder), known=known)
    schema = table.schema.keep(base.manifest.modalities).to_dict()
    return NewRows.of_splits(table.splits, chosen, table.faults, table.fingerprint, schema)


def choose_split(splits: Collection[str], asked: str | None, where: str, *, known: bool = False) -> str:
    """Return the split of the rows to fit to. Args: known, whether the model was trained on this table. Raises: ConfigError."""
    have = ", ".join(splits)
    if asked is None:
        if "val" in splits:
            return "val"
        if len(splits) == 1 and "train" not in splits:  # a table without splits
            return next(iter(splits))
        raise ConfigError(f"{where}: has {have}, but no val; say which rows to fit to with --split")
    split = split_named(asked) or asked
    if split not in splits:
        raise ConfigError(f"--split {asked}: the data set has {have}")
    if split == "train" and known:
        raise ConfigError(
            f"--split {asked}: the model was trained on these rows, so its opinions on them are too sure; choose another of {have}"
        )
    return split


def doubts(new: NewRows) -> list[str]:
    """Note what may make the new bundle look better than it is. Copies of files under another name are not found."""
    notes = []
    if new.split == "train":
        notes.append(
            f"{DATA}fitted to rows of split train; if the model was trained on them, its answers are told too sure"
        )
    if not new.measured_again:
        fitted = {_key(row) for row in new.fitted}
        if count := sum(_key(row) in fitted for row in new.measured):
            notes.append(
                f"{DATA}{count} of {len(new.measured)} {new.measured_split} rows are also among the {new.split} rows, which "
                "everything is fitted to; expect less of others"
            )
    return notes


def _key(row: Row) -> str:
    return repr((row.label, sorted(row.values.items(), key=lambda one: one[0])))


def check_rows(predictor: Predictor, new: NewRows) -> None:
    """Refuse rows from which nothing can be fitted. Raises: DataError."""
    new.faults.raise_if_any()
    where = f"--split {new.split}"
    if len(new.fitted) < FEW_ROWS:
        raise DataError(
            f"{where}: {len(new.fitted)} rows with an input of the model; expected {FEW_ROWS} at least; add rows"
        )
    if reason := predictor.task.find_unlearnable([row.label for row in new.fitted], len(new.fitted) + 1):
        raise DataError(f"{where}: its rows have {reason}")
    for name in predictor.names:
        count = sum(name in row.values for row in new.fitted)
        if count < MIN_ROWS_TO_FIT:
            raise DataError(
                f"{where}: {count or 'no'} row{'' if count == 1 else 's'} with {name}; expected {MIN_ROWS_TO_FIT} at least, "
                "to fit how far it is trusted; add rows with it"
            )
