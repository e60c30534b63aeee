"""Plan an extension: encoders for new modalities, trained against the head of a bundle, which does not change.

The new bundle answers as the old one wherever the new modalities are missing: the graphs are copied, and the fitted
parameters are kept (fit.py). The old bundle itself is only read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import ConfigError, DataError
from mla_serve.inputs import Input
from mla_serve.table import Row, Schema, Table
from mla_serve.table.split import VALIDATION_FRACTION, split_validation
from mla_serve.train.choices import choose
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.row_counts import check_modalities
from mla_serve.train.data.samples import Samples
from mla_serve.train.data.unknown_columns import leave_out_unknown
from mla_serve.train.extend.fit import fit_added
from mla_serve.train.extend.head import FIXED_HEAD, Head, build_fixed_head, read_head
from mla_serve.train.fit.after_training import Fitted
from mla_serve.train.notes import Notes
from mla_serve.train.paths import check_paths
from mla_serve.train.plan import (
    Plan,
    ReadTable,
    all_faults_on_error,
    check_pretrained,
    choose_all_inputs,
    decode_and_check,
    keep_modalities,
    read_data,
)
from mla_serve.train.recipe import make_recipe, pick_encoders
from mla_serve.train.strategies import Strategy

FIXED_FLAGS = ("strategy", "width", "hgm", "heads", "turns", "balance", "start_from")
"""Flags that cannot be given, because the head of the bundle, and the prior of its answers, decide them."""


@dataclasses.dataclass(frozen=True)
class Extension(Plan):
    """A plan for the added modalities, whose recipe it holds. base: the verified bundle. head: the head of the bundle."""

    base: Bundle
    head: Head

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The modalities of the bundle, then the added ones."""
        return {**self.base.inputs, **self.recipe.inputs}

    @property
    def origin(self) -> Mapping[str, Any]:
        """Name, hash and folder of the bundle that is extended, and the added modalities."""
        manifest = self.base.manifest
        return {
            "extends": {
                "name": manifest.name,
                "sha256": manifest.sha256,
                "folder": str(self.base.folder.resolve()),
                "added": list(self.recipe.inputs),
            }
        }

    def build(self, seed: int) -> Strategy:
        """Make the added encoders, freshly initialised, and the head of the bundle."""
        return build_fixed_head(self.recipe, self.head, seed)

    def fit(self, strategy: Strategy, samples: Mapping[str, Samples], device: torch.device, seed: int) -> Fitted:
        """Fit the parameters of the added modalities on validation rows."""
        return fit_added(strategy, self.base, self.recipe.inputs, samples, self.rows, device, seed)


def plan_extension(config: TrainConfig, read: ReadTable | None = None) -> Extension:
    """Read and check the bundle and the data, and choose inputs and encoders for the added modalities.

    Args: read, see read_data.
    Raises: ConfigError, DataError, BundleError. Nothing has been written then, except the generated data set.
    """
    assert config.extend is not None
    config.check()
    _check_flags(config)
    base = Bundle.load(config.extend)
    head = read_head(base)
    name = config.name or f"{base.manifest.name}_extended"
    _check_name(name, base)
    replaced = check_paths(config, name, {"the folder of the extended bundle": config.extend})
    Predictor(base).verify()
    known = base.manifest.table
    table = read_data(config, Schema.from_dict(known) if known else None, read)
    kinds = _added(table, base, config.modalities)
    _check_labels(table, base)
    rows, notes, held_out = _rows(table, base, kinds, config)
    encoders = pick_encoders(kinds, config)
    with all_faults_on_error(table, rows, kinds):
        inputs, pretrained = choose_all_inputs(rows["train"], kinds, encoders, config)
    table, rows, ignored = leave_out_unknown(table, rows, {**base.inputs, **inputs})
    notes.add_private(ignored)
    decoded, rows, found = decode_and_check(table, rows, {**base.inputs, **inputs}, base.task, config)
    notes.add_findings(found)
    notes.add_left_out(table)
    notes.add(check_pretrained(rows["train"], pretrained))
    task, width = base.task, head.weight.shape[1]
    settings = {name: loaded.settings for name, loaded in pretrained.items()}
    recipe = make_recipe(task, inputs, encoders, settings, width, FIXED_HEAD, config)
    choices, told = choose(dataclasses.replace(config, balance="none"), name, rows["train"], recipe)
    notes.add(told)
    planned = Extension(
        name, table, rows, decoded, recipe, notes.shown, base, head, choices=choices, pretrained=pretrained,
        replaced=replaced, exported_notes=notes.exported, held_out=held_out,
    )  # fmt: skip
    planned.build(config.seed)
    return planned


