"""Answer a table: give slices of rows to processes, join their parts to a file, show a progress bar."""

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
from mla_serve.bulk.check_columns import check_columns
from mla_serve.bulk.parts import Parts
from mla_serve.bulk.score import Ask, Scorer, schema_of
from mla_serve.bulk.slices import Slice, Source
from mla_serve.bulk.writers import ANSWERS, WRITERS
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.runtime import cores
from mla_serve.console import errors
from mla_serve.errors import ConfigError, DataError
from mla_serve.output.targets import check_target

SLICE_ROWS = 256
QUEUED_SLICES = 2  # per process, so that none waits for the next one to be read


@dataclasses.dataclass(frozen=True)
class Scored:
    """The work done: rows of the table, rows with an error, rows that were answered although a modality could not be read,
    rows answered by this command, its duration in seconds.
    """

    rows: int
    bad: int
    partial: int
    new: int
    seconds: float


def score_table(
    table: Path, out: Path, ask: Ask, workers: int | None = None, ray: str | None = None, *, flat: bool = False
) -> Scored:
    """Answer every row of a table and write a file: Parquet, CSV or JSON Lines, by its suffix.

    Continues an interrupted call with the same arguments.

    An older file of answers is kept as OUT.old; anything else there is refused.

    Args: workers, number of processes, by default one per core; ray, the address of a Ray to use, see on_ray.py; flat,
    whether the probability of each class gets a column of its own.
    Raises: ConfigError or DataError before the first row; DataError when a process dies, a part cannot be written or the
    table cannot be read to its end. Finished parts are kept then.
    """
    if out.suffix.lower() not in WRITERS:
        raise ConfigError(f"--out {out}: expected a name that ends in {', '.join(WRITERS)}")
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; give the name of a file")
    note = check_target("--out", out, ANSWERS, {"the folder of the model": ask.model}, {"the table": table})
    source, bundle = Source.of(table), Bundle.load(ask.model)
    Predictor(bundle).check_options(ask.rule, None, ask.coverage)
    if flat and not bundle.task.names:
        raise ConfigError("--probabilities: this model answers a number, which has no classes; leave it out")
    first = next(source.slices(SLICE_ROWS), None)
    notes = check_columns(first.lines, schema_of(bundle), ask.keep, out) if first else []
    parts = Parts(out)
    asked = {"fusion": ask.rule, "coverage": ask.coverage, "keep": list(ask.keep)}
    parts.begin(
        {"table": source.sha256, "model": bundle.manifest.sha256, **asked, "slice": SLICE_ROWS, "version": __version__}
    )
    for each in [*([note] if note else []), *notes]:
        errors.print(each, style="dim", soft_wrap=True)
    if ray is None:
        finished = _on_processes(source, parts, ask, workers or cores())
    else:
        from mla_serve.bulk.on_ray import score_on_ray

        finished = score_on_ray(source, parts, ask, bundle.manifest.sha256, SLICE_ROWS, workers, ray)
    began, rows, new, count = time.perf_counter(), 0, 0, 0
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=errors) as bar:
        task = bar.add_task("rows", total=source.rows)
        for number, done, fresh in finished:
            rows, new, count = rows + done, new + done * fresh, max(count, number + 1)
            bar.update(task, completed=rows)
        bar.update(task, total=rows)
    if not rows:
        parts.discard()
        raise DataError(f"--table {table}: holds no rows; fill it")
    joined = parts.finish(count, flat=flat)
    return Scored(rows, joined.bad, joined.partial, new, time.perf_counter() - began)


def _on_processes(source: Source, parts: Parts, ask: Ask, workers: int) -> Iterator[tuple[int, int, bool]]:
    """Answer the slices without a part on local processes; yield (number, rows, whether new) for each finished slice."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _open, (ask, source.path.parent, parts.out))
    running: dict[Future[int], int] = {}
    try:
        for rows in source.slices(SLICE_ROWS, lambda note: errors.print(f"{source.path.name}: {note}", style="dim")):
            if parts.has(rows.number):
                yield rows.number, len(rows.lines), False
                continue
            running[pool.submit(_score, rows)] = rows.number
            if len(running) >= workers * (1 + QUEUED_SLICES):
                yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool:
        raise DataError("a process that scored rows died; run the same command again to continue") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(running: dict[Future[int], int]) -> Iterator[tuple[int, int, bool]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result(), True


@dataclasses.dataclass
class _Process:
    """The objects that a worker process keeps between slices."""

    scorer: Scorer
    parts: Parts


_process: _Process


def _open(ask: Ask, folder: Path, out: Path) -> None:
    """Initialise a worker process. It ignores Ctrl-C, which the main process handles."""
    global _process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _process = _Process(Scorer(ask, folder), Parts(out))


def _score(rows: Slice) -> int:
    """Answer a slice in a worker process and write its part; return its number of rows."""
    answers = _process.scorer.score(rows)
    _process.parts.keep(rows.number, answers)
    return len(answers)
