"""dataset.json: modalities beside image, audio and text, and the columns that group rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mla_serve.inputs import INPUTS
from mla_serve.inputs.base import NAME_PATTERN
from mla_serve.table.faults import Faults, InvalidValue, abbreviate, join_names

DATASET_JSON = "dataset.json"
WHOLE_FILE = (DATASET_JSON, 0)
KNOWN_ENTRIES = ("modalities", "group", "about")
STANDARD_KINDS = {"image": "image", "audio": "audio", "text": "text"}
RESERVED = ("id", "label", "split", "present", "head", "top_k", "coverage", "fusion", "model")
"""Names that no modality can have: of columns, request options and files of a bundle; names that begin with head_, too."""


@dataclass(frozen=True)
class Declaration:
    """The content of dataset.json.

    kinds: modality -> kind, the standard ones first; declared: the modalities that it declares; groups: modality -> column.
    """

    kinds: Mapping[str, str]
    declared: tuple[str, ...]
    groups: Mapping[str, str]


def parse_declaration(data: bytes | None, faults: Faults) -> Declaration:
    """Read dataset.json; entries that cannot be used become faults and are left out."""
    given = {} if data is None else _parse_object(data, faults)
    for name in [name for name in given if name not in KNOWN_ENTRIES]:
        faults.add(
            WHOLE_FILE,
            f"unknown entry {abbreviate(name)}; expected {join_names(KNOWN_ENTRIES)}; remove it or correct its spelling",
        )
    declared = _parse_modalities(given.get("modalities", {}), faults)
    kinds = {**STANDARD_KINDS, **declared}
    return Declaration(kinds, tuple(declared), _parse_groups(given.get("group", {}), kinds, faults))


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


def _parse_modalities(given: object, faults: Faults) -> dict[str, str]:
    """Return the declared modalities without faults: name -> kind."""
    if not isinstance(given, dict):
        faults.add(WHOLE_FILE, f'modalities: expected {{"name": "kind"}}, got {abbreviate(given)}; correct it')
        return {}
    usable = {}
    for name, kind in given.items():
        with faults.collecting(WHOLE_FILE, "modalities"):
            _check_name(name)
            if not isinstance(kind, str) or kind not in INPUTS:
                raise InvalidValue(f"{name}: unknown kind {abbreviate(kind)}; expected one of {join_names(INPUTS)}")
            usable[name] = kind
    return usable


def _check_name(name: str) -> None:
    """Refuse a name that cannot be both a file name and a request field. Raises: InvalidValue."""
    if not re.fullmatch(NAME_PATTERN, name) or name in RESERVED or name.startswith("head_"):
        rule = f"at most 64 of a-z, 0-9 and _, a letter first; not {', '.join(RESERVED)}, nor beginning with head_"
        raise InvalidValue(
            f"the name {abbreviate(name)} cannot be used; expected {rule}; rename it here and in the tables"
        )


def _parse_groups(given: object, kinds: Mapping[str, str], faults: Faults) -> dict[str, str]:
    """Return modality -> column; a single column groups all modalities."""
    if isinstance(given, str):
        return dict.fromkeys(kinds, given)
    if not isinstance(given, dict) or not all(isinstance(column, str) for column in given.values()):
        faults.add(
            WHOLE_FILE, f'group: expected "column" or {{"modality": "column"}}, got {abbreviate(given)}; correct it'
        )
        return {}
    for name in [name for name in given if name not in kinds]:
        faults.add(WHOLE_FILE, f"group: unknown modality {abbreviate(name)}; expected some of {join_names(kinds)}")
    return {name: column for name, column in given.items() if name in kinds}
