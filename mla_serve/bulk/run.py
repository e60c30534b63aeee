"""Score a table: slices to processes, parts to a file, with a progress bar."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from mla_serve import __version__
from mla_serve.bulk.parts import ANSWERS, Parts
from mla_serve.bulk.score import Ask, Scorer
from mla_serve.bulk.slices import Slice, Source
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.runtime import cores
from mla_serve.console import errors
from mla_serve.errors import ConfigError, DataError
from mla_serve.output.targets import check_target

ROWS = 256  # of a slice
AHEAD = 2  # slices that wait for each process


@dataclasses.dataclass(frozen=True)
class Scored:
    """What was done: rows of the table, how many of them have an error, rows scored in this run, its seconds."""

    rows: int
    bad: int
    new: int
    seconds: float


def score_table(table: Path, out: Path, ask: Ask, workers: int | None = None, ray: str | None = None) -> Scored:
    """Answer every row of a table into a Parquet file; goes on where an interrupted scoring of the same was.

    A file of answers that is there is kept as OUT.old; anything else is refused.

    Args: workers, processes, as many as cores when left out; ray, the address of a Ray that does it, see on_ray.py.
    Raises: DataError, ConfigError before anything is scored; DataError when a process dies, a part cannot be written or
    the table cannot be read to its end, finished parts kept.
    """
    if out.suffix.lower() != ".parquet":
        raise ConfigError(f"--out {out}: expected a name that ends in .parquet")
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; give the name of a file")
    note = check_target("--out", out, ANSWERS, {"the folder of the model": ask.model}, {"the table": table})
    source, bundle = Source.of(table), Bundle.load(ask.model)
    Predictor(bundle).check_options(ask.rule, None, ask.coverage)
    parts = Parts(out)
    asked = {"fusion": ask.rule, "coverage": ask.coverage}
    parts.begin(
        {"table": source.sha256, "model": bundle.manifest.sha256, **asked, "slice": ROWS, "version": __version__}
    )
    if note:
        errors.print(note, style="dim", soft_wrap=True)
    if ray is None:
        scored = _all_parts(source, parts, ask, workers or cores())
    else:
        from mla_serve.bulk.on_ray import score_on_ray

        scored = score_on_ray(source, parts, ask, bundle.manifest.sha256, ROWS, workers, ray)
    began, rows, new, count = time.perf_counter(), 0, 0, 0
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=errors) as bar:
        task = bar.add_task("rows", total=source.rows)
        for number, done, fresh in scored:
            rows, new, count = rows + done, new + done * fresh, max(count, number + 1)
            bar.update(task, completed=rows)
        bar.update(task, total=rows)
    if not rows:
        parts.discard()
        raise DataError(f"--table {table}: holds no rows; fill it")
    return Scored(rows, parts.finish(count), new, time.perf_counter() - began)


def _all_parts(source: Source, parts: Parts, ask: Ask, workers: int) -> Iterator[tuple[int, int, bool]]:
    """Score what is not there yet, some slices at a time; yields (number, rows, scored now) as they are finished."""
    context = multiprocessing.get_context("spawn")
    opened = (ask, source.path.parent, parts.out)
    pool = ProcessPoolExecutor(workers, context, _open, opened)
    running: dict[Future[int], int] = {}
    try:
        for rows in source.slices(ROWS):
            if parts.has(rows.number):
                yield rows.number, len(rows.lines), False
                continue
            running[pool.submit(_score, rows)] = rows.number
            if len(running) >= workers * (1 + AHEAD):
                yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool:
        raise DataError("a process that scored rows died; run the same again to go on where it was") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(running: dict[Future[int], int]) -> Iterator[tuple[int, int, bool]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result(), True


@dataclasses.dataclass
class _Process:
    """What a process keeps between two slices."""

    scorer: Scorer
    parts: Parts


_process: _Process


def _open(ask: Ask, folder: Path, out: Path) -> None:
    """Make this process ready; Ctrl-C is for the process that waits for it."""
    global _process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _process = _Process(Scorer(ask, folder), Parts(out))


def _score(rows: Slice) -> int:
    """Score a slice and keep its part; returns how many rows it has."""
    answers = _process.scorer.score(rows)
    _process.parts.keep(rows.number, answers)
    return len(answers)
