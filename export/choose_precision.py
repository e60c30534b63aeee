"""Choose a precision for every encoder: the fastest on this processor that keeps the task's score within a bound.

Heads stay fp32: each is one small product that takes microseconds. All that was fitted on fp32 logits (temperatures,
thresholds of prediction sets, the references for unfamiliar input) is kept, and measured again with the smaller graphs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mla_serve.bundle.manifest import Bundle, Manifest, read_task, write_manifest
from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.bundle.runtime import DEVICES, cuda_is_there, open_session, runtime_version
from mla_serve.errors import BundleError, ConfigError, NotFinite
from mla_serve.evaluation.analysis import BATCH, concatenate
from mla_serve.evaluation.scores import evaluate
from mla_serve.evaluation.splits import run_rows
from mla_serve.export.quantise import operator_groups, to_fp16, to_int8
from mla_serve.export.run_data import RunRows
from mla_serve.export.timing import overall, times_faster
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Array
from mla_serve.table import Row, Table, read_payload
from mla_serve.tasks import Task
from mla_serve.tasks.base import LOWER_IS_BETTER
from mla_serve.tasks.number import IN_UNIT

Precision = Literal["fp32", "fp16", "int8", "auto"]
GOLDEN_TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "int8": 2e-2}  # of a golden probability, on whatever machine serves
SCALE_ROWS = 256  # training rows by which int8 scales are measured
VALIDATION_ROWS = 2000
MIN_SPEEDUP = 1.05  # times faster; with less, `auto` keeps fp32
Scores = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class PrecisionTarget:
    """The precision that was asked for, and what it may cost as a fraction, see Task.cost."""

    precision: Precision = "fp32"
    loss: float = 0.01

    def check(self) -> None:
        """Refuse a bound that is no fraction. Raises: ConfigError."""
        if not 0 <= self.loss < 1:
            raise ConfigError(f"--precision-loss {self.loss}: expected a fraction, from 0 to less than 1, such as 0.01")


FP32 = PrecisionTarget()


class Trial:
    """A bundle whose encoders are replaced one by one, and the validation rows by which they are judged.

    outputs: the logits and more of these rows with the encoders chosen so far. before: the scores in fp32.
    """

    def __init__(self, staging: Path, manifest: Manifest, rows: RunRows) -> None:
        """Take a complete bundle in fp32."""
        self.staging, self.manifest, self.rows = staging, manifest, rows
        predictor = self.open()
        self.inputs = predictor.bundle.inputs
        self.val = _sample_rows(rows.val, VALIDATION_ROWS)
        self.targets = predictor.task.encode([row.label for row in self.val])
        self.outputs = self._run(predictor, predictor.names)
        self.before = scores(predictor, self.outputs, self.targets)

    def open(self) -> Predictor:
        """Open the bundle in its present state."""
        self.manifest = write_manifest(self.staging, self.manifest)
        return Predictor(Bundle.load(self.staging))

    def _run(self, predictor: Predictor, names: Sequence[str]) -> GraphOutputs:
        """Run these modalities of the validation rows that have one. Only some rows are decoded at a time."""
        rows = [row for row in self.val if row.values.keys() & set(names)]

        def decode(row: Row) -> dict[str, Array]:
            return predictor.decode({name: read_payload(row.values[name]) for name in names if name in row.values})

        starts = range(0, len(rows), BATCH)
        return concatenate([predictor.run_graphs([decode(row) for row in rows[at : at + BATCH]]) for at in starts])

    def windows(self, name: str) -> Array:
        """Decode training rows to measure int8 scales and times on, one window of each, the middle one: (N, *shape)."""
        rows = _sample_rows([row for row in self.rows.train if name in row.values], SCALE_ROWS)
        decoded = (self.inputs[name].decode(read_payload(row.values[name]), name) for row in rows)
        return np.stack([windows[len(windows) // 2] for windows in decoded])

    def replace_encoder(self, name: str, graph: bytes) -> tuple[GraphOutputs, Scores]:
        """Replace a modality's encoder and run the validation rows through the new one.

        If its output is not finite for every row, as when half precision overflows, its logits count as 0.
        """
        (self.staging / self.manifest.modalities[name].encoder).write_bytes(graph)
        predictor = self.open()
        m, there = predictor.names.index(name), self.outputs.present[predictor.names.index(name)]
        part = None
        with contextlib.suppress(NotFinite):
            part = self._run(predictor, [name])
        outputs = GraphOutputs(
            *(getattr(self.outputs, field.name).copy() for field in dataclasses.fields(GraphOutputs))
        )
        for field in ("opinions", "unfamiliarity", "excess"):
            getattr(outputs, field)[m, there] = getattr(part, field)[m] if part else 0.0
        return outputs, scores(predictor, outputs, self.targets)


def export_smaller(
    staging: Path, manifest: Manifest, fixed: Mapping[str, Collection[str]], rows: RunRows, target: PrecisionTarget
) -> Manifest:
    """Replace every encoder of a bundle by the fastest candidate whose score is within the bound.

    Args: staging, a complete bundle in fp32; fixed, modality -> the names of its encoder's buffers.
    Returns: the manifest as written; `precision` holds what was tried, chosen and measured.
    Raises: BundleError when the score on validation or test gets worse by more than the bound.
    """
    has_test = "test" in rows.table.splits
    trial = Trial(staging, manifest, rows)
    measured: dict[str, dict[str, Any]] = {"val": {"rows": len(trial.targets), "before": trial.before}}
    if has_test:
        measured["test"] = _on_test(trial.open(), rows.table, "before")
    encoders = {name: _choose_for(trial, name, fixed[name], target) for name in manifest.modalities}
    predictor = trial.open()
    measured["val"]["after"] = scores(predictor, trial.outputs, trial.targets)
    if has_test:
        measured["test"] |= _on_test(predictor, rows.table, "after")
    for split, found in measured.items():
        _check_loss(predictor.task, split, found["before"], found["after"], ["full"], target)
    golden, difference = _recompute_golden(predictor)
    facts = {
        "asked": target.precision,
        "loss": target.loss,
        "processor": processor(),
        "onnxruntime": runtime_version(),
        "fitted_on": "fp32",
        "golden_difference": difference,
        "encoders": encoders,
        "measured": measured,
    }
    tolerance = max(GOLDEN_TOLERANCE[one["chosen"].split()[0]] for one in encoders.values())
    update = {"precision": facts, "golden": golden, "tolerance": tolerance}
    return write_manifest(staging, trial.manifest.model_copy(update=update))


def _choose_for(trial: Trial, name: str, fixed: Collection[str], target: PrecisionTarget) -> dict[str, Any]:
    """Try the candidates for one encoder and write the best one into the bundle; returns the results of all."""
    windows = trial.windows(name)
    graphs = _candidates((trial.staging / trial.manifest.modalities[name].encoder).read_bytes(), fixed, windows, target)
    providers = DEVICES["cuda" if target.precision == "fp16" and cuda_is_there() else "cpu"]
    speeds = times_faster({label: open_session(graph, providers, 1) for label, graph in graphs.items()}, windows)
    tried = {label: trial.replace_encoder(name, graph) for label, graph in graphs.items()}
    conditions = [condition for condition in ("full", name) if condition in trial.before]
    task = read_task(trial.manifest)
    lost = {label: max(_losses(task, trial.before, found, conditions)) for label, (_, found) in tried.items()}
    chosen = pick_fastest({label: overall(speeds[label]) for label in graphs}, lost, target)
    _check_loss(task, "val", trial.before, tried[chosen][1], conditions, target)
    trial.outputs, _ = trial.replace_encoder(name, graphs[chosen])
    return {
        "chosen": chosen,
        "tried": {
            label: {
                "times_faster": speeds[label],
                "bytes": len(graphs[label]),
                "alone": found.get(name),
                "full": found["full"],
            }
            for label, (_, found) in tried.items()
        },
    }


def pick_fastest(speeds: Mapping[str, float], lost: Mapping[str, float], target: PrecisionTarget) -> str:
    """Pick the fastest candidate within the bound. `auto` keeps fp32 unless another is at least MIN_SPEEDUP times faster.

    Args: speeds, label -> how many times faster than fp32; lost, label -> what it costs.
    Returns: the label. If none is within the bound, that of the smallest loss, which the caller must refuse.
    """
    smaller = [label for label in speeds if label != "fp32"]
    within = [label for label in smaller if lost[label] <= target.loss]
    best = max(within, key=lambda label: speeds[label], default="fp32")
    if not smaller or (target.precision == "auto" and speeds[best] < MIN_SPEEDUP):
        return "fp32"
    return best if within or target.precision == "auto" else min(smaller, key=lambda label: lost[label])


def _candidates(graph: bytes, fixed: Collection[str], windows: Array, target: PrecisionTarget) -> dict[str, bytes]:
    """Make the candidates, fp32 first: {label: graph}."""
    if target.precision == "fp16":
        return {"fp32": graph, "fp16": to_fp16(graph, fixed)}
    return {"fp32": graph} | {
        f"int8 {group}": to_int8(graph, fixed, windows, group) for group in operator_groups(graph, fixed)
    }


def scores(predictor: Predictor, outputs: GraphOutputs, labels: Array) -> Scores:
    """Score the rows with all their modalities, and with each modality alone: {condition: {score: value}}."""
    found = evaluate(
        outputs.opinions, outputs.present, labels, predictor.bundle.fusion, (DEFAULT_RULE,), excess=outputs.excess
    )
    shown = [condition for condition in ("full", *predictor.names) if condition in found]
    kept = dict.fromkeys((*cost_scores(predictor.task), "nll"))
    return {condition: {key: found[condition][DEFAULT_RULE][key] for key in kept} for condition in shown}


def _on_test(predictor: Predictor, table: Table, when: str) -> dict[str, Any]:
    split_run = run_rows(predictor, table.splits["test"], "test", table.fingerprint, table.faults)
    return {"rows": len(split_run.targets), when: scores(predictor, split_run.outputs, split_run.targets)}


def cost_scores(task: Task) -> tuple[str, str]:
    """Return the score that is bounded, and the last one of `shown_scores`: for classes, accuracy and ECE."""
    return task.cost_score, task.shown_scores[-1]


def cost_text(task: Task, score: str, value: float) -> str:
    """Write a score with the digits that show what a precision costs."""
    return task.shown(score, value) if score in IN_UNIT else f"{value:.4f}"


def _losses(task: Task, before: Scores, after: Scores, conditions: Sequence[str]) -> list[float]:
    return [task.cost(before[condition], after[condition]) for condition in conditions]


def _check_loss(
    task: Task, split: str, before: Scores, after: Scores, conditions: Sequence[str], target: PrecisionTarget
) -> None:
    """Refuse a cost beyond the bound. Raises: BundleError."""
    score = task.cost_score
    for condition, lost in zip(conditions, _losses(task, before, after, conditions), strict=True):
        if lost > target.loss:
            old, new = (cost_text(task, score, found[condition][score]) for found in (before, after))
            goes = "grows" if score in LOWER_IS_BETTER else "falls"
            raise BundleError(
                f"--precision {target.precision}: {task.title(score)} on {split} ({condition}) {goes} from {old} to {new}, more "
                f"than --precision-loss {target.loss:g} allows; nothing was exported. Allow more, or use --precision auto, "
                "which leaves such an encoder in fp32"
            )


def _recompute_golden(predictor: Predictor) -> tuple[list[Any], float]:
    """Return the golden samples with the probabilities of the smaller graphs, and the largest change.

    A service compares its own probabilities with these when it starts.
    """
    golden, expected = predictor.bundle.manifest.golden, predictor.bundle.golden_answers()
    if not golden:
        return golden, 0.0
    given = predictor.replay()
    again = [one.model_copy(update={"answer": p.tolist()}) for one, p in zip(golden, given, strict=True)]
    return again, float(np.abs(given - expected).max())


def _sample_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Draw rows at random, the same ones each time."""
    return [rows[at] for at in np.sort(np.random.default_rng(0).permutation(len(rows))[:most])]


def processor() -> str:
    """Describe what decides whether int8 is faster: the architecture, and its instructions for int8."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return platform.machine()
    return " ".join([platform.machine(), *sorted(flags & {"avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})])
