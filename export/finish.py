"""Finish a bundle whose graphs are written: measure it, and write the report, the model card and the final manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mla_serve.bundle.about import parse_about
from mla_serve.bundle.manifest import Bundle, Manifest, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation.splits import DRAWS, SHOWN_RULES, score_split
from mla_serve.export.card import model_card
from mla_serve.export.report import gather, measure_importance, write_report
from mla_serve.export.run_data import RunRows, run_measured_split
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.train.run_folder import RunFolder


def finish_bundle(
    staging: Path, manifest: Manifest, facts: dict[str, Any], folder: RunFolder, data: Path, rows: RunRows | None = None
) -> Manifest:
    """Measure the bundle on the run's data if they are still there; write report, model card and the final manifest.

    Args: rows, see export_run.
    """
    predictor = Predictor(Bundle.load(staging), threads=len(os.sched_getaffinity(0)))
    split_run = run_measured_split(facts, data, predictor, rows)
    metrics = score_split(predictor, split_run, DRAWS, SHOWN_RULES) if split_run else {}
    results = gather(predictor, split_run) if split_run else {}
    if split_run:
        metrics["intervals"] = {name: rules[DEFAULT_RULE] for name, rules in results["intervals"].items()}
    if split_run and (importance := measure_importance(predictor, split_run)):
        metrics["importance"] = importance
    if split_run and split_run.split == "val" and facts.get("held_out"):
        metrics["held_out"] = True
    told = folder.path / "about.md"
    about = parse_about(told.read_text(encoding="utf-8") if told.exists() else "")
    manifest = manifest.model_copy(update={"metrics": metrics, "about": about})
    if split_run:
        may_show = facts["golden_source"] != "generated"
        write_report(staging, results, predictor, split_run, manifest, folder.read_metrics(), samples=may_show)
    (staging / "MODEL_CARD.md").write_text(model_card(manifest), encoding="utf-8")
    return write_manifest(staging, manifest)
