"""The comparison of services as JSON, tables with verdicts, and a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.systems import ECHO, SYSTEMS
from benchmarks.serving.verdicts import CEILING, ENOUGH, OURS, Results, Table, answered_subsets, stray_stages, verdicts
from benchmarks.shared import figure, write_whole
from mla_serve.errors import ConfigError

COLORS = {
    "mla_serve": "#0b6e4f", "litserve": "#c46a00", "bentoml_typed": "#7b4ba0", "torch_eager": "#a0303c",
    "ceiling": "#444444", "echo": "#9a9a9a",
}  # fmt: skip
FIGURES = ("rps", "p50_ms", "p95_ms", "p99_ms", "cpu_s_per_1000", "peak_mb")
LARGER = 1000  # from here on without decimals


def write_results(results: Results, out: Path) -> None:
    """Write serve.json whole: what is known of the run, then one row on each line."""
    head = json.dumps({key: value for key, value in results.items() if key != "rows"}, indent=1)
    rows = ",\n".join(json.dumps(row) for row in results["rows"])
    write_whole(out / "serve.json", f'{head[:-2]},\n "rows": [\n{rows}\n]}}\n')


def read_results(out: Path) -> Results:
    """Read serve.json.

    Raises: ConfigError when it is not there.
    """
    try:
        results: Results = json.loads((out / "serve.json").read_text())
    except FileNotFoundError:
        raise ConfigError(f"{out}/serve.json: no such file; measure first, without --report") from None
    return results


def merge_results(results: Results, out: Path) -> Results:
    """Put a run of some bundles beside what serve.json knows of the others: ratios are within a bundle."""
    try:
        before = read_results(out)
    except ConfigError:
        return results
    own = {row["bundle"] for row in results["rows"]}
    left = [run | {"bundles": [name for name in run["bundles"] if name not in own]} for run in before["runs"]]
    together = {**results, "runs": [run for run in left if run["bundles"]] + list(results["runs"])}
    for key in ("rows", "probes"):
        together[key] = [row for row in before[key] if row["bundle"] not in own] + list(results[key])
    for key in ("settings", "torch_weights", "stages"):
        together[key] = {**before[key], **results[key]}
    together["starts"] = max(results["starts"], before["starts"], key=len)
    return together


def write_report(results: Results, out: Path) -> None:
    """Write serve.md and serve.svg."""
    draw(results, out / "serve.svg")
    write_whole(out / "serve.md", markdown(results))


def markdown(results: Results) -> str:
    """Write the report."""
    bundles = list(dict.fromkeys(row["bundle"] for row in results["rows"]))
    parts = [_head(results), _verdicts(results), *(_bundle(results, bundle) for bundle in bundles), _how(results)]
    return "\n".join(parts)


def _head(results: Results) -> str:
    runs = "\n".join(_run(run) for run in results["runs"])
    return f"""# Serving

In each repeat every system was asked over 1, 8 and 32 connections in an order of its own, all servers up, but paused
while another is measured. The figures are medians over the repeats, in brackets the least and the largest; ratios are
taken within a repeat.

