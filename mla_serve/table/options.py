"""dataset.json: modalities beside image, audio and text, and the columns that group rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mla_serve.inputs import INPUTS
from mla_serve.inputs.base import NAME_PATTERN
from mla_serve.table.faults import Faults, Unusable, listed, short

FILE = "dataset.json"
WHOLE = (FILE, 0)
ENTRIES = ("modalities", "group", "about")
STANDARD = {"image": "image", "audio": "audio", "text": "text"}
RESERVED = ("id", "label", "split", "present", "head", "top_k", "coverage", "fusion", "model")
"""Names of columns, of request fields and of a bundle's files; so are those that begin with head_."""


@dataclass(frozen=True)
class Options:
    """What dataset.json says.

    kinds: modality -> kind, the standard ones first; declared: names of those it declares; groups: modality -> column.
    """

    kinds: Mapping[str, str]
    declared: tuple[str, ...]
    groups: Mapping[str, str]


def parse_options(data: bytes | None, faults: Faults) -> Options:
    """Read dataset.json; what cannot be used is noted and left out."""
    given = {} if data is None else _parse_object(data, faults)
    for name in [name for name in given if name not in ENTRIES]:
        faults.add(WHOLE, f"unknown entry {short(name)}; expected {listed(ENTRIES)}; remove it or correct its spelling")
    declared = _parse_modalities(given.get("modalities", {}), faults)
    kinds = {**STANDARD, **declared}
    return Options(kinds, tuple(declared), _parse_groups(given.get("group", {}), kinds, faults))


def _parse_object(data: bytes, faults: Faults) -> dict[str, Any]:
    try:
        given = json.loads(data.decode("utf-8-sig"))
        if isinstance(given, dict):
            return given
        reason = f"expected an object with any of {listed(ENTRIES)}, got {short(given)}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    faults.add(WHOLE, f"not usable JSON: {reason}; correct it")
    return {}


def _parse_modalities(given: object, faults: Faults) -> dict[str, str]:
    """Return the declared modalities that can be used: name -> kind."""
    if not isinstance(given, dict):
        faults.add(WHOLE, f'modalities: expected {{"name": "kind"}}, got {short(given)}; correct it')
        return {}
    usable = {}
    for name, kind in given.items():
        with faults.noting(WHOLE, "modalities"):
            _check_name(name)
            if not isinstance(kind, str) or kind not in INPUTS:
                raise Unusable(f"{name}: unknown kind {short(kind)}; expected one of {listed(INPUTS)}")
            usable[name] = kind
    return usable


def _check_name(name: str) -> None:
    """Refuse a name that cannot be a file and a request field. Raises: Unusable."""
    if not re.fullmatch(NAME_PATTERN, name) or name in RESERVED or name.startswith("head_"):
        rule = f"at most 64 of a-z, 0-9 and _, a letter first; not {', '.join(RESERVED)}, nor beginning with head_"
        raise Unusable(f"the name {short(name)} cannot be used; expected {rule}; rename it here and in the tables")


def _parse_groups(given: object, kinds: Mapping[str, str], faults: Faults) -> dict[str, str]:
    """Return modality -> column; one column alone is the group of all modalities."""
    if isinstance(given, str):
        return dict.fromkeys(kinds, given)
    if not isinstance(given, dict) or not all(isinstance(column, str) for column in given.values()):
        faults.add(WHOLE, f'group: expected "column" or {{"modality": "column"}}, got {short(given)}; correct it')
        return {}
    for name in [name for name in given if name not in kinds]:
        faults.add(WHOLE, f"group: unknown modality {short(name)}; expected some of {listed(kinds)}")
    return {name: column for name, column in given.items() if name in kinds}
