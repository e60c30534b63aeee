"""`make bench-coverage`: how often the prediction sets or intervals of a bundle contain the truth, for every set of modalities.

The graphs of the bundle run once on the validation and test rows of its table. Then the rows are split in two at random,
again and again: on one half the fusion is fitted and the thresholds are computed, as after training, and the other half is
asked. Such halves are exchangeable, so the coverage must be what is asked. Writes coverage.json and .md, one section for
each bundle.

    python -m benchmarks.accuracy.coverage --model models/digits --data DIR
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from scipy.stats import betabinom, binom

from benchmarks.shared import machine, write_results
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.console import console, main
from mla_serve.errors import ConfigError
from mla_serve.evaluation.splits import run_split
from mla_serve.fusion.formula import Array, Fusion, pattern_name
from mla_serve.fusion.intervals import Intervals
from mla_serve.fusion.rules import DEFAULT_RULE, fuse
from mla_serve.table import Row
from mla_serve.train.data.folds import make_folds
from mla_serve.train.fit.cross_validate import Setting, choose_setting
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.intervals import cross_fitted_intervals, patterns_of

COVERAGES = (0.8, 0.9, 0.98)
SHOWN = 0.9  # of which the sizes and the coverage by certainty are shown
BANDS = 5  # of certainty, with the same number of rows each
LEVEL = 0.99  # of the bands that coverage is compared with


@dataclasses.dataclass(frozen=True)
class CoverageConfig:
    """Measure the coverage of prediction sets or intervals over random halves of the validation and test rows."""

    model: Path
    """Folder of a bundle."""
    data: Path
    """The table that it was trained on."""
    splits: int = 200
    """How many times the rows are split."""
    out: Path = Path("benchmarks/accuracy")
    """Folder that coverage.json and .md are written to."""


@dataclasses.dataclass(frozen=True)
class Half:
    """What one split gave for one pattern and coverage.

    own: rows that the threshold rests on; pooled: whether of other patterns; fresh: rows that were asked; covered: their
    covered share; exact: the same where the answer is not put into every set of classes; size: the mean one; by_certainty:
    the covered share of each fifth of the rows, the surest first.
    """

    own: int
    pooled: bool
    fresh: int
    covered: float
    exact: float
    size: float
    by_certainty: Sequence[float]


Halves = Mapping[tuple[str, float], Sequence[Half]]


def run_graphs(predictor: Predictor, data: Path) -> tuple[Evidence, list[Row]]:
    """Run the graphs on the validation and test rows. Raises: ConfigError when there are none."""
    runs = [run_split(predictor, data, split, quiet=False) for split in ("val", "test")]
    outputs = [run.outputs for run in runs]
    opinions, present, excess = (
        np.concatenate([getattr(each, field) for each in outputs], axis=1)
        for field in ("opinions", "present", "excess")
    )
    targets = np.concatenate([run.targets for run in runs])
    return Evidence.of(opinions, present, targets, excess, predictor.task), [row for run in runs for row in run.rows]


def measure(evidence: Evidence, rows: Sequence[Row], start: Fusion, splits: int) -> tuple[Halves, str]:
    """Split the rows again and again; returns what each split gave, and how the fusion was fitted."""
    generator = np.random.default_rng(0)
    setting, note = choose_setting(
        evidence, tuple(start.temperatures), make_folds(rows, 0, evidence.task).number, start.prior
    )
    found: defaultdict[tuple[str, float], list[Half]] = defaultdict(list)
    for _ in track(range(splits), "splitting", console=console, transient=True):
        order = generator.permutation(len(rows))
        own, fresh = np.sort(order[: len(rows) // 2]), np.sort(order[len(rows) // 2 :])
        fusion, intervals = fit_half(evidence.rows(own), [rows[at] for at in own], start, setting)
        for key, half in ask(evidence.rows(fresh), fusion, intervals).items():
            found[key].append(half)
    return found, note


def fit_half(own: Evidence, rows: Sequence[Row], start: Fusion, setting: Setting) -> tuple[Fusion, Intervals]:
    """Fit the fusion and the thresholds on one half, as after training; the discounts are those of the bundle."""
    names = tuple(start.temperatures)

    fitted = setting.formula(own, names, start)

    def refit(kept: Array) -> Fusion:
        return dataclasses.replace(setting.formula(own.rows(kept), names, fitted), discounts=start.discounts)

    fields = {field: getattr(fitted, field) for field in ("temperatures", "sharpness", "scales", "prior_once")}
    fusion = dataclasses.replace(start, **fields)
    fold = make_folds(rows, 0, own.task).number
    return fusion, cross_fitted_intervals(own, fusion, fold, refit, 0, (DEFAULT_RULE,))


def ask(fresh: Evidence, fusion: Fusion, intervals: Intervals) -> dict[tuple[str, float], Half]:
    """Ask the other half, under every pattern and coverage."""
    names, task = tuple(fusion.temperatures), fusion.task
    found = {}
    for pattern in patterns_of(fresh.present):
        usable = fresh.present[pattern].all(axis=0)
        if not usable.any():
            continue
        chosen = [name for name, there in zip(names, pattern, strict=True) if there]
        rows, mask = fresh.rows(usable), np.repeat(pattern[:, None], usable.sum(), axis=1)
        answers = fuse(rows.opinions, mask, fusion, DEFAULT_RULE, rows.excess).answers
        scores, weights = intervals.nonconformity(answers, rows.targets)
        order = np.argsort(task.answer_entropy(answers), kind="stable")
        for coverage in COVERAGES:
            bounds = intervals.choose(answers, mask, names, DEFAULT_RULE, coverage)
            threshold, own, pooled = intervals.threshold(DEFAULT_RULE, chosen, coverage)
            covered = task.covered(bounds, rows.targets)
            exact = ((scores <= threshold) * weights).sum(axis=1)
            known = ~np.isnan(covered)
            bands = [covered[part][known[part]] for part in np.array_split(order, BANDS)]
            found[pattern_name(chosen), coverage] = Half(
                own,
                pooled,
                int(known.sum()),
                float(covered[known].mean()) if known.any() else np.nan,
                float(exact[known].mean()) if known.any() else np.nan,
                float(np.mean(task.size(bounds))),
                [float(band.mean()) if len(band) else np.nan for band in bands],
            )
    return found


def summarise(halves: Sequence[Half], coverage: float) -> dict[str, Any]:
    """Average over the splits, beside the bands that hold 99 % of what chance gives.

    `band` is that of one half of so many rows: binomial over the rows that were asked. `below` is the share of the splits below
    what the law of split conformal prediction, beta-binomial, allows for 99.5 % of them. Halves of labels vary less than this.
    """
    fresh, own = (float(np.mean([getattr(half, field) for half in halves])) for field in ("fresh", "own"))
    count = round(fresh)
    band = [float(end) / max(count, 1) for end in binom.interval(LEVEL, count, coverage)]
    below = []
    for half in halves:
        rank = int(np.ceil(round((half.own + 1) * coverage, 9)))
        if not half.pooled and rank <= half.own:
            law = betabinom(half.fresh, rank, half.own + 1 - rank)
            below.append(half.covered * half.fresh < law.ppf((1 - LEVEL) / 2))
    covered = float(np.nanmean([half.covered for half in halves]))
    exact = float(np.nanmean([half.exact for half in halves]))
    return {
        "rows": own,
        "asked": fresh,
        "pooled": float(np.mean([half.pooled for half in halves])),
        "coverage": covered,
        "without the answer added": exact,
        "band": band,
        "inside": bool(band[0] <= exact <= band[1] and covered >= band[0]),
        "below": float(np.mean(below)) if below else None,
        "size": float(np.mean([half.size for half in halves])),
        "by_certainty": np.nanmean([half.by_certainty for half in halves], axis=0).tolist(),
    }


def write_page(results: Mapping[str, Any]) -> str:
    """Write the page: for each bundle, the coverage of every pattern, its size, and the coverage by certainty."""
    asked = "".join(f" {coverage:g} (band) |" for coverage in COVERAGES)
    lines = [
        "# Coverage",
        "",
        "How often prediction sets and intervals contain the truth, over random halves of the validation and test rows: the fusion",
        "and the thresholds are fitted on one half, the other is asked. In brackets: the share that chance gives in 99 of 100",
        "halves of so many rows, if the coverage is as asked. A model that is more accurate than the coverage asked covers more,",
        "because a set of classes always holds the answer; a second figure is the coverage without that. Coverage by certainty:",
        f"each fifth of the rows at {SHOWN:g}, the surest answers first.",
        "",
    ]
    for name, found in results.items():
        size = "width" if found["task"] == "number" else "labels in a set"
        lines += [
            f"## {name}",
            "",
            f"{found['rows']} rows, {found['splits']} splits; {found['note']}; {found['machine']}.",
            "",
            f"| modalities | rows |{asked} {size} at {SHOWN:g} | by certainty |",
            f"|---|---|{'---|' * (len(COVERAGES) + 2)}",
        ]
        for pattern, by_coverage in found["patterns"].items():
            cells = [_coverage_cell(by_coverage[str(coverage)]) for coverage in COVERAGES]
            shown = by_coverage[str(SHOWN)]
            bands = " ".join(f"{share:.2f}" for share in shown["by_certainty"])
            lines.append(f"| {pattern} | {shown['rows']:.0f} | {' | '.join(cells)} | {shown['size']:.3g} | {bands} |")
        lines += ["", f"Outside of the band: {', '.join(found['outside']) or 'none'}.", ""]
    return "\n".join(lines)


def _coverage_cell(found: Mapping[str, Any]) -> str:
    low, high = found["band"]
    both = found["coverage"] - found["without the answer added"] > 5e-4
    exact = f" / {found['without the answer added']:.3f}" if both else ""
    return f"{found['coverage']:.3f}{exact} ({low:.3f}-{high:.3f}){' pooled' if found['pooled'] else ''}"


def run(config: CoverageConfig) -> None:
    """Measure one bundle and write its section."""
    predictor = Predictor(Bundle.load(config.model))
    evidence, rows = run_graphs(predictor, config.data)
    if len(rows) < 20:
        raise ConfigError(f"--data: expected 20 validation and test rows at least, got {len(rows)}")
    halves, note = measure(evidence, rows, predictor.bundle.fusion, config.splits)
    patterns: dict[str, dict[str, Any]] = {}
    for (pattern, coverage), each in halves.items():
        patterns.setdefault(pattern, {})[str(coverage)] = summarise(each, coverage)
    outside = [
        f"{pattern} at {coverage}"
        for pattern, found in patterns.items()
        for coverage, one in found.items()
        if not one["inside"]
    ]
    path = config.out / "coverage.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[predictor.bundle.manifest.name] = {
        "task": predictor.task.name,
        "rows": len(rows),
        "splits": config.splits,
        "note": note,
        "machine": machine(),
        "patterns": patterns,
        "outside": outside,
    }
    page = write_page(results)
    write_results(config.out, "coverage", results, page)
    console.print(page, markup=False, highlight=False)


if __name__ == "__main__":
    main(run, CoverageConfig)
