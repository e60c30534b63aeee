"""From a configuration to a finished run folder: read, check, choose inputs, train, fit the fusion."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mla_serve import __version__
from mla_serve.errors import ConfigError
from mla_serve.inputs import Input, Payload
from mla_serve.output.replacing import move_to_backup
from mla_serve.output.targets import RUN_FOLDER
from mla_serve.table import Row, Table, check_rows, read_payload, read_table
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.checks import Print, Rows, check_data, make_print
from mla_serve.train.data.choose_inputs import choose_inputs
from mla_serve.train.data.counts import check_modalities, count_rows
from mla_serve.train.data.keypad import make_keypad
from mla_serve.train.data.samples import Samples, batches_per_epoch, decode_rows
from mla_serve.train.data.split import split_validation
from mla_serve.train.distributed import collectives
from mla_serve.train.encoders import ENCODERS
from mla_serve.train.fit.after_training import Trust, establish
from mla_serve.train.golden import make_samples, pick_rows
from mla_serve.train.loop import Report, Trainer
from mla_serve.train.places import cache_folder, check_places, default_name, generated_folder
from mla_serve.train.pretrained import PREFIX
from mla_serve.train.pretrained.read import CHECKED, Loaded, load_pretrained, pick_tunes
from mla_serve.train.run_folder import LAST, LAUNCH, METRICS, RUN, UNFAMILIAR, Recipe, RunFolder, backbone_file
from mla_serve.train.strategies import STRATEGIES, Options, Strategy

VALIDATION_SHARE = 0.2
OWN_OPTIONS = frozenset().union(*(strategy.takes for strategy in STRATEGIES.values()))
# Flags that do not change what is learned.
FREE_TO_CHANGE = ("resume", "out", "runs", "threads", "device", "about", "samples", "data", "extend", "cache")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known before the first step: the checked data and the recipe."""

    name: str
    table: Table
    rows: Mapping[str, Sequence[Row]]
    recipe: Recipe
    notes: list[str]
    pretrained: Mapping[str, Loaded] = dataclasses.field(default_factory=dict, kw_only=True)
    announced: Sequence[str] = dataclasses.field(default=(), kw_only=True)
    """What to say before it begins and not to keep: the folders that are replaced."""
    held_out: Sequence[str] | None = dataclasses.field(default=None, kw_only=True)
    """The ids of the training rows that validation was made of; None where the table has validation rows."""

    @property
    def inputs(self) -> Mapping[str, Input]:
        """All modalities of the bundle that is to be."""
        return self.recipe.inputs

    @property
    def origin(self) -> Mapping[str, Any]:
        """What the run starts from, beside the data: nothing."""
        return {}

    def build(self, seed: int) -> Strategy:
        """Make the modules, freshly initialised but for what is pretrained, which is to be adopted."""
        return self.recipe.build(seed)

    def set_backbone(self, strategy: Strategy, cache: Path | None, device: torch.device) -> None:
        """Give pretrained encoders their weights."""
        for name, loaded in self.pretrained.items():
            strategy.encoders[name].set_backbone(loaded.backbone, cache, device)

    def establish(self, strategy: Strategy, samples: Mapping[str, Samples], device: torch.device, seed: int) -> Trust:
        """Fit on validation what makes the numbers trustworthy."""
        return establish(strategy, self.recipe.inputs, samples, self.rows, device, seed)


def plan(config: TrainConfig) -> Plan:
    """Read and check the data, and choose inputs and encoders.

    Raises: ConfigError, DataError; nothing has been written then but the generated data set.
    """
    config.check()
    name = config.name or default_name(config)
    announced = check_places(config, name)
    table = read_data(config)
    kinds = _kinds(table, config.modalities)
    rows: dict[str, Sequence[Row]] = {split: with_any(table.splits[split], kinds) for split in table.splits}
    notes = [*table.notes, *(f"{len(rows[split])} rows for {split}" for split in rows)]
    held_out = None
    if not rows.get("val"):
        rows["train"], rows["val"], note = split_validation(rows["train"], VALIDATION_SHARE, config.seed)
        notes.append(note)
        held_out = [row.id for row in rows["val"]]
    notes += check_modalities(rows, kinds, held_out=held_out is not None)
    encoders = pick_encoders(kinds, config)
    inputs, pretrained = choose_readers(rows["train"], kinds, encoders, config)
    notes += decode_and_check(table, rows, inputs, table.classes)
    notes += check_pretrained(rows["train"], pretrained)
    recipe = make_recipe(table.classes, inputs, encoders, pretrained, config.width, config.strategy, config)
    recipe.build()
    return Plan(name, table, rows, recipe, notes, pretrained=pretrained, announced=announced, held_out=held_out)


