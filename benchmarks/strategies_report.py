"""The comparison of strategies as JSON rows, and from these alone a table and a figure.

The rows accumulate: a strategy that is run again takes the place of what was there, all else stays. Each row of the
preferred rule says which test rows were right, so differences are paired over runs that were made at different times.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
REFERENCE = "mla"
ROWS, DIFFERENCES = "strategies.json", "strategies_differences.json"
Results = Mapping[str, Any]
Row = dict[str, Any]


def read_rows(out: Path, name: str = ROWS) -> list[Row]:
    """Return what earlier runs have written; nothing where there is no file."""
    path = out / name
    return json.loads(path.read_text()) if path.exists() else []


def write_report(results: Sequence[Results], out: Path) -> None:
    """Add results to strategies.json and strategies_differences.json; write strategies.md and .svg from these."""
    new = json_rows(results)
    fresh = {(row["dataset"], row["strategy"]) for row in new}
    rows = [row for row in read_rows(out) if (row["dataset"], row["strategy"]) not in fresh] + new
    rows.sort(key=lambda row: (row["dataset"],))  # stable: strategies stay in the order in which they were added
    found = differences(rows)
    known = {(one["dataset"], one["strategy"]) for one in found}
    kept = [one for one in read_rows(out, DIFFERENCES) if (one["dataset"], one["strategy"]) not in known]
    out.mkdir(parents=True, exist_ok=True)
    for name, content in ((ROWS, rows), (DIFFERENCES, kept + found)):
        (out / name).write_text("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in content) + "\n]\n")
    draw(rows, out / "strategies.svg")
    (out / "strategies.md").write_text(markdown(rows, kept + found))


def json_rows(results: Sequence[Results]) -> list[Row]:
    """Return one row per data set, strategy, seed, condition and fusion rule, on the test split.

    Rows of an availability pattern, most of the file, lack the setting that those of the other conditions have.
    `preferred` marks the rule that validation prefers for the strategy; there, under the conditions shown, `right` has a
    bit for each of the `rows` of the test split, in hexadecimal.
    """
    groups: dict[tuple[str, str], list[Results]] = defaultdict(list)
    for one in results:
        groups[one["dataset"], one["strategy"]].append(one)
    return [row for runs in groups.values() for one in runs for row in _rows(one, preferred(runs))]


def _rows(one: Results, rule: str) -> Iterator[Row]:
    facts = {key: one[key] for key in ("dataset", "strategy", "seed")}
    setting = {key: one[key] for key in ("optimizer", "lr", "epochs", "precision")}
    setting |= {key: one[key] for key in ("encoders", "image_size") if one.get(key)}
    cost = {key: round(one[key], 1) for key in ("train_seconds", "peak_mb")}
    for condition, rules in one["conditions"]["test"].items():
        for fusion, scores in rules.items():
            row = facts | (setting if condition in SHOWN else {})
            row |= {"condition": condition, "fusion": fusion, "preferred": fusion == rule}
            row |= {key: round(scores[key], 4) for key in SCORES} | cost
            yield row | (_right(one, condition, rule) if row["preferred"] and condition in SHOWN else {})


def preferred(runs: Sequence[Results]) -> str:
    """Pick native or calibrated for a strategy, by its NLL on validation over the conditions shown."""
    score = {
        rule: np.mean([one["conditions"]["val"][c][rule]["nll"] for one in runs for c in SHOWN])
        for rule in ("native", "calibrated")
    }
    return min(score, key=lambda rule: float(score[rule]))


def _right(one: Results, condition: str, rule: str) -> Row:
    """Say which test rows a run gets right under a condition, masks being those of the table."""
    stored = np.load(one["logits"], allow_pickle=False)
    names = tuple(one["fusion"]["temperatures"])
    drawn = dict(conditions(stored["present"], names, own_masks(one["folder"], names)))[condition]
    fused = fuse(stored["logits"], drawn[0], Fusion(**one["fusion"]), rule)
    right = fused.log_probabilities.argmax(axis=1) == stored["labels"]
    return {"rows": len(right), "right": np.packbits(right).tobytes().hex()}


@functools.cache
def own_masks(folder: str, names: tuple[str, ...]) -> dict[str, Array]:
    """Return the masks that the test rows of a data set give themselves: {rate: (M, B) bool}."""
    rows = [row for row in read_table(Path(folder)).splits["test"] if row.values.keys() & set(names)]
    return masks_of(rows, names)


def grouped(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Group the rows of each strategy's preferred rule: {data set: {strategy: rows}}."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["preferred"]:
            groups[row["dataset"]][row["strategy"]].append(row)
    return groups


def values(rows: Sequence[Row], condition: str, score: str = "accuracy") -> Array:
    """Collect one score over the seeds, in their order."""
    chosen = sorted((row["seed"], row[score]) for row in rows if row["condition"] == condition)
    return np.array([value for _, value in chosen])


def differences(rows: Sequence[Row]) -> list[Row]:
    """Compare mla with each other strategy: accuracy in points with a 95 % interval, where both say what was right."""
    found = []
    for dataset, by_strategy in grouped(rows).items():
        for strategy, theirs in by_strategy.items():
            if strategy != REFERENCE and REFERENCE in by_strategy:
                for condition in SHOWN:
                    ours, other = (_bits(each, condition) for each in (by_strategy[REFERENCE], theirs))
                    if ours is not None and other is not None and ours.shape == other.shape:
                        mean, low, high = interval(ours, other)
                        found.append(
                            {"dataset": dataset, "strategy": strategy, "condition": condition, "seeds": len(ours)}
                            | {"mean": round(mean, 2), "low": round(low, 2), "high": round(high, 2)}
                        )
    return found


def _bits(rows: Sequence[Row], condition: str) -> Array | None:
    """Return which test rows each seed gets right: (seeds, rows); None where that was not kept."""
    chosen = sorted(
        (row["seed"], row["rows"], row["right"]) for row in rows if row["condition"] == condition and "right" in row
    )
    if not chosen:
        return None
    packed = (np.frombuffer(bytes.fromhex(right), np.uint8) for _, _, right in chosen)
    return np.array([np.unpackbits(each, count=chosen[0][1]) for each in packed], dtype=float)


def interval(ours: Array, theirs: Array) -> tuple[float, float, float]:
    """Bootstrap the mean of ours - theirs, both (seeds, samples): resample seeds and samples; in points."""
    generator = np.random.default_rng(0)
    difference = ours - theirs
    seeds, samples = difference.shape
    means = [
        difference[generator.integers(seeds, size=seeds)][:, generator.integers(samples, size=samples)].mean()
        for _ in range(DRAWS)
    ]
    low, high = 100 * np.quantile(means, [0.025, 0.975])
    return 100 * difference.mean(), low, high


def markdown(rows: Sequence[Row], differences: Sequence[Row]) -> str:
    """Write the tables."""
    parts = [_head(rows)]
    for dataset, by_strategy in grouped(rows).items():
        own = [one for one in differences if one["dataset"] == dataset]
        parts += [f"## {dataset}\n", *_encoders(by_strategy), _table(by_strategy), _difference_table(own)]
    return "\n".join(parts) + "\n"


def _head(rows: Sequence[Row]) -> str:
    epochs = sorted({row["epochs"] for row in rows if row["condition"] in SHOWN})
    precisions = " and ".join(sorted({row["precision"] for row in rows if row["condition"] in SHOWN}))
    return f"""# Training strategies

