"""Scaling with the number of modalities as JSON, tables and a figure."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import figure, write_whole
from benchmarks.training.workloads import WORKLOADS

Results = Mapping[str, Any]
Groups = dict[tuple[str, str], dict[int, list[Results]]]
STEP, WALL, PEAK, VALIDATION = "step_cpu_seconds", "step_wall_seconds", "peak_mb", "validation_cpu_seconds"
COLORS = {"mla": "#0b6e4f", "joint_concat": "#c1440e", "mla_hgm_epoch": "#7a7a7a", "mla_up_front": "#d9a441"}
MLA, JOINT = "mla", "joint_concat"
OF_ALONE, OF_JOINT = 1.15, 0.5  # what an MLA step may take at most
THREE = 3  # encoders, where that is asked


@dataclasses.dataclass(frozen=True)
class Fit:
    """A quantity y as a + b M, and what a quadratic term would add.

    Residuals: {M: (median y - fitted) / fitted}. The quadratic's c, its standard error, and its share of y at the most M.
    """

    workload: str
    variant: str
    quantity: str
    a: float
    b: float
    residuals: dict[int, float]
    c: float
    c_error: float
    c_share: float


def write_report(results: Sequence[Results], out: Path) -> None:
    """Write scaling.json, scaling.md and scaling.svg."""
    groups = grouped(results)
    fitted = fits(groups)
    content = {
        "cells": [json.dumps(dict(one)) for one in results],
        "fits": [json.dumps(dataclasses.asdict(fit)) for fit in fitted],
        "memory": [json.dumps(memory_ratios(groups))],
    }
    parts = [f'"{key}": [\n' + ",\n".join(lines) + "\n]" for key, lines in content.items()]
    write_whole(out / "scaling.json", "{\n" + ",\n".join(parts) + "\n}\n")
    draw(groups, fitted, out / "scaling.svg")
    write_whole(out / "scaling.md", markdown(groups, fitted))


def grouped(results: Sequence[Results]) -> Groups:
    """Group results: {(workload, variant): {M: repeats}}, in the order of WORKLOADS."""
    groups: Groups = defaultdict(lambda: defaultdict(list))
    for workload, settings in WORKLOADS.items():
        for variant in settings.variants:
            for one in sorted(results, key=lambda one: (one["modalities"], one["repeat"])):
                if (one["workload"], one["variant"]) == (workload, variant):
                    groups[workload, variant][one["modalities"]].append(one)
    return groups


def median(repeats: Sequence[Results], quantity: str) -> float:
    """Return the median over repeats."""
    return float(np.median([one[quantity] for one in repeats]))


def fits(groups: Groups) -> list[Fit]:
    """Fit the time of a step, and of a validation where it was measured, for every workload and variant."""
    return [
        fit(workload, variant, quantity, by_count)
        for (workload, variant), by_count in groups.items()
        for quantity in (STEP, VALIDATION)
        if len(by_count) > 3 and quantity in next(iter(by_count.values()))[0]
    ]


def fit(workload: str, variant: str, quantity: str, by_count: Mapping[int, Sequence[Results]]) -> Fit:
    """Fit least squares of relative errors (a longer step varies more), a line and a parabola, to the medians."""
    counts = np.array(list(by_count), dtype=float)
    values = np.array([median(repeats, quantity) for repeats in by_count.values()])
    b, a = np.polyfit(counts, values, 1, w=1 / values)
    residuals = values / (a + b * counts) - 1
    design = np.vander(counts, 3) / values[:, None]
    parabola = np.linalg.lstsq(design, np.ones(len(values)))[0]
    variance = np.square(design @ parabola - 1).sum() / (len(values) - 3)
    error = float(np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0]))
    share = parabola[0] * counts[-1] ** 2 / np.polyval(parabola, counts[-1])
    return Fit(
        workload, variant, quantity, float(a), float(b), dict(zip(by_count, residuals.round(4).tolist(), strict=True)),
        float(parabola[0]), error, float(share),
    )  # fmt: skip


def memory_ratios(groups: Groups) -> dict[str, float]:
    """Compare the peaks of ResNet-18 steps with three encoders; empty where they are not measured."""
    mla, joint = groups.get(("resnet18", MLA), {}), groups.get(("resnet18", JOINT), {})
    if not {1, THREE} <= set(mla) or THREE not in joint:
        return {}
    three = median(mla[THREE], PEAK)
    return {
        "mla_of_single_modality": round(three / median(mla[1], PEAK), 4),
        "mla_of_joint_concat": round(three / median(joint[THREE], PEAK), 4),
    }


def markdown(groups: Groups, fitted: Sequence[Fit]) -> str:
    """Write the tables."""
    workloads = [workload for workload in WORKLOADS if any(key[0] == workload for key in groups)]
    parts = [_head(groups), _memory(groups), *(_table(workload, groups) for workload in workloads), _fits(fitted)]
    return "\n".join(parts)


def _head(groups: Groups) -> str:
    machine = next(one["machine"] for by_count in groups.values() for ones in by_count.values() for one in ones)
    vector, resnet = WORKLOADS["vector"], WORKLOADS["resnet18"]
    return f"""# Scaling with the number of modalities

`make bench-scaling` measures one training step with M modalities that every row has. Vectors: {vector.shape[0]} numbers, encoder
`{vector.encoder}`, {vector.batch} rows, {vector.threads} thread. ResNet-18: images of {resnet.shape[1]}x{resnet.shape[2]}, {resnet.batch} rows, {resnet.threads} threads. AdamW, width 128, 10 classes.

