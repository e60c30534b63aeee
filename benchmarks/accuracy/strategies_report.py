"""Keep the results of the comparison of strategies in strategies.parquet, and write its table and figure from these alone.

The rows accumulate: a strategy that is run again takes the place of what was there, all else stays. A row says in how
many draws of missing modalities each test row was classified correctly, so differences can be paired over runs that were
made at different times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks.shared import figure, machine
from mla_serve.evaluation.scores import MISSING_RATES, conditions
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.rules import fuse

SHOWN = ("full", "missing20", "missing50", "missing80")
MASKS = 100  # draws of missing modalities that test scores are averaged over, the same for every strategy; at most 255
RESAMPLES = 1000
SCORES = ("accuracy", "macro_f1", "nll", "ece")
REFERENCE = "mla"
ROWS = "strategies.parquet"
OLDER = " (older)"
ABOUT_OLDER = """(older): measured before these changes, and not yet again. SGD decayed the weights by .05 as a part of the gradient, which is too
much; mib had no loss of each modality alone; turns=weak never fired; OGM-GE added noise only to encoders that it slowed down; the
default of mla was the recursive projector, now `--hgm epoch`, and mla_hgm_others projected off the others' mean features. Intervals that
involve such rows resample single rows instead of groups."""
Results = Mapping[str, Any]
Row = dict[str, Any]
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("dataset", "strategy"), pa.string()),
        "seed": pa.int32(),
        "optimizer": pa.string(),
        "lr": pa.float64(),
        "epochs": pa.int32(),
        "precision": pa.string(),
        "encoders": pa.list_(pa.string()),  # null: those that mla_serve.train chooses by itself
        "image_size": pa.int32(),  # null: likewise
        **dict.fromkeys(("train_seconds", "peak_mb"), pa.float64()),
        **dict.fromkeys(("condition", "fusion"), pa.string()),
        **dict.fromkeys(SCORES, pa.float64()),
        "draws": pa.int32(),
        "right": pa.binary(),
        "groups": pa.binary(),  # int32 of each test row; null in rows of older runs
    }
)


def read_rows(out: Path) -> list[Row]:
    """Return the rows that earlier runs have written; none where there is no file."""
    path = out / ROWS
    return parquet.read_table(path).to_pylist() if path.exists() else []


def write_report(results: Sequence[Results], out: Path) -> None:
    """Add results to strategies.parquet; write strategies.md and .svg from it."""
    new = result_rows(results)
    fresh = {(row["dataset"], row["strategy"]) for row in new}
    rows = [row for row in read_rows(out) if (row["dataset"], row["strategy"]) not in fresh] + new
    rows.sort(key=lambda row: (row["dataset"],))  # stable: strategies stay in the order in which they were added
    out.mkdir(parents=True, exist_ok=True)
    write_rows(rows, out)
    draw(rows, out / "strategies.svg")
    (out / "strategies.md").write_text(markdown(rows))


def write_rows(rows: Sequence[Row], out: Path) -> None:
    """Write strategies.parquet whole: a run that is interrupted leaves the earlier file."""
    temporary = out / f".{ROWS}.tmp"
    parquet.write_table(pa.Table.from_pylist(list(rows), SCHEMA), temporary, compression="zstd")
    temporary.replace(out / ROWS)


def result_rows(results: Sequence[Results]) -> list[Row]:
    """Return one row per data set, strategy, seed and shown condition: test scores by the preferred fusion rule.

    `fusion` is the rule that validation prefers for the strategy. `right` has a byte for each row of the test split: in how
    many of the `draws` of missing modalities it was classified correctly.
    """
    groups: dict[tuple[str, str], list[Results]] = defaultdict(list)
    for result in results:
        groups[result["dataset"], result["strategy"]].append(result)
    return [row for runs in groups.values() for run in runs for row in _rows(run, preferred(runs))]


def _rows(result: Results, rule: str) -> Iterator[Row]:
    facts = {key: result[key] for key in ("dataset", "strategy", "seed", "optimizer", "lr", "epochs", "precision")}
    facts |= {key: result.get(key) or None for key in ("encoders", "image_size")}
    facts |= {key: round(result[key], 1) for key in ("train_seconds", "peak_mb")}
    right = _right(result, rule)
    facts["groups"] = np.array(result["groups"], np.int32).tobytes()
    for condition in SHOWN:
        scores = result["conditions"]["test"][condition][rule]
        rounded = {key: round(scores[key], 4) for key in SCORES}
        yield facts | {"condition": condition, "fusion": rule} | rounded | right[condition]


def preferred(runs: Sequence[Results]) -> str:
    """Pick native or calibrated for a strategy, by its NLL on validation over the conditions shown."""
    score = {
        rule: np.mean([one["conditions"]["val"][c][rule]["nll"] for one in runs for c in SHOWN])
        for rule in ("native", "calibrated")
    }
    return min(score, key=lambda rule: float(score[rule]))


def _right(one: Results, rule: str) -> dict[str, Row]:
    """Count for each test row the draws of missing modalities in which a run gets it right, under every condition shown."""
    stored = np.load(one["logits"], allow_pickle=False)
    fusion = Fusion(**one["fusion"])
    found: dict[str, Row] = {}
    for condition, masks in conditions(stored["present"], tuple(fusion.temperatures), {}, MASKS):
        if condition in SHOWN:
            answers = (fuse(stored["logits"], mask, fusion, rule).answers.argmax(axis=1) for mask in masks)
            counts = np.sum([each == stored["labels"] for each in answers], axis=0, dtype=np.uint8)
            found[condition] = {"draws": len(masks), "right": counts.tobytes()}
    return found


def grouped(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Group rows: {data set: {strategy: rows}}."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["dataset"]][row["strategy"]].append(row)
    return groups


def values(rows: Sequence[Row], condition: str, score: str = "accuracy") -> Array:
    """Collect one score over the seeds, in their order."""
    chosen = sorted((row["seed"], row[score]) for row in rows if row["condition"] == condition)
    return np.array([value for _, value in chosen])


def differences(by_strategy: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Compare mla with each other strategy of a data set: {strategy: {condition: (mean, low, high) in points}}.

    One that was trained with another number of seeds is left out.
    """
    ours = {condition: _shares(by_strategy.get(REFERENCE, ()), condition) for condition in SHOWN}
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for strategy in by_strategy.keys() - {REFERENCE}:
        theirs = {condition: _shares(by_strategy[strategy], condition) for condition in SHOWN}
        if all(ours[condition].shape == theirs[condition].shape for condition in SHOWN):
            groups = _groups(by_strategy[REFERENCE], ours["full"].shape[1])
            found[strategy] = {condition: interval(ours[condition], theirs[condition], groups) for condition in SHOWN}
    return {strategy: found[strategy] for strategy in by_strategy if strategy in found}


