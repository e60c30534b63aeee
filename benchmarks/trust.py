"""What a served number is worth, measured; nothing is tuned here.

python benchmarks/trust.py seeds RUN [RUN ...]     calibrated against the paper's rule on each run's test split
python benchmarks/trust.py coverage MODEL DATA     prediction sets over 20 random re-splits of validation and test
python benchmarks/trust.py spoiled MODEL DATA      one modality at severity 5 against the fusion of the remaining ones
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import betabinom

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation import analysis
from mla_serve.evaluation.scores import evaluate, patterns
from mla_serve.evaluation.splits import run_split
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.intervals import Conformal
from mla_serve.fusion.novelty import References
from mla_serve.fusion.rules import fuse
from mla_serve.table import read_table
from mla_serve.train.data.folds import Folds
from mla_serve.train.data.samples import decode_rows
from mla_serve.train.fit.after_training import cross_fitted_scores, gather
from mla_serve.train.fit.choose import Setting
from mla_serve.train.fit.features import encode_column
from mla_serve.train.fit.formula import Evidence
from mla_serve.train.run_folder import UNFAMILIAR, RunFolder

RULES = ("calibrated", "paper", "undiscounted")
CONDITIONS = ("full", "missing20", "missing50", "missing80")
DRAWS, SPLITS, COVERAGE, FOLDS = 20, 20, 0.9, 5


def seeds(runs: list[str]) -> None:
    """Print accuracy, NLL and ECE on the test split, over 20 mask draws, and whether calibrated has the lower NLL."""
    for run in runs:
        folder = RunFolder(Path(run))
        recipe, facts = folder.read_recipe(), folder.read_json()
        strategy = folder.restore(recipe.build())
        samples = decode_rows(read_table(Path(facts["data"])).splits["test"], recipe.inputs, recipe.classes)
        encoded = {n: encode_column(strategy, n, c, torch.device("cpu")) for n, c in samples.columns.items()}
        references = References.from_bytes((folder.path / UNFAMILIAR).read_bytes())
        outputs = gather(encoded, samples.labels.numpy(), references)
        results = evaluate(
            outputs.logits,
            outputs.present,
            outputs.labels,
            folder.read_fusion(),
            RULES,
            draws=DRAWS,
            excess=outputs.excess,
        )
        print(run, *(note for note in facts["notes"] if note.startswith("fusion")), sep="\n  ")
        for condition in CONDITIONS:
            scores = results[condition]
            cells = [f"{rule} {s['accuracy']:.3f} {s['nll']:.4f} {s['ece']:.3f}" for rule, s in scores.items()]
            lower = scores["calibrated"]["nll"] < scores["paper"]["nll"]
            print(f"  {condition:10} {'   '.join(cells)}   lower NLL: {lower}")


def coverage(model: str, data: str) -> None:
    """Fit and calibrate on a random half of validation and test together, and measure on the other half, 20 times."""
    predictor = Predictor(Bundle.load(model))
    parts = [run_split(predictor, Path(data), split) for split in ("val", "test")]
    outputs = analysis.join([part.outputs for part in parts])
    evidence = Evidence.of(outputs.logits, outputs.present, np.concatenate([part.labels for part in parts]))
    names, rows, setting = predictor.names, len(evidence.labels), Setting(1e-2)
    listed = [p for p in patterns(len(names)) if p.sum() <= 3]
    covered = np.zeros((SPLITS, len(listed), 2))
    sizes, low = np.zeros_like(covered), 0
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(rows)
        own, fresh = evidence.rows(order[: rows // 2]), evidence.rows(order[rows // 2 :])
        fusion = setting.formula(own, own, names)
        folds = Folds(np.arange(len(own.labels)) % FOLDS, "")
        refit = lambda kept, own=own, fusion=fusion: setting.formula(own.rows(kept), own, names, fusion)  # noqa: E731
        table = cross_fitted_scores(own, names, fusion, folds, refit, split, ("calibrated", "paper"))
        for k, pattern in enumerate(listed):
            for r, rule in enumerate(("calibrated", "paper")):
                hits, size = _sets(Conformal(table), fusion, fresh, pattern, names, rule)
                covered[split, k, r], sizes[split, k, r] = hits.mean(), size
                low += hits.sum() < _law(len(own.labels), len(hits)).ppf(0.005)
    floor = _law(rows // 2, rows - rows // 2).ppf(0.005) / (rows - rows // 2)
    print(f"{model}: coverage asked {COVERAGE}; one split may fall to {floor:.3f} (99 % Beta-binomial band)")
    print(f"{'pattern':36}{'calibrated: mean, lowest, size':>34}{'paper':>24}")
    for k, pattern in enumerate(listed):
        name = "+".join(n for n, there in zip(names, pattern, strict=True) if there)
        cells = [
            f"{covered[:, k, r].mean():.3f} {covered[:, k, r].min():.3f} {sizes[:, k, r].mean():.2f}" for r in (0, 1)
        ]
        print(f"{name:36}{cells[0]:>34}{cells[1]:>24}")
    print(f"below the band: {low} of {covered.size} (0.5 % expected of sets that do not over-cover)")


def _law(count: int, fresh: int) -> betabinom:
    rank = math.ceil((count + 1) * COVERAGE)
    return betabinom(fresh, rank, count + 1 - rank)


def _sets(
    conformal: Conformal, fusion: Fusion, fresh: Evidence, pattern: Array, names: tuple[str, ...], rule: str
) -> tuple[Array, float]:
    mask = np.repeat(pattern[:, None], len(fresh.labels), axis=1)
    log_p = fuse(fresh.logits, mask, fusion, rule).log_probabilities
    inside = conformal.sets(log_p, mask, names, rule, COVERAGE)
    return inside[np.arange(len(log_p)), fresh.labels], float(inside.sum(axis=1).mean())


def spoiled(model: str, data: str) -> None:
    """Print the accuracy with one modality at severity 5, less that without it, by rule; the aim is above -1 point."""
    predictor = Predictor(Bundle.load(model))
    split_run = run_split(predictor, Path(data), "test")
    rules = ("calibrated", "undiscounted", "paper", "mean_logit", "product", "static", "energy")
    outputs, labels = split_run.outputs, split_run.labels
    rest = analysis.leave_one_out(predictor, outputs, labels, rules)
    curves = analysis.corruption_curves(predictor, split_run.samples(), outputs, labels, rules, severities=(5,))
    print(f"{'points against the fusion of the rest':44}" + "".join(f"{rule:>12}" for rule in rules))
    for name, corruptions in curves.items():
        for corruption, by_severity in corruptions.items():
            worse = by_severity["5"]
            gaps = [100 * (worse[rule]["accuracy"] - rest[name][rule]["accuracy"]) for rule in rules]
            alone = f"{name} {corruption} (alone {worse['alone']['accuracy']:.2f})"
            print(f"{alone:44}" + "".join(f"{gap:+12.1f}" for gap in gaps))
    print(f"{'(without any spoiling: accuracy of the rest)':44}")
    for name in rest:
        print(f"  without {name:34}" + "".join(f"{100 * rest[name][rule]['accuracy']:12.1f}" for rule in rules))


if __name__ == "__main__":
    command, *arguments = sys.argv[1:] or ["?"]
    if command == "seeds":
        seeds(arguments)
    elif command in ("coverage", "spoiled") and len(arguments) == 2:
        {"coverage": coverage, "spoiled": spoiled}[command](*arguments)
    else:
        sys.exit(__doc__)
