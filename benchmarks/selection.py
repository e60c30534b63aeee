"""How much coverage is lost because the rows that picked the checkpoint also give the scores of prediction sets.

python benchmarks/selection.py DATA [EPOCHS]    trains on DATA (none: the generated keypad) and keeps every epoch's opinions

Validation and test together are dealt into three parts, 200 times: one picks the epoch as training does, the scores come
from the same part, or from a second one; coverage is measured on the third. The paper's rule, so that nothing is fitted.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from mla_serve.evaluation.scores import patterns
from mla_serve.fusion.formula import Array, Fusion, log_softmax
from mla_serve.fusion.intervals import scores, stored, threshold
from mla_serve.fusion.rules import fuse
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.samples import decode_rows
from mla_serve.train.loop import Trainer, opinions
from mla_serve.train.pipeline import plan
from mla_serve.train.run_folder import RunFolder

SPLITS, COVERAGE = 200, 0.9


def listen(config: TrainConfig) -> tuple[Array, Array, Array]:
    """Train; return the scores of all labels (E, K, N, C) by epoch and pattern, what was present (K, N), labels (N,)."""
    planned = plan(config)
    rows = dict(planned.rows)
    judged = [*rows["val"], *rows["test"]]
    decoded = {
        name: decode_rows(part, planned.recipe.inputs, planned.recipe.classes)
        for name, part in (("train", rows["train"]), ("val", rows["val"]), ("judged", judged))
    }
    trainer = Trainer(
        planned.recipe.build(config.seed),
        decoded,
        RunFolder(config.runs / "selection"),
        epochs=config.passes,
        batch_size=config.batch_size,
        seed=config.seed,
        augment=config.augments,
        device=torch.device("cpu"),
    )
    trainer.measure()
    outputs: list[tuple[Array, Array]] = []
    trainer.run(lambda _: outputs.append(opinions(trainer.strategy, decoded["judged"], torch.device("cpu"))))
    names, present = tuple(planned.recipe.inputs), outputs[0][1]
    listed = [pattern for pattern in patterns(len(names)) if pattern.sum() in (1, 2, len(names))]
    there = np.array([present[pattern].all(axis=0) for pattern in listed])
    by_epoch = np.array([[_scores(logits, pattern, names) for pattern in listed] for logits, _ in outputs])
    return by_epoch, there, decoded["judged"].labels.numpy()


def _scores(logits: Array, pattern: Array, names: tuple[str, ...]) -> Array:
    mask = np.repeat(pattern[:, None], logits.shape[1], axis=1)
    return scores(fuse(log_softmax(logits.astype(float)), mask, Fusion.paper(names), "paper").log_probabilities)


def compare(by_epoch: Array, there: Array, labels: Array) -> Array:
    """Return coverage (SPLITS, 2) on the third part: with scores from the part that picked, and from another."""
    own = by_epoch[..., np.arange(len(labels)), labels]  # (E, K, N)
    right = by_epoch.argmin(axis=3) == labels
    covered = np.zeros((SPLITS, 2))
    for split in range(SPLITS):
        part = np.random.default_rng(split).permutation(len(labels)) % 3
        picking, other, fresh = (there & (part == number) for number in range(3))
        epoch = _pick(right, own, picking)
        for column, rows in enumerate((picking, other)):
            hits = [
                (own[epoch, k, fresh[k]] <= threshold(stored(own[epoch, k, rows[k]]), COVERAGE)).mean()
                for k in range(len(there))
            ]
            covered[split, column] = np.mean(hits)
    return covered


def _pick(right: Array, own: Array, rows: Array) -> int:
    """Pick the epoch by accuracy averaged over patterns, then by NLL, as training does."""
    accuracy = [np.mean([right[e, k, rows[k]].mean() for k in range(len(rows))]) for e in range(len(right))]
    nll = [np.mean([-np.log1p(-own[e, k, rows[k]]).mean() for k in range(len(rows))]) for e in range(len(right))]
    return max(range(len(right)), key=lambda e: (accuracy[e], -nll[e]))


def main(data: Path | None, epochs: int | None) -> None:
    """Train, compare, print."""
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(TrainConfig(), data=data, epochs=epochs, runs=Path(folder), threads=1)
        found = compare(*listen(config))
    mean, error = found.mean(axis=0), (found[:, 0] - found[:, 1]).std() / np.sqrt(SPLITS)
    print(f"{data.name if data else 'keypad'}: coverage asked {COVERAGE}, mean over {SPLITS} splits and all patterns")
    print(f"  scores from the rows that picked the epoch {mean[0]:.4f}, from other rows {mean[1]:.4f}")
    print(f"  difference {mean[0] - mean[1]:+.4f} (one standard error over splits {error:.4f})")


if __name__ == "__main__":
    torch.set_num_threads(1)
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    main(data, int(sys.argv[2]) if len(sys.argv) > 2 else None)