def _shares(rows: Sequence[Row], condition: str) -> Array:
    """Return the share of draws in which each seed gets each test row right: (seeds, rows)."""
    chosen = sorted((row["seed"], row["right"], row["draws"]) for row in rows if row["condition"] == condition)
    return np.array([np.frombuffer(right, np.uint8) / draws for _, right, draws in chosen])


def _groups(rows: Sequence[Row], samples: int) -> Array:
    """Return the group of each test row, each row by itself where the rows do not say: (samples,)."""
    stored = rows[0].get("groups")
    return np.frombuffer(stored, np.int32) if stored else np.arange(samples)


def interval(ours: Array, theirs: Array, groups: Array) -> tuple[float, float, float]:
    """Bootstrap the mean of ours - theirs, both (seeds, samples): resample seeds and groups of samples; in points.

    Args: groups (samples,), from 0: rows of one speaker or writer are right or wrong together.
    One less is drawn than there are: n of n would give (n - 1) / n of the variance, four fifths with five seeds.
    """
    generator = np.random.default_rng(0)
    sizes = np.bincount(groups)
    sums = np.array([np.bincount(groups, row) for row in ours - theirs])
    means = []
    for _ in range(RESAMPLES):
        seeds, drawn = (generator.integers(count, size=max(1, count - 1)) for count in sums.shape)
        means.append(sums[np.ix_(seeds, drawn)].sum() / (len(seeds) * sizes[drawn].sum()))
    low, high = 100 * np.quantile(means, [0.025, 0.975])
    return 100 * float((ours - theirs).mean()), low, high


def markdown(rows: Sequence[Row]) -> str:
    """Write the tables."""
    parts = [_head(rows)]
    for dataset, by_strategy in grouped(rows).items():
        parts += [f"## {dataset}\n", *_encoders(by_strategy), _table(by_strategy), *_difference_table(by_strategy)]
    return "\n".join(parts) + "\n"


