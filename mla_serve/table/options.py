"""What the caller of `read_table` decides: flags of `mla-serve train`, arguments of `mla_serve.fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mla_serve.table.faults import FaultPolicy
from mla_serve.table.schema import Schema
from mla_serve.tasks import Task


@dataclass(frozen=True)
class TableOptions:
    """How a table is read. Options overrule dataset.json, which overrules what is inferred from the cells.

    label: column of the labels, or several yes/no columns, one of each label, separated by commas; None: a column with a
    usual name, such as `label` or `category`.
    kinds: column -> what it holds, one of COLUMN_KINDS in schema.py.
    group: column whose values are kept on one side of a split.
    val, test: share of the rows for validation and test, where the table names no splits; None: the default.
    seed: of the split.
    skip_bad: leave out rows with faults; skip_bad_values: leave out only the values with faults.
    show: number of faults in a message; faults_file: where the whole list is written; advise: see FaultPolicy.
    schema: read the columns as they were at training, and infer nothing.
    known: read these columns as they were at training, and infer the others.
    task: what the labels are, key of TASKS; None: inferred. separator: between the labels of a text; None: inferred.
    trained: the task of the model that the table is read for; None: the task that its labels define.
    """

    label: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    val: float | None = None
    test: float | None = None
    seed: int = 0
    skip_bad: bool = False
    skip_bad_values: bool = False
    show: int = 20
    faults_file: Path | None = None
    advise: bool = True
    schema: Schema | None = None
    known: Schema | None = None
    task: str | None = None
    separator: str | None = None
    trained: Task | None = None

    @property
    def policy(self) -> FaultPolicy:
        """What to do with faults."""
        return FaultPolicy(self.skip_bad, self.skip_bad_values, self.show, self.faults_file, self.advise)
