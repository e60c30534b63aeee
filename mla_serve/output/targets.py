"""Check where a command is about to write: refuse a target whose replacement could lose something of the user.

Every command checks its target before the work begins. replacing.py checks it again at the moment of the rename.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mla_serve.bundle.manifest import MANIFEST
from mla_serve.errors import ConfigError

RUN_CONFIG = "config.json"
BACKUP_SUFFIX = ".old"
STAGING = ".staging-"
SHOWN_FILES = 3  # how many foreign files an error lists
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Every path that training writes into the folder of a run, relative to it.
RUN_FILES = (
    r"(config|run|samples)\.json|(last|best)\.pt|.+\.backbone\.pt|metrics\.jsonl|(unfamiliar|intervals)\.npz|launch|about\.md"
    r"|(.+\.)?tokenizer\.json|samples|samples/\d+\.[a-z0-9_]+|(samples/)?\..+\.tmp"
    r"|tensorboard|tensorboard/events\.out\.tfevents\..+"
)


@dataclasses.dataclass(frozen=True)
class Replaceable:
    """What a command may replace.

    name: its name in messages; objection: path -> why the path is not such a thing ("holds notes.txt"), None if it is one.
    """

    name: str
    objection: Callable[[Path], str | None]


def bundle_called(name: str) -> Replaceable:
    """Return what recognises a bundle of this name: its manifest has the name and lists every file of the folder."""

    def objection(folder: Path) -> str | None:
        manifest = _read_manifest(folder / MANIFEST)
        if manifest is None:
            return _listing(_entries(folder))
        if manifest["name"] != name:
            return f"is a bundle called {manifest['name']}"
        known = {MANIFEST, *manifest["files"]}
        foreign = [path for path in _entries(folder, deep=True) if path not in known and not _is_folder_of(path, known)]
        return f"{_listing(foreign)}, not listed in its {MANIFEST}" if foreign else None

    return Replaceable(f"a bundle called {name}", objection)


def _not_a_run(folder: Path) -> str | None:
    """Return why a folder is not that of a training run."""
    held = _entries(folder, deep=True)
    if foreign := [path for path in held if not re.fullmatch(RUN_FILES, path)]:
        return _listing(foreign)
    config = _read_json(folder / RUN_CONFIG)
    return None if isinstance(config, dict) and "fingerprint" in config else f"{_listing(held)}, no run of mla_serve"


RUN_FOLDER = Replaceable("the folder of a run", _not_a_run)


def absolute(path: Path) -> Path:
    """Return the absolute path of a target, with the links and `..` of its folder resolved, but not a link at the target."""
    return path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()


def check_target(
    flag: str,
    path: Path,
    replaceable: Replaceable,
    disjoint: Mapping[str, Path | None] | None = None,
    protected: Mapping[str, Path | None] | None = None,
) -> str | None:
    """Refuse a target that holds something of the user, or that cannot be written.

    Args: flag, the flag that gave the path, for messages; disjoint, folders by description: none may contain the target
    or be contained in it; protected, paths by description: the target may not be or contain one. The current and the home
    directory are always protected.
    Returns: a note on what will be replaced and where it is kept; None when nothing is replaced.
    Raises: ConfigError.
    """
    target, disjoint = absolute(path), disjoint or {}
    always = {"the current directory": Path.cwd(), "the home directory": _home()}
    for description, other in {**always, **disjoint, **(protected or {})}.items():
        if other and (relation := _relation(target, other.resolve(), both=description in disjoint)):
            raise ConfigError(f"{flag} {path}: {relation} {description}, {other}; choose another place")
    check_replaceable(flag, target, replaceable)
    _check_writable(flag, target)
    if not target.exists() or is_empty(target):
        return None
    return f"{path} will be replaced; what it holds now is kept as {path.name}{BACKUP_SUFFIX}"


def _relation(target: Path, other: Path, *, both: bool) -> str | None:
    """Return "is" or "holds" when the target is or contains another path; with both, "lies in" when it is inside."""
    if target == other:
        return "is"
    if other.is_relative_to(target):
        return "holds"
    return "lies in" if both and target.is_relative_to(other) else None


def check_replaceable(flag: str, target: Path, replaceable: Replaceable) -> None:
    """Refuse a target, or a NAME.old beside it, unless it is absent, empty or replaceable. Raises: ConfigError."""
    if reason := _objection(target, replaceable):
        raise ConfigError(f"{flag} {target}: {reason}; only {replaceable.name} would be replaced; choose another place")
    backup = backup_path(target)
    if target.exists() and not is_empty(target) and (reason := _objection(backup, replaceable)):
        raise ConfigError(
            f"{flag} {target}: would be kept as {backup.name}, but that {reason}; move it away, or choose another place"
        )


def backup_path(target: Path) -> Path:
    """Return where the old version of a target is kept when it is replaced: NAME.old."""
    return target.with_name(target.name + BACKUP_SUFFIX)


def _objection(path: Path, replaceable: Replaceable) -> str | None:
    if path.is_symlink():
        return f"is a link to {path.readlink()}"
    if not path.exists() or is_empty(path):
        return None
    if os.path.ismount(path):
        return "is a mount point, which cannot be renamed"
    try:
        return replaceable.objection(path)
    except NotADirectoryError:
        return "is a file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # this user has no home directory
        return None


def is_empty(path: Path) -> bool:
    """Return whether a path is an empty folder that can be renamed."""
    return path.is_dir() and not os.path.ismount(path) and not any(path.iterdir())


def _entries(folder: Path, *, deep: bool = False) -> list[str]:
    """List the entries of a folder as relative paths, without following links. Raises: OSError when it is no folder."""
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        found.append(entry.name)
        if deep and entry.is_dir(follow_symlinks=False):
            found += [f"{entry.name}/{below}" for below in _entries(folder / entry.name, deep=True)]
    return found


def _is_folder_of(folder: str, files: set[str]) -> bool:
    return any(file.startswith(f"{folder}/") for file in files)


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_FILES} more" if len(names) > SHOWN_FILES else ""
    return f"holds {', '.join(islice(names, SHOWN_FILES))}{more}"


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """Read the name and files of a manifest of any version; None when it is no manifest."""
    content = _read_json(path)
    if not isinstance(content, dict):
        return None
    is_manifest = isinstance(content.get("name"), str) and isinstance(content.get("files"), dict)
    return content if is_manifest else None


def _read_json(path: Path) -> object:
    try:
        content: object = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content


def _check_writable(flag: str, target: Path) -> None:
    """Make a folder beside the target and remove it. Raises: ConfigError when it cannot be made."""
    parent = next(folder for folder in target.parents if folder.exists())
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}{STAGING}"[:200], dir=parent))
        with contextlib.suppress(FileNotFoundError):  # another training took it for a leftover
            made.rmdir()
    except OSError as error:
        named = OSError(error.errno, error.strerror, str(parent))
        raise ConfigError(f"{flag} {target}: {cannot_write(named)}") from error


@contextlib.contextmanager
def write_errors(what: str | Path, advice: str = "") -> Iterator[None]:
    """Turn an OSError of the block into a ConfigError that names what cannot be written. Raises: ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{what}: {cannot_write(error, advice)}") from error


def cannot_write(error: OSError, advice: str = "") -> str:
    """Describe why something cannot be written and what to do."""
    usual = "make room there" if error.errno in DISK_FULL else "choose a place where you may write"
    where = f", {error.filename}" if error.filename else ""
    return f"cannot be written ({error.strerror or error}{where}); {advice or usual}"