def _head(rows: Sequence[Row]) -> str:
    epochs = sorted({row["epochs"] for row in rows})
    precisions = " and ".join(sorted({row["precision"] for row in rows}))
    older = "" if all(row.get("groups") for row in rows) else f"\n\n{ABOUT_OLDER}"
    return f"""# Training strategies

Test accuracy in per cent, mean and standard deviation over the seeds, {" or ".join(map(str, epochs))} epochs, by each strategy's native or the
calibrated rule, whichever has the lower NLL on validation. Optimiser and learning rate were picked on validation for every
strategy alike: in a short search, which favours high rates, and some of the chosen ones are the highest on offer. Encoders,
augmentation and epochs are the same for all, trained in {precisions}. missing50: each modality is left out with probability .5
(where none would be left, one stays), scores are averages over {MASKS} draws, the same for all. Intervals are not corrected for their number. Seconds are of
training, on one thread. {machine()}.{older}

![accuracy against missing rate](strategies.svg)
"""


def _encoders(by_strategy: Mapping[str, Sequence[Row]]) -> list[str]:
    """Name the encoders where they are not the usual ones."""
    rows = [row for own in by_strategy.values() for row in own if row["encoders"]]
    names = sorted({name for row in rows for name in row["encoders"]})
    sizes = sorted({str(row["image_size"]) for row in rows if row["image_size"]})
    images = f"; images of {' or '.join(sizes)} pixels" if sizes else ""
    return [f"Encoders: {', '.join(names)}{images}.\n"] if names else []


def _table(by_strategy: Mapping[str, Sequence[Row]]) -> str:
    head = "| strategy | seeds | rule | setting | " + " | ".join(SHOWN) + " | NLL at missing50 | seconds | peak MB |"
    lines = [head, "|---" * (len(SHOWN) + 7) + "|"]
    for strategy, rows in by_strategy.items():
        mark = "" if rows[0].get("groups") else OLDER
        cells = [f"{100 * v.mean():.1f} +- {100 * v.std(ddof=1):.1f}" for v in (values(rows, c) for c in SHOWN)]
        nll = values(rows, "missing50", "nll").mean()
        seconds, peak = (np.median(values(rows, "full", key)) for key in ("train_seconds", "peak_mb"))
        first, seeds = rows[0], len(values(rows, "full"))
        setting = f"{seeds} | {first['fusion']} | {first['optimizer']} {first['lr']:g}"
        lines.append(f"| {strategy}{mark} | {setting} | {' | '.join(cells)} | {nll:.3f} | {seconds:.0f} | {peak:.0f} |")
    return "\n".join(lines) + "\n"


def _difference_table(by_strategy: Mapping[str, Sequence[Row]]) -> list[str]:
    found = differences(by_strategy)
    head = [
        "mla minus the other, accuracy in points, 95 % interval (bootstrap over seeds and groups of test rows, paired):\n",
        "| against | " + " | ".join(SHOWN) + " |",
        "|---" * (len(SHOWN) + 1) + "|",
    ]
    lines = [
        f"| {strategy} | {' | '.join('{:+.1f} [{:+.1f}, {:+.1f}]'.format(*each[c]) for c in SHOWN)} |"
        for strategy, each in found.items()
    ]
    return ["\n".join(head + lines) + "\n"] if lines else []


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy against missing rate, a line per strategy, a panel per data set; the variants of mla in grey."""
    groups = grouped(rows)
    with figure(path, 1, len(groups), (5.2 * len(groups), 4), "strategies") as axes:
        for axis, (dataset, by_strategy) in zip(axes[0], groups.items(), strict=True):
            for strategy, own in by_strategy.items():
                accuracy = np.array([100 * values(own, c) for c in SHOWN])
                axis.errorbar(
                    (0, *MISSING_RATES), accuracy.mean(1), accuracy.std(1, ddof=1), capsize=2, **_style(strategy)
                )
            axis.set(title=dataset, xlabel="missing rate (%)", ylabel="test accuracy (%)")
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(frameon=False, fontsize=8)


def _style(strategy: str) -> dict[str, Any]:
    if strategy == REFERENCE:
        return {"label": strategy, "linewidth": 2.6, "color": "#0b6e4f", "zorder": 3}
    if strategy.startswith(f"{REFERENCE}_"):
        return {"linewidth": 0.8, "color": "#bbbbbb", "zorder": 1}
    return {"label": strategy, "linewidth": 1.2}
