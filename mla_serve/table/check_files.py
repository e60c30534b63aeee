"""Decode the files of a table that is refused anyway, so that one list shows these faults too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track

from mla_serve.console import errors
from mla_serve.errors import DataError, InputError
from mla_serve.inputs import INPUTS, Input
from mla_serve.table.cells import Value
from mla_serve.table.dataset import Row, read_payload
from mla_serve.table.faults import Faults, Place, abbreviate


def check_files(rows: Iterable[Row], kinds: Mapping[str, str], folder: Path, faults: Faults) -> None:
    """Add a fault for each picture, recording, ... that cannot be decoded. Args: kinds, modality -> kind."""
    trials = {name: trial for name, kind in kinds.items() if (trial := INPUTS[kind].trial())}
    values = [(row.place, name, row.values[name]) for row in rows for name in trials if name in row.values]

    def check(one: tuple[Place, str, Value]) -> str | None:
        return find_fault(trials[one[1]], one[1], one[2], folder)

    with ThreadPoolExecutor() as pool:
        hidden = not errors.is_terminal or not values
        found = track(
            pool.map(check, values), "checking files", len(values), console=errors, transient=True, disable=hidden
        )
        for (place, name, _), fault in zip(values, found, strict=True):
            if fault:
                faults.add_value(place, name, fault)


def find_fault(spec: Input, modality: str, value: Value, folder: Path) -> str | None:
    """Return why a value cannot be decoded, with the path of its file; None if it can."""
    try:
        spec.decode(read_payload(value), modality)
    except (InputError, DataError) as error:
        return describe_undecodable(error, value, folder)
    return None


def find_column(error: InputError | DataError, modality: str) -> str | None:
    """Return the column of the cell at fault, for a modality of several columns; None where that is not known."""
    field = error.field if isinstance(error, InputError) else ""
    return field.removeprefix(f"{modality}.") if field.startswith(f"{modality}.") else None


def describe_undecodable(error: InputError | DataError, value: Value, folder: Path) -> str:
    """Describe why a value cannot be decoded: the path of its file inside the folder, if it has one, and the reason."""
    reason = error.message if isinstance(error, InputError) else str(error)
    if not isinstance(value, Path):
        return reason
    path = value.relative_to(folder) if value.is_relative_to(folder) else value
    return f"{abbreviate(path.as_posix())}: {reason.removeprefix(f'{value}: ')}"
