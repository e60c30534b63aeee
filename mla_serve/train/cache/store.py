"""Arrays on disk by the hash of the content that they were made from: appended, shared by processes, checked when used.

A store is a folder with two files. `records` holds the arrays one after the other. `index` holds an entry of fixed size for
each content: its key, where its records are, a checksum of them, what is known about them, and a checksum of the entry.
Records are written before the entry that names them, so an interrupted process leaves at most a tail that no entry names.
Whoever writes next removes that tail. Damaged entries and records are left aside, and the content is stored again.

Two files are for locks. Who writes holds `lock` alone. Who has the store open shares `used`, so that nobody removes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from mla_serve.errors import DataError
from mla_serve.inputs.base import Array
from mla_serve.output.targets import write_errors
from mla_serve.train.cache.locks import is_file_of, open_locked

RECORDS, INDEX, LOCK, USED = "records", "index", "lock", "used"
KEY = 32  # bytes of a sha256
WAITING = 4096  # items that wait for a thread at a time
S = TypeVar("S")
T = TypeVar("T")
FULL_ADVICE = (
    "make room there, or choose another --cache; what was stored before is kept, and `mla-serve cache` lists what can "
    "be removed"
)


class ArrayStore:
    """Records of one dtype by sha256: each content has one or more of them."""

    def __init__(self, folder: Path, record: DTypeLike, info: DTypeLike | None = None) -> None:
        """Use a folder that need not exist yet. It is not removed while this object lives.

        Args: record, dtype of one record; info, dtype of what is kept with each content.
        """
        self.folder, self.record = folder, np.dtype(record)
        known: list[Any] = [] if info is None else [("info", info)]
        fields = [("key", "u1", KEY), ("start", "<i8"), ("count", "<i4"), ("sum", "<u4"), *known, ("check", "<u4")]
        self._entry = np.dtype(fields)
        self._descriptor = -1
        self._used: weakref.finalize[..., ArrayStore] | None = None
        self._at: dict[bytes, int] = {}
        self._read = 0
        self.entries: Array = np.empty(0, self._entry)
        self.refresh()

    def __len__(self) -> int:
        """Return the number of contents."""
        return len(self._at)

    def refresh(self) -> None:
        """Read the entries that were added since the last time, by this process or another."""
        with contextlib.suppress(OSError):  # no such folder, or one that may only be read
            self._share()
        path = self.folder / INDEX
        count = path.stat().st_size // self._entry.itemsize if path.is_file() else 0
        if count < self._read:
            self._forget()
        if count == self._read:
            return
        self.entries = np.memmap(path, self._entry, "r", shape=(count,))
        new, held = self.entries[self._read :], self._stored_records()
        whole = _entry_sums(new) == new["check"]
        whole &= (new["start"] >= 0) & (new["count"] >= 0) & (new["start"] + new["count"] <= held)
        for at in np.flatnonzero(whole):
            self._at[new["key"][at].tobytes()] = self._read + int(at)
        self._read = count

    def find(self, keys: Sequence[bytes]) -> Array:
        """Return the number of the entry of each key, -1 where there is none: (len(keys),) int64."""
        return np.array([self._at.get(key, -1) for key in keys], np.int64)

    def find_all(self, keys: Sequence[bytes]) -> Array:
        """Do as `find` where every key must be there. Raises: DataError when one is missing."""
        found = self.find(keys)
        if missing := int((found < 0).sum()):
            raise DataError(
                f"{self.folder}: {missing:,} of {len(keys):,} values are missing that were stored before; the folder was "
                "removed or damaged meanwhile. Give the same command again: it stores them anew"
            )
        return found

    def find_whole(self, keys: Sequence[bytes]) -> Array:
        """Do as `find`, but read the records and leave aside those that differ from their checksum."""
        found = self.find(keys)
        numbers = np.unique(found[found >= 0])
        if not len(numbers):
            return found
        with (self.folder / RECORDS).open("rb") as file:
            whole = list(map_in_threads(lambda number: self._is_whole(file.fileno(), number), numbers.tolist()))
        damaged = numbers[~np.array(whole)]
        for number in damaged:
            self._at.pop(self.entries["key"][number].tobytes(), None)
        found[np.isin(found, damaged)] = -1
        return found

    def records(self) -> Array:
        """Return all records, mapped into memory: (n,) or (n, *shape) of the dtype of a record."""
        count = self._stored_records()
        if not count:
            return np.empty(0, self.record)
        mapped: Array = np.memmap(self.folder / RECORDS, self.record, "r", shape=(count,))
        return mapped

    def hold(self) -> None:
        """Make the folder, and keep others from removing it while this object lives.

        Raises: ConfigError when the folder cannot be written.
        """
        with write_errors(self.folder, FULL_ADVICE):
            while True:
                self.folder.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # removed since the line above
                    return self._share()

    @contextlib.contextmanager
    def writing(self, wait: str = "") -> Iterator[None]:
        """Let this process alone append, until the end of the block; wait for another that does.

        Args: wait, printed where another process has to be waited for.
        Raises: ConfigError when the folder cannot be written.
        """
        self.hold()
        with write_errors(self.folder, FULL_ADVICE):
            lock = _wait_for(self.folder / LOCK, wait)
        try:
            self.refresh()
            self._remove_tails()
            yield
        finally:
            os.close(lock)

    def append(self, keys: Sequence[bytes], records: Sequence[Array], info: Array | None = None) -> None:
        """Store contents that are not stored yet; call it inside `writing`.

        Args: records, those of each key: (count, ...); info (len(keys),), what to keep with each key.
        Raises: ConfigError when the disk is full.
        """
        if not keys:
            return
        contents = [np.ascontiguousarray(part, self.record.base).tobytes() for part in records]
        counts = np.array([len(part) for part in records])
        entries = np.zeros(len(keys), self._entry)
        entries["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY)
        entries["start"] = self._stored_records() + counts.cumsum() - counts
        entries["count"], entries["sum"] = counts, [zlib.crc32(content) for content in contents]
        if info is not None:
            entries["info"] = info
        entries["check"] = _entry_sums(entries)
        with write_errors(self.folder, FULL_ADVICE):
            _append(self.folder / RECORDS, contents)
            _append(self.folder / INDEX, [entries.tobytes()])
        self.refresh()

    def _share(self) -> None:
        """Take the lock of those who use the folder. Forget what was read if the folder was removed by other means."""
        path = self.folder / USED
        if self._used and is_file_of(self._descriptor, path):
            return
        self._descriptor = open_locked(path, fcntl.LOCK_SH)
        if self._used:
            self._used()
        self._used = weakref.finalize(self, os.close, self._descriptor)
        self._forget()

    def _forget(self) -> None:
        """Read all entries again at the next refresh."""
        self._at, self._read, self.entries = {}, 0, np.empty(0, self._entry)

    def _stored_records(self) -> int:
        path = self.folder / RECORDS
        return path.stat().st_size // self.record.itemsize if path.is_file() else 0

    def _is_whole(self, file: int, number: int) -> bool:
        entry = self.entries[number]
        size, start = self.record.itemsize, int(entry["start"])
        content = os.pread(file, int(entry["count"]) * size, start * size)
        return len(content) == int(entry["count"]) * size and zlib.crc32(content) == int(entry["sum"])

    def _remove_tails(self) -> None:
        """Remove what an interrupted process has written behind the last entry."""
        ends = self.entries["start"][list(self._at.values())] + self.entries["count"][list(self._at.values())]
        sizes = {RECORDS: int(ends.max(initial=0)) * self.record.itemsize, INDEX: self._read * self._entry.itemsize}
        with write_errors(self.folder, FULL_ADVICE):
            for name, size in sizes.items():
                path = self.folder / name
                if path.is_file() and path.stat().st_size > size:
                    os.truncate(path, size)


def map_in_threads(call: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Map in threads, in order, some thousands of items at a time: each that waits takes a kilobyte."""
    with ThreadPoolExecutor() as pool:
        for at in range(0, len(items), WAITING):
            yield from pool.map(call, items[at : at + WAITING])


def _entry_sums(entries: Array) -> Array:
    """Return the checksum of each entry, without the field that holds it: (n,) uint32."""
    size = entries.dtype.itemsize - 4
    content = memoryview(np.ascontiguousarray(entries).view(np.uint8).tobytes())
    starts = range(0, len(content), entries.dtype.itemsize)
    return np.array([zlib.crc32(content[at : at + size]) for at in starts], np.uint32)


def _append(path: Path, contents: Sequence[bytes]) -> None:
    """Append to a file. If that fails, the file is cut to its old size, which makes room again."""
    before = path.stat().st_size if path.is_file() else 0
    try:
        with path.open("ab") as file:
            file.writelines(contents)
    except OSError:
        os.truncate(path, before)
        raise


def _wait_for(path: Path, wait: str) -> int:
    """Take a lock alone; print `wait` if another process holds it."""
    try:
        return open_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if wait:
            from mla_serve.console import errors

            errors.print(wait, style="dim", soft_wrap=True)
        return open_locked(path, fcntl.LOCK_EX)