def _check_flags(config: TrainConfig) -> None:
    """Refuse flags that the bundle decides. Raises: ConfigError."""
    defaults = TrainConfig()
    for flag in FIXED_FLAGS:
        if getattr(config, flag) != getattr(defaults, flag):
            raise ConfigError(
                f"--{flag.replace('_', '-')} {getattr(config, flag)}: does not go with --extend, which keeps the head of the bundle; "
                "leave it out, or train a new model"
            )


def _check_name(name: str, base: Bundle) -> None:
    """Refuse the name of the bundle: its run folder would be mistaken for that of the extension. Raises: ConfigError."""
    if name == base.manifest.name:
        raise ConfigError(
            f"--name {name}: that is the name of the extended bundle; choose another, such as {name}_extended"
        )


def _added(table: Table, base: Bundle, asked: Sequence[str]) -> dict[str, str]:
    """Return the modalities that the table has and the bundle lacks: {name: kind}. Raises: ConfigError."""
    old = base.manifest.modalities
    for name in old.keys() & table.modalities.keys():
        if old[name].kind != table.modalities[name]:
            raise ConfigError(
                f"modality {name}: of kind {table.modalities[name]} in {table.folder}, and of kind {old[name].kind} in the "
                "bundle; give the column another name, declared in dataset.json"
            )
    names = [name for item in asked for name in item.split(",") if name]
    if unknown := [name for name in names if name not in table.modalities]:
        raise ConfigError(f"--modalities {' '.join(unknown)}: the table has {', '.join(table.modalities)}")
    if clash := [name for name in names if name in old]:
        raise ConfigError(
            f"--modalities {' '.join(clash)}: the bundle has that already; name only what to add, the other columns "
            "are read where rows have them. Another source of the same kind needs a column of another name"
        )
    added = {name: table.modalities[name] for name in names or table.modalities if name not in old}
    if not added:
        raise ConfigError(
            f"--extend {base.folder}: the table has {', '.join(table.modalities)}, and the bundle has all of them; "
            "expected a column for a new one, declared in dataset.json unless it is image, audio or text"
        )
    return added


def _check_labels(table: Table, base: Bundle) -> None:
    """Refuse labels that the head cannot answer. Raises: DataError."""
    task = base.task
    if table.task.name != task.name:
        raise DataError(
            f"the bundle predicts {task.describe()}, and the labels of the table are {table.task.describe()}; give the column of "
            f"the {task.name} with --label"
        )
    rows = [row for listed in table.splits.values() for row in listed]
    if unknown := sorted({label for row in rows for label in task.unknown(row.label)}):
        known = f"; it knows {', '.join(task.names)}" if task.names else f" ({task.expected_label})"
        raise DataError(
            f"labels that the bundle does not know: {', '.join(unknown[:20])}{known}; correct them, or train a new model"
        )


def _rows(
    table: Table, base: Bundle, added: Mapping[str, str], config: TrainConfig
) -> tuple[dict[str, Sequence[Row]], Notes, list[str] | None]:
    """Keep the rows with an added modality, and their values of the modalities of the bundle.

    Returns: the rows, notes on them, and the ids of the rows that were held out for validation; None if none were.
    """
    used = {**{name: modality.kind for name, modality in base.manifest.modalities.items()}, **added}
    rows: dict[str, Sequence[Row]] = {
        split: [row for row in keep_modalities(table.splits[split], used) if row.values.keys() & added.keys()]
        for split in table.splits
    }
    counted = (f"{len(rows[split])} rows with {' or '.join(added)} for {split}" for split in rows)
    notes = Notes()
    notes.add_private([*table.schema.describe(), *table.notes])
    notes.add(counted)
    _check_each(rows["train"], "train", added)
    held_out = None
    if "val" not in rows:
        rows["train"], rows["val"], note = split_validation(
            rows["train"], config.val_share or VALIDATION_FRACTION, config.seed, base.task
        )
        over = (
            "validation rows were held out now: if the bundle was trained on these rows, it is over-confident on them"
        )
        notes.add([note, over])
        held_out = [row.id for row in rows["val"]]
    _check_each(rows["val"], "val", added)
    notes.add(check_modalities(rows, added, base.task, held_out=held_out is not None))
    return rows, notes, held_out


def _check_each(rows: Sequence[Row], split: str, added: Mapping[str, str]) -> None:
    """Refuse a split without any value of an added modality. Raises: ConfigError."""
    if lacking := [name for name in added if not any(name in row.values for row in rows)]:
        raise ConfigError(f"modality {lacking[0]}: no row of {split} has it; expected some; add them")
