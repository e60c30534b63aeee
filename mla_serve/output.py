"""Where commands write. Nothing is deleted or replaced but what the same command wrote before, and that is kept as NAME.old.

Every command checks its target before the work begins and again at the moment of the rename.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mla_serve.bundle.manifest import MANIFEST
from mla_serve.errors import ConfigError

RUN_CONFIG = "config.json"
OLD = ".old"
STAGING = ".staging-"
SHOWN = 3  # names of foreign files that a refusal lists
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

RUN_FILES = (
    r"(config|run|samples)\.json|(last|best)\.pt|.+\.backbone\.pt|metrics\.jsonl|unfamiliar\.npz|launch|about\.md"
    r"|(.+\.)?tokenizer\.json|samples|samples/\d+\.[a-z0-9_]+|(samples/)?\..+\.tmp"
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a command may replace.

    noun: what it is called in messages; strange: path -> why it is not such a thing ("holds notes.txt"), None if it is.
    """

    noun: str
    strange: Callable[[Path], str | None]


def bundle_called(name: str) -> Kind:
    """Return the kind of bundles of one name: the manifest says the name and lists every file of the folder."""

    def strange(folder: Path) -> str | None:
        manifest = _read_manifest(folder / MANIFEST)
        if manifest is None:
            return _holds(_entries(folder))
        if manifest["name"] != name:
            return f"is a bundle called {manifest['name']}"
        known = {MANIFEST, *manifest["files"]}
        foreign = [path for path in _entries(folder, deep=True) if path not in known and not _leads_to(path, known)]
        return f"{_holds(foreign)}, not listed in its {MANIFEST}" if foreign else None

    return Kind(f"a bundle called {name}", strange)


def _run_strange(folder: Path) -> str | None:
    held = _entries(folder, deep=True)
    if foreign := [path for path in held if not re.fullmatch(RUN_FILES, path)]:
        return _holds(foreign)
    begun = _read_json(folder / RUN_CONFIG)
    return None if isinstance(begun, dict) and "fingerprint" in begun else f"{_holds(held)}, no run of mla_serve"


RUN_FOLDER = Kind("the folder of a run", _run_strange)


def place(path: Path) -> Path:
    """Return the absolute place of a target: its folder without links and `..`, its own name as it is."""
    return path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()


def check_target(
    flag: str,
    path: Path,
    kind: Kind,
    apart: Mapping[str, Path | None] | None = None,
    spared: Mapping[str, Path | None] | None = None,
) -> str | None:
    """Refuse a target that could cost the user something, or that cannot be written.

    Args: flag, what chose the path, for messages; apart, what -> its path, neither of which may hold the other; spared,
    what the target may not be or hold, beside the current and the home directory.
    Returns: a note on what will be replaced and where it is kept; None where nothing is.
    Raises: ConfigError.
    """
    target, apart = place(path), apart or {}
    always = {"the current directory": Path.cwd(), "the home directory": _home()}
    for what, other in {**always, **apart, **(spared or {})}.items():
        if other and (relation := _relation(target, other.resolve(), both=what in apart)):
            raise ConfigError(f"{flag} {path}: {relation} {what}, {other}; choose another place")
    why_not_replace(flag, target, kind)
    _probe(flag, target)
    if not target.exists() or _is_empty(target):
        return None
    return f"{path} will be replaced; what it holds now is kept as {path.name}{OLD}"


def _relation(target: Path, other: Path, *, both: bool) -> str | None:
    if target == other:
        return "is"
    if other.is_relative_to(target):
        return "holds"
    return "lies in" if both and target.is_relative_to(other) else None


def why_not_replace(flag: str, target: Path, kind: Kind) -> None:
    """Refuse a target, or a NAME.old beside it, that is anything but absent, empty or of this kind. Raises: ConfigError."""
    if reason := _strange(target, kind):
        raise ConfigError(f"{flag} {target}: {reason}; only {kind.noun} would be replaced; choose another place")
    if target.exists() and not _is_empty(target) and (reason := _strange(kept(target), kind)):
        raise ConfigError(
            f"{flag} {target}: would be kept as {kept(target).name}, but that {reason}; move it away, or choose another place"
        )


def kept(target: Path) -> Path:
    """Return the path under which what `target` holds is kept when it is replaced."""
    return target.with_name(target.name + OLD)


def _strange(path: Path, kind: Kind) -> str | None:
    if path.is_symlink():
        return f"is a link to {path.readlink()}"
    if not path.exists() or _is_empty(path):
        return None
    if os.path.ismount(path):
        return "is a mount point, which cannot be renamed"
    try:
        return kind.strange(path)
    except NotADirectoryError:
        return "is a file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a user without one
        return None


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not os.path.ismount(path) and not any(path.iterdir())


def _entries(folder: Path, *, deep: bool = False) -> list[str]:
    """List what a folder holds, as relative paths; links are not followed. Raises: OSError where it is no folder."""
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        found.append(entry.name)
        if deep and entry.is_dir(follow_symlinks=False):
            found += [f"{entry.name}/{below}" for below in _entries(folder / entry.name, deep=True)]
    return found


def _leads_to(folder: str, files: set[str]) -> bool:
    return any(file.startswith(f"{folder}/") for file in files)


