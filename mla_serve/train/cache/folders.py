"""The folders of a cache: one for each way of decoding and for each frozen encoder, with a note on what it holds.

    CACHE/decoded/image-0a1b2c...       decoded with these settings of the input, by this version of the decoders
    CACHE/features/0a1b2c...            features of an encoder with these weights

A folder is removed as a whole, and only when no training has it open.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mla_serve.output.targets import write_errors
from mla_serve.train.cache.locks import open_locked
from mla_serve.train.cache.store import FULL_ADVICE, USED, ArrayStore

ABOUT = "about.json"
KINDS = ("decoded", "features")
MOST_DATA = 20  # data folders that a note names


@dataclasses.dataclass(frozen=True)
class CacheFolder:
    """What one folder holds: a line on its content, the data that used it, its bytes, and when it was last used."""

    path: Path
    what: str
    data: tuple[str, ...]
    size: int
    used: float

    @property
    def days(self) -> float:
        """Days since it was last used."""
        return (time.time() - self.used) / 86_400


def note_use(store: ArrayStore, what: str, settings: Mapping[str, Any], data: Path | None) -> None:
    """Write down what a store holds and that it is used now. Raises: ConfigError when that cannot be written."""
    store.hold()
    path = store.folder / ABOUT
    about = _read_about(path) or {"what": what, "settings": settings, "data": []}
    used_by = [str(data.resolve())] if data else []
    about["data"] = list(dict.fromkeys([*used_by, *about["data"]]))[:MOST_DATA]
    with write_errors(store.folder, FULL_ADVICE):
        temporary = path.with_name(f".{ABOUT}.{os.getpid()}-{threading.get_ident()}")
        temporary.write_text(json.dumps(about, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        temporary.replace(path)


def list_folders(cache: Path) -> list[CacheFolder]:
    """List what a cache holds, the last used first."""
    found = [_describe(folder) for folder in _folders(cache)]
    return sorted(found, key=lambda one: -one.used)


def remove(folder: CacheFolder) -> bool:
    """Remove a folder; returns False where another process uses it."""
    with write_errors(folder.path):
        try:
            used = open_locked(folder.path / USED, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            # A process that waits for the lock finds no such folder then, and makes a new one.
            leaving = folder.path.rename(folder.path.with_name(f".{folder.path.name}.{os.getpid()}"))
        finally:
            os.close(used)
        shutil.rmtree(leaving)
    return True


def _folders(cache: Path) -> Iterator[Path]:
    for kind in KINDS:
        if (cache / kind).is_dir():
            yield from sorted(path for path in (cache / kind).iterdir() if (path / ABOUT).is_file())


def _describe(folder: Path) -> CacheFolder:
    about = _read_about(folder / ABOUT) or {}
    size = sum(path.stat().st_size for path in folder.iterdir())
    used = (folder / ABOUT).stat().st_mtime
    return CacheFolder(folder, str(about.get("what", "unknown")), tuple(about.get("data", ())), size, used)


def _read_about(path: Path) -> dict[str, Any] | None:
    """Read a note; None where there is none or it is damaged."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and isinstance(about.get("data"), list) else None
