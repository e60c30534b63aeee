"""Rows that are where they must not be: training rows among those to fit to, and fitted rows among those to measure on.

A bundle knows few of its training rows: those of its golden samples, and the hash of the table. Rows count as copies only by
something that is not the same by chance, such as a file; short texts are often equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mla_serve.bundle.manifest import Bundle
from mla_serve.errors import ConfigError, DataError, InputError
from mla_serve.inputs import Payload
from mla_serve.table import Row, read_payload
from mla_serve.train.data.decode_values import hash_payload
from mla_serve.train.data.fingerprints import FEWEST_NUMBERS
from mla_serve.train.golden_samples import as_stored

CANNOT_TELL = "training rows: whether these rows were among them cannot be told from the bundle; if they were, its probabilities are too sure"
Digests = Mapping[str, bytes]


def trained_on(training: Mapping[str, Any]) -> set[str]:
    """Return the hashes of the tables that a bundle and its extensions were trained on. Args: the facts on its training."""
    steps = [training, *training.get("extended", [])]
    return {step["config"]["fingerprint"] for step in steps if "fingerprint" in step.get("config", {})}


def refuse_training_rows(base: Bundle, rows: Sequence[Row], split: str) -> str:
    """Look for the golden samples among rows to fit to; returns a note where a bundle has none that could tell.

    Raises: ConfigError when half of them are there.
    """
    known = base.golden_samples() if base.manifest.golden_source == "training rows" else []
    samples = [_digests(sample) for sample in known if any(map(_is_telling, sample.values()))]
    if not samples:
        return CANNOT_TELL
    given = [_digests_of(row) for row in rows]
    found = sum(any(sample.items() <= row.items() for row in given) for sample in samples)
    if 2 * found < len(samples):
        return ""
    raise ConfigError(
        f"--split {split}: has {found} of the {len(samples)} training rows that the bundle holds as samples, so the model was "
        "trained on these rows, and its opinions on them are too sure; give it others"
    )


def without_copies(measured: Sequence[Row], fitted: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Leave out the rows to measure on that are also among those that are fitted. Args: names, of the model's modalities."""
    known = {key for row in fitted if (key := _key(row, names))}
    return [row for row in measured if _key(row, names) not in known]


def comparable(payload: Payload) -> Payload:
    """Return a payload as a golden sample holds it."""
    stored = as_stored(payload)
    return stored if isinstance(stored, bytes | str | Mapping) else [float(value) for value in stored]


def _key(row: Row, names: Sequence[str]) -> frozenset[tuple[str, bytes]] | None:
    """Return what copies of a row have in common; None where it has nothing that could not be the same by chance."""
    payloads = {name: payload for name, payload in _payloads(row).items() if name in names}
    return frozenset(_digests(payloads).items()) if any(map(_is_telling, payloads.values())) else None


def _digests_of(row: Row) -> Digests:
    return _digests(_payloads(row))


def _digests(payloads: Mapping[str, Payload]) -> Digests:
    return {name: hash_payload(comparable(payload)) for name, payload in payloads.items()}


def _payloads(row: Row) -> dict[str, Payload]:
    """Read the values of a row; one that cannot be read is a fault, which is told when it is decoded."""
    found = {}
    for name, value in row.values.items():
        try:
            found[name] = read_payload(value)
        except (DataError, InputError):
            continue
    return found


def _is_telling(payload: Payload) -> bool:
    """Return whether a payload is not the same as another by chance: a file, or many numbers."""
    return isinstance(payload, bytes) or (not isinstance(payload, str | Mapping) and len(payload) >= FEWEST_NUMBERS)
