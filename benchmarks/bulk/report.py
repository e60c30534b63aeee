"""What benchmarks/bulk/bulk.py measured, as JSON and as a page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.shared import write_results

BAR = 0.85
FLAT = 1.10  # memory at the end to that in the middle, at most

PAGE = """# Scoring tables

{rows:,} rows of tri-digits, repeated, in slices of {slice}, on {cores} cores ({machine}). Written by `make bench-bulk`.

| | |
|---|---|
| the predictor alone, payloads in memory | {ceiling:,.0f} rows/s |
| `predict --table` on all rows, its start included | {command:,.0f} rows/s |
| ratio of rows/s, median of {rounds} interleaved rounds (lowest, highest) | {ratio:.3f} ({low:.3f}, {high:.3f}); bar {bar}: {passed} |
| ratio of processor time a row, median (lowest, highest) | {cpu:.3f} ({cpu_low:.3f}, {cpu_high:.3f}) |
| memory of all processes, first, middle and last tenth of the scoring | {first:.0f}, {middle:.0f}, {last:.0f} MB (highest {peak:.0f}); flat: {flat} |
| killed after {before} of {parts} slices and run again | each row once: {once}; the same as uninterrupted: {equal} |
| `--ray`, one machine | {ray:,.0f} rows/s with Ray's start; each row once: {ray_once}; the same: {ray_equal} |

The ceiling decodes, encodes and fuses, a process on each core; the command also reads the table and the files, builds the
columns and writes. A round scores few rows and many, to tell what is paid once from what is paid by row, and so the rate
for all rows. Memory is the proportional set size, where shared pages count once.
"""


def ratios(rows: int, each: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return rows/s of the ceiling and of the command on all rows, their ratio, and that of processor time a row."""
    ceiling = each["ceiling"]
    rate, processor = rows / _seconds(rows, each, "wall_s"), _seconds(rows, each, "cpu_s") / rows
    return ceiling["rows_per_s"], rate, rate / ceiling["rows_per_s"], ceiling["cpu_s"] / ceiling["rows"] / processor


def _seconds(rows: int, each: Mapping[str, Any], what: str) -> float:
    """Extend what few rows and many cost to all rows: what is paid once, and what is paid by row."""
    small, command = each["small"], each["command"]
    by_row = (command[what] - small[what]) / (command["rows"] - small["rows"])
    return float(small[what] + by_row * (rows - small["rows"]))


def write_report(
    about: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any],
    out: Path,
) -> str:
    """Write bulk.json and bulk.md; returns the page."""
    ceilings, commands, walls, processors = zip(*(ratios(about["rows"], each) for each in rounds), strict=True)
    whole, killed, ray = found["whole"], found["killed"], found["ray"]
    ratio = statistics.median(walls)
    memory = whole["mb"]
    page = PAGE.format(
        **about, ceiling=statistics.median(ceilings), command=statistics.median(commands), rounds=len(rounds),
        ratio=ratio, low=min(walls), high=max(walls), bar=BAR, passed="met" if ratio >= BAR else "MISSED",
        cpu=statistics.median(processors), cpu_low=min(processors), cpu_high=max(processors),
        first=memory["start"], middle=memory["middle"], last=memory["end"], peak=whole["peak_mb"],
        flat=_yes_or_no(memory["end"] <= FLAT * memory["middle"]), before=killed["parts_before"], parts=killed["parts"],
        once=_yes_or_no(killed["each_row_once"]), equal=_yes_or_no(killed["equal"]),
        ray=ray["rows"] / ray["wall_s"], ray_once=_yes_or_no(ray["each_row_once"]), ray_equal=_yes_or_no(ray["equal"]),
    )  # fmt: skip
    write_results(out, "bulk", {"about": about, **found}, page)
    return page


def _yes_or_no(true: bool) -> str:
    return "yes" if true else "NO"
