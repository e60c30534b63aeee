"""The page of bench-defaults: one table for each part, means over seeds with the smallest and largest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import machine, write_results

Result = Mapping[str, Any]
CHOICES: dict[str, Callable[[Result], tuple[float, ...]]] = {
    "accuracy, then NLL": lambda record: (record["accuracy"], -record["nll"]),
    "NLL": lambda record: (-record["nll"],),
    "macro-F1, then NLL": lambda record: (record["macro_f1"], -record["nll"]),
}


def write_report(folder: Path, results: Sequence[Result]) -> None:
    """Write defaults.json and .md."""
    parts = [
        "# Defaults that depend on the table\n",
        f"{machine()}. `make bench-defaults`. Scores are of test rows. They chose the defaults, so expect less of new data. Numbers are means over the seeds, with the smallest",
        "and the largest where there are several. Texts and vectors only, except for `augment`, at 32 pixels.\n",
        *_rows(results),
        *_skew(results),
        *_augment(results),
        *_checkpoint(results),
    ]
    write_results(folder, "defaults", list(results), "\n".join(parts) + "\n")


def _grouped(results: Sequence[Result], part: str) -> dict[tuple[str, int, int, str], list[Result]]:
    groups: defaultdict[tuple[str, int, int, str], list[Result]] = defaultdict(list)
    for one in results:
        if one["part"] == part:
            groups[one["dataset"], one["rows"], one["skew"], one["setting"]].append(one)
    return dict(sorted(groups.items()))


def _spread(values: Sequence[float]) -> str:
    """Format a mean with the smallest and the largest value."""
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def _rows(results: Sequence[Result]) -> list[str]:
    lines = ["## Epochs and batch size by the number of training rows\n"]
    lines += ["| data set | rows | epochs | batch | steps | seeds | accuracy | NLL |", "|---" * 8 + "|"]
    for (dataset, _, _, _), group in _grouped(results, "rows").items():
        given = dict(group[0]["settings"])
        rows = group[0]["counts"]["train"]
        steps = given["epochs"] * -(-rows // given["batch_size"])
        cells = [_spread([one["final"]["plain"][key] for one in group]) for key in ("accuracy", "nll")]
        facts = (dataset, rows, given["epochs"], given["batch_size"], steps, len(group), *cells)
        lines.append("| " + " | ".join(map(str, facts)) + " |")
    return [*lines, ""]


def _skew(results: Sequence[Result]) -> list[str]:
    lines = [
        "## Classes of different size\n",
        "Every third class has a tenth or a hundredth of its rows. `prior` is the run of `none` with shifted answers. Scores are those of",
        "equally frequent classes; the last two hold for the class frequencies of training.\n",
        "| data set | skew | --balance | seeds | recall of rare classes | macro-F1 | accuracy | NLL | ECE | accuracy, as in training | NLL |",
        "|---" * 11 + "|",
    ]
    keys = ("rare_recall", "macro_f1", "accuracy", "nll", "ece", "accuracy_train", "nll_train")
    for (dataset, _, skew, setting), group in _grouped(results, "skew").items():
        method = setting.partition("=")[2]
        for name, final in (("none", "plain"), ("prior", "shifted")) if method == "none" else ((method, "shifted"),):
            cells = [_spread([one["final"][final][key] for one in group]) for key in keys]
            lines.append(f"| {dataset} | 1:{skew} | {name} | {len(group)} | {' | '.join(cells)} |")
    return [*lines, ""]


def _augment(results: Sequence[Result]) -> list[str]:
    lines = [
        "## Augmentation of pictures\n",
        "| data set | --augment | seeds | accuracy | NLL |",
        "|---|---|---|---|---|",
    ]
    for (dataset, _, _, _), group in _grouped(results, "augment").items():
        cells = [_spread([one["final"]["plain"][key] for one in group]) for key in ("accuracy", "nll")]
        lines.append(f"| {dataset} | {dict(group[0]['settings'])['augment']} | {len(group)} | {' | '.join(cells)} |")
    return [*lines, ""]


def _checkpoint(results: Sequence[Result]) -> list[str]:
    """Compare the checkpoints that different scores of validation choose, in the same runs."""
    lines = [
        "## The score that chooses the checkpoint\n",
        f"Over all {len(results)} runs above: the test scores of the epoch that each score of validation prefers, fused by the paper's rule.\n",
        "| chosen by | accuracy | macro-F1 | NLL |",
        "|---|---|---|---|",
    ]
    for name, key in CHOICES.items():
        chosen = [max((record for record in one["epochs"] if "test" in record), key=key)["test"] for one in results]
        cells = [f"{np.mean([scores[score] for scores in chosen]):.3f}" for score in ("accuracy", "macro_f1", "nll")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
