"""Decode every value of a table once, into the cache, and list the values that cannot be decoded.

What is in the cache already is only read, and compared with its checksum. A value is known by the hash of its content, so a
file that was changed is decoded again, and rows that are added later are decoded alone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import mla_serve.inputs
from mla_serve.errors import ConfigError, DataError
from mla_serve.inputs import Array, Input
from mla_serve.progress import Progress
from mla_serve.table import Row, Table
from mla_serve.table.cells import Value
from mla_serve.table.check_files import describe_undecodable
from mla_serve.table.dataset import read_payload
from mla_serve.table.faults import Place
from mla_serve.train.cache.folders import note_use
from mla_serve.train.cache.store import FULL_ADVICE, ArrayStore, map_in_threads
from mla_serve.train.data import fingerprints, packing
from mla_serve.train.data.decode_values import (
    Decoded,
    Decoders,
    Failed,
    Result,
    count_processes,
    hash_payload,
)
from mla_serve.train.data.fingerprints import DIGEST, Fingerprint, sketch_dtype
from mla_serve.train.data.packing import packing_of

LIBRARIES = ("pillow", "soundfile", "soxr", "tokenizers")
WAITING = "another process is decoding into {folder}; waiting for it ..."
Values = Mapping[Place, Value]


@dataclasses.dataclass(frozen=True)
class DecodedTable:
    """The values of a table, decoded in the cache.

    keys: modality -> place of a row -> the hash of its value. opened: the stores that are open, by modality.
    """

    cache: Path
    inputs: Mapping[str, Input]
    keys: Mapping[str, Mapping[Place, bytes]]
    opened: dict[str, ArrayStore] = dataclasses.field(init=False, default_factory=dict, repr=False, compare=False)

    def store(self, name: str) -> ArrayStore:
        """Open the store of a modality. It stays open, so that its folder is not removed while training goes on."""
        if name not in self.opened:
            self.opened[name] = open_store(self.cache, self.inputs[name])
        self.opened[name].refresh()
        return self.opened[name]

    def __getstate__(self) -> dict[str, Any]:
        """Send no open files to other processes: they open the stores themselves."""
        return {**self.__dict__, "opened": {}}

    def read_fingerprints(self) -> Callable[[Row], dict[str, Fingerprint]]:
        """Return what gives the fingerprints of a row's values."""
        known = {name: _Fingerprints(self.store(name), keys) for name, keys in self.keys.items()}
        return lambda row: {name: known[name](row.place) for name in row.values if name in known}

    def complete(self, table: Table, threads: int | None = None) -> None:
        """Decode again what is missing here: on another machine of the same run, or where the cache has been cleared.

        Raises: DataError where a value differs from the one that was checked.
        """
        if all((self.store(name).find(list(keys.values())) >= 0).all() for name, keys in self.keys.items()):
            return
        again = decode_table(table, self.inputs, self.cache, threads)
        for name, keys in self.keys.items():
            if changed := [place for place, key in keys.items() if again.keys[name].get(place) != key]:
                raise DataError(
                    f"{table.folder}: {name} of {changed[0][0]}:{changed[0][1]} has changed since it was checked, or "
                    "differs on this machine; give all processes the same files and start again"
                )


class _Fingerprints:
    """Read fingerprints out of a store."""

    def __init__(self, store: ArrayStore, keys: Mapping[Place, bytes]) -> None:
        self._info = store.entries["info"] if len(store) else store.entries
        self._at = dict(zip(keys, store.find_all(list(keys.values())).tolist(), strict=True))

    def __call__(self, place: Place) -> Fingerprint:
        info = self._info[self._at[place]]
        return Fingerprint(info["digest"].tobytes(), info["sketch"] if info["sketched"] else None)


def decode_table(table: Table, inputs: Mapping[str, Input], cache: Path, threads: int | None = None) -> DecodedTable:
    """Decode every value of some modalities into a cache.

    Adds a fault to those of the table for each value that cannot be decoded.

    Args: inputs, by modality; threads, at most how many processes; default: one for each core.
    Raises: ConfigError when the cache cannot be written.
    """
    rows = [row for split in table.splits.values() for row in split]
    given = {name: {row.place: row.values[name] for row in rows if name in row.values} for name in inputs}
    values = sum(map(len, given.values()))
    files = sum(len(own) for name, own in given.items() if inputs[name].sent_as == "file")
    keys: dict[str, dict[Place, bytes]] = {}
    stores: dict[str, ArrayStore] = {}
    with Decoders(count_processes(files, threads)) as decoders, Progress("decoding", values) as progress:
        for name, spec in inputs.items():
            stores[name] = open_store(cache, spec)
            keys[name] = _Decoding(table, name, spec, stores[name], decoders, progress).run(given[name])
    decoded = DecodedTable(cache, dict(inputs), keys)
    decoded.opened.update(stores)
    return decoded


