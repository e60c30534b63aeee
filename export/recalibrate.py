"""Fit a finished bundle to labelled rows: everything that follows training, and no graph. No checkpoint is needed.

The fusion, the thresholds of labels, the prediction sets or intervals and the discounts are fitted as after training, to the
opinions that the bundle's graphs have on the rows. The references of unfamiliar input are fitted to the split `train`, where
the data have one; else the old ones stay, and only their scale is fitted to the rows.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mla_serve
from mla_serve.bundle.about import About
from mla_serve.bundle.manifest import Bundle, FusionParameters, Golden, Manifest, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation.splits import DRAWS, SplitRun, run_rows, score_split, usable_rows
from mla_serve.export.copied_rows import comparable, refuse_training_rows, trained_on, without_copies
from mla_serve.export.finish import ModelDescription, write_findings
from mla_serve.export.graph_fit import fit_to_graphs
from mla_serve.export.new_rows import NewRows, check_rows, doubts
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Payload
from mla_serve.output.replacing import staging_folder
from mla_serve.output.targets import bundle_called, check_target
from mla_serve.table import Row, read_payload
from mla_serve.table.read import data_folder
from mla_serve.train.data.row_counts import count_rows
from mla_serve.train.fit.after_training import Fitted
from mla_serve.train.golden_samples import Truth, truth_of
from mla_serve.train.run_folder import INTERVALS, REFERENCES

REWRITTEN = ("MODEL_CARD.md", "report.html", "report.json")
NOTES_OF_A_FIT = (
    "fusion: ",
    "the fusion and ",
    "detector of unfamiliar ",
    "thresholds of the labels: ",
    "unfamiliar ",  # the last two are of bundles of format 1
    "cross-validation: ",
)
"""How the notes begin that a new fit replaces."""
Scores = Mapping[str, Mapping[str, float]]


def recalibrate(
    base: Bundle,
    out: Path,
    new: NewRows,
    about: About | None = None,
    *,
    samples: bool = False,
) -> Manifest:
    """Write the bundle again to `out`, fitted to new rows. An older bundle of its name there is kept as NAME.old.

    Args: about, instead of what the bundle says; samples, whether the report may show rows of the data.
    Raises: DataError for rows that do not fit the model, or are too few; BundleError when the bundle's graphs do not give its
    golden answers; ConfigError when something else is at `out`.
    """
    predictor = Predictor(base)
    predictor.verify()
    new = dataclasses.replace(new, fitted=usable_rows(predictor, new.fitted, new.split, new.faults))
    check_rows(predictor, new)
    new, notes = _checked(base, new)
    fitted, rows = fit_to_graphs(predictor, new)
    fitted = dataclasses.replace(fitted, notes=[*notes, *fitted.notes])
    new = dataclasses.replace(new, fitted=rows, measured=rows if new.measured_again else new.measured)
    before = _measure(predictor, new)
    with staging_folder(out, base.manifest.name) as staging:
        for name in set(base.manifest.files) - {*REWRITTEN, base.manifest.intervals, base.manifest.unfamiliar}:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(base.read(name))
        (staging / INTERVALS).write_bytes(fitted.intervals.to_bytes())
        (staging / REFERENCES).write_bytes(fitted.references.to_bytes())
        manifest = _with_answers(staging, write_manifest(staging, _manifest(base, fitted, new, before)))
        after = Predictor(Bundle.load(staging))
        after.verify()
        description = ModelDescription(
            about=base.manifest.about if about is None else about,
            epochs=_epochs(base),
            facts={"fitted": True} if new.measured_again else {"copies_left_out": new.copies} if new.copies else {},
            samples=samples,
        )
        return write_findings(staging, manifest, after, _run(after, new), description)


def check_out(base: Bundle, out: Path, data: Path | None) -> str | None:
    """Refuse a target that holds something else; returns a note if a bundle is replaced. Raises: ConfigError."""
    return check_target(
        "--out",
        out,
        bundle_called(base.manifest.name),
        disjoint={"the folder of the bundle": base.folder},
        protected={"the data folder": data_folder(data) if data else None},
    )


def _checked(base: Bundle, new: NewRows) -> tuple[NewRows, list[str]]:
    """Refuse training rows, and measure on no row that is fitted; returns notes on what is not known, or left out.

    Raises: ConfigError.
    """
    known = new.fingerprint in trained_on(base.manifest.training)  # then the split says it
    notes = [] if known else [refuse_training_rows(base, new.fitted, new.split)]
    if new.measured_again:
        return new, [*filter(None, notes)]
    others = without_copies(new.measured, new.fitted, [*base.manifest.modalities])
    if copies := len(new.measured) - len(others):
        left = "they are not measured" if others else "so the fitted rows are measured"
        notes.append(
            f"copies: {copies:,} of {len(new.measured):,} rows of {new.measured_split} are fitted rows too; {left}"
        )
    new = dataclasses.replace(new, measured=others, copies=copies) if others else new.fitted_alone()
    return new, [*filter(None, notes)]


def _run(predictor: Predictor, new: NewRows) -> SplitRun:
    return run_rows(predictor, new.measured, new.measured_split, new.fingerprint, new.faults)


def _measure(predictor: Predictor, new: NewRows) -> Scores:
    """Score the bundle as it is under the default rule: {condition: {score: value}}."""
    conditions = score_split(predictor, _run(predictor, new), DRAWS, [DEFAULT_RULE])["conditions"]
    return {name: rules[DEFAULT_RULE] for name, rules in conditions.items()}


def _manifest(base: Bundle, fitted: Fitted, new: NewRows, before: Scores) -> Manifest:
    """Return the manifest of the new bundle; answers of golden samples and metrics are those of before."""
    manifest = base.manifest
    fields = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "task": fitted.task.to_dict(),
        "fusion": FusionParameters(**fitted.fusion.to_dict()),
        "conformal": {},
        "intervals": INTERVALS,
        "unfamiliar": REFERENCES,
        "golden": _with_truths(base, [*new.train, *new.fitted]),
        "training": _training(manifest, fitted, new, before),
        "table": manifest.table or dict(new.table),
    }
    return manifest.model_copy(update=fields)


def _with_answers(staging: Path, manifest: Manifest) -> Manifest:
    """Let the golden samples be answered by the new fusion, from the graphs, which gave the old answers."""
    answers = Predictor(Bundle.load(staging)).replay().tolist()
    golden = [one.model_copy(update={"answer": answer}) for one, answer in zip(manifest.golden, answers, strict=True)]
    return write_manifest(staging, manifest.model_copy(update={"golden": golden}))


def _training(manifest: Manifest, fitted: Fitted, new: NewRows, before: Scores) -> dict[str, Any]:
    """Return the facts on the training, with those on this fit in place of those on an earlier one."""
    old, names = manifest.training, [*manifest.modalities]
    counts = count_rows({"train": new.train, "val": new.fitted}, names)
    if new.fingerprint != old.get("config", {}).get("fingerprint"):
        counts.pop("train")  # these rows may be others than those that the encoders were trained on
    recalibrated = {
        "trained": old.get("recalibrated", {}).get("trained", manifest.created),
        "created": manifest.created,
        "sha256": manifest.sha256,
        "versions": {"mla_serve": mla_serve.__version__},
        "split": new.split,
        "rows": len(new.fitted),
        "fingerprint": new.fingerprint,
        "notes": [*fitted.notes, *doubts(new)],
        "before": {name: dict(scores) for name, scores in before.items()},
    }
    kept = [note for note in old.get("notes", ()) if not note.startswith(NOTES_OF_A_FIT)]
    facts = {**old, "rows": {**counts, **{k: v for k, v in old.get("rows", {}).items() if k == "train"}}}
    facts |= {"recalibrated": recalibrated} | ({"notes": kept} if "notes" in old else {})
    if "extended" in old:
        facts["extended"] = [_extension(step, counts["val"]) for step in old["extended"]]
    return facts


def _extension(step: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the facts on a later extension, with the counts of the new rows."""
    rows = step.get("rows", {})
    notes = [note for note in step.get("notes", ()) if not note.startswith(NOTES_OF_A_FIT)]
    again = {"recalibrated": {**step["recalibrated"], "notes": []}} if "recalibrated" in step else {}
    return {
        **step,
        "notes": notes,
        "rows": {**rows, "val": {name: counts[name] for name in rows.get("val", {})}},
        **again,
    }