{runs}
![throughput, latency and processor time](serve.svg)
"""


def _run(run: Mapping[str, Any]) -> str:
    """Say when, on what and with what some bundles were measured."""
    versions = ", ".join(f"{name} {given}" for name, given in run["versions"].items())
    given = ", ".join(f"{name}={value}" for name, value in run["environment"].items())
    remarks = [
        *(["**Measured with --quick: the numbers mean nothing.**"] if run["quick"] else []),
        *(["**The machine was busy with something else before.**"] if run["busy"] else []),
        *([f"Settings from the environment: {given}."] if given else []),
    ]
    return f"""{" and ".join(run["bundles"])}: `{run["command"]}` on {run["date"]}, {run["config"]["repeats"]} repeats in {run["took_s"] / 60:.1f} minutes.
{run["machine"]}; load before: {run["load_before"][0]}. {versions}. {" ".join(remarks)}
"""


def _verdicts(results: Results) -> str:
    lines = ["## What was asked", "", "| asked | found: median (least to largest) | |", "|---|---|---|"]
    for verdict in verdicts(results):
        note = f"; {verdict.note}" if verdict.note else ""
        lines.append(f"| {verdict.asked} | {verdict.found()}{note} | {'met' if verdict.met else '**missed**'} |")
    stray = stray_stages(results)
    said = "; ".join(f"{where}: {', '.join(stages)}" for where, stages in stray.items())
    asked = "a request costs only the modalities that it holds (stages in Server-Timing)"
    lines.append(
        f"| {asked} | {said or 'no stage of a modality that was not sent'} | {'**missed**' if stray else 'met'} |"
    )
    fewest = min(run["config"]["repeats"] for run in results["runs"])
    if fewest < ENOUGH:
        lines += ["", f"Only {fewest} repeats: at least {ENOUGH} are needed for any of this to count."]
    return "\n".join([*lines, ""])


def _bundle(results: Results, bundle: str) -> str:
    columns = "req/s | p50 ms | p95 ms | p99 ms | CPU s per 1,000 | peak MB | start s"
    lines = [f"## {bundle}", "", f"| system | connections | {columns} |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    table = Table(results["rows"])
    cells = dict.fromkeys((row["system"], row["connections"]) for row in _sorted(results, bundle))
    for system, connections in cells:
        rows = table.of(bundle, system, connections)
        figures = [_spread([row[key] for row in rows], brief=key != "rps") for key in FIGURES]
        start = f"{rows[0]['start_s']:.1f}" if "start_s" in rows[0] else ""
        count = f"{connections} process{'es' * (connections > 1)}" if system == CEILING else connections
        lines.append(f"| {system} | {count} | {' | '.join(figures)} | {start} |")
    return "\n".join([*lines, "", _stages(results, bundle), _subsets(results, bundle)])


def _sorted(results: Results, bundle: str) -> list[Any]:
    order = list(COLORS)
    rows = [row for row in results["rows"] if row["bundle"] == bundle]
    return sorted(rows, key=lambda row: (order.index(row["system"]), row["connections"]))


def _spread(values: Sequence[float], brief: bool) -> str:
    write = lambda value: f"{value:.0f}" if value >= LARGER else f"{value:.3g}"  # noqa: E731
    middle = write(float(np.median(values)))
    return middle if brief else f"{middle} ({write(min(values))} to {write(max(values))})"


def _subsets(results: Results, bundle: str) -> str:
    """Write the latency of each subset, served and alone."""
    table = Table(results["rows"])
    shown = ((OURS, 1), (OURS, 8), (OURS, 32), (CEILING, 1))
    heads = [f"{system}, {count}" for system, count in shown]
    lines = ["p50 and p99 in ms by subset:", "", f"| subset | {' | '.join(heads)} |", "|---" * (len(shown) + 1) + "|"]
    cells = [table.of(bundle, *cell) for cell in shown]
    for subset in answered_subsets([row for rows in cells for row in rows]):
        figures = [
            " / ".join(
                f"{np.median([row['subsets'][subset][key] for row in rows]):.2f}" for key in ("p50_ms", "p99_ms")
            )
            for rows in cells
        ]
        lines.append(f"| {subset} | {' | '.join(figures)} |")
    return "\n".join([*lines, ""])


def _stages(results: Results, bundle: str) -> str:
    by_subset = results["stages"].get(bundle, {})
    alone = {subset: named for subset, named in by_subset.items() if "+" not in subset}
    lines = [f"- {subset} alone: {', '.join(named) or 'none'}" for subset, named in alone.items()]
    return "\n".join(["Stages that mla_serve names in Server-Timing:", "", *lines, ""])


def _how(results: Results) -> str:
    about = {system.name: system.about for system in (*SYSTEMS, ECHO)}
    tried = [
        f"{probe['bundle']}: {probe['system']} with {probe['settings']}: {probe['rps']:g} req/s"
        for probe in results["probes"]
    ]
    chosen = [
        f"- {bundle}, {name}: {about[name]}; {settings}"
        for bundle, by_name in results["settings"].items()
        for name, settings in by_name.items()
    ]
    weights = ", ".join(f"{bundle}: {'the same as in the graphs' if w == 'bundle' else 'others of the same shapes, labels unchecked'}"
                        for bundle, w in results["torch_weights"].items())  # fmt: skip
    client = max(row.get("client_cpu_share", 0.0) for row in results["rows"])
    starts = [
        f"- {start['system']}: ready after {start['start_s']:.1f} s, {start['worker_mb']:.0f} MB a worker"
        for start in results["starts"]
    ]
    return f"""## How

Settings with the most requests a second over 8 connections, each tried out before: {"; ".join(tried)}.

{chr(10).join(chosen)}