def choose_readers(
    rows: Sequence[Row], kinds: Mapping[str, str], encoders: Mapping[str, str], config: TrainConfig
) -> tuple[dict[str, Input], dict[str, Loaded]]:
    """Choose every modality's input, from the data or as its pretrained encoder wants it: {name: kind} -> {name: input}.

    Raises: ConfigError when a pretrained encoder cannot be used.
    """
    tunes = pick_tunes(config, encoders)
    drafted = {name: kind for name, kind in kinds.items() if name not in tunes or kind != "text"}
    inputs = choose_inputs(rows, drafted, config)
    pretrained = {}
    for name, tune in tunes.items():
        texts = [str(row.values[name]) for row in rows if name in row.values]
        source, draft = encoders[name].removeprefix(PREFIX), inputs.get(name, texts)
        pretrained[name] = load_pretrained(source, tune, config.lora_rank, kinds[name], draft)
        inputs[name] = pretrained[name].spec
    return {name: inputs[name] for name in kinds}, pretrained


def make_recipe(
    classes: tuple[str, ...],
    inputs: Mapping[str, Input],
    encoders: Mapping[str, str],
    pretrained: Mapping[str, Loaded],
    width: int,
    strategy: str,
    config: TrainConfig,
) -> Recipe:
    """Put together what fixes the modules; pretrained encoders are named without the folder that they came from."""
    settings = {name: loaded.settings for name, loaded in pretrained.items()}
    named = {name: f"{PREFIX}{one.source}" for name, one in settings.items()}
    return Recipe(
        classes, inputs, {**encoders, **named}, width, strategy, pick_options(config), settings, pick_norm(config)
    )


def decode_and_check(table: Table, rows: Rows, inputs: Mapping[str, Input], classes: Sequence[str]) -> list[str]:
    """Decode every value of the table once, and return notes on what may be wrong with the rows.

    Args: rows, those to be used, by split; inputs, of the modalities to be used.
    Raises: DataError when a value cannot be decoded, or nothing can be learned from the rows.
    """

    def decode(modality: str, value: Payload) -> Print | None:
        spec = inputs.get(modality)
        return make_print(spec.kind, value, spec.decode(value, modality)) if spec else None

    decoded = check_rows(table, list(table.splits), decode)

    def prints(row: Row) -> dict[str, Print]:
        return {name: one for name, one in decoded[row.place].items() if one}

    return check_data(rows, {name: spec.kind for name, spec in inputs.items()}, prints, classes)


def check_pretrained(rows: Sequence[Row], pretrained: Mapping[str, Loaded]) -> list[str]:
    """Hold pretrained encoders against their processors on some rows; returns notes. Raises: ConfigError."""
    notes = []
    for name, loaded in pretrained.items():
        some = itertools.islice((row for row in rows if name in row.values), CHECKED)
        notes.append(f"{name}: {loaded.check([read_payload(row.values[name]) for row in some])}")
        if loaded.settings.tune == "frozen":
            notes.append(f"{name}: not augmented, for what a frozen encoder says of a sample is computed once")
    return notes


