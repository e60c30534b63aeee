"""dataset.json: what the columns are, where that is not to be inferred, and which of them group rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mla_serve.inputs import INPUTS
from mla_serve.inputs.base import NAME_PATTERN
from mla_serve.table.faults import Faults, InvalidValue, abbreviate, join_names
from mla_serve.table.schema import COLUMN_KINDS

DATASET_JSON = "dataset.json"
WHOLE_FILE = (DATASET_JSON, 0)
KNOWN_ENTRIES = ("modalities", "columns", "label", "split", "group", "about")
STANDARD_KINDS = {"image": "image", "audio": "audio", "text": "text"}
RESERVED = ("id", "label", "split", "present", "head", "top_k", "coverage", "fusion", "model")
"""Names that no modality can have: of columns, request options and files of a bundle; names that begin with head_, too."""


@dataclass(frozen=True)
class Declaration:
    """The content of dataset.json.

    modalities: those that it declares, name -> kind; sources: their columns; columns: column -> what it holds;
    groups: modality -> column; group: the column that groups all modalities.
    """

    modalities: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None
    split: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None


def parse_declaration(data: bytes | None, faults: Faults) -> Declaration:
    """Read dataset.json; entries that cannot be used become faults and are left out."""
    given = {} if data is None else _parse_object(data, faults)
    for name in [name for name in given if name not in KNOWN_ENTRIES]:
        faults.add(
            WHOLE_FILE,
            f"unknown entry {abbreviate(name)}; expected {join_names(KNOWN_ENTRIES)}; remove it or correct its spelling",
        )
    modalities, sources = _parse_modalities(given.get("modalities", {}), faults)
    group = given.get("group", {})
    return Declaration(
        modalities,
        sources,
        _parse_columns(given.get("columns", {}), faults),
        _parse_column_name("label", given, faults),
        _parse_column_name("split", given, faults),
        _parse_groups(group, faults),
        group if isinstance(group, str) else None,
    )


def _parse_object(data: bytes, faults: Faults) -> dict[str, Any]:
    try:
        given = json.loads(data.decode("utf-8-sig"))
        if isinstance(given, dict):
            return given
        reason = f"expected an object with any of {join_names(KNOWN_ENTRIES)}, got {abbreviate(given)}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    faults.add(WHOLE_FILE, f"not usable JSON: {reason}; correct it")
    return {}


def _parse_modalities(given: object, faults: Faults) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return the declared modalities without faults: name -> kind, and name -> columns."""
    kinds, sources = {}, {}
    for name, entry in _entries("modalities", given, '{"name": "kind"}', faults):
        with faults.collecting(WHOLE_FILE, "modalities"):
            check_name(name)
            kinds[name], sources[name] = _parse_modality(name, entry)
    return kinds, sources


def _parse_modality(name: str, entry: object) -> tuple[str, tuple[str, ...]]:
    """Return kind and columns of "kind", or of {"kind": ..., "column": ...} or {"kind": ..., "columns": [...]}."""
    kind = entry.get("kind") if isinstance(entry, dict) else entry
    if not isinstance(kind, str) or kind not in INPUTS:
        raise InvalidValue(f"{name}: unknown kind {abbreviate(kind)}; expected one of {join_names(INPUTS)}")
    if not isinstance(entry, dict):
        return kind, (name,)
    columns = entry.get("columns", [entry.get("column", name)])
    if not isinstance(columns, list) or not columns or not all(isinstance(column, str) for column in columns):
        raise InvalidValue(f'{name}: expected {{"kind": ..., "columns": [names]}}, got {abbreviate(entry)}; correct it')
    if unknown := [key for key in entry if key not in ("kind", "column", "columns")]:
        raise InvalidValue(f"{name}: unknown entry {abbreviate(unknown[0])}; expected kind, column or columns")
    if len(columns) > 1 and kind != "columns":
        raise InvalidValue(
            f"{name}: {len(columns)} columns, expected one for the kind {kind}; name a modality for each"
        )
    return kind, tuple(columns)


def _parse_columns(given: object, faults: Faults) -> dict[str, str]:
    """Return column -> what it holds."""
    usable = {}
    for name, kind in _entries("columns", given, '{"column": "kind"}', faults):
        with faults.collecting(WHOLE_FILE, "columns"):
            usable[name] = check_kind(name, kind)
    return usable


def check_kind(column: str, kind: object) -> str:
    """Return the kind of a column. Raises: InvalidValue for an unknown one."""
    if not isinstance(kind, str) or kind not in COLUMN_KINDS:
        raise InvalidValue(f"{column}: unknown kind {abbreviate(kind)}; expected one of {', '.join(COLUMN_KINDS)}")
    return kind


def _entries(entry: str, given: object, expected: str, faults: Faults) -> list[tuple[str, object]]:
    if isinstance(given, dict):
        return list(given.items())
    faults.add(WHOLE_FILE, f"{entry}: expected {expected}, got {abbreviate(given)}; correct it")
    return []


def _parse_column_name(entry: str, given: Mapping[str, Any], faults: Faults) -> str | None:
    name = given.get(entry)
    if name is None or isinstance(name, str):
        return name
    faults.add(WHOLE_FILE, f'{entry}: expected "column", got {abbreviate(name)}; correct it')
    return None


def is_usable_name(name: str) -> bool:
    """Return whether a name can be both a file name and a request field."""
    return bool(re.fullmatch(NAME_PATTERN, name)) and name not in RESERVED and not name.startswith("head_")


def check_name(name: str) -> None:
    """Refuse a name that cannot be both a file name and a request field. Raises: InvalidValue."""
    if not is_usable_name(name):
        rule = f"at most 64 of a-z, 0-9 and _, a letter first; not {', '.join(RESERVED)}, nor beginning with head_"
        raise InvalidValue(
            f"the name {abbreviate(name)} cannot be used; expected {rule}; rename it here and in the tables"
        )


def _parse_groups(given: object, faults: Faults) -> dict[str, str]:
    """Return modality -> column; empty where a single column groups all modalities."""
    if isinstance(given, str):
        return {}
    if not isinstance(given, dict) or not all(isinstance(column, str) for column in given.values()):
        faults.add(
            WHOLE_FILE, f'group: expected "column" or {{"modality": "column"}}, got {abbreviate(given)}; correct it'
        )
        return {}
    return given
