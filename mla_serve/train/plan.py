"""From a configuration to a plan: read the table, choose inputs and encoders, check all of it. Nothing is trained yet."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mla_serve.errors import ConfigError, DataError
from mla_serve.inputs import Input
from mla_serve.table import Row, Schema, Table, TableOptions, read_payload, read_table
from mla_serve.table.check_files import check_files
from mla_serve.table.dataset import leave_out
from mla_serve.table.split import VALIDATION_FRACTION, split_validation
from mla_serve.tasks import Labels, Task
from mla_serve.train.choices import Choices, choose
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.batches import batches_per_epoch
from mla_serve.train.data.checks import Rows, check_data
from mla_serve.train.data.choose_inputs import choose_inputs
from mla_serve.train.data.decode import DecodedTable, decode_table
from mla_serve.train.data.keypad import make_keypad
from mla_serve.train.data.row_counts import check_modalities
from mla_serve.train.data.samples import Samples, make_samples
from mla_serve.train.data.unknown_columns import leave_out_unknown
from mla_serve.train.distributed import collectives
from mla_serve.train.encoders import Encoder
from mla_serve.train.fit.after_training import Fitted, fit_after_training
from mla_serve.train.fit.evidence import UnseenOpinions
from mla_serve.train.notes import Finding, Notes
from mla_serve.train.paths import cache_folder, check_paths, default_name, generated_folder
from mla_serve.train.pretrained import PREFIX
from mla_serve.train.pretrained.load import CHECKED, Loaded, load_pretrained, pick_tunes
from mla_serve.train.recipe import Recipe, make_recipe, pick_encoders
from mla_serve.train.start_from import Start, read_known_columns, read_start
from mla_serve.train.strategies import Strategy

ReadTable = Callable[[TableOptions], Table]
"""Reads a table by the options of its columns."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that is known before the first step: the checked data and the recipe."""

    name: str
    table: Table
    rows: Mapping[str, Sequence[Row]]
    decoded: DecodedTable
    recipe: Recipe
    notes: list[str]
    pretrained: Mapping[str, Loaded] = dataclasses.field(default_factory=dict, kw_only=True)
    replaced: Sequence[str] = dataclasses.field(default=(), kw_only=True)
    """Notes on the folders that will be replaced. They are shown before training and not stored."""
    exported_notes: Sequence[str] = dataclasses.field(default=(), kw_only=True)
    """Those of the notes that the bundle may hold, see Notes."""
    choices: Choices = dataclasses.field(kw_only=True)
    start: Start | None = dataclasses.field(default=None, kw_only=True)
    """The earlier run whose encoders this one begins with."""
    unseen: UnseenOpinions | None = dataclasses.field(default=None, kw_only=True)
    """What cross-validation answered to the rows for training and validation; the fusion is fitted to it."""
    held_out: Sequence[str] | None = dataclasses.field(default=None, kw_only=True)
    """The ids of the training rows that were held out for validation; None where the table has validation rows."""

    @property
    def inputs(self) -> Mapping[str, Input]:
        """All modalities of the bundle to be exported."""
        return self.recipe.inputs

    @property
    def origin(self) -> Mapping[str, Any]:
        """Facts about the bundle that is extended; empty for a new model."""
        return {}

    def build(self, seed: int) -> Strategy:
        """Make the modules, freshly initialised or as in `start`; `load_backbones` gives pretrained encoders their weights."""
        strategy = self.recipe.build(seed)
        if self.start and collectives.is_main():  # the others get the weights of rank 0
            self.start.load(strategy)
        return strategy

    def samples(self, split: str, encoders: Mapping[str, Encoder] | None = None) -> Samples:
        """Make the samples of a split. Args: encoders, by modality; frozen ones compute features at once."""
        return make_samples(self.rows[split], self.decoded, self.recipe.inputs, self.recipe.task, encoders)

    def load_backbones(self, strategy: Strategy, cache: Path | None, device: torch.device) -> None:
        """Give pretrained encoders their weights."""
        for name, loaded in self.pretrained.items():
            strategy.encoders[name].set_backbone(loaded.backbone, cache, device)

    def fit(self, strategy: Strategy, samples: Mapping[str, Samples], device: torch.device, seed: int) -> Fitted:
        """Fit the fusion and all else that is fitted on validation rows after training."""
        strategy.shift_heads(self.choices.balance.head_shift)
        shift, settings = self.choices.balance.prior_shift, self.choices.settings
        return fit_after_training(
            strategy,
            self.recipe.inputs,
            samples,
            self.rows,
            device,
            seed,
            prior_shift=shift,
            precision=settings.min_precision,
            unseen=self.unseen,
        )