def train(
    config: TrainConfig,
    planned: Plan,
    report: Report,
    step: Callable[[], None] = lambda: None,
    launch: str | None = None,
) -> RunFolder:
    """Train as planned into runs/NAME and fit the fusion on validation; what is validated and written, rank 0 does.

    Args: launch, the name of the call of torchrun; where it began the run, this is its restart, and goes on.

    Raises: ConfigError when --resume does not fit what is there.
    """
    folder, device = RunFolder(config.runs / planned.name), pick_device(config.device)
    strategy = planned.build(config.seed)

    def read() -> dict[str, Samples]:
        planned.set_backbone(strategy, cache_folder(config), device)
        splits = ("train", "val") if collectives.is_main() else ("train",)
        return {split: _decode(planned, strategy, split) for split in splits}

    samples = collectives.main_first(read) if planned.pretrained else read()
    trainer = Trainer(
        strategy,
        samples,
        folder,
        epochs=config.passes,
        batch_size=config.batch_size,
        seed=config.seed,
        augment=config.augments,
        device=device,
    )
    _start(config, planned, folder, trainer, launch)
    trainer.run(report, step)
    if collectives.is_main():
        _finish(config, planned, folder, trainer, samples)
    return folder


def _decode(planned: Plan, strategy: Strategy, split: str) -> Samples:
    return decode_rows(
        planned.rows[split], planned.recipe.inputs, planned.recipe.classes, dict(strategy.encoders.items())
    )


def total_steps(config: TrainConfig, planned: Plan) -> int:
    """Count the batches of a whole run."""
    return config.passes * batches_per_epoch(len(planned.rows["train"]), config.batch_size)


def pick_device(name: str) -> torch.device:
    """Return the device of a --device flag.

    Raises: ConfigError for CUDA where there is none.
    """
    if name == "auto":
        return collectives.own_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"--device {name}: torch finds no CUDA device here; use --device cpu, or install torch with CUDA"
        )
    try:
        return collectives.own_device(torch.device(name))
    except RuntimeError:
        raise ConfigError(f"--device {name}: expected cpu, cuda or auto") from None


