"""Train a bundle on a table, in memory or in files: what `mla-serve train` does, from Python."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mla_serve.console import require_extra
from mla_serve.errors import ConfigError
from mla_serve.inputs.base import NAME_PATTERN
from mla_serve.output.replacing import exclusive
from mla_serve.python.predictor import Predictor, load
from mla_serve.python.progress import Screen
from mla_serve.python.tables import table_in_memory
from mla_serve.python.wording import as_keywords, keyword_errors

if TYPE_CHECKING:
    from mla_serve.train.config import TrainConfig
    from mla_serve.train.plan import Plan, ReadTable

DEFAULT_NAME = "model"


def fit(
    data: Any = None,
    label: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    kinds: Mapping[str, str] | None = None,
    group: str | None = None,
    folder: str | Path | None = None,
    verbose: bool | None = None,
    **settings: Any,
) -> Predictor:
    """Train a model on a labelled table, write its bundle, and return it ready to be asked.

    This does what `mla-serve train` does, with the same settings and defaults. The run, with its checkpoints, is kept in
    runs/NAME. An older bundle or run of the same name is kept as NAME.old; anything else there is refused.

    Args:
        data: a pandas or pyarrow table, a Hugging Face dataset, a list of dicts, or several of these by split, such as
            {"train": ..., "test": ...}; or the path of a table or folder. Without it, a generated data set is used.
        label: the column of the labels: classes, lists or sets of labels, or numbers; or several yes/no columns, one of each
            label. Default: a column with a usual name, such as `label` or `category`.
        out: folder that the bundle is written to. Default: models/NAME.
        kinds: what columns hold, where the inferred kind is wrong, such as {"zip": "category", "note": "ignore"}.
        group: column whose values are kept on one side of a split.
        folder: relative paths in a table in memory are relative to it. Default: the working directory.
        verbose: print lines and a progress bar. Default: only on a terminal and in a notebook. The lines also go to the
            logger mla_serve.
        settings: the flags of `mla-serve train`, such as epochs=10, name="shop", encoders={"image": "resnet18"}.

    Raises: ConfigError for settings, DataError for the table, before anything is written.
    """
    require_extra("train")
    from mla_serve.train.config import TrainConfig

    if isinstance(label, list | tuple) and label and all(isinstance(name, str) and "," not in name for name in label):
        label = ",".join(label)
    if label is not None and not isinstance(label, str):
        raise ConfigError(
            f"label: got a {type(label).__name__}, expected the name of a column, or a list of names without commas; put the labels into the table as a column: "
            "fit(X.assign(label=y), 'label')"
        )
    settings = {"label": label, "kinds": kinds, "group": group, "out": out} | settings
    in_memory = data is not None and not isinstance(data, str | Path)
    if in_memory:
        settings = {"name": _name(out)} | settings | {"data": Path(folder or ".")}
    elif data is not None:
        settings["data"] = data
    config = TrainConfig(**_fields(settings))
    read = functools.partial(table_in_memory, data, Path(folder or ".").resolve()) if in_memory else None
    types = _setting_types()
    with keyword_errors(types):
        return load(_train(config, read, Screen(verbose, lambda line: as_keywords(line, types))))


def _train(config: TrainConfig, read: ReadTable | None, screen: Screen) -> Path:
    """Train and export; return the folder of the bundle. Args: read, reads the table that is in memory."""
    from mla_serve.export.export_run import export_run
    from mla_serve.export.run_data import RunRows
    from mla_serve.train.device import thread_count
    from mla_serve.train.extend.plan import plan_extension
    from mla_serve.train.paths import bundle_folder
    from mla_serve.train.plan import make_plan

    with contextlib.ExitStack() as held:
        held.enter_context(thread_count(config.threads))
        begun = time.monotonic()
        planned = plan_extension(config, read) if config.extend else make_plan(config, read)
        spent = time.monotonic() - begun
        held.enter_context(exclusive("name", config.runs / planned.name))
        run = _run(config, planned, screen, spent)
        out = bundle_folder(config, planned.name)
        screen.say("exporting and measuring ...")
        export_run(run, out, rows=RunRows(planned.table, planned.rows["train"], planned.rows["val"]))
        screen.say(f"{out} is ready")
    return out


def _run(config: TrainConfig, planned: Plan, screen: Screen, spent: float) -> Path:
    """Train with a progress bar and a line for each epoch, after cross-validation if asked; return the folder of the run.

    Args: spent, seconds that planning took.
    """
    from mla_serve.train.cross_validation import FOLDS, cross_validate, describe_folds, number_of_folds
    from mla_serve.train.describe import epoch_line, plan_lines
    from mla_serve.train.plan import count_steps
    from mla_serve.train.run import train_as_planned

    for line in plan_lines(planned):
        screen.say(line)
    folds = cross_validate(config, planned, screen.say) if number_of_folds(config, planned) else None
    if folds:
        planned = dataclasses.replace(planned, unseen=folds.unseen)
        for line in describe_folds(folds.scores):
            screen.say(line)
    with screen.bar("training", count_steps(planned)) as advance:
        run = train_as_planned(
            config, planned, lambda record: screen.say(epoch_line(record, planned.recipe.task)), advance, spent=spent
        )
    if folds:
        run.write_json(FOLDS, folds.scores)
    return run.path


def _name(out: str | Path | None) -> str:
    """Name the model after the folder of its bundle, where that is a name that a model can have."""
    name = Path(out).name.lower() if out else ""
    return name if re.fullmatch(NAME_PATTERN.replace("_]", "_-]"), name) else DEFAULT_NAME


def _setting_types() -> dict[str, str]:
    """Return the annotation of each setting, by its name."""
    from mla_serve.train.config import TrainConfig

    return {field.name: str(field.type) for field in dataclasses.fields(TrainConfig)}


def _fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn keywords into the fields of TrainConfig: strings into paths, dicts into NAME=VALUE. Raises: ConfigError."""
    known, fields = _setting_types(), {}
    for name, value in settings.items():
        if value is None:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise ConfigError(f"{name}: fit has no such setting; {hint}")
        fields[name] = _field(value, known[name])
    return fields


def _field(value: Any, annotation: str) -> Any:
    if "tuple" in annotation:
        if isinstance(value, Mapping):
            return tuple(f"{key}={each}" for key, each in value.items())
        return (value,) if isinstance(value, str) else tuple(value)
    return Path(value) if "Path" in annotation else value
