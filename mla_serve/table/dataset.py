"""A data set that has been read: its rows by split, and the payloads of a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mla_serve.errors import DataError
from mla_serve.inputs import Payload
from mla_serve.table.cells import Value
from mla_serve.table.faults import Faults, Place, abbreviate
from mla_serve.table.schema import Schema
from mla_serve.tasks import Label, Task


@dataclass(frozen=True)
class Row:
    """One labelled sample.

    values: modality -> value; only the modalities that are there.
    present: missing rate in percent ("20") -> the modalities left at that rate, a non-empty subset of `values`.
    groups: modality -> group (speaker, writer, ...), where known.
    place: the file and line in the table, for messages.
    """

    id: str
    label: Label
    values: Mapping[str, Value]
    present: Mapping[str, frozenset[str]]
    groups: Mapping[str, str]
    place: Place = field(default=("", 0), compare=False)


@dataclass(frozen=True)
class Table:
    """A data set without structural faults; the content of its media files is not checked (see train/data/decode.py).

    modalities: those that occur, name -> kind, in a stable order: image, audio, text, then as declared.
    splits: name -> rows in the order of the table; a missing split has no key.
    task: what the labels are.
    fingerprint: sha256 of the tables and dataset.json, not of the media.
    notes: a line for each split that has another name, and for each file that was not read.
    faults: those found so far, all of rows and values that were left out; decoding adds to them.
    schema: what each column is, so that later tables are read alike.
    """

    folder: Path
    modalities: Mapping[str, str]
    splits: Mapping[str, tuple[Row, ...]]
    task: Task
    fingerprint: str
    notes: tuple[str, ...] = ()
    schema: Schema = field(default=Schema(), compare=False)
    faults: Faults = field(default_factory=Faults, compare=False, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes or labels; none for a number."""
        return self.task.names


def leave_out(rows: Iterable[Row], faults: Faults) -> tuple[Row, ...]:
    """Leave out the rows and values at fault, as the policy says, and then the rows of which nothing remains."""
    bad, values = faults.left_out(), faults.left_out_values()
    kept = (_without(row, values[row.place]) if row.place in values else row for row in rows if row.place not in bad)
    return tuple(row for row in kept if row.values or row.place not in values)


def _without(row: Row, modalities: frozenset[str]) -> Row:
    """Return the row without these modalities. A mask that keeps none of the others is replaced by one that keeps all.

    A cell of kind `columns` that cannot be read is missing already. Its fault is of MODALITY.COLUMN, and the others stay.
    """
    values = {name: value for name, value in row.values.items() if name not in modalities}
    present = {rate: names & values.keys() or frozenset(values) for rate, names in row.present.items()}
    return replace(row, values=values, present=present)


def describe_left_out(table: Table) -> list[str]:
    """Describe the rows and values that were left out because of faults, and write the list of all faults."""
    kept = [row.place for rows in table.splits.values() for row in leave_out(rows, table.faults)]
    return table.faults.describe_left_out(kept)


def describe_lost_names(rows: Iterable[Row], task: Task) -> list[str]:
    """Name the classes or labels that no row for training is left of. Args: rows, those of the table before any was left out."""
    found = {name for row in rows if row.label is not None for name in task.names_in(row.label)}
    if lost := sorted(found - set(task.names)):
        named = ", ".join(map(abbreviate, lost))
        return [f"{task.name} left out, because each of their rows for training has a fault: {named}"]
    return []


def read_payload(value: Value) -> Payload:
    """Return what `Input.decode` takes: the bytes of a file, the text, the numbers or the cells themselves.

    Raises: DataError when the file can no longer be read.
    """
    return read_bytes(value) if isinstance(value, Path) else value


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises: DataError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check that it is there and readable") from error