def pick_precision(name: str, device: torch.device) -> str:
    """Return what --precision means on a device: auto is bf16 where bf16 products are faster than fp32's."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has = torch.cpu.get_capabilities()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"


def pick_norm(config: TrainConfig) -> str:
    """Return what --norm means: by default group where processes share a batch on the CPU, which batch cannot."""
    several = collectives.launched() and pick_device(config.device).type == "cpu"
    return config.norm or ("group" if several else "batch")


def _start(config: TrainConfig, planned: Plan, folder: RunFolder, trainer: Trainer, launch: str | None) -> None:
    """Take up the unfinished run, or begin a new one; an older run of the same name is kept beside it as NAME.old."""
    facts = _jsonable(dataclasses.asdict(config))
    facts |= {"epochs": config.passes, "augment": config.augments, "fingerprint": planned.table.fingerprint}
    facts |= {"precision": planned.recipe.options.precision, "norm": planned.recipe.norm, **planned.origin}
    facts |= {f"weights of {name}": loaded.settings.weights for name, loaded in planned.pretrained.items()}
    if collectives.from_main(lambda: _goes_on(config.resume, facts, planned.origin, folder, launch)):
        trainer.resume()
        return
    if collectives.is_main():
        for name, loaded in planned.pretrained.items():
            if loaded.settings.tune == "frozen":
                folder.save(backbone_file(name), loaded.backbone.state_dict())
    trainer.measure()


def _goes_on(
    resume: bool, facts: Mapping[str, Any], origin: Mapping[str, Any], folder: RunFolder, launch: str | None
) -> bool:
    """Say whether to go on from a checkpoint, as told or after torchrun's restart; where not, begin the run's folder.

    Args: origin, what is written down anew when it goes on: the bundle that is extended may have been moved.

    Raises: ConfigError when the checkpoint is of other settings.
    """
    restarted = launch is not None and folder.read_launch() == launch
    if (resume or restarted) and (folder.path / LAST).exists():
        begun = folder.read_json("config.json")
        before = _jsonable(dataclasses.asdict(TrainConfig())) | {"norm": "batch"} | begun  # older runs were told less
        changed = [
            key
            for key in {**before, **facts}
            if key not in FREE_TO_CHANGE and _what(facts.get(key)) != _what(before.get(key))
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
    folder.write_json("config.json", facts)
    if launch:
        folder.write_bytes(LAUNCH, launch.encode())
    return False


def _what(fact: object) -> object:
    """Leave out where something lies."""
    return {key: value for key, value in fact.items() if key != "folder"} if isinstance(fact, dict) else fact


def _finish(
    config: TrainConfig, planned: Plan, folder: RunFolder, trainer: Trainer, samples: Mapping[str, Samples]
) -> None:
    """Fit the fusion on validation, keep the golden samples, and write run.json, which makes the run complete."""
    trust = planned.establish(trainer.strategy, samples, trainer.device, config.seed)
    folder.write_bytes(UNFAMILIAR, trust.references.to_bytes())
    packages = ("torch", "numpy", *(("transformers",) if planned.pretrained else ()))
    folder.write_samples(
        pick_rows(planned.rows["train"], planned.inputs)
        if config.samples
        else make_samples(planned.inputs, np.random.default_rng(config.seed), list(planned.recipe.inputs))
    )
    if config.about:
        folder.write_bytes("about.md", config.about.read_bytes())
    folder.write_json(
        RUN,
        {
            "name": planned.name,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "recipe": folder.write_recipe(planned.recipe),
            "config": folder.read_json("config.json"),
            "data": str(planned.table.folder.resolve()),
            "held_out": planned.held_out,
            "rows": count_rows(planned.rows, planned.recipe.inputs),
            "fusion": dataclasses.asdict(trust.fusion),
            "conformal": trust.conformal,
            "best": trainer.best,
            "notes": [*planned.notes, *trust.notes],
            "golden_source": "training rows" if config.samples else "generated",
            "versions": {"mla_serve": __version__} | {package: version(package) for package in packages},
            "processes": collectives.world(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        },
    )


def read_data(config: TrainConfig) -> Table:
    """Read the table that was given, or the generated one, made on first use."""
    folder = generated_folder(config)
    return read_table(config.data or (folder if folder.exists() else make_keypad(folder, config.seed)))


def _kinds(table: Table, asked: Sequence[str]) -> dict[str, str]:
    names = [name for item in asked for name in item.split(",") if name] or list(table.modalities)
    unknown = [name for name in names if name not in table.modalities]
    if unknown:
        raise ConfigError(f"--modalities {' '.join(unknown)}: the table has {', '.join(table.modalities)}")
    return {name: table.modalities[name] for name in names}


def with_any(rows: Sequence[Row], kinds: Mapping[str, str]) -> list[Row]:
    """Keep the rows that have one of the chosen modalities, with those alone."""
    kept = []
    for row in rows:
        values = {name: value for name, value in row.values.items() if name in kinds}
        present = {rate: names & values.keys() for rate, names in row.present.items()}
        if values:
            kept.append(dataclasses.replace(row, values=values, present=present))
    return kept


def pick_encoders(kinds: Mapping[str, str], config: TrainConfig) -> dict[str, str]:
    """Return each modality's encoder, as told or the first of its kind.

    Raises: ConfigError.
    """
    chosen = {name: next(iter(ENCODERS[kind])) for name, kind in kinds.items()}
    for item in config.encoders:
        name, _, encoder = item.partition("=")
        if name not in chosen or not encoder:
            raise ConfigError(f"--encoders {item}: expected NAME=ENCODER with a name out of {', '.join(chosen)}")
        chosen[name] = encoder
    return chosen


def pick_options(config: TrainConfig) -> Options:
    """Collect the options that are set; one that belongs to another strategy is refused.

    Raises: ConfigError.
    """
    if config.strategy not in STRATEGIES:
        raise ConfigError(f"--strategy {config.strategy}: expected one of {', '.join(STRATEGIES)}")
    takes = STRATEGIES[config.strategy].takes
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(Options)}
    given = {name: value for name, value in given.items() if value is not None}
    given["precision"] = pick_precision(config.precision, pick_device(config.device))
    for name in sorted(OWN_OPTIONS & set(given) - takes):
        raise ConfigError(
            f"--{name}: {config.strategy} has no such option; its own are: {', '.join(sorted(takes)) or 'none'}"
        )
    return Options(**given)


def _jsonable(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        for key, value in fields.items()
    }
