"""`mla-serve cache`: list what training keeps on disk to use it again, and remove it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from rich.table import Table

from mla_serve.console import console, errors
from mla_serve.errors import ConfigError
from mla_serve.train.cache.folders import CacheFolder, list_folders, remove


@dataclasses.dataclass(frozen=True)
class CacheConfig:
    """List decoded pictures, recordings and texts, and features of frozen encoders, which training keeps to use them again.

    Nothing is lost with them: the next training decodes and computes again what it needs.
    """

    runs: Path = Path("runs")
    """Folder of all runs; the cache is .cache in it."""
    cache: Path | None = None
    """Folder of the cache, where training was given one by --cache."""
    clear: bool = False
    """Remove what is listed, except what a training is using."""
    older: float = 0.0
    """List or remove only what was last used so many days ago or longer."""
    json: bool = False
    """Print JSON: [{"path", "what", "data", "bytes", "days"}]."""


def run(config: CacheConfig) -> None:
    """List or remove."""
    if not config.older >= 0:
        raise ConfigError(f"--older {config.older}: expected a number of days, 0 or more")
    cache = config.cache or config.runs / ".cache"
    folders = [folder for folder in list_folders(cache) if folder.days >= config.older]
    if config.clear:
        _clear(folders)
    elif config.json:
        print(json.dumps([_facts(folder) for folder in folders], indent=1))
    else:
        _print(cache, folders)


def _clear(folders: list[CacheFolder]) -> None:
    """Remove folders, and say how much room that made."""
    removed = [folder for folder in folders if remove(folder)]
    for folder in folders:
        if folder not in removed:
            errors.print(f"{folder.path}: kept, a training is using it", style="yellow", soft_wrap=True)
    console.print(f"removed {len(removed)} of {len(folders)} folders, {_size(sum(one.size for one in removed))}")


def _print(cache: Path, folders: list[CacheFolder]) -> None:
    title = f"{cache}: {_size(sum(folder.size for folder in folders))}"
    table = Table("folder", "holds", "size", "last used", "by", title=title, title_justify="left")
    for folder in folders:
        name = f"{folder.path.parent.name}/{folder.path.name}"
        table.add_row(name, folder.what, _size(folder.size), f"{folder.days:.1f} days ago", ", ".join(folder.data))
    console.print(table)


def _facts(folder: CacheFolder) -> dict[str, object]:
    return {
        "path": str(folder.path),
        "what": folder.what,
        "data": folder.data,
        "bytes": folder.size,
        "days": round(folder.days, 3),
    }


def _size(count: float) -> str:
    """Format a number of bytes."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
