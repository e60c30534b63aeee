"""`make bench-serve`: mla_serve against what people would pick instead, on the same graphs, payloads and machine.

All servers are up at once and take turns: in every repeat each is asked over every number of connections, in an order
that changes, the same cases in the same order; beside them the predictor alone on all cores (the ceiling) and a bare
Starlette application (the load generator's limit). What the machine does besides hits all alike, and the report compares
within a repeat. An answer that is wrong ends it all. Writes serve.json, .md and .svg.

    python -m benchmarks.serving.serve                    the whole, within 20 minutes, on a machine that does nothing else
    python -m benchmarks.serving.serve --only digits      one bundle; what was measured of the other stays beside it
    python -m benchmarks.serving.serve --quick            does it work? 2 repeats of half a second
    python -m benchmarks.serving.serve --report           write the report again from serve.json
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
import random
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress

from benchmarks.serving.bundle import resnet18_bundle
from benchmarks.serving.ceiling import Ceiling
from benchmarks.serving.load import Case, LoadResult, cases_of, measure_load, timing_stages
from benchmarks.serving.processes import Server, serving
from benchmarks.serving.systems import CORES, ECHO, EMPTY, SYSTEMS, Settings, System, settings_text
from benchmarks.shared import machine_in_full
from mla_serve.bundle.manifest import Bundle
from mla_serve.console import console, main
from mla_serve.errors import ConfigError

CONNECTIONS = (1, 8, 32)
PROBED_AT = 8
CEILING, MIX = "ceiling", "every subset alike"
PACKAGES = ("mla_serve", "bentoml", "litserve", "fastapi", "starlette", "uvicorn", "onnxruntime", "torch", "numpy")
NEEDED = ("bentoml", "litserve", "psutil", "torch", "uvloop")
BUSY = 0.3  # of the cores
START_S = 8.0  # of one server, for the estimate
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ServeBenchConfig:
    """Compare services on this machine; nothing else should run on it."""

    model: Path = Path("models/digits")
    """The small bundle."""
    repeats: int = 5
    """How often every cell is measured; at least 5 for numbers to quote."""
    seconds: float = 3.0
    """Measured time of a cell with the small bundle."""
    large_seconds: float = 5.0
    """The same with the ResNet-18-sized bundle, whose answers take longer."""
    warm_up: float = 0.5
    """Seconds of load before each measured time."""
    starts: int = 3
    """How often mla_serve and an empty BentoML service are started to compare start and memory."""
    quick: bool = False
    """See that it works: 2 repeats of half a second, one start. The numbers mean nothing."""
    report: bool = False
    """Measure nothing: write the report again from serve.json."""
    only: tuple[str, ...] = ()
    """Bundles to measure: digits, resnet18; what --out holds of the other stays. Default: both, anew."""
    work: Path = Path("runs/bench-serve")
    """Folder that the ResNet-18-sized bundle is kept in; delete it to have it made anew."""
    out: Path = Path("benchmarks/serving")
    """Folder that serve.json, serve.md and serve.svg are written to."""

    def with_quick(self) -> ServeBenchConfig:
        """Return what --quick means."""
        short = {"repeats": 2, "seconds": 0.5, "large_seconds": 1.0, "warm_up": 0.3, "starts": 1}
        return dataclasses.replace(self, **short) if self.quick else self  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class BundleToMeasure:
    """A bundle that is measured: its name in the rows, its folder, the cases, how long a cell takes, and beside whom."""

    name: str
    folder: Path
    cases: Sequence[Case]
    seconds: float
    systems: Sequence[System]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One measurement of one repeat."""

    system: System | None
    """None is the ceiling."""
    connections: int


def cells(subject: BundleToMeasure) -> list[Cell]:
    """List what every repeat measures; the ceiling's connections are processes, one and all cores."""
    served = [Cell(system, connections) for system in subject.systems for connections in CONNECTIONS]
    return served + [Cell(None, processes) for processes in dict.fromkeys((1, CORES))]


def estimate_s(config: ServeBenchConfig, subjects: Sequence[BundleToMeasure]) -> float:
    """Say how long it will take."""
    total = 2 * config.starts * START_S
    for subject in subjects:
        one = subject.seconds + config.warm_up
        probes = sum(len(system.variants) for system in subject.systems if len(system.variants) > 1)
        total += probes * (START_S + one) + (len(subject.systems) + 1) * START_S
        total += config.repeats * len(cells(subject)) * (one + 0.1)
    return total


