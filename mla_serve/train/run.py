"""From a plan to a finished run folder: begin or resume the run, train, fit the fusion, write run.json."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mla_serve import __version__
from mla_serve.errors import ConfigError
from mla_serve.output.replacing import move_to_backup
from mla_serve.output.targets import RUN_FOLDER
from mla_serve.train.clock import Clock
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.row_counts import count_rows
from mla_serve.train.data.samples import Samples
from mla_serve.train.device import pick_device
from mla_serve.train.distributed import collectives
from mla_serve.train.event_files import event_files
from mla_serve.train.golden_samples import generate_golden_samples, pick_golden_samples
from mla_serve.train.loop import Report, Trainer
from mla_serve.train.paths import cache_folder
from mla_serve.train.plan import Plan
from mla_serve.train.run_folder import INTERVALS, LAST, LAUNCH, METRICS, REFERENCES, RUN, RunFolder, backbone_file
from mla_serve.train.strategies import STRATEGIES
from mla_serve.train.strategies.head_projection import FORMER_DEFAULT, canonical

FREE_TO_CHANGE = (
    "resume",
    "out",
    "runs",
    "threads",
    "device",
    "about",
    "show",
    "samples",
    "data",
    "extend",
    "cache",
    "log",
)
"""Flags that may differ when a run is resumed, because they do not change what is learned."""


def train_as_planned(
    config: TrainConfig,
    planned: Plan,
    report: Report,
    step: Callable[[], None] = lambda: None,
    launch: str | None = None,
    spent: float = 0.0,
) -> RunFolder:
    """Train as planned into runs/NAME, and fit the fusion on validation rows.

    Of several processes, rank 0 alone validates, fits and writes.

    Args: report, called with the record of each epoch; step, called after each batch; launch, the name of this call of
    torchrun. If the same call began the run, this is a restart: it resumes. spent, seconds that planning took, which count
    towards --time-limit.
    Raises: ConfigError when --resume is given and the settings differ from those of the run, or when planning took all the
    time.
    """
    clock = _start_clock(config.time_limit, spent) if config.time_limit else None
    folder, device = RunFolder(config.runs / planned.name), pick_device(config.device)
    strategy = planned.build(config.seed)

    def read() -> dict[str, Samples]:
        planned.decoded.complete(planned.table, config.threads)
        planned.load_backbones(strategy, cache_folder(config), device)
        splits = ("train", "val") if collectives.is_main() else ("train",)
        return {split: planned.samples(split, dict(strategy.encoders.items())) for split in splits}

    samples = collectives.main_first(read) if planned.pretrained else read()
    trainer = Trainer(strategy, samples, folder, choices=planned.choices, device=device, clock=clock)
    _start(config, planned, folder, trainer, launch)
    with event_files(report, folder.path, config.log if collectives.is_main() else None) as logged:
        trainer.run(logged, step)
    if collectives.is_main():
        _finish(config, planned, folder, trainer, samples)
    return folder


def _start_clock(minutes: float, spent: float) -> Clock:
    """Start the clock of a run with a time limit. Raises: ConfigError when no time is left to train in."""
    counted = collectives.from_main(lambda: spent)
    if counted >= 60 * minutes:
        raise collectives.reported_once(
            ConfigError(
                f"--time-limit {minutes:g}: reading and decoding alone took {counted / 60:.1f} minutes; give more, or the same again: what was "
                "decoded is kept and is not decoded a second time"
            )
        )
    clock = Clock(minutes)
    clock.add(counted)
    return clock


def _start(config: TrainConfig, planned: Plan, folder: RunFolder, trainer: Trainer, launch: str | None) -> None:
    """Resume the unfinished run, or begin a new one; an older run of the same name is kept beside it as NAME.old."""
    settings = _to_json(dataclasses.asdict(planned.choices.settings)) | {"fingerprint": planned.table.fingerprint}
    settings |= {"precision": planned.recipe.options.precision, "norm": planned.recipe.norm, **planned.origin}
    settings["hgm"] = canonical(planned.recipe.options.hgm) if _takes_hgm(planned) else None
    settings |= {f"weights of {name}": loaded.settings.weights for name, loaded in planned.pretrained.items()}
    if collectives.from_main(lambda: _resume_or_begin(config.resume, settings, planned.origin, folder, launch)):
        trainer.resume()
        return
    if collectives.is_main():
        for name, loaded in planned.pretrained.items():
            if loaded.settings.tune == "frozen":
                folder.save(backbone_file(name), loaded.backbone.state_dict())
    trainer.measure(known=planned.start.names if planned.start else ())


def _takes_hgm(planned: Plan) -> bool:
    strategy = STRATEGIES.get(planned.recipe.strategy)  # none for an extension
    return strategy is not None and "hgm" in strategy.own_options


def _resume_or_begin(
    resume: bool, settings: Mapping[str, Any], origin: Mapping[str, Any], folder: RunFolder, launch: str | None
) -> bool:
    """Decide whether to resume from the checkpoint, after --resume or a restart by torchrun; if not, begin the folder.

    Args: origin, is written again when a run is resumed: the bundle that is extended may have been moved.
    Returns: True to resume.
    Raises: ConfigError when the checkpoint was made with other settings.
    """
    restarted = launch is not None and folder.read_launch() == launch
    if (resume or restarted) and (folder.path / LAST).exists():
        begun = folder.read_json("config.json")
        # A run of an older version has fewer settings: the missing ones had their defaults.
        before = _to_json(dataclasses.asdict(TrainConfig())) | {"norm": "batch"} | begun
        if settings["hgm"]:
            before["hgm"] = canonical(before["hgm"] or FORMER_DEFAULT)
        if isinstance(before["augment"], bool):  # of an older version
            before["augment"] = "auto" if before["augment"] else "none"
        changed = [
            key
            for key in {**before, **settings}
            if key not in FREE_TO_CHANGE and _without_folder(settings.get(key)) != _without_folder(before.get(key))
        ]
        if changed:
            raise ConfigError(
                f"--resume: {', '.join(changed)} changed since {folder.path} was begun; give the same, or start anew"
            )
        folder.write_json("config.json", {**begun, **origin})
        return True
    if restarted:
        (folder.path / METRICS).unlink(missing_ok=True)
    else:
        move_to_backup("--runs", folder.path, RUN_FOLDER)
    folder.write_json("config.json", settings)
    if launch:
        folder.write_bytes(LAUNCH, launch.encode())
    return False


def _without_folder(setting: object) -> object:
    """Leave out where the extended bundle lies, which may change."""
    if isinstance(setting, dict):
        return {key: value for key, value in setting.items() if key != "folder"}
    return setting


def _to_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        for key, value in fields.items()
    }


def _finish(
    config: TrainConfig, planned: Plan, folder: RunFolder, trainer: Trainer, samples: Mapping[str, Samples]
) -> None:
    """Fit on validation rows, store the golden samples, and write run.json, which makes the run complete."""
    fitted = planned.fit(trainer.strategy, samples, trainer.device, config.seed)
    folder.write_bytes(REFERENCES, fitted.references.to_bytes())
    folder.write_bytes(INTERVALS, fitted.intervals.to_bytes())
    packages = ("torch", "numpy", *(("transformers",) if planned.pretrained else ()))
    if config.samples:
        folder.write_golden_samples(*pick_golden_samples(planned.rows["train"], planned.inputs, planned.recipe.task))
    else:
        generator = np.random.default_rng(config.seed)
        folder.write_golden_samples(generate_golden_samples(planned.inputs, generator, list(planned.recipe.inputs)), [])
    if config.about:
        folder.write_bytes("about.md", config.about.read_bytes())
    told = [*filter(None, [trainer.ended]), *fitted.notes]
    folder.write_json(
        RUN,
        {
            "name": planned.name,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "recipe": folder.write_recipe(dataclasses.replace(planned.recipe, task=fitted.task)),
            "config": folder.read_json("config.json"),
            "data": str((config.data or planned.table.folder).resolve()),
            "table": planned.table.schema.to_dict(),
            "held_out": planned.held_out,
            "left_out": planned.table.faults.to_dicts(),
            "counts": {split: len(rows) for split, rows in planned.rows.items()},
            "rows": count_rows(planned.rows, planned.recipe.inputs),
            "fusion": fitted.fusion.to_dict(),
            "head_shift": planned.choices.balance.head_shift,
            "best": trainer.best,
            "notes": [*planned.notes, *told],
            "exported_notes": [*planned.exported_notes, *told],
            "golden_source": "training rows" if config.samples else "generated",
            "versions": {"mla_serve": __version__} | {package: version(package) for package in packages},
            "processes": collectives.world_size(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        },
    )
