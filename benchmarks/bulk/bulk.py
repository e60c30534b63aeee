"""`make bench-bulk`: what scoring a table costs beside the predictor alone, its memory, a kill in the middle, and Ray.

The table is a data set's rows, repeated; files are linked, not copied. The ceiling is the predictor on the same slices, a
process on each core, payloads in memory, nothing read or written. Rounds of both are interleaved. Every stage leaves a file
in the work folder, so that a run that was interrupted goes on where it was. Takes 25 minutes on two cores; writes
bulk.json and .md.

    python -m benchmarks.bulk.bulk --data DIR
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from pyarrow import parquet

from benchmarks.bulk.report import write_report
from benchmarks.shared import write_whole
from mla_serve.bulk.parts import Parts
from mla_serve.bulk.run import SLICE_ROWS
from mla_serve.bulk.score import Ask, Scorer
from mla_serve.bulk.slices import Source
from mla_serve.bundle.runtime import cores
from mla_serve.console import console, main
from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.table import read_payload
from mla_serve.table.faults import InvalidValue

MB = 2**20
POLL_S = 0.5
DISTINCT = 8  # slices that a process of the ceiling holds, and goes round in


@dataclasses.dataclass(frozen=True)
class BulkConfig:
    """Measure the scoring of a table; resumable."""

    data: Path
    """Folder of a table in .jsonl, such as tri-digits."""
    model: Path = Path("models/digits")
    """Folder of the bundle."""
    rows: int = 200_000
    """Rows of the table; fewer for a quick try."""
    rounds: int = 5
    """Interleaved rounds, each with its share of the rows."""
    again: bool = False
    """Measure anew, also where there are results."""
    work: Path = Path("runs/bulk")
    """Folder of the tables and the finished stages."""
    out: Path = Path("benchmarks/bulk")
    """Folder that bulk.json and .md are written to."""


def make_table(data: Path, folder: Path, rows: int) -> Path:
    """Write a table of so many rows, the data set's own repeated, with links to its files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for linked in (path for path in data.iterdir() if path.is_dir()):
        if not (folder / linked.name).is_symlink():
            (folder / linked.name).symlink_to(linked.resolve(), target_is_directory=True)
    lines = [line for path in sorted(data.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    if not lines:
        raise ConfigError(f"--data {data}: expected a folder with tables in .jsonl")
    table = folder / f"{rows}.jsonl"
    if not table.exists():
        temporary = table.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            for number, line in enumerate(itertools.islice(itertools.cycle(lines), rows)):
                file.write(json.dumps(json.loads(line) | {"id": str(number)}, ensure_ascii=False) + "\n")
        temporary.replace(table)
    return table


class Command:
    """`predict --table` in a process of its own, and what it cost."""

    def __init__(self, config: BulkConfig, table: Path, out: Path, *more: str) -> None:
        """Start it."""
        flags = ["--table", str(table), "--out", str(out), "--model", str(config.model), *more]
        self.out, self.began, self.before = out, time.perf_counter(), _children_s()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mla_serve", "predict", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def finish(self) -> dict[str, Any]:
        """Wait for its end; returns wall and processor seconds, and what it said. Raises: MlaServeError."""
        lines = self.process.communicate()[0].strip().splitlines()
        if self.process.returncode:
            raise MlaServeError(
                f"predict ended with {self.process.returncode}: {lines[-1] if lines else 'it printed nothing'}"
            )
        wall, processor = time.perf_counter() - self.began, _children_s() - self.before
        return {"wall_s": wall, "cpu_s": processor, "said": lines[-1]}

    def parts(self) -> int:
        """Count the finished parts."""
        return len(Parts(self.out).finished())

    def memory(self) -> Iterator[tuple[int, float]]:
        """Yield (finished parts, MB resident in all its processes together) until it ends."""
        while self.process.poll() is None:
            time.sleep(POLL_S)
            yield self.parts(), _tree_mb(self.process.pid)

    def kill(self) -> None:
        """End it and its processes without warning."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree_mb(pid: int) -> float:
    """Sum the proportional set sizes of a process and all below it: pages that they share count once."""
    total = 0.0
    try:
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        return 0.0
    return total / MB


def ceiling(config: BulkConfig, table: Path) -> dict[str, Any]:
    """Run the predictor alone on as many rows as the table has, on all cores; returns rows/s and processor seconds a row."""
    count = cores()
    slices = max(1, round(int(table.stem) / SLICE_ROWS / count))
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(count), context.Queue()
    workers = [
        context.Process(target=_ceiling_process, args=(config.model, table, slices, barrier, answers))
        for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=3600) for _ in workers]
    for worker in workers:
        worker.join()
    rows = sum(each[0] for each in found)
    return {
        "rows": rows,
        "rows_per_s": sum(done / wall for done, wall, _ in found),
        "cpu_s": sum(processor for _, _, processor in found),
    }


def _ceiling_process(model: Path, table: Path, slices: int, barrier: Any, answers: Any) -> None:
    """Decode, encode and fuse slices that are in memory; tells (rows, wall seconds, processor seconds)."""
    scorer = Scorer(Ask(model, DEFAULT_RULE, None), table.parent)
    predictor = scorer.predictor
    held = [
        [
            {name: read_payload(value) for name, value in scorer.columns.read_sample(cells, table.parent).values.items()}
            for _, cells in each.lines
            if not isinstance(cells, InvalidValue)
        ]
        for each in itertools.islice(Source.of(table).slices(SLICE_ROWS), DISTINCT)
    ]  # fmt: skip
    done, todo = 0, itertools.islice(itertools.cycle(held), slices)
    predictor.predict(held[0])
    barrier.wait()
    wall, processor = time.perf_counter(), time.process_time()
    for samples in todo:
        done += len(predictor.predict(samples))
    answers.put((done, time.perf_counter() - wall, time.process_time() - processor))


def rate_round(config: BulkConfig, folder: Path, number: int) -> dict[str, Any]:
    """Measure the ceiling, and the command on a round's rows and on a slice for each process, forwards and backwards in turn."""
    table = make_table(config.data, folder, config.rows // config.rounds)
    small = make_table(config.data, folder, cores() * SLICE_ROWS)
    tasks: dict[str, Callable[[], dict[str, Any]]] = {
        "ceiling": lambda: ceiling(config, table),
        "small": lambda: _start_anew(config, small, folder / "small.parquet").finish() | {"rows": cores() * SLICE_ROWS},
        "command": lambda: _start_anew(config, table, folder / "round.parquet").finish() | {"rows": int(table.stem)},
    }
    return {name: tasks[name]() for name in list(tasks)[:: 1 if number % 2 else -1]}


def _start_anew(config: BulkConfig, table: Path, out: Path, *more: str) -> Command:
    """Start the command with nothing left of an earlier one, which it would go on with."""
    out.unlink(missing_ok=True)
    shutil.rmtree(Parts(out).folder, ignore_errors=True)
    return Command(config, table, out, *more)


def score_all(config: BulkConfig, folder: Path) -> dict[str, Any]:
    """Score all rows, looking at memory."""
    command = _start_anew(config, make_table(config.data, folder, config.rows), folder / "whole.parquet")
    seen = list(command.memory())
    done, slices = command.finish(), -(-config.rows // SLICE_ROWS)
    scoring = [mb for parts, mb in seen if 0 < parts < slices and mb]
    tenth, middle = -(-len(scoring) // 10), len(scoring) // 2
    spans = {"start": scoring[:tenth], "middle": scoring[middle : middle + tenth], "end": scoring[-tenth:]}
    memory = {name: sum(span) / len(span) for name, span in spans.items()}
    return done | {"mb": memory, "peak_mb": max(mb for _, mb in seen), "looks": len(scoring), "rows": config.rows}


def score_with_a_kill(config: BulkConfig, folder: Path) -> dict[str, Any]:
    """Kill a scoring in its middle, go on, and compare with the one that was left alone."""
    table, out = make_table(config.data, folder, config.rows), folder / "killed.parquet"
    command = _start_anew(config, table, out)
    half = config.rows // SLICE_ROWS // 2
    while command.process.poll() is None and command.parts() < half:
        time.sleep(0.05)
    command.kill()
    before = command.parts()
    done = Command(config, table, out).finish()
    return done | {"parts_before": before, "parts": -(-config.rows // SLICE_ROWS)} | _compare(out, folder, config.rows)


def on_ray(config: BulkConfig, folder: Path) -> dict[str, Any]:
    """Score all rows on a local Ray, and compare."""
    out = folder / "ray.parquet"
    done = _start_anew(config, make_table(config.data, folder, config.rows), out, "--ray").finish()
    return done | {"rows": config.rows} | _compare(out, folder, config.rows)


def _compare(out: Path, folder: Path, rows: int) -> dict[str, bool]:
    """Say whether each row is there once and in order, and all is as in the scoring that was left alone."""
    table = parquet.read_table(out)
    return {
        "each_row_once": table["row"].to_pylist() == list(range(rows)),
        "equal": table.equals(parquet.read_table(folder / "whole.parquet")),
    }


def stages(config: BulkConfig) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """List what is measured, in order."""
    return {
        **{
            f"round-{number}": lambda folder, number=number: rate_round(config, folder, number)  # type: ignore[misc]
            for number in range(config.rounds)
        },
        "whole": lambda folder: score_all(config, folder),
        "killed": lambda folder: score_with_a_kill(config, folder),
        "ray": lambda folder: on_ray(config, folder),
    }


def measure(config: BulkConfig, folder: Path) -> dict[str, Any]:
    """Measure every stage that is not there yet."""
    found: dict[str, Any] = {}
    for name, stage in stages(config).items():
        file = folder / f"stage-{name}.json"
        if config.again:
            file.unlink(missing_ok=True)
        if not file.exists():
            console.print(f"{name} ...")
            write_whole(file, json.dumps(stage(folder)))
        found[name] = json.loads(file.read_text())
    return found


def rounds_of(found: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the rounds among the stages."""
    return [stage for name, stage in found.items() if name.startswith("round-")]


def run(config: BulkConfig) -> None:
    """Measure and write the report."""
    least = 2 * cores() * SLICE_ROWS
    if config.rounds < 1 or config.rows // config.rounds < least:
        raise ConfigError(f"--rows and --rounds: expected a round or more, of {least} rows or more each")
    folder = config.work / str(config.rows)
    folder.mkdir(parents=True, exist_ok=True)
    found = measure(config, folder)
    about = {"rows": config.rows, "slice": SLICE_ROWS, "cores": cores(), "machine": platform.machine()}
    console.print(write_report(about, rounds_of(found), found, config.out), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(run, BulkConfig, needs="ray")