def make_plan(config: TrainConfig, read: ReadTable | None = None) -> Plan:
    """Read and check the data, and choose inputs and encoders.

    Args: read, see read_data.
    Raises: ConfigError, DataError. Nothing has been written then, except the generated data set.
    """
    config.check()
    name = config.name or default_name(config)
    replaced = check_paths(config, name)
    table = read_data(config, read_known_columns(config), read)
    kinds = _pick_kinds(table, config.modalities)
    rows: dict[str, Sequence[Row]] = {split: keep_modalities(table.splits[split], kinds) for split in table.splits}
    notes = Notes()
    notes.add_private([*table.schema.describe(), *table.notes])
    notes.add(f"{len(rows[split])} rows for {split}" for split in rows)
    held_out = None
    if not rows.get("val"):
        rows["train"], rows["val"], note = split_validation(
            rows["train"], config.val_share or VALIDATION_FRACTION, config.seed, table.task
        )
        notes.add([note])
        held_out = [row.id for row in rows["val"]]
    notes.add(check_modalities(rows, kinds, table.task, held_out=held_out is not None))
    encoders = pick_encoders(kinds, config)
    start = read_start(config, name, kinds, encoders)
    encoders |= start.encoders if start else {}
    with all_faults_on_error(table, rows, kinds):
        inputs, pretrained = choose_all_inputs(rows["train"], kinds, encoders, config)
    inputs |= start.inputs if start else {}
    notes.add([start.note(kinds)] if start else [])
    table, rows, ignored = leave_out_unknown(table, rows, inputs)
    notes.add_private(ignored)
    decoded, rows, found = decode_and_check(table, rows, inputs, table.task, config)
    notes.add_findings(found)
    notes.add_left_out(table)
    notes.add(check_pretrained(rows["train"], pretrained))
    settings = {name: loaded.settings for name, loaded in pretrained.items()}
    recipe = make_recipe(
        table.task,
        inputs,
        encoders,
        settings,
        start.recipe.width if start else config.width,
        config.strategy,
        config,
    )
    recipe.build()
    check_threshold(config, table.task)
    choices, told = choose(config, name, rows["train"], recipe)
    notes.add(told)
    return Plan(
        name, table, rows, decoded, recipe, notes.shown, choices=choices, start=start, pretrained=pretrained,
        replaced=replaced, exported_notes=notes.exported,
        held_out=held_out,
    )  # fmt: skip


def check_threshold(config: TrainConfig, task: Task) -> None:
    """Refuse settings of thresholds where there are none. Raises: ConfigError."""
    if config.threshold and not isinstance(task, Labels):
        raise ConfigError(
            f"--threshold {config.threshold}: only labels have thresholds, and the model predicts {task.describe()}; leave it out"
        )


def count_steps(planned: Plan) -> int:
    """Count the steps of a whole run."""
    settings = planned.choices.settings
    return settings.known_epochs * batches_per_epoch(len(planned.rows["train"]), settings.rows_per_step)


def read_data(config: TrainConfig, known: Schema | None = None, read: ReadTable | None = None) -> Table:
    """Read the table of --data, or the generated one, which is made at its first use.

    Args: known, what the columns are that a model was trained with; read, reads a table that is in memory instead.
    """
    listed = config.runs / f"{config.name or default_name(config)}.faults.csv"
    options = dataclasses.replace(config.table_options, known=known, faults_file=listed)
    if read:
        return read(options)
    folder = generated_folder(config)
    return read_table(config.data or (folder if folder.exists() else make_keypad(folder, config.seed)), options)