Every cell is a fresh process, repeats are interleaved, tables show the median and the range over repeats. Time is processor time of
the process (user and system, all threads; waiting threads sleep), which other work on the machine hardly changes, unlike the
clock. Peak memory is the most that was resident during the steps above the baseline: weights, optimiser states and code,
after a step of two rows. In all cells alike, glibc gives freed arrays of 64 KiB and more back at once
(`MALLOC_MMAP_THRESHOLD_=65536`, `MALLOC_ARENA_MAX=1`). MB are 2^20 bytes. {machine}, {os.cpu_count()} cores.

![Memory and time against the number of modalities](scaling.svg)
"""


def _memory(groups: Groups) -> str:
    ratios = memory_ratios(groups)
    if not ratios:
        return ""
    return f"""## Memory of three ResNet-18 encoders

| peak of an MLA step with three, as a multiple of | is | may be at most |
|---|---|---|
| MLA's step with one of them alone | {ratios["mla_of_single_modality"]:.2f} | {OF_ALONE:.2f} |
| joint_concat's step with three | {ratios["mla_of_joint_concat"]:.2f} | {OF_JOINT:.2f} |
"""


def _table(workload: str, groups: Groups) -> str:
    lines = [
        f"## {workload}\n",
        "| strategy | M | repeats | peak MB | step, processor ms | step, ms on the clock | validation, processor ms |",
        "|---" * 7 + "|",
    ]
    for (its_workload, variant), by_count in groups.items():
        for count, ones in by_count.items() if its_workload == workload else ():
            cells = [_spread(ones, quantity) for quantity in (PEAK, STEP, WALL, VALIDATION)]
            lines.append(f"| {variant} | {count} | {len(ones)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(ones: Sequence[Results], quantity: str) -> str:
    """Write the median, and the range where there is one; seconds as ms."""
    if quantity not in ones[0]:
        return ""
    values = np.array([one[quantity] for one in ones]) * (1000 if quantity.endswith("seconds") else 1)
    middle, low, high = (_three_digits(value) for value in (np.median(values), values.min(), values.max()))
    return middle if low == high else f"{middle} ({low}-{high})"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _fits(fitted: Sequence[Fit]) -> str:
    lines = [
        "## Time as a + b M\n",
        "Processor ms, least squares of relative errors on the medians; residuals are relative to the line. Last, the parabola",
        "a + b M + c M^2: c with its standard error, and the part of the time that its term makes up at the largest M.\n",
        "| | strategy | time of | a | b | residuals, per cent, by M | c | at the largest M |",
        "|---" * 8 + "|",
    ]
    for one in fitted:
        what = one.quantity.split("_")[0]
        residuals = ", ".join(f"{count}: {100 * value:+.0f}" for count, value in one.residuals.items())
        a, b, c, error = (1000 * value for value in (one.a, one.b, one.c, one.c_error))
        lines.append(
            f"| {one.workload} | {one.variant} | {what} | {_three_digits(a)} | {_three_digits(b)} | {residuals} | "
            f"{c:.2g} +- {error:.1g} | {100 * one.c_share:+.0f} % |"
        )
    return "\n".join(lines) + "\n"


def draw(groups: Groups, fitted: Sequence[Fit], path: Path) -> None:
    """Draw peak memory of both workloads, and the time of a step with its line, against the number of modalities."""
    panels = [
        ("resnet18", PEAK, 1, "Memory of a step, ResNet-18", "MB at the peak"),
        ("vector", PEAK, 1, "Memory of a step, vectors", "MB at the peak"),
        ("vector", STEP, 1000, "Time of a step, vectors", "processor ms"),
    ]
    shown = [panel for panel in panels if any(key[0] == panel[0] for key in groups)]
    with figure(path, 1, len(shown), (4.3 * len(shown), 3.5), "scaling") as axes:
        for axis, (workload, quantity, unit, title, label) in zip(axes[0], shown, strict=True):
            lines = {one.variant: one for one in fitted if (one.workload, one.quantity) == (workload, quantity)}
            for variant in (MLA, JOINT):
                if (workload, variant) in groups:
                    _line(axis, variant, groups[workload, variant], quantity, unit, lines.get(variant))
            axis.set_title(title, fontsize=12, loc="left", fontweight="bold")
            axis.set(xlabel="modalities M", ylabel=label, xticks=WORKLOADS[workload].modalities)
            axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
            axis.margins(x=0.04)
            axis.spines[["top", "right"]].set_visible(False)


def _line(
    axis: Any, variant: str, by_count: Mapping[int, Sequence[Results]], quantity: str, unit: float, fitted: Fit | None
) -> None:
    """Draw medians with their range over repeats, joined up or with the fitted line, and say the last in words."""
    values = [np.array([one[quantity] for one in ones]) * unit for ones in by_count.values()]
    counts, middle = np.array(list(by_count)), np.array([np.median(each) for each in values])
    low, high = np.array([each.min() for each in values]), np.array([each.max() for each in values])
    color, width = COLORS[variant], 2.6 if variant == MLA else 1.8
    axis.errorbar(
        counts, middle, [middle - low, high - middle], color=color, marker="o", markersize=5, capsize=2, ls=""
    )
    heights = middle if fitted is None else unit * (fitted.a + fitted.b * counts)
    axis.plot(counts, heights, color=color, linewidth=width)
    last = (
        f"{_three_digits(middle[-1])} MB with {counts[-1]}" if fitted is None else f"{unit * fitted.b:.1f} ms for each"
    )
    height = 0.92 if variant == JOINT else 0.82
    axis.text(
        0.04, height, f"{variant}: {last}", transform=axis.transAxes, color=color, fontsize=11, fontweight="bold"
    )  # fmt: skip
