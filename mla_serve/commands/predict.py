"""`mla-serve predict`: answer one sample, or every row of a table, with a bundle and without a server."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from mla_serve.bulk import LOCAL
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.commands.sample_flags import COLUMNS, SampleFlags, read_sample
from mla_serve.console import console, require_extra
from mla_serve.errors import ConfigError
from mla_serve.fusion.rules import DEFAULT_RULE

OPTIONAL_ADDRESS = tyro.constructors.PrimitiveConstructorSpec[str | None](
    nargs=(0, 1),
    metavar="[ADDRESS]",
    instance_from_str=lambda given: given[0] if given else LOCAL,
    is_instance=lambda given: given is None or isinstance(given, str),
    str_from_instance=lambda given: [str(given)],
)
TABLE_FLAGS = ("out", "keep", "probabilities", "workers", "ray")
ONE_SAMPLE_FLAGS = ("image", "audio", "text", "columns", "input", "top_k", "json")


@dataclasses.dataclass(frozen=True)
class PredictConfig(SampleFlags):
    """Answer one sample from the modalities that are given, or with --table every row of a table."""

    model: Path = Path("models/digits")
    """Folder of the bundle."""
    table: Path | None = None
    """Table of samples, in any format that training reads, with a column for each modality. Paths are relative to its folder. An
    empty cell is a missing modality. No label is needed."""
    out: Path | None = None
    """File for the answers to --table, one row for each: .parquet, .csv or .jsonl. Older answers are kept as OUT.old; any
    other file there is refused."""
    keep: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN [COLUMN ...]")] = ()
    """Columns of the table to carry over to the answers, or all. A column that the answers have too, such as label, is
    then called own_label."""
    probabilities: bool = False
    """Give the probability of each class or label in a column of its own, probabilities.CLASS."""
    workers: int | None = None
    """Number of processes that answer a table. Default: one per core."""
    ray: Annotated[str | None, OPTIONAL_ADDRESS] = None
    """Answer the table with Ray Data: on a Ray that is started for it, on the Ray of this machine (auto), or on that at
    HOST:PORT. All machines need the bundle, the table and its files at the same path."""

    @property
    def resume_flags(self) -> tuple[str, ...] | None:
        """Flags to add to continue an interrupted command: none for a table; None for one sample, which starts again."""
        return () if self.table else None


def run(config: PredictConfig) -> None:
    """Answer and print."""
    if config.table is not None:
        _score_table(config, config.table)
        return
    if given := [name for name in TABLE_FLAGS if getattr(config, name) not in (None, (), False)]:
        raise ConfigError(f"--{given[0]}: needs --table; leave it out for one sample, whose answer is printed")
    bundle = Bundle.load(config.model)
    known = [column.name for column in getattr(bundle.inputs.get(COLUMNS), "columns", ())]
    sample = read_sample(config, {name: spec.sent_as for name, spec in bundle.inputs.items()}, known)
    rule = config.fusion or DEFAULT_RULE
    prediction = Predictor(bundle).predict([sample], rule, config.top_k, config.coverage)[0]
    if config.json:
        model = {"name": bundle.manifest.name, "sha256": bundle.manifest.sha256}
        json.dump(prediction.to_dict() | {"model": model}, sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        console.print(prediction)


def _score_table(config: PredictConfig, table: Path) -> None:
    """Answer every row of a table, and print how many there were."""
    for name in ONE_SAMPLE_FLAGS:
        if getattr(config, name) not in (None, (), False):
            raise ConfigError(f"--{name.replace('_', '-')}: is for one sample; leave it out with --table")
    if config.out is None:
        raise ConfigError("--table: the answers need a file; add --out FILE.csv, .parquet or .jsonl")
    if config.workers is not None and config.workers < 1:
        raise ConfigError(f"--workers {config.workers}: expected a whole number of at least 1")
    require_extra("bulk" if config.ray is None else "ray")
    from mla_serve.bulk.run import score_table
    from mla_serve.bulk.score import Ask

    ask = Ask(config.model, config.fusion or DEFAULT_RULE, config.coverage, config.keep)
    scored = score_table(table, config.out, ask, config.workers, config.ray, flat=config.probabilities)
    before = f", {scored.rows - scored.new:,} of them before" if scored.new < scored.rows else ""
    rate = f", {scored.new / scored.seconds:,.0f} rows/s" if scored.new else ""
    partial = f"; {scored.partial:,} answered without what could not be read: see faults" if scored.partial else ""
    bad = f"; {scored.bad:,} could not be answered: see error" if scored.bad else ""
    console.print(f"{config.out}: {scored.rows:,} rows{before}{rate}{partial}{bad}", highlight=False)