def _pick_kinds(table: Table, asked: Sequence[str]) -> dict[str, str]:
    """Return the modalities to use, those of --modalities or all of the table: {name: kind}. Raises: ConfigError."""
    names = [name for item in asked for name in item.split(",") if name] or list(table.modalities)
    unknown = [name for name in names if name not in table.modalities]
    if unknown:
        raise ConfigError(f"--modalities {' '.join(unknown)}: the table has {', '.join(table.modalities)}")
    return {name: table.modalities[name] for name in names}


def keep_modalities(rows: Sequence[Row], names: Mapping[str, str]) -> list[Row]:
    """Keep only the values of the named modalities, and only the rows that have one."""
    kept = []
    for row in rows:
        values = {name: value for name, value in row.values.items() if name in names}
        present = {rate: chosen & values.keys() for rate, chosen in row.present.items()}
        if values:
            kept.append(dataclasses.replace(row, values=values, present=present))
    return kept


@contextlib.contextmanager
def all_faults_on_error(table: Table, rows: Rows, kinds: Mapping[str, str]) -> Iterator[None]:
    """Look for files that cannot be decoded if the block fails, and report all of them instead of its error.

    Raises: DataError, or the error of the block if there is no fault that may not be left out.
    """
    try:
        yield
    except (ConfigError, DataError):
        check_files(itertools.chain.from_iterable(rows.values()), kinds, table.folder, table.faults)
        table.faults.raise_if_any()
        raise


def choose_all_inputs(
    rows: Sequence[Row], kinds: Mapping[str, str], encoders: Mapping[str, str], config: TrainConfig
) -> tuple[dict[str, Input], dict[str, Loaded]]:
    """Choose every modality's input, from the data or as its pretrained encoder needs it.

    Args: kinds, {name: kind}.
    Returns: {name: input}, and the pretrained encoders by modality.
    Raises: ConfigError when a pretrained encoder cannot be used.
    """
    tunes = pick_tunes(config, encoders)
    from_data = {name: kind for name, kind in kinds.items() if name not in tunes or kind != "text"}
    inputs = choose_inputs(rows, from_data, config)
    pretrained = {}
    for name, tune in tunes.items():
        texts = [str(row.values[name]) for row in rows if name in row.values]
        source, draft = encoders[name].removeprefix(PREFIX), inputs.get(name, texts)
        pretrained[name] = load_pretrained(source, tune, config.lora_rank, kinds[name], draft)
        inputs[name] = pretrained[name].spec
    return {name: inputs[name] for name in kinds}, pretrained


def decode_and_check(
    table: Table, rows: Rows, inputs: Mapping[str, Input], task: Task, config: TrainConfig
) -> tuple[DecodedTable, dict[str, Sequence[Row]], list[Finding]]:
    """Decode every value of the table once, leave out what is at fault, and look at the rows that remain.

    Args: rows, those to be used, by split; inputs, of the modalities to be used.
    Returns: the decoded values, the rows that remain, and notes on what may be wrong with them.
    Raises: DataError when a value cannot be decoded and may not be left out, or nothing can be learned from the rows;
    ConfigError when the cache cannot be written.
    """
    decoded = decode_table(table, inputs, cache_folder(config), config.threads)
    table.faults.raise_if_any()
    kept = {split: leave_out(listed, table.faults) for split, listed in rows.items()}
    kinds = {name: spec.kind for name, spec in inputs.items()}
    return decoded, dict(kept), check_data(kept, kinds, decoded.read_fingerprints(), task)


def check_pretrained(rows: Sequence[Row], pretrained: Mapping[str, Loaded]) -> list[str]:
    """Compare pretrained encoders with their transformers processors on some rows; returns notes.

    Raises: ConfigError where they differ.
    """
    notes = []
    for name, loaded in pretrained.items():
        some = itertools.islice((row for row in rows if name in row.values), CHECKED)
        notes.append(f"{name}: {loaded.check([read_payload(row.values[name]) for row in some])}")
        if loaded.settings.tune == "frozen":
            notes.append(
                f"{name}: not augmented, because the features of a frozen encoder are computed once per sample"
            )
    return notes
