"""Metrics that a full disk cannot turn into a crash.

The numbers of the workers meet in files that prometheus_client maps into memory. Writing to a page for which the disk
has no room left kills the process with SIGBUS, and every process that takes its place. So the room is reserved first;
where there is none the numbers stay in memory: the worker answers on, and /metrics does without it.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
from pathlib import Path
from typing import Any, BinaryIO

log = logging.getLogger("mla_serve")
SIZE = 2**18  # bytes of a file to begin with; prometheus_client doubles it when it is full
LONGEST = 4_096  # bytes of one number with its labels, at most
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def install() -> None:
    """Make prometheus_client reserve room on the disk. Call it in a worker, before there are metrics."""
    if not hasattr(os, "posix_fallocate") or not hasattr(os, "memfd_create"):
        return
    # Only a worker may import it, and late: BentoML tells it by a variable where the workers' numbers meet.
    from prometheus_client import mmap_dict, values

    before: Any = mmap_dict.MmapedDict

    class Reserved(before):  # type: ignore[misc]
        """Numbers in a mapped file whose pages are there."""

        def __init__(self, filename: str, read_mode: bool = False) -> None:
            super().__init__(filename if read_mode or reserve_file(Path(filename)) else _in_memory(), read_mode)

        def _init_value(self, key: str) -> None:
            if self._used + LONGEST > self._capacity and not reserve(self._f.fileno(), 2 * self._capacity):
                self._move_to_memory()
            super()._init_value(key)

        def _move_to_memory(self) -> None:
            content = self._m[:]
            self.close()
            self._m: mmap.mmap
            self._f: BinaryIO
            self._f = Path(_in_memory()).open("r+b")  # noqa: SIM115 - it stays open, as the one before
            self._f.truncate(len(content))
            self._m = mmap.mmap(self._f.fileno(), len(content))
            self._m[:] = content

    setattr(values, "MmapedDict", Reserved)  # noqa: B010 - it is imported there, not exported


def reserve_file(path: Path) -> bool:
    """Make a file of SIZE bytes that are on the disk, unless it is there already; False when there is no room."""
    new = not path.exists()
    try:
        with path.open("ab") as file:
            reserved = reserve(file.fileno(), SIZE)
    except OSError:
        reserved = False
    if not reserved:
        log.error("there is no room on the disk for metrics (%a): those of this worker are left out", path.name)
        if new:
            path.unlink(missing_ok=True)
    return reserved


def reserve(descriptor: int, size: int) -> bool:
    """Take so many bytes of the disk for a file; False when there are none. What cannot reserve is taken as it is."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        return error.errno not in NO_ROOM
    return True


def _in_memory() -> str:
    """Make a file that lies in memory; returns its path."""
    descriptor = os.memfd_create("metrics")
    os.ftruncate(descriptor, SIZE)
    return f"/proc/self/fd/{descriptor}"