class ServeBenchmark:
    """One run: everything that is measured, as rows and facts."""

    def __init__(self, config: ServeBenchConfig, progress: rich.progress.Progress) -> None:
        """Begin with nothing measured."""
        self.config = config
        self.rows: list[Row] = []
        self.chosen: dict[str, dict[str, str]] = {}
        self.probes: list[Row] = []
        self.weights: dict[str, str] = {}
        self.stages: dict[str, dict[str, list[str]]] = {}
        self._progress = progress

    def measure(self, subject: BundleToMeasure) -> None:
        """Choose the settings, start every server, and let them take turns."""
        task = self._progress.add_task(subject.name, total=self.config.repeats * len(cells(subject)))
        chosen = {system.name: self._choose(subject, system) for system in subject.systems}
        self.chosen[subject.name] = {name: settings_text(settings) for name, settings in chosen.items()}
        with contextlib.ExitStack() as stack:
            servers: dict[str, Server] = {}
            for system in subject.systems:
                servers[system.name] = stack.enter_context(_serve(subject, system, chosen[system.name]))
                servers[system.name].settle()
            if "torch_eager" in servers:
                self.weights[subject.name] = json.loads(servers["torch_eager"].ready)["weights"]
            self.stages[subject.name] = timing_stages(servers["mla_serve"].port, subject.cases)
            for server in servers.values():
                server.pause()
            ceiling = stack.enter_context(Ceiling(subject.folder, subject.cases, CORES))
            for repeat in range(self.config.repeats):
                self._repeat(subject, servers, ceiling, repeat, task)

    def _repeat(
        self,
        subject: BundleToMeasure,
        servers: Mapping[str, Server],
        ceiling: Ceiling,
        repeat: int,
        task: rich.progress.TaskID,
    ) -> None:
        """Measure every cell once, in an order of this repeat's own."""
        order, rows = cells(subject), []
        random.Random(repeat).shuffle(order)
        for cell in order:
            name = cell.system.name if cell.system else CEILING
            self._progress.update(task, description=f"{subject.name} {name} {cell.connections}")
            if cell.system is None:
                rows.append(self._ceiling_row(subject, ceiling, cell.connections, repeat))
            else:
                rows.append(self._row(subject, cell.system, servers[name], cell.connections, repeat))
            self._progress.advance(task)
        most = max(row["rps"] for row in rows if row["system"] == CEILING)
        self.rows += [row | {"ceiling_rps": most} for row in rows]

    def _row(self, subject: BundleToMeasure, system: System, server: Server, connections: int, repeat: int) -> Row:
        tree, cpu = server.tree(), {}
        tree.reset_peak()
        labels = system.name != "torch_eager" or self.weights[subject.name] == "bundle"
        questions = system.questions(subject.cases, repeat, labels)

        def mark(begins: bool) -> None:
            cpu[begins] = tree.cpu_s()

        with server.resumed():
            load = measure_load(server.port, questions, connections, subject.seconds, self.config.warm_up, mark)
        row = _row(subject.name, system.name, connections, repeat, load, cpu[False] - cpu[True], tree.peak_mb())
        return row | {"start_s": round(server.start_s, 2), "client_cpu_share": _share(load)}

    def _ceiling_row(self, subject: BundleToMeasure, ceiling: Ceiling, processes: int, repeat: int) -> Row:
        tree = ceiling.tree(processes)
        tree.reset_peak()
        load = ceiling.run(processes, subject.seconds, self.config.warm_up, repeat)
        return _row(subject.name, CEILING, processes, repeat, load, load.client_cpu_s, tree.peak_mb())

    def _choose(self, subject: BundleToMeasure, system: System) -> Settings:
        """Try a system's settings out, and return those of the most answers a second over 8 connections."""
        if len(system.variants) == 1:
            return system.variants[0]
        found: list[float] = []
        for settings in system.variants:
            self._progress.console.print(
                f"  {subject.name}: trying {system.name} with {settings_text(settings)}", style="dim"
            )
            with _serve(subject, system, settings) as server:
                server.settle()
                questions = system.questions(subject.cases, 0, labels=False)
                load = measure_load(server.port, questions, PROBED_AT, subject.seconds, self.config.warm_up)
            found.append(load.answers / load.seconds)
            self.probes.append(
                {
                    "bundle": subject.name,
                    "system": system.name,
                    "settings": settings_text(settings),
                    "rps": round(found[-1], 1),
                }
            )
        return system.variants[int(np.argmax(found))]

    def compare_starts(self, model: Path) -> list[Row]:
        """Start mla_serve and an empty BentoML service by turns: seconds to ready, resident memory of a worker."""
        rows = []
        task = self._progress.add_task("starts", total=2 * self.config.starts)
        for repeat in range(self.config.starts):
            for system in (SYSTEMS[0], EMPTY):
                with serving(system.command, system.environment(model, {}), system.ready_path) as server:
                    server.settle()
                    memory = server.tree().workers_mb()
                    rows.append(
                        {"system": system.name, "run": repeat, "start_s": round(server.start_s, 2),
                         "worker_mb": round(memory, 1)}
                    )  # fmt: skip
                self._progress.advance(task)
        return rows


def _serve(subject: BundleToMeasure, system: System, settings: Settings) -> contextlib.AbstractContextManager[Server]:
    return serving(system.command, system.environment(subject.folder.resolve(), settings), system.ready_path)


def _share(load: LoadResult) -> float:
    return round(load.client_cpu_s / load.seconds, 3)


