"""Decode every value of a data set once, and list the values that cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mla_serve.errors import DataError, InputError
from mla_serve.inputs import Payload
from mla_serve.table.dataset import Row, Table, read_payload
from mla_serve.table.faults import Place, format_faults, format_place, join_names

T = TypeVar("T")


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
