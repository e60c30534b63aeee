"""Begin with the encoders of an earlier run (--start-from): its input settings and weights, for other labels or new rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mla_serve.errors import ConfigError
from mla_serve.inputs import Input
from mla_serve.table import Schema
from mla_serve.train.config import TrainConfig
from mla_serve.train.device import pick_norm
from mla_serve.train.recipe import Recipe
from mla_serve.train.run_folder import BEST, RUN, RunFolder
from mla_serve.train.strategies import Strategy

ASKED = {"image_size": "width", "audio_rate": "rate", "transliterate": "transliterate"}
"""Flags that the earlier run decides -> the field of the input that they set."""


@dataclasses.dataclass(frozen=True)
class Start:
    """The finished run whose encoders are taken over, its recipe, and the modalities that begin with them."""

    folder: RunFolder
    recipe: Recipe
    names: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, Input]:
        """Return the inputs that are taken over."""
        return {name: self.recipe.inputs[name] for name in self.names}

    @property
    def encoders(self) -> dict[str, str]:
        """Return the types of the encoders that are taken over."""
        return {name: self.recipe.encoders[name] for name in self.names}

    def note(self, kinds: Mapping[str, str]) -> str:
        """Say which encoders begin with old weights, and which anew."""
        anew = [name for name in kinds if name not in self.names]
        told = f"; {', '.join(anew)} begins anew" if anew else ""
        return f"{', '.join(self.names)}: begins with weights, normalisation and input settings of {self.folder.path.name}{told}"

    def load(self, strategy: Strategy) -> None:
        """Copy the best weights of the run into the encoders, and nothing else."""
        weights: dict[str, Any] = self.folder.load(BEST)["weights"]
        for name in self.names:
            start = f"encoders.{name}."
            own = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
            strategy.encoders[name].load_state_dict(own)


def read_known_columns(config: TrainConfig) -> Schema | None:
    """Return what the columns of numbers, categories, ... were in the run of --start-from; its encoder reads no others.

    The label and the split of the new table are its own.
    """
    folder = config.start_from
    if folder is None or not (folder / RUN).is_file():  # the latter is refused by read_start
        return None
    schema = Schema.from_dict(RunFolder(folder).read_json().get("table") or {"label": None, "columns": []})
    kinds = schema.modalities
    return Schema(roles=tuple(role for role in schema.roles if role.modality and kinds[role.modality] == "columns"))


def read_start(config: TrainConfig, name: str, kinds: Mapping[str, str], encoders: Mapping[str, str]) -> Start | None:
    """Return what is taken over from the run of --start-from; None without one.

    Args: name, of the run that begins; kinds and encoders, of its modalities. An encoder that --encoders names another type
    for begins anew, and so does a pretrained one.
    Raises: ConfigError when nothing can be taken over, or a setting differs that the weights depend on.
    """
    if config.start_from is None:
        return None
    folder = RunFolder(config.start_from)
    if config.start_from.resolve() == (config.runs / name).resolve():
        raise ConfigError(f"--start-from {config.start_from}: this run would replace it; give another --name")
    if not (folder.path / RUN).is_file():
        raise ConfigError(
            f"--start-from {config.start_from}: it has no {RUN}; expected the folder of a finished run, such as runs/NAME"
        )
    recipe = folder.read_recipe()
    asked = {item.partition("=")[0] for item in config.encoders}
    names = tuple(
        one
        for one, kind in kinds.items()
        if one in recipe.inputs
        and recipe.inputs[one].kind == kind
        and one not in recipe.pretrained
        and (one not in asked or encoders[one] == recipe.encoders[one])
    )
    if not names:
        had = ", ".join(f"{one} ({spec.kind}, {recipe.encoders[one]})" for one, spec in recipe.inputs.items())
        raise ConfigError(
            f"--start-from {config.start_from}: has encoders for {had}; none fits {', '.join(kinds)}; expected a modality "
            "of the same name, kind and built-in encoder"
        )
    start = Start(folder, recipe, names)
    _check_settings(config, start)
    return start


def _check_settings(config: TrainConfig, start: Start) -> None:
    """Refuse settings that the weights do not fit. Raises: ConfigError."""
    recipe, bottleneck = start.recipe, "mib"
    here: dict[str, object] = {"norm": pick_norm(config)}
    there: dict[str, object] = {"norm": recipe.norm}
    if config.width != TrainConfig().width:
        here["width"], there["width"] = config.width, recipe.width
    if bottleneck in (config.strategy, recipe.strategy):
        here["strategy"], there["strategy"] = config.strategy, recipe.strategy
    for spec in start.inputs.values():
        for flag, field in ASKED.items():
            if getattr(config, flag) is not None and hasattr(spec, field):
                here[flag], there[flag] = getattr(config, flag), getattr(spec, field)
    for flag, value in here.items():
        if value != there[flag]:
            raise ConfigError(
                f"--{flag.replace('_', '-')} {value}: the encoders of {start.folder.path} have {there[flag]}; give that, "
                "or leave out --start-from"
            )