def _row(
    bundle: str, system: str, connections: int, repeat: int, load: LoadResult, cpu_s: float, peak_mb: float
) -> Row:
    """Sum one measurement up."""
    together = np.concatenate([np.array(values) for values in load.latencies.values()])
    p50, p95, p99 = np.percentile(together, (50, 95, 99))
    subsets = {
        subset: {"answers": len(values), "p50_ms": _ms(np.median(values)), "p99_ms": _ms(np.percentile(values, 99))}
        for subset, values in sorted(load.latencies.items())
    }
    return {
        "system": system, "bundle": bundle, "subset_mix": MIX, "connections": connections, "run": repeat,
        "rps": round(load.answers / load.seconds, 2), "p50_ms": _ms(p50), "p95_ms": _ms(p95), "p99_ms": _ms(p99),
        "cpu_s_per_1000": round(1000 * cpu_s / load.answers, 3), "peak_mb": round(peak_mb, 1), "subsets": subsets,
    }  # fmt: skip


def _ms(value: Any) -> float:
    return round(float(value), 3)


def subjects(config: ServeBenchConfig) -> list[BundleToMeasure]:
    """Prepare the bundles that are asked for.

    Raises: ConfigError for a bundle that is not known; BundleError for one that cannot be used.
    """
    known = ("digits", "resnet18")
    if unknown := set(config.only) - set(known):
        raise ConfigError(f"--only {', '.join(sorted(unknown))}: expected {' or '.join(known)}")
    found = []
    for name in config.only or known:
        small = name == known[0]
        if not small:
            console.print(f"{config.work}/resnet18: made once, in a minute or two", style="dim")
        folder = config.model if small else resnet18_bundle(config.work)
        seconds = config.seconds if small else config.large_seconds
        found.append(BundleToMeasure(name, folder, _checked(folder), seconds, (*SYSTEMS, ECHO) if small else SYSTEMS))
    return found


def _checked(folder: Path) -> list[Case]:
    bundle = Bundle.load(folder)
    if set(bundle.inputs) != {"image", "audio", "text"}:
        raise ConfigError(
            f"--model {folder}: it reads {', '.join(bundle.inputs)}; the peers are written for image, audio and text"
        )
    found = cases_of(bundle)
    if len({case.subset for case in found}) < 7:
        raise ConfigError(f"--model {folder}: its golden samples do not cover the 7 subsets; export it with samples")
    return found


def facts(config: ServeBenchConfig) -> dict[str, Any]:
    """Say on what and with what it was measured."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": _command(config),
        "quick": config.quick,
        "config": {k: v for k, v in dataclasses.asdict(config).items() if isinstance(v, int | float)},
        "machine": machine_in_full(),
        "versions": {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES},
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("MLA_")},
        "load_before": (load := [round(value, 2) for value in os.getloadavg()]),
        "busy": is_busy(load),
    }


def _command(config: ServeBenchConfig) -> str:
    flags = [*(["--quick"] if config.quick else []), *(["--only", *config.only] if config.only else [])]
    return "make bench-serve" + (f' ARGS="{" ".join(flags)}"' if flags else "")


def is_busy(load: Sequence[float]) -> bool:
    """Whether others kept a good part of the machine busy in the minute before."""
    return load[0] > BUSY * CORES


def _version(package: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return "not installed"


def run(config: ServeBenchConfig) -> None:
    """Measure and report."""
    from benchmarks.serving.report import merge_results, read_results, write_report, write_results

    _check(config)
    if not config.report:
        if not Path("/proc/self/clear_refs").exists():
            raise ConfigError("this benchmark reads processor time and memory from /proc; run it on Linux")
        if missing := [package for package in NEEDED if importlib.util.find_spec(package) is None]:
            raise ConfigError(f"{', '.join(missing)} not installed; `make bench-serve` installs what is missing")
        measured = measure(config.with_quick())
        write_results(merge_results(measured, config.out) if config.only else measured, config.out)
    write_report(read_results(config.out), config.out)
    console.print(f"{config.out}/serve.json, .md and .svg are written")


def _check(config: ServeBenchConfig) -> None:
    for name in ("repeats", "seconds", "large_seconds", "starts"):
        if not getattr(config, name) > 0:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(config, name)}: expected more than 0")
    if config.warm_up < 0:
        raise ConfigError(f"--warm-up {config.warm_up}: expected 0 or more")


def measure(config: ServeBenchConfig) -> dict[str, Any]:
    """Measure everything."""
    known = facts(config)
    prepared, began = subjects(config), time.monotonic()
    count = sum(config.repeats * len(cells(subject)) for subject in prepared)
    console.print(
        f"{count} measurements, about {estimate_s(config, prepared) / 60:.0f} minutes; leave the machine alone"
    )
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.TimeElapsedColumn())
    with rich.progress.Progress(*columns, console=console) as progress:
        bench = ServeBenchmark(config, progress)
        starts = bench.compare_starts(config.model.resolve())
        for subject in prepared:
            bench.measure(subject)
    bundles = [subject.name for subject in prepared]
    return {
        "runs": [known | {"bundles": bundles, "took_s": round(time.monotonic() - began)}], "starts": starts, "settings": bench.chosen, "probes": bench.probes,
        "torch_weights": bench.weights, "stages": bench.stages, "rows": bench.rows,
    }  # fmt: skip


if __name__ == "__main__":
    main(run, ServeBenchConfig, needs="train")
