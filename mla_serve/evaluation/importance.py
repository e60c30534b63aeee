"""Which columns a model relies on: what an answer loses when the cells of a column are shuffled among the rows.

Source: permutation importance, Breiman, Machine Learning 45, 2001. A column that says the same as another one has little:
the model can still read the other one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.evaluation.analysis import fused_answers, take
from mla_serve.fusion.formula import Array, answers_alone
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import ColumnsInput, Payload

SHUFFLES = 3
Importance = dict[str, dict[str, dict[str, float]]]


def column_importance(
    predictor: Predictor, samples: Sequence[Mapping[str, Payload]], outputs: GraphOutputs, labels: Array
) -> Importance:
    """Measure every column: {modality: {column: {"alone": loss, "fused": loss}}}, the largest loss alone first.

    A loss is how much the mean log-likelihood of the true label falls, of the modality's own opinion and of the fused
    answer, on the rows that have the modality. It is below 0 where shuffling helped.
    """
    found: Importance = {}
    for m, name in enumerate(predictor.names):
        spec = predictor.bundle.inputs[name]
        there: Array = np.flatnonzero(outputs.present[m])
        if isinstance(spec, ColumnsInput) and len(there):
            cells = np.concatenate([spec.decode(samples[b][name], name) for b in there])
            losses = _losses(predictor, spec, cells, take(outputs, there), labels[there], m)
            found[name] = dict(sorted(losses.items(), key=lambda item: -item[1]["alone"]))
    return found


def _losses(
    predictor: Predictor, spec: ColumnsInput, cells: Array, outputs: GraphOutputs, labels: Array, m: int
) -> dict[str, dict[str, float]]:
    """Shuffle one column at a time. Args: cells (B, P); outputs and labels of the same rows; m, the modality."""
    generator = np.random.default_rng(0)
    orders = [generator.permutation(len(cells)) for _ in range(SHUFFLES)]
    before, found = _mean_log_likelihoods(predictor, outputs, labels, m), {}
    for column, numbers in spec.slices.items():
        after = []
        for order in orders:
            shuffled = cells.copy()
            shuffled[:, numbers] = cells[order][:, numbers]
            after.append(_mean_log_likelihoods(predictor, _run(predictor, shuffled, outputs, m), labels, m))
        alone, fused = before - np.mean(after, axis=0)
        found[column] = {"alone": float(alone), "fused": float(fused)}
    return found


def _run(predictor: Predictor, cells: Array, outputs: GraphOutputs, m: int) -> GraphOutputs:
    """Run other cells of one modality through its graph; keep the outputs of the other modalities."""
    own = predictor.run_graphs([{predictor.names[m]: row[None]} for row in cells])
    merged = take(outputs, np.arange(len(cells)))
    for field in ("opinions", "unfamiliarity", "excess"):
        getattr(merged, field)[m] = getattr(own, field)[m]
    return merged


def _mean_log_likelihoods(predictor: Predictor, outputs: GraphOutputs, labels: Array, m: int) -> Array:
    """Return the mean log-likelihood of the true labels, of modality m alone and fused: (2,)."""
    fusion = dataclasses.replace(predictor.bundle.fusion, prior_shift=())
    alone = answers_alone(outputs.opinions, fusion)[m]
    fused = fused_answers(predictor, outputs, DEFAULT_RULE, outputs.present)
    return np.array([-fusion.task.nll(each, labels).mean() for each in (alone, fused)])
