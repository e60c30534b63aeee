"""Replace a target in one step: write into a staging folder beside it, rename that, keep the old version as NAME.old."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mla_serve.errors import ConfigError
from mla_serve.output.targets import (
    BACKUP_SUFFIX,
    DISK_FULL,
    STAGING,
    Replaceable,
    absolute,
    backup_path,
    bundle_called,
    cannot_write,
    check_replaceable,
    is_empty,
    write_errors,
)


@contextlib.contextmanager
def staging_folder(target: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder beside the target of a bundle; rename it to the target when the block ends without an error.

    After an error the folder is removed. An older bundle of this name is kept as NAME.old. Staging folders that killed
    processes left are removed.

    Args: name, that of the bundle.
    Raises: ConfigError when the target may not be replaced, or nothing can be written.
    """
    target, replaceable = absolute(target), bundle_called(name)
    check_replaceable("--out", target, replaceable)
    with write_errors(f"--out {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        staging, lock = _make_staging(target)
    try:
        with write_errors(f"--out {target}"):
            staging.chmod(0o755)
        with _staging_errors(staging, target):
            yield staging
        replace("--out", staging, target, replaceable)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def _staging_errors(staging: Path, target: Path) -> Iterator[None]:
    """Report an OSError of writing into the staging folder under the name of the target. Raises: ConfigError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL and str(staging) not in str(error.filename):
            raise
        unnamed = OSError(error.errno, error.strerror)
        advice = "make room there or choose another --out; a run is kept, and mla-serve export RUN exports it"
        raise ConfigError(f"--out {target}: {cannot_write(unnamed, advice)}") from error


def replace(flag: str, new: Path, target: Path, replaceable: Replaceable) -> None:
    """Rename `new`, a folder or file beside the target, to the target. The old version replaces NAME.old.

    Raises: ConfigError when the target holds something else by now; then nothing is changed.
    """
    check_replaceable(flag, target, replaceable)
    old, older = backup_path(target), new.with_name(new.name + BACKUP_SUFFIX)
    moves = [(new, target)]
    if target.exists() and not is_empty(target):
        moves = [(target, old), *moves]
        if old.exists():
            moves = [(old, older), *moves]
    with write_errors(f"{flag} {target}"):
        _rename_all(moves)
        if older.exists():
            _remove(older)


def _rename_all(moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename one after the other; when one fails, undo those before it."""
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.replace(target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.replace(source)
        raise


def move_to_backup(flag: str, target: Path, replaceable: Replaceable) -> None:
    """Rename a folder to NAME.old, replacing an older one. Raises: ConfigError when that could lose something."""
    check_replaceable(flag, target, replaceable)
    if not target.exists() or is_empty(target):
        return
    with write_errors(f"{flag} {target}"):
        older = Path(tempfile.mkdtemp(prefix=f".{target.name}{STAGING}", dir=target.parent))
        try:
            backup = backup_path(target)
            _rename_all([*([(backup, older)] if backup.exists() else []), (target, backup)])
        finally:
            shutil.rmtree(older, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _make_staging(target: Path) -> tuple[Path, int]:
    """Make a staging folder and lock it while this process lives; return the folder and the lock's file descriptor."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}{STAGING}", dir=target.parent))
        lock = os.open(staging, os.O_RDONLY)
        _try_lock(lock)
        if staging.exists():  # else another process removed it as a leftover before it was locked
            return staging, lock
        os.close(lock)


def _try_lock(lock: int) -> bool:
    """Take a lock that ends with the process. Returns whether it was free; some file systems have no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_leftovers(target: Path) -> None:
    """Remove the staging folders of this target that killed processes left: those that no process has locked."""
    target = absolute(target)
    for entry in os.scandir(target.parent) if target.parent.is_dir() else ():
        if entry.name.startswith(f".{target.name}{STAGING}") and entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError), _open_folder(entry.path) as lock:
                if _try_lock(lock):
                    shutil.rmtree(entry.path)


@contextlib.contextmanager
def exclusive(flag: str, target: Path) -> Iterator[None]:
    """Lock a target against other processes that call this, by a lock on an empty file beside it.

    Raises: ConfigError when another process has locked it, or nothing can be written.
    """
    file = absolute(target).with_name(f".{target.name}.lock")
    with write_errors(f"{flag} {target}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            taken = "another process is writing it; wait until that ends, or choose another --name"
            raise ConfigError(f"{flag} {target}: {taken}") from error
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
    finally:
        os.close(lock)


@contextlib.contextmanager
def _open_folder(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
