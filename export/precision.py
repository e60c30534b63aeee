"""Choose a precision for every encoder: timed on this processor, held to a bound on accuracy on validation and test.

Heads stay fp32: one small product that takes microseconds. What was fitted on fp32 opinions (temperatures, conformal
scores, the references for unfamiliar input) is kept, and measured again through the smaller graphs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mla_serve.bundle.manifest import Bundle, Manifest, write_manifest
from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.bundle.runtime import DEVICES, cuda_is_there, open_session, runtime_version
from mla_serve.errors import BundleError, ConfigError, NotFinite
from mla_serve.evaluation.scores import evaluate
from mla_serve.evaluation.splits import run_split
from mla_serve.export.data import Rows
from mla_serve.export.quantise import kinds_of, to_fp16, to_int8
from mla_serve.export.timing import overall, times_faster
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Array
from mla_serve.table import Row, Table, read_payload

Precision = Literal["fp32", "fp16", "int8", "auto"]
TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "int8": 2e-2}  # of a golden probability, on whatever machine serves
CALIBRATION_ROWS = 256
VALIDATION_ROWS = 2000
WORTH = 1.05  # times faster; with less, `auto` keeps fp32
SHOWN = ("accuracy", "nll", "ece")
Scores = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Wish:
    """What was asked for: a precision, and the accuracy that it may cost, a fraction of the rows."""

    precision: Precision = "fp32"
    loss: float = 0.01

    def check(self) -> None:
        """Refuse a bound that is no fraction. Raises: ConfigError."""
        if not 0 <= self.loss < 1:
            raise ConfigError(
                f"--precision-loss {self.loss}: expected a fraction of the rows, from 0 to less than 1, such as 0.01"
            )


class Trial:
    """A bundle whose encoders are tried out: its folder, the validation rows, and what was heard of them so far."""

    def __init__(self, staging: Path, manifest: Manifest, rows: Rows) -> None:
        """Take a complete bundle in fp32."""
        self.staging, self.manifest, self.rows = staging, manifest, rows
        predictor = self.open()
        self.inputs = predictor.bundle.inputs
        val = _some(rows.val, VALIDATION_ROWS)
        self.samples = [
            predictor.decode({name: read_payload(row.values[name]) for name in predictor.names if name in row.values})
            for row in val
        ]
        self.labels = np.array([predictor.classes.index(row.label) for row in val])
        self.outputs = predictor.run_graphs(self.samples)
        self.before = scores(predictor, self.outputs, self.labels)

    def open(self) -> Predictor:
        """Open the bundle as it stands in the folder."""
        self.manifest = write_manifest(self.staging, self.manifest)
        return Predictor(Bundle.load(self.staging))

    def windows(self, name: str) -> Array:
        """Decode training rows to calibrate with and to time on: (N, *shape)."""
        rows = _some([row for row in self.rows.train if name in row.values], CALIBRATION_ROWS)
        return np.concatenate([self.inputs[name].decode(read_payload(row.values[name]), name) for row in rows])

    def put(self, name: str, graph: bytes) -> tuple[GraphOutputs, Scores]:
        """Put a graph in the place of a modality's encoder, and hear the validation rows through it.

        One that does not give numbers for every row, as when half precision overflows, counts as saying nothing.
        """
        (self.staging / self.manifest.modalities[name].encoder).write_bytes(graph)
        predictor = self.open()
        m, there = predictor.names.index(name), self.outputs.present[predictor.names.index(name)]
        part = None
        with contextlib.suppress(NotFinite):
            part = predictor.run_graphs([{name: sample[name]} for sample in self.samples if name in sample])
        outputs = GraphOutputs(
            *(getattr(self.outputs, field.name).copy() for field in dataclasses.fields(GraphOutputs))
        )
        for field in ("logits", "unfamiliarity", "excess"):
            getattr(outputs, field)[m, there] = getattr(part, field)[m] if part else 0.0
        return outputs, scores(predictor, outputs, self.labels)


def lower(staging: Path, manifest: Manifest, fixed: Mapping[str, Collection[str]], rows: Rows, wish: Wish) -> Manifest:
    """Replace the encoders of a bundle by the fastest of the precision asked for that keep within the bound.

    Args: staging, a complete bundle in fp32; fixed, modality -> the names of its encoder's buffers.
    Returns: the manifest as written; `precision` holds what was tried, chosen and measured.
    Raises: BundleError when accuracy on validation or test falls by more than the bound.
    """
    has_test = "test" in rows.table.splits
    trial = Trial(staging, manifest, rows)
    measured: dict[str, dict[str, Any]] = {"val": {"rows": len(trial.labels), "before": trial.before}}
    if has_test:
        measured["test"] = _on_test(trial.open(), rows.table, "before")
    encoders = {name: _choose(trial, name, fixed[name], wish) for name in manifest.modalities}
    predictor = trial.open()
    measured["val"]["after"] = scores(predictor, trial.outputs, trial.labels)
    if has_test:
        measured["test"] |= _on_test(predictor, rows.table, "after")
    for split, found in measured.items():
        _check_loss(split, found["before"], found["after"], ["full"], wish)
    golden, difference = _golden_again(predictor)
    facts = {
        "asked": wish.precision,
        "loss": wish.loss,
        "processor": processor(),
        "onnxruntime": runtime_version(),
        "fitted_on": "fp32",
        "golden_difference": difference,
        "encoders": encoders,
        "measured": measured,
    }
    tolerance = max(TOLERANCE[one["chosen"].split()[0]] for one in encoders.values())
    update = {"precision": facts, "golden": golden, "tolerance": tolerance}
    return write_manifest(staging, trial.manifest.model_copy(update=update))


def _choose(trial: Trial, name: str, fixed: Collection[str], wish: Wish) -> dict[str, Any]:
    """Try the candidates for one encoder, leave the best in the folder, and tell what was found."""
    windows = trial.windows(name)
    graphs = _candidates((trial.staging / trial.manifest.modalities[name].encoder).read_bytes(), fixed, windows, wish)
    providers = DEVICES["cuda" if wish.precision == "fp16" and cuda_is_there() else "cpu"]
    speeds = times_faster({label: open_session(graph, providers, 1) for label, graph in graphs.items()}, windows)
    tried = {label: trial.put(name, graph) for label, graph in graphs.items()}
    conditions = [condition for condition in ("full", name) if condition in trial.before]
    lost = {label: max(_losses(trial.before, found, conditions)) for label, (_, found) in tried.items()}
    chosen = pick({label: overall(speeds[label]) for label in graphs}, lost, wish)
    _check_loss("val", trial.before, tried[chosen][1], conditions, wish)
    trial.outputs, _ = trial.put(name, graphs[chosen])
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


def pick(speeds: Mapping[str, float], lost: Mapping[str, float], wish: Wish) -> str:
    """Pick the fastest candidate that keeps within the bound; `auto` keeps fp32 unless another is worth it.

    Args: speeds, label -> how many times faster than fp32; lost, label -> accuracy.
    Returns: the label; that of the smallest loss where none keeps within the bound, which is for the caller to refuse.
    """
    smaller = [label for label in speeds if label != "fp32"]
    within = [label for label in smaller if lost[label] <= wish.loss]
    best = max(within, key=lambda label: speeds[label], default="fp32")
    if not smaller or (wish.precision == "auto" and speeds[best] < WORTH):
        return "fp32"
    return best if within or wish.precision == "auto" else min(smaller, key=lambda label: lost[label])


def _candidates(graph: bytes, fixed: Collection[str], windows: Array, wish: Wish) -> dict[str, bytes]:
    """Make the graphs to choose from, fp32 first: {label: graph}."""
    if wish.precision == "fp16":
        return {"fp32": graph, "fp16": to_fp16(graph, fixed)}
    return {"fp32": graph} | {f"int8 {kind}": to_int8(graph, fixed, windows, kind) for kind in kinds_of(graph, fixed)}


def scores(predictor: Predictor, outputs: GraphOutputs, labels: Array) -> Scores:
    """Score what was heard with all that each row has, and with each modality alone: {condition: {score: value}}."""
    found = evaluate(
        outputs.logits, outputs.present, labels, predictor.bundle.fusion, (DEFAULT_RULE,), excess=outputs.excess
    )
    shown = [condition for condition in ("full", *predictor.names) if condition in found]
    return {condition: {key: found[condition][DEFAULT_RULE][key] for key in SHOWN} for condition in shown}


def _on_test(predictor: Predictor, table: Table, when: str) -> dict[str, Any]:
    split_run = run_split(predictor, table.folder, "test")
    return {"rows": len(split_run.labels), when: scores(predictor, split_run.outputs, split_run.labels)}


def _losses(before: Scores, after: Scores, conditions: Sequence[str]) -> list[float]:
    return [before[condition]["accuracy"] - after[condition]["accuracy"] for condition in conditions]


def _check_loss(split: str, before: Scores, after: Scores, conditions: Sequence[str], wish: Wish) -> None:
    """Refuse a loss beyond the bound. Raises: BundleError."""
    for condition, lost in zip(conditions, _losses(before, after, conditions), strict=True):
        if lost > wish.loss:
            old, new = before[condition]["accuracy"], after[condition]["accuracy"]
            raise BundleError(
                f"--precision {wish.precision}: accuracy on {split} ({condition}) falls from {old:.4f} to {new:.4f}, more "
                f"than --precision-loss {wish.loss:g} allows; nothing was exported. Allow more, or use --precision auto, "
                "which leaves such an encoder in fp32"
            )


def _golden_again(predictor: Predictor) -> tuple[list[Any], float]:
    """Say of the golden samples what the smaller graphs say, so that another machine is held to that; and how far off."""
    golden, expected = predictor.bundle.manifest.golden, predictor.bundle.golden_probabilities()
    if not golden:
        return golden, 0.0
    given = predictor.replay()
    again = [one.model_copy(update={"probabilities": p.tolist()}) for one, p in zip(golden, given, strict=True)]
    return again, float(np.abs(given - expected).max())


def _some(rows: Sequence[Row], most: int) -> list[Row]:
    """Pick rows at random, the same each time."""
    return [rows[at] for at in np.sort(np.random.default_rng(0).permutation(len(rows))[:most])]


def processor() -> str:
    """Tell what decides whether int8 pays: the architecture, and whether it multiplies int8 in one instruction."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return platform.machine()
    return " ".join([platform.machine(), *sorted(flags & {"avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})])
