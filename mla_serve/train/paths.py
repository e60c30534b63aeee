"""The paths that a training run reads and writes, checked before it begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mla_serve.errors import ConfigError
from mla_serve.output.replacing import remove_leftovers
from mla_serve.output.targets import RUN_FOLDER, backup_path, bundle_called, check_target, write_errors
from mla_serve.table.formats import without_suffix
from mla_serve.table.read import data_folder
from mla_serve.train.config import TrainConfig
from mla_serve.train.run_folder import LAST, RUN

CACHE = ".cache"  # in --runs


def check_paths(config: TrainConfig, name: str, read: Mapping[str, Path | None] | None = None) -> list[str]:
    """Refuse to write where there is anything other than a run or bundle of this name.

    A bundle may lie inside the data folder, because people train there; nothing else in it is replaced.

    Args: read, other things that are read, {description: path}; the bundle may not be one of them or hold one.
    Returns: a note for each folder that will be replaced. Raises: ConfigError.
    """
    folder, out = config.runs / name, bundle_folder(config, name)
    data = {"the data folder": data_folder(config.data or generated_folder(config))}
    notes: list[str | None] = []
    if config.resume and not (folder / LAST).is_file():
        notes.append(f"--resume: {folder} has no checkpoint; it is begun anew")
    if not (config.resume and (folder / LAST).is_file()):
        note = check_target(
            "--runs", folder, RUN_FOLDER, protected={"the file of --about": config.about, **data, **(read or {})}
        )
        if note and (folder / RUN).is_file():
            note = f"{folder}, a finished run, is trained again; the old one is kept as {backup_path(folder).name}"
        notes.append(note)
    own = {"the folder of the run": folder, "the cache": cache_folder(config)}
    spared = {**data, "the folder of --runs": config.runs, "the file of --about": config.about}
    notes.append(check_target("--out", out, bundle_called(name), {**(read or {}), **own}, spared))
    for target in (folder, out):
        with write_errors(target):
            remove_leftovers(target)
    return [note for note in notes if note]


def default_name(config: TrainConfig) -> str:
    """Return the name of the model where --name is left out: that of the table or of its folder.

    Raises: ConfigError where the data folder has no name.
    """
    if config.data is None:
        return "keypad"
    data = config.data.resolve()
    name = (
        re.sub(r"[^a-z0-9_-]+", "_", without_suffix(data.name).lower()).strip("_-")
        if data.is_file()
        else data.name.lower()
    )
    if not name:
        raise ConfigError(f"--data {config.data}: gives the model no name; give one with --name")
    return name


def bundle_folder(config: TrainConfig, name: str) -> Path:
    """Return the folder that the bundle is written to."""
    return config.out or Path("models") / name


def generated_folder(config: TrainConfig) -> Path:
    """Return the folder of the generated data set. No run can have this name: names do not begin with a dot."""
    return config.runs / ".data" / f"keypad-{config.seed}"


def cache_folder(config: TrainConfig) -> Path:
    """Return the folder of decoded values and of the features of frozen encoders. No run can have the default's name."""
    return config.cache or config.runs / CACHE
