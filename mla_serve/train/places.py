"""Where a training run reads and writes, checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mla_serve.errors import ConfigError
from mla_serve.output.targets import RUN_FOLDER, backup_path, bundle_called, check_target
from mla_serve.train.config import TrainConfig
from mla_serve.train.run_folder import LAST, RUN


def default_name(config: TrainConfig) -> str:
    """Return what the model is called where --name does not say it. Raises: ConfigError where the folder has no name."""
    if config.data is None:
        return "keypad"
    name = config.data.resolve().name.lower()
    if not name:
        raise ConfigError(f"--data {config.data}: gives the model no name; give one with --name")
    return name


def bundle_folder(config: TrainConfig, name: str) -> Path:
    """Return where the bundle goes."""
    return config.out or Path("models") / name


def generated_folder(config: TrainConfig) -> Path:
    """Return where the generated data set lies; no run can be called so."""
    return config.runs / ".data" / f"keypad-{config.seed}"


def cache_folder(config: TrainConfig) -> Path:
    """Return where the features of frozen encoders are kept."""
    return config.cache or config.runs / "features"


def check_places(config: TrainConfig, name: str, read: Mapping[str, Path | None] | None = None) -> list[str]:
    """Refuse to write where something lies that is not of a run or bundle of this name.

    A bundle may lie in the data folder, as it does where somebody trains in it; nothing there is replaced.

    Args: read, what else is read and may not hold the bundle: what -> its path.
    Returns: what will be replaced, a line each. Raises: ConfigError.
    """
    folder, out = config.runs / name, bundle_folder(config, name)
    data = {"the data folder": config.data or generated_folder(config)}
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
    return [note for note in notes if note]
