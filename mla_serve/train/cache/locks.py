"""Locks on files of the cache. They end with the process that holds them. Some file systems have none: then nothing is locked."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def open_locked(path: Path, operation: int) -> int:
    """Open and lock a file, which is made where it is missing; close the returned descriptor to unlock it.

    While a process waits for a lock, another may remove the file. Its lock would keep nobody out, so this begins again.

    Args: operation, as that of fcntl.flock.
    Raises: BlockingIOError where LOCK_NB is in the operation and another holds a lock; OSError when the file cannot be made.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, operation)
            if is_file_of(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def is_file_of(descriptor: int, path: Path) -> bool:
    """Return whether a path still leads to the file that was opened."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _lock(descriptor: int, operation: int) -> None:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        pass