Test accuracy in per cent, mean and standard deviation over the seeds, {" or ".join(map(str, epochs))} epochs, by each strategy's native or the
calibrated rule, whichever has the lower NLL on validation. Optimiser and learning rate were picked on validation for every
strategy alike: in a short search, which favours high rates, and some of the chosen ones are the highest on offer. Encoders,
augmentation, epochs and missing masks are the same for all, trained in {precisions}. Intervals are not corrected for their
number. Seconds are of training, on one thread; rows were made at different times, on machines of different speed. {platform.machine()}, {os.cpu_count()} cores.

![accuracy against missing rate](strategies.svg)
"""


def _encoders(by_strategy: Mapping[str, Sequence[Row]]) -> list[str]:
    """Name the encoders where they are not the usual ones."""
    rows = [row for own in by_strategy.values() for row in own if "encoders" in row]
    names = sorted({name for row in rows for name in row["encoders"]})
    sizes = sorted({str(row["image_size"]) for row in rows if "image_size" in row})
    images = f"; images of {' or '.join(sizes)} pixels" if sizes else ""
    return [f"Encoders: {', '.join(names)}{images}.\n"] if names else []


def _table(by_strategy: Mapping[str, Sequence[Row]]) -> str:
    head = "| strategy | seeds | rule | setting | " + " | ".join(SHOWN) + " | NLL at missing50 | seconds | peak MB |"
    lines = [head, "|---" * (len(SHOWN) + 7) + "|"]
    for strategy, rows in by_strategy.items():
        cells = [f"{100 * v.mean():.1f} +- {100 * v.std(ddof=1):.1f}" for v in (values(rows, c) for c in SHOWN)]
        nll = values(rows, "missing50", "nll").mean()
        seconds, peak = (np.median(values(rows, "full", key)) for key in ("train_seconds", "peak_mb"))
        first, seeds = rows[0], len(values(rows, "full"))
        setting = f"{seeds} | {first['fusion']} | {first['optimizer']} {first['lr']:g}"
        lines.append(f"| {strategy} | {setting} | {' | '.join(cells)} | {nll:.3f} | {seconds:.0f} | {peak:.0f} |")
    return "\n".join(lines) + "\n"


def _difference_table(differences: Sequence[Row]) -> str:
    lines = [
        "mla minus the other, accuracy in points, 95 % interval (bootstrap over test samples and seeds, paired):\n",
        "| against | " + " | ".join(SHOWN) + " |",
        "|---" * (len(SHOWN) + 1) + "|",
    ]
    by_strategy: dict[str, dict[str, str]] = defaultdict(dict)
    for one in differences:
        text = f"{one['mean']:+.1f} [{one['low']:+.1f}, {one['high']:+.1f}]"
        by_strategy[one["strategy"]][one["condition"]] = text
    lines += [f"| {name} | {' | '.join(each[c] for c in SHOWN)} |" for name, each in by_strategy.items()]
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy against missing rate, a line per strategy, a panel per data set; the variants of mla in grey."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "strategies"  # the same rows, the same file
    from matplotlib import pyplot as plt

    groups = grouped(rows)
    figure, axes = plt.subplots(1, len(groups), figsize=(5.2 * len(groups), 4), squeeze=False)
    for axis, (dataset, by_strategy) in zip(axes[0], groups.items(), strict=True):
        for strategy, own in by_strategy.items():
            accuracy = np.array([100 * values(own, c) for c in SHOWN])
            axis.errorbar((0, *RATES), accuracy.mean(1), accuracy.std(1, ddof=1), capsize=2, **_style(strategy))
        axis.set(title=dataset, xlabel="missing rate (%)", ylabel="test accuracy (%)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _style(strategy: str) -> dict[str, Any]:
    if strategy == REFERENCE:
        return {"label": strategy, "linewidth": 2.6, "color": "#0b6e4f", "zorder": 3}
    if strategy.startswith(f"{REFERENCE}_"):
        return {"linewidth": 0.8, "color": "#bbbbbb", "zorder": 1}
    return {"label": strategy, "linewidth": 1.2}