def _epochs(base: Bundle) -> Sequence[dict[str, Any]]:
    """Return the records of training from the report of the bundle; none where it has no report."""
    if "report.json" not in base.manifest.files:
        return ()
    try:
        epochs: list[dict[str, Any]] = json.loads(base.read("report.json"))["epochs"]
    except (ValueError, KeyError, TypeError):
        return ()
    return epochs


def _with_truths(base: Bundle, rows: Sequence[Row]) -> list[Golden]:
    """Add the labels of golden samples that have none, of the rows with the same payloads."""
    golden = []
    for one, sample in zip(base.manifest.golden, base.golden_samples(), strict=True):
        truth = one.truth
        if truth is None and base.manifest.golden_source == "training rows":
            truth = _find_truth(sample, rows)
        golden.append(one.model_copy(update={"truth": truth}))
    return golden


def _find_truth(sample: Mapping[str, Payload], rows: Sequence[Row]) -> Truth | None:
    """Return the label of the rows that have exactly these payloads; None without one, or where they disagree."""
    alike = [row for row in rows if row.values.keys() >= sample.keys()]
    for name in sorted(sample, key=lambda name: isinstance(sample[name], bytes)):  # files are read last
        alike = [row for row in alike if comparable(read_payload(row.values[name])) == comparable(sample[name])]
    labels = [truth_of(row.label) for row in alike]
    return labels[0] if labels and all(label == labels[0] for label in labels) else None