class _Decoding:
    """Decode the values of one modality."""

    def __init__(
        self, table: Table, name: str, spec: Input, store: ArrayStore, decoders: Decoders, progress: Progress
    ) -> None:
        self._table, self._name, self._spec = table, name, spec
        self._decoders, self._progress = decoders, progress
        self._store, self._info = store, info_dtype(spec)
        note_use(self._store, f"decoded {spec.kind}", spec.to_fields()[0], table.folder)
        self._keys: dict[Place, bytes] = {}

    def run(self, values: Values) -> dict[Place, bytes]:
        """Decode what the store lacks; returns the key of each value that can be decoded."""
        missing = self._look_up(values)
        if missing:
            with self._store.writing(WAITING.format(folder=self._store.folder)):
                missing = self._look_up(missing)
                self._check_room(len(missing))
                self._decode(missing)
        return self._keys

    def _look_up(self, values: Values) -> Values:
        """Take down the keys of the values that are stored whole; returns the other values."""
        if not len(self._store):
            return values
        keys = list(map_in_threads(_try_hash, list(values.values())))
        found = self._store.find_whole([key or b"" for key in keys])
        stored = {place: key for place, key, at in zip(values, keys, found, strict=True) if key and at >= 0}
        self._keys |= stored
        self._progress.advance(len(stored))
        return {place: value for place, value in values.items() if place not in stored}

    def _check_room(self, values: int) -> None:
        """Refuse a disk that has no room for one record of each value. Raises: ConfigError."""
        needed, free = values * self._store.record.itemsize, shutil.disk_usage(self._store.folder).free
        if needed > free:
            raise ConfigError(
                f"{self._store.folder}: {values:,} values of {self._name} take at least {needed / 1e9:.1f} GB when they "
                f"are decoded, and {free / 1e9:.1f} GB are free; {FULL_ADVICE}"
            )

    def _decode(self, values: Values) -> None:
        places, done = list(values), 0
        decoders = self._decoders if self._spec.sent_as == "file" else Decoders(1)
        for results in decoders.decode(self._spec, self._name, list(values.values())):
            self._keep(dict(zip(places[done : done + len(results)], results, strict=True)), values)
            done += len(results)
            self._progress.advance(len(results))

    def _keep(self, results: Mapping[Place, Result], values: Values) -> None:
        """Store some results, equal ones once, and add the faults."""
        new: dict[bytes, Decoded] = {}
        for place, result in results.items():
            if isinstance(result, Decoded):
                self._keys[place] = result.key
                new[result.key] = result
            else:
                self._add_fault(place, values[place], result)
        there = self._store.find(list(new))
        new = {key: one for (key, one), at in zip(new.items(), there, strict=True) if at < 0}
        info = np.array([_to_info(one.fingerprint, self._info) for one in new.values()], self._info)
        self._store.append(list(new), [one.records for one in new.values()], info)

    def _add_fault(self, place: Place, value: Value, failed: Failed) -> None:
        described = describe_undecodable(DataError(failed.message), value, self._table.folder)
        self._table.faults.add_value(place, self._name, described, failed.column)


def open_store(cache: Path, spec: Input) -> ArrayStore:
    """Open the store of what is decoded by an input, with the decoders that are installed."""
    fields, files = spec.to_fields()
    content = json.dumps([fields, _decoders()], sort_keys=True, default=str).encode() + b"".join(files.values())
    folder = cache / "decoded" / f"{spec.kind}-{hashlib.sha256(content).hexdigest()[:16]}"
    return ArrayStore(folder, packing_of(spec).record, info_dtype(spec))


def info_dtype(spec: Input) -> np.dtype[np.void]:
    """Return the dtype of what is stored with each value: its fingerprint."""
    return np.dtype([("digest", "u1", DIGEST), ("sketched", "?"), ("sketch", sketch_dtype(spec))])


def _to_info(one: Fingerprint, info: np.dtype[np.void]) -> tuple[Array, bool, Array]:
    sketch = np.zeros(info["sketch"].shape) if one.sketch is None else one.sketch
    return np.frombuffer(one.digest, np.uint8), one.sketch is not None, sketch


@functools.cache
def _decoders() -> list[str]:
    """Return what decoding depends on beside the settings: the source of the inputs, and the versions of libraries."""
    folder = Path(mla_serve.inputs.__file__).parent
    sources = [*sorted(folder.rglob("*.py")), Path(packing.__file__), Path(fingerprints.__file__)]
    source = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return [source, soundfile.__libsndfile_version__, *(importlib.metadata.version(name) for name in LIBRARIES)]


def _try_hash(value: Value) -> bytes | None:
    """Return the hash of a value; None for a file that cannot be read, which decoding reports."""
    try:
        return hash_payload(read_payload(value))
    except DataError:
        return None
