"""`mla-serve predict`: one answer from a bundle, or one for every row of a table, without a server."""

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
from mla_serve.commands.sample_flags import SampleFlags, read_sample
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
FOR_ONE_SAMPLE = ("image", "audio", "text", "input", "top_k", "json")


@dataclasses.dataclass(frozen=True)
class PredictConfig(SampleFlags):
    """Classify one sample from whichever of its modalities are given, or with --table all rows of a table."""

    model: Path = Path("models/digits")
    """Folder of the bundle."""
    table: Path | None = None
    """Table of samples (.jsonl, .csv or .parquet) with a column for each modality; paths are relative to its folder. An
    empty cell is a missing modality; no label is needed."""
    out: Path | None = None
    """Parquet file that the answers to --table are written to, a row for each. Answers that are there are kept as
    OUT.old; any other file is refused."""
    workers: int | None = None
    """Processes that score a table. Default: all cores."""
    ray: Annotated[str | None, OPTIONAL_ADDRESS] = None
    """Score the table on Ray Data: on a Ray that is started here, or on that of this machine (auto) or of
    HOST:PORT. All machines need the bundle, the table and its files at the same path."""

    @property
    def goes_on_with(self) -> tuple[str, ...] | None:
        """The flags that an interrupted command goes on with, beside its own: none, where a table is scored."""
        return () if self.table else None


def run(config: PredictConfig) -> None:
    """Predict and print."""
    if config.table is not None:
        _score_table(config, config.table)
        return
    if any(given is not None for given in (config.out, config.workers, config.ray)):
        raise ConfigError("--out, --workers and --ray: go with --table; one sample's answer is printed")
    bundle = Bundle.load(config.model)
    sample = read_sample(config, {name: spec.sent_as for name, spec in bundle.inputs.items()})
    rule = config.fusion or DEFAULT_RULE
    prediction = Predictor(bundle).predict([sample], rule, config.top_k, config.coverage)[0]
    if config.json:
        model = {"name": bundle.manifest.name, "sha256": bundle.manifest.sha256}
        json.dump(prediction.to_dict() | {"model": model}, sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        console.print(prediction)


def _score_table(config: PredictConfig, table: Path) -> None:
    """Answer every row of a table, and say how many there were."""
    for name in FOR_ONE_SAMPLE:
        if getattr(config, name) not in (None, (), False):
            raise ConfigError(f"--{name.replace('_', '-')}: is for one sample and does not go with --table")
    if config.out is None:
        raise ConfigError("--table: needs --out FILE.parquet for the answers")
    if config.workers is not None and config.workers < 1:
        raise ConfigError(f"--workers {config.workers}: expected a whole number of at least 1")
    require_extra("bulk" if config.ray is None else "ray")
    from mla_serve.bulk.run import score_table
    from mla_serve.bulk.score import Ask

    ask = Ask(config.model, config.fusion or DEFAULT_RULE, config.coverage)
    scored = score_table(table, config.out, ask, config.workers, config.ray)
    before = f", {scored.rows - scored.new:,} of them before" if scored.new < scored.rows else ""
    bad = f"; {scored.bad:,} could not be used: see the column error" if scored.bad else ""
    rate = f", {scored.new / scored.seconds:,.0f} rows/s" if scored.new else ""
    console.print(f"{config.out}: {scored.rows:,} rows{before}{rate}{bad}", highlight=False)
