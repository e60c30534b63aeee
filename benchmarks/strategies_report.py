"""The comparison of strategies as a table, a figure and JSON rows."""

from __future__ import annotations

import functools
import json
import os
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mla_serve.evaluate import masks_of
from mla_serve.fusion import Array, Fusion, fuse
from mla_serve.scores import RATES, conditions
from mla_serve.table import read_table

SHOWN = ("full", "missing20", "missing50", "missing80")
DRAWS = 1000
SCORES = ("accuracy", "macro_f1", "nll", "ece")
Results = Mapping[str, Any]


def write_report(results: Sequence[Results], out: Path) -> None:
    """Write strategies.json, strategies.md and strategies.svg."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "strategies.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in json_rows(results)) + "\n]\n")
    draw(results, out / "strategies.svg")
    (out / "strategies.md").write_text(markdown(results))


def json_rows(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Return one row per data set, strategy, seed, condition and fusion rule, on the test split."""
    rows = []
    for one in results:
        facts = {key: one[key] for key in ("dataset", "strategy", "seed", "optimizer", "lr", "epochs", "precision")}
        cost = {key: round(one[key], 1) for key in ("train_seconds", "peak_mb")}
        for condition, rules in one["conditions"]["test"].items():
            for rule, scores in rules.items():
                values = {key: round(scores[key], 5) for key in SCORES}
                rows.append(facts | {"condition": condition, "fusion": rule} | values | cost)
    return rows


def grouped(results: Sequence[Results]) -> dict[str, dict[str, list[Results]]]:
    """Group results: {data set: {strategy: runs}}."""
    groups: dict[str, dict[str, list[Results]]] = defaultdict(lambda: defaultdict(list))
    for one in results:
        groups[one["dataset"]][one["strategy"]].append(one)
    return groups


def preferred(runs: Sequence[Results]) -> str:
    """Pick native or calibrated for a strategy, by its NLL on validation over the conditions shown."""
    score = {
        rule: np.mean([one["conditions"]["val"][c][rule]["nll"] for one in runs for c in SHOWN])
        for rule in ("native", "calibrated")
    }
    return min(score, key=lambda rule: float(score[rule]))


def values(runs: Sequence[Results], condition: str, rule: str, score: str = "accuracy") -> Array:
    """Collect one test score over the seeds."""
    return np.array([one["conditions"]["test"][condition][rule][score] for one in runs])


def markdown(results: Sequence[Results]) -> str:
    """Write the tables."""
    parts = [_head(results)]
    for dataset, by_strategy in grouped(results).items():
        parts += [f"## {dataset}\n", _table(by_strategy), _differences(by_strategy)]
    return "\n".join(parts) + "\n"


def _head(results: Sequence[Results]) -> str:
    seeds, epochs = {one["seed"] for one in results}, {one["epochs"] for one in results}
    precisions = " and ".join(sorted({one["precision"] for one in results}))
    return f"""# Training strategies

Test accuracy in per cent, mean and standard deviation over {len(seeds)} seeds, {max(epochs)} epochs, by each strategy's native or the
calibrated rule, whichever has the lower NLL on validation. Optimiser and learning rate were picked on validation for every
strategy alike: in a short search, which favours high rates, and some of the chosen ones are the highest on offer. Encoders,
augmentation, epochs and missing masks are the same for all, trained in {precisions}. Intervals are not corrected for their
number. {platform.machine()}, {os.cpu_count()} cores.

![accuracy against missing rate](strategies.svg)
"""


def _table(by_strategy: Mapping[str, Sequence[Results]]) -> str:
    head = "| strategy | rule | setting | " + " | ".join(SHOWN) + " | NLL at missing50 | seconds | peak MB |"
    lines = [head, "|---" * (len(SHOWN) + 6) + "|"]
    for strategy, runs in by_strategy.items():
        rule = preferred(runs)
        cells = [f"{100 * v.mean():.1f} +- {100 * v.std(ddof=1):.1f}" for v in (values(runs, c, rule) for c in SHOWN)]
        nll = values(runs, "missing50", rule, "nll").mean()
        seconds, peak = (np.median([one[key] for one in runs]) for key in ("train_seconds", "peak_mb"))
        setting = f"{runs[0]['optimizer']} {runs[0]['lr']:g}"
        lines.append(
            f"| {strategy} | {rule} | {setting} | {' | '.join(cells)} | {nll:.3f} | {seconds:.0f} | {peak:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _differences(by_strategy: Mapping[str, Sequence[Results]]) -> str:
    if "mla" not in by_strategy:
        return ""
    lines = [
        "mla minus the other, accuracy in points, 95 % interval (bootstrap over test samples and seeds, paired):\n",
        "| against | " + " | ".join(SHOWN) + " |",
        "|---" * (len(SHOWN) + 1) + "|",
    ]
    own = {c: _right(by_strategy["mla"], c) for c in SHOWN}
    for strategy, runs in by_strategy.items():
        if strategy != "mla":
            cells = [_interval(own[c], _right(runs, c)) for c in SHOWN]
            lines.append(f"| {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _interval(ours: Array, theirs: Array) -> str:
    """Bootstrap the mean of ours - theirs, both (seeds, samples): resample seeds and samples."""
    generator = np.random.default_rng(0)
    difference = ours - theirs
    seeds, samples = difference.shape
    means = [
        difference[generator.integers(seeds, size=seeds)][:, generator.integers(samples, size=samples)].mean()
        for _ in range(DRAWS)
    ]
    low, high = 100 * np.quantile(means, [0.025, 0.975])
    return f"{100 * difference.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def _right(runs: Sequence[Results], condition: str) -> Array:
    """Say which test samples each run gets right under a condition: (seeds, samples); masks are those of the table."""
    rule = preferred(runs)
    rows = []
    for one in runs:
        stored = np.load(one["logits"], allow_pickle=False)
        masks = own_masks(one["folder"], tuple(one["fusion"]["temperatures"]))
        drawn = dict(conditions(stored["present"], tuple(one["fusion"]["temperatures"]), masks))[condition]
        fused = fuse(stored["logits"], drawn[0], Fusion(**one["fusion"]), rule)
        rows.append(fused.log_probabilities.argmax(axis=1) == stored["labels"])
    return np.array(rows, dtype=float)


@functools.cache
def own_masks(folder: str, names: tuple[str, ...]) -> dict[str, Array]:
    """Return the masks that the test rows of a data set give themselves: {rate: (M, B) bool}."""
    rows = [row for row in read_table(Path(folder)).splits["test"] if row.values.keys() & set(names)]
    return masks_of(rows, names)


def draw(results: Sequence[Results], path: Path) -> None:
    """Draw accuracy against missing rate, a line per strategy, a panel per data set."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    groups = grouped(results)
    figure, axes = plt.subplots(1, len(groups), figsize=(5.2 * len(groups), 4), squeeze=False)
    for axis, (dataset, by_strategy) in zip(axes[0], groups.items(), strict=True):
        for strategy, runs in by_strategy.items():
            rule = preferred(runs)
            accuracy = np.array([100 * values(runs, c, rule) for c in SHOWN])
            style = {"linewidth": 2.6, "color": "#0b6e4f", "zorder": 3} if strategy == "mla" else {"linewidth": 1.2}
            axis.errorbar((0, *RATES), accuracy.mean(1), accuracy.std(1, ddof=1), label=strategy, capsize=2, **style)
        axis.set(title=dataset, xlabel="missing rate (%)", ylabel="test accuracy (%)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