def _holds(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"holds {', '.join(islice(names, SHOWN))}{more}"


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """Read what says whose a folder is, of bundles of any version; None where it is no manifest."""
    content = _read_json(path)
    if not isinstance(content, dict):
        return None
    is_one = isinstance(content.get("name"), str) and isinstance(content.get("files"), dict)
    return content if is_one else None


def _read_json(path: Path) -> object:
    try:
        content: object = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content


def _probe(flag: str, target: Path) -> None:
    """Make sure that something can be written beside the target. Raises: ConfigError."""
    parent = next(folder for folder in target.parents if folder.exists())
    try:
        Path(tempfile.mkdtemp(prefix=f".{target.name}{STAGING}"[:200], dir=parent)).rmdir()
    except OSError as error:
        told = OSError(error.errno, error.strerror, str(parent))
        raise ConfigError(f"{flag} {target}: {cannot_write(told)}") from error


@contextlib.contextmanager
def writing(what: str | Path, advice: str = "") -> Iterator[None]:
    """Turn an OSError inside into one line on what cannot be written. Raises: ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{what}: {cannot_write(error, advice)}") from error


def cannot_write(error: OSError, advice: str = "") -> str:
    """Say why something cannot be written and what to do."""
    usual = "make room there" if error.errno in FULL else "choose a place where you may write"
    where = f", {error.filename}" if error.filename else ""
    return f"cannot be written ({error.strerror or error}{where}); {advice or usual}"


@contextlib.contextmanager
def staged(target: Path, name: str) -> Iterator[Path]:
    """Give an empty folder beside `target` that takes its place when the block ends well, and vanishes otherwise.

    A bundle of this name that was there is kept as NAME.old. Folders that killed processes left are removed.

    Args: name, that of the bundle.
    Raises: ConfigError, when the target may not be replaced, or nothing can be written.
    """
    target, kind = place(target), bundle_called(name)
    why_not_replace("--out", target, kind)
    with writing(f"--out {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        staging, lock = _make_staging(target)
    try:
        with writing(f"--out {target}"):
            staging.chmod(0o755)
        with _written_into(staging, target):
            yield staging
        replace("--out", staging, target, kind)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def _written_into(staging: Path, target: Path) -> Iterator[None]:
    """Tell an OSError of writing into the staging folder by the name of the target. Raises: ConfigError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL and str(staging) not in str(error.filename):
            raise
        told = OSError(error.errno, error.strerror)
        advice = "make room there or choose another --out; a run is kept, and mla-serve export RUN exports it"
        raise ConfigError(f"--out {target}: {cannot_write(told, advice)}") from error


def replace(flag: str, new: Path, target: Path, kind: Kind) -> None:
    """Rename `new`, a folder or file beside it, to `target`; what was there becomes NAME.old, in place of an older one.

    Raises: ConfigError, with everything as it was, when something else has come to lie there.
    """
    why_not_replace(flag, target, kind)
    old, older = kept(target), new.with_name(new.name + OLD)
    moves = [(new, target)]
    if target.exists() and not _is_empty(target):
        moves = [(target, old), *moves]
        if old.exists():
            moves = [(old, older), *moves]
    with writing(f"{flag} {target}"):
        _rename_all(moves)
        if older.exists():
            _remove(older)


def _rename_all(moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename one after the other, or none at all."""
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.replace(target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.replace(source)
        raise


def put_aside(flag: str, target: Path, kind: Kind) -> None:
    """Rename a folder to NAME.old, in place of an older one. Raises: ConfigError where that could lose something."""
    why_not_replace(flag, target, kind)
    if not target.exists() or _is_empty(target):
        return
    with writing(f"{flag} {target}"):
        older = Path(tempfile.mkdtemp(prefix=f".{target.name}{STAGING}", dir=target.parent))
        try:
            _rename_all([*([(kept(target), older)] if kept(target).exists() else []), (target, kept(target))])
        finally:
            shutil.rmtree(older, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _make_staging(target: Path) -> tuple[Path, int]:
    """Make a folder that says whose it is, and hold it while this process lives; returns it and what holds it."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}{STAGING}", dir=target.parent))
        lock = os.open(staging, os.O_RDONLY)
        _hold(lock)
        if staging.exists():  # or another process took it for a leftover before it was held
            return staging, lock
        os.close(lock)


def _hold(lock: int) -> bool:
    """Take a lock that ends with the process. Returns: whether it could be had; some file systems have none."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_leftovers(target: Path) -> None:
    """Remove the staging folders of this target that no process holds any more."""
    for entry in os.scandir(target.parent):
        if entry.name.startswith(f".{target.name}{STAGING}") and entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError), _opened(entry.path) as lock:
                if _hold(lock):
                    shutil.rmtree(entry.path)


@contextlib.contextmanager
def alone(flag: str, target: Path) -> Iterator[None]:
    """Keep other processes that ask the same away from a target, by an empty file beside it that is locked meanwhile.

    Raises: ConfigError when another process has it, or nothing can be written.
    """
    file = place(target).with_name(f".{target.name}.lock")
    with writing(f"{flag} {target}"):
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
def _opened(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
