"""A data set that has been read: rows in splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mla_serve.errors import DataError, InputError
from mla_serve.inputs import Payload
from mla_serve.table.faults import Place, format_faults, format_place, join_names

SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "eval": "val",
    "testing": "test",
}
"""Other common names of splits -> the names used here."""
T = TypeVar("T")

Value = Path | str | tuple[float, ...]
"""The absolute path of a file, a text, or the numbers of a vector."""


@dataclass(frozen=True)
class Row:
    """One labelled sample.

    values: modality -> value; only the modalities that are there.
    present: missing rate in percent ("20") -> the modalities left at that rate, a non-empty subset of `values`.
    groups: modality -> group (speaker, writer, ...), where known.
    place: the file and line in the table, for messages.
    """

    id: str
    label: str
    values: Mapping[str, Value]
    present: Mapping[str, frozenset[str]]
    groups: Mapping[str, str]
    place: Place = field(default=("", 0), compare=False)


@dataclass(frozen=True)
class Table:
    """A data set without structural faults; the content of its media files is not checked (see check_rows).

    modalities: those that occur, name -> kind, in a stable order: image, audio, text, then as declared.
    splits: name -> rows in the order of the table; a missing split has no key.
    classes: the labels of train, sorted, as numbers where all are integers.
    fingerprint: sha256 of the tables and dataset.json, not of the media.
    notes: a line for each split that has another name, and for each file that was not read.
    """

    folder: Path
    modalities: Mapping[str, str]
    splits: Mapping[str, tuple[Row, ...]]
    classes: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()


def split_named(name: str) -> str | None:
    """Return the split that a name stands for, such as val for "Validation"; None for any other name."""
    plain = name.strip().lower()
    return plain if plain in SPLITS else SPLIT_ALIASES.get(plain)


def read_payload(value: Value) -> Payload:
    """Return what `Input.decode` takes: the bytes of a file, the text or the numbers themselves.

    Raises: DataError when the file can no longer be read.
    """
    return read_bytes(value) if isinstance(value, Path) else value


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises: DataError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check that it is there and readable") from error


def check_rows(table: Table, splits: Sequence[str], decode: Callable[[str, Payload], T]) -> dict[Place, dict[str, T]]:
    """Decode every value of the named splits once, in threads, and list the rows that fail.

    Args: decode(modality, payload) returns anything, or raises InputError.
    Returns: place of a row -> modality -> what `decode` returned.
    Raises: DataError with the number of faulty values and the first 20 of them in the order of the tables: table and
            line, modality, file, reason.
    """
    if unknown := [split for split in splits if split not in table.splits]:
        have = join_names(table.splits)
        raise DataError(f"{table.folder}: got the split {unknown[0]!r}, expected some of {have}; choose those")

    def check(row: Row) -> tuple[dict[str, T], list[str]]:
        return _decode_row(table.folder, row, decode)

    rows = _in_order(table, splits)
    with ThreadPoolExecutor() as pool:
        checked = list(pool.map(check, rows))
    if found := [line for _, lines in checked for line in lines]:
        raise DataError(format_faults(table.folder, found, "value", "that cannot be decoded; repair or remove them"))
    return {row.place: decoded for row, (decoded, _) in zip(rows, checked, strict=True)}


def _in_order(table: Table, splits: Sequence[str]) -> list[Row]:
    """Return the rows of these splits in the order of the tables; one table may hold several splits."""
    rows = [row for split in splits for row in table.splits[split]]
    files = list(dict.fromkeys(row.place[0] for row in rows))
    return sorted(rows, key=lambda row: (files.index(row.place[0]), row.place[1]))


def _decode_row(folder: Path, row: Row, decode: Callable[[str, Payload], T]) -> tuple[dict[str, T], list[str]]:
    """Return the decoded values of a row, and one line for each value that cannot be decoded."""
    decoded, found = {}, []
    for modality, value in row.values.items():
        try:
            decoded[modality] = decode(modality, read_payload(value))
        except (InputError, DataError) as error:
            file = f" ({value.relative_to(folder).as_posix()})" if isinstance(value, Path) else ""
            reason = error.message if isinstance(error, InputError) else str(error)
            found.append(f"{format_place(row.place)}: {modality}{file}: {reason}")
    return decoded, found
