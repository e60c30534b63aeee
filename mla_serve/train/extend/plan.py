"""Add modalities to a bundle: train their encoders alone, against the bundle's head, which stays as it is.

The bundle answers as before wherever the new modality is missing: its graphs are copied, and what was fitted for them is
kept (extend_fit.py). Nothing of it is changed in place.
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
from mla_serve.table import Row, Table
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.counts import check_modalities
from mla_serve.train.data.samples import Samples
from mla_serve.train.data.split import split_validation
from mla_serve.train.extend.fit import establish_added
from mla_serve.train.extend.head import LATE, Head, build_late, read_head
from mla_serve.train.fit.after_training import Trust
from mla_serve.train.pipeline import (
    VALIDATION_SHARE,
    Plan,
    check_pretrained,
    choose_readers,
    decode_and_check,
    make_recipe,
    pick_encoders,
    read_data,
    with_any,
)
from mla_serve.train.places import check_places
from mla_serve.train.strategies import Strategy

FIXED = ("strategy", "width", "hgm", "heads", "turns")
"""Flags that the bundle has settled."""


@dataclasses.dataclass(frozen=True)
class Extension(Plan):
    """A plan for what is added: base, the verified bundle; head, the one that its modalities share.

    The recipe is that of the added modalities alone.
    """

    base: Bundle
    head: Head

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The bundle's modalities, then those that are added."""
        return {**self.base.inputs, **self.recipe.inputs}

    @property
    def origin(self) -> Mapping[str, Any]:
        """Which bundle is extended, and where it lies."""
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
        """Make the added encoders, freshly initialised, and the bundle's head."""
        return build_late(self.recipe, self.head, seed)

    def establish(self, strategy: Strategy, samples: Mapping[str, Samples], device: torch.device, seed: int) -> Trust:
        """Fit on validation what belongs to the added modalities."""
        return establish_added(strategy, self.base, self.recipe.inputs, samples, self.rows, device, seed)


def plan(config: TrainConfig) -> Extension:
    """Read and check the bundle and the data, and choose inputs and encoders for what is added.

    Raises: ConfigError, DataError, BundleError; nothing has been written then but the generated data set.
    """
    assert config.extend is not None
    config.check()
    _check_flags(config)
    base = Bundle.load(config.extend)
    head = read_head(base)
    name = config.name or f"{base.manifest.name}_extended"
    _check_name(name, base)
    announced = check_places(config, name, {"the folder of the extended bundle": config.extend})
    Predictor(base).verify()
    table = read_data(config)
    kinds = _added(table, base, config.modalities)
    _check_classes(table, base)
    rows, notes, held_out = _rows(table, base, kinds, config)
    encoders = pick_encoders(kinds, config)
    inputs, pretrained = choose_readers(rows["train"], kinds, encoders, config)
    notes += decode_and_check(table, rows, {**base.inputs, **inputs}, base.manifest.classes)
    notes += check_pretrained(rows["train"], pretrained)
    classes, width = tuple(base.manifest.classes), head.weight.shape[1]
    recipe = make_recipe(classes, inputs, encoders, pretrained, width, LATE, config)
    planned = Extension(
        name, table, rows, recipe, notes, base, head, pretrained=pretrained, announced=announced, held_out=held_out
    )
    planned.build(config.seed)
    return planned


def _check_flags(config: TrainConfig) -> None:
    """Refuse flags on what the bundle has settled."""
    defaults = TrainConfig()
    for flag in FIXED:
        if getattr(config, flag) != getattr(defaults, flag):
            raise ConfigError(
                f"--{flag} {getattr(config, flag)}: does not go with --extend, where the bundle's head stays as it is; "
                "leave it out, or train a model anew"
            )


def _check_name(name: str, base: Bundle) -> None:
    """Refuse the name of the bundle, whose run would be taken for that of the extension."""
    if name == base.manifest.name:
        raise ConfigError(
            f"--name {name}: that is the name of the extended bundle; choose another, such as {name}_extended"
        )


def _added(table: Table, base: Bundle, asked: Sequence[str]) -> dict[str, str]:
    """Return what the table has and the bundle lacks: {name: kind}."""
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
            f"--modalities {' '.join(clash)}: the bundle has that already; name what to add alone, the others are read "
            "where rows have them. Another source of the same kind needs a column of another name"
        )
    added = {name: table.modalities[name] for name in names or table.modalities if name not in old}
    if not added:
        raise ConfigError(
            f"--extend {base.folder}: the table has {', '.join(table.modalities)}, and the bundle has all of them; "
            "expected a column for a new one, declared in dataset.json unless it is image, audio or text"
        )
    return added


def _check_classes(table: Table, base: Bundle) -> None:
    """Refuse labels that the head has no logit for."""
    known = base.manifest.classes
    if unknown := sorted({row.label for rows in table.splits.values() for row in rows} - set(known)):
        raise DataError(
            f"labels that the bundle does not know: {', '.join(unknown[:20])}; it knows {', '.join(known)}; correct them, "
            "or train a model anew"
        )


def _rows(
    table: Table, base: Bundle, added: Mapping[str, str], config: TrainConfig
) -> tuple[dict[str, Sequence[Row]], list[str], list[str] | None]:
    """Keep the rows that have something that is added, with the bundle's own modalities beside it.

    Returns: the rows, notes on them, and the ids of those that were held out for validation, if it had to be.
    """
    used = {**{name: modality.kind for name, modality in base.manifest.modalities.items()}, **added}
    rows: dict[str, Sequence[Row]] = {
        split: [row for row in with_any(table.splits[split], used) if row.values.keys() & added.keys()]
        for split in table.splits
    }
    counted = (f"{len(rows[split])} rows with {' or '.join(added)} for {split}" for split in rows)
    notes = [*table.notes, *counted]
    _check_each(rows["train"], "train", added)
    held_out = None
    if "val" not in rows:
        rows["train"], rows["val"], note = split_validation(rows["train"], VALIDATION_SHARE, config.seed)
        notes += [
            note,
            "validation was split off here: where the bundle was trained on these rows, its own opinions on them are too sure",
        ]
        held_out = [row.id for row in rows["val"]]
    _check_each(rows["val"], "val", added)
    notes += check_modalities(rows, added, held_out=held_out is not None)
    return rows, notes, held_out


def _check_each(rows: Sequence[Row], split: str, added: Mapping[str, str]) -> None:
    """Refuse a split without any value of an added modality."""
    if lacking := [name for name in added if not any(name in row.values for row in rows)]:
        raise ConfigError(f"modality {lacking[0]}: no row of {split} has it; expected some; add them")