The load generator is one process on the same cores; it took {100 * client:.0f} % of one core at most (`client_cpu_share` in the rows).
Every answer was checked for its status and its label. All systems decode with `mla_serve.inputs` and fuse with
`mla_serve.fusion`; forms where the system can read them, else the same files as base64 in JSON. Weights of torch_eager: {weights}.
CPU is that of the whole process tree; peak memory the sum of its processes' largest resident memory, in which
pages that they share count more than once. `ceiling` is the predictor alone in processes, without HTTP.

Starts, by turns:

{chr(10).join(starts)}
"""


def draw(results: Results, path: Path) -> None:
    """Draw throughput, latency and processor time of each bundle."""
    bundles = list(dict.fromkeys(row["bundle"] for row in results["rows"]))
    with figure(path, len(bundles), 3, (13, 3.4 * len(bundles)), "mla_serve") as axes:
        for row, bundle in zip(axes, bundles, strict=True):
            _draw_throughput(row[0], results, bundle)
            _draw_latency(row[1], results, bundle)
            _draw_cpu(row[2], results, bundle)


def _served(results: Results, bundle: str) -> list[str]:
    found = [row["system"] for row in _sorted(results, bundle) if row["system"] not in (CEILING, "echo")]
    return list(dict.fromkeys(found))[::-1]


def _draw_throughput(axes: Any, results: Results, bundle: str) -> None:
    """Draw a line for each system over the connections, every repeat as a dot, and the ceiling."""
    table = Table(results["rows"])
    for system in _served(results, bundle):
        cells = {count: [row["rps"] for row in table.of(bundle, system, count)] for count in (1, 8, 32)}
        axes.plot(
            range(3), [np.median(values) for values in cells.values()], color=COLORS[system], label=system, linewidth=2
        )
        for at, values in enumerate(cells.values()):
            axes.scatter([at] * len(values), values, color=COLORS[system], s=12, zorder=3)
    ceiling = float(np.median([row["ceiling_rps"] for row in table.of(bundle, OURS, 8)]))
    axes.axhline(ceiling, color=COLORS[CEILING], linestyle="--", linewidth=1.2, label="ceiling")
    axes.set_xticks(range(3), ["1", "8", "32"])
    axes.set_ylim(0, 1.35 * max(ceiling, axes.get_ylim()[1]))
    axes.set(title=f"{bundle}: throughput", xlabel="connections", ylabel="requests a second")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[-2::-1] + handles[-1:],
        labels[-2::-1] + labels[-1:],
        fontsize=8,
        frameon=False,
        ncol=2,
        loc="upper left",
    )
    _style_axes(axes)


def _draw_latency(axes: Any, results: Results, bundle: str) -> None:
    """Draw each system from p50 to p99 over 8 connections."""
    from matplotlib.ticker import LogLocator, NullFormatter

    table, names = Table(results["rows"]), _served(results, bundle)
    for at, system in enumerate(names):
        rows = table.of(bundle, system, 8)
        p50, p95, p99 = (float(np.median([row[key] for row in rows])) for key in ("p50_ms", "p95_ms", "p99_ms"))
        axes.plot([p50, p99], [at, at], color=COLORS[system], linewidth=2)
        axes.scatter([p50], [at], color=COLORS[system], s=45, zorder=3)
        axes.scatter([p95, p99], [at, at], color=COLORS[system], s=60, marker="|", zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set(title=f"{bundle}: latency over 8 connections", xlabel="ms: p50 (dot), p95, p99 (bars)")
    _style_axes(axes)


def _draw_cpu(axes: Any, results: Results, bundle: str) -> None:
    """Draw what 1,000 requests cost over 8 connections, against the ceiling's cost."""
    table, names = Table(results["rows"]), _served(results, bundle)
    costs = [float(np.median([row["cpu_s_per_1000"] for row in table.of(bundle, system, 8)])) for system in names]
    axes.barh(range(len(names)), costs, color=[COLORS[system] for system in names], height=0.6)
    for at, cost in enumerate(costs):
        axes.text(cost, at, f" {cost:.3g}", va="center", fontsize=9)
    processes = max(row["connections"] for row in _sorted(results, bundle) if row["system"] == CEILING)
    alone = float(np.median([row["cpu_s_per_1000"] for row in table.of(bundle, CEILING, processes)]))
    axes.axvline(alone, color=COLORS[CEILING], linestyle="--", linewidth=1.2)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.15 * max(costs))
    axes.set(title=f"{bundle}: processor time", xlabel="CPU s per 1,000 requests (dashed: ceiling)")
    _style_axes(axes)


def _style_axes(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
