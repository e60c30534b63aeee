"""Finish a bundle whose graphs are written: measure it, and write the report, the model card and the final manifest."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mla_serve.bundle.about import About, parse_about
from mla_serve.bundle.manifest import Bundle, Manifest, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation.splits import DRAWS, SHOWN_RULES, SplitRun, score_split
from mla_serve.export.card import model_card
from mla_serve.export.report import gather, measure_importance, write_report
from mla_serve.export.run_data import RunRows, run_measured_split
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.train.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """What is known of a model beside its files.

    about: its purpose and so on; epochs: the records of training; facts: to be kept with the metrics, such as that the rows were
    held out; samples: whether the report may show rows of the data.
    """

    about: About
    epochs: Sequence[dict[str, Any]]
    facts: Mapping[str, Any]
    samples: bool


def finish_bundle(
    staging: Path, manifest: Manifest, facts: dict[str, Any], folder: RunFolder, data: Path, rows: RunRows | None = None
) -> Manifest:
    """Measure the bundle on the run's data if they are still there; write report, model card and the final manifest.

    Args: rows, see export_run.
    """
    predictor = Predictor(Bundle.load(staging), threads=len(os.sched_getaffinity(0)))
    split_run = run_measured_split(facts, data, predictor, rows)
    held_out = split_run and split_run.split == "val" and facts.get("held_out")
    file = folder.path / "about.md"
    description = ModelDescription(
        about=parse_about(file.read_text(encoding="utf-8") if file.exists() else ""),
        epochs=folder.read_metrics() if split_run else (),
        facts={"held_out": True} if held_out else {},
        samples=facts["golden_source"] != "generated",
    )
    return write_findings(staging, manifest, predictor, split_run, description)


def write_findings(
    staging: Path, manifest: Manifest, predictor: Predictor, split_run: SplitRun | None, description: ModelDescription
) -> Manifest:
    """Measure what the graphs gave for some rows; write report, model card and the final manifest."""
    metrics: dict[str, Any] = {}
    if split_run:
        results = gather(predictor, split_run)
        metrics = score_split(predictor, split_run, DRAWS, SHOWN_RULES) | dict(description.facts)
        metrics["intervals"] = {name: rules[DEFAULT_RULE] for name, rules in results["intervals"].items()}
        if importance := measure_importance(predictor, split_run):
            metrics["importance"] = importance
    manifest = manifest.model_copy(update={"metrics": metrics, "about": description.about})
    if split_run:
        write_report(staging, results, predictor, split_run, manifest, description.epochs, samples=description.samples)
    (staging / "MODEL_CARD.md").write_text(model_card(manifest), encoding="utf-8")
    return write_manifest(staging, manifest)
