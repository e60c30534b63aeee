"""Answer a table with Ray Data: one task reads slices, actors answer them, and this machine writes the parts.

A slice and its answers are one value each, so that Ray distributes whole slices, whatever their size. Parts are numbered
and may arrive in any order. An error on another machine is returned as a value and raised here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from mla_serve.bulk import LOCAL
from mla_serve.bulk.parts import Parts
from mla_serve.bulk.score import Ask, Scorer
from mla_serve.bulk.slices import Slice, Source
from mla_serve.bundle.runtime import cores
from mla_serve.errors import ConfigError, DataError, MlaServeError

AUTO = "auto"  # address: the Ray that runs on this machine
CLIENT = "ray://"
REACH_S = 5.0
STATUS_S = 60.0  # for Ray's own command, which takes seconds to be imported
LEAVE_S = 60.0  # for a Ray that is started here to end
STORE_BYTES = 256 * 2**20  # object store of a Ray that is started here: some slices and their answers
QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
COLUMNS = ("number", "rows", "content", "fault")
Answers = tuple[int, int, bytes | None]  # number, rows, Arrow stream, or None for a slice that was finished before


@dataclasses.dataclass(frozen=True)
class Job:
    """The work for all machines: the request, the table and its size in bytes, the bundle's sha256, rows of a slice, and the
    numbers of finished slices.
    """

    ask: Ask
    source: Source
    table_bytes: int
    bundle: str
    size: int
    done: frozenset[int]


def score_on_ray(
    source: Source, parts: Parts, ask: Ask, bundle: str, size: int, workers: int | None, address: str
) -> Iterator[tuple[int, int, bool]]:
    """Answer the slices without a part; yield (number, rows, whether new) for each finished slice.

    Args: bundle, its sha256; size, rows of a slice; workers, actors, as many as Ray has processors when left out;
    address, local, auto or HOST:PORT.
    Raises: ConfigError when Ray cannot be reached, or a machine lacks the table or the bundle; DataError when the table
    cannot be read to its end, or Ray gives up; finished parts are kept.
    """
    ask = dataclasses.replace(ask, model=ask.model.resolve())
    job = Job(ask, source, source.path.stat().st_size, bundle, size, parts.finished())
    for number, rows, content in _driven(job, workers, address):
        if content is not None:
            parts.keep(number, pa.ipc.open_stream(content).read_all())
        yield number, rows, content is not None


def _driven(job: Job, workers: int | None, address: str) -> Iterator[Answers]:
    """Use Ray in a process of its own, and yield the answers that it sends.

    When a thread of Ray Data finds that Ray was shut down, Ray ends the whole process without a message. By then this
    process has sent all answers.
    """
    context = multiprocessing.get_context("spawn")
    told, tells = context.Pipe(duplex=False)
    process = context.Process(target=_drive, args=(tells, job, workers, address), daemon=True)
    process.start()
    tells.close()
    ended = False
    try:
        while not ended:
            said = told.recv()
            ended = said is None or isinstance(said, MlaServeError)
            if isinstance(said, MlaServeError):
                raise said
            if said is not None:
                yield said
    except EOFError:
        raise DataError("the process that drives Ray died; run the same command again to continue") from None
    finally:
        if not ended and process.pid:
            os.kill(process.pid, signal.SIGINT)
        process.join(LEAVE_S)
        process.kill()
        process.join()


def _drive(tells: Connection, job: Job, workers: int | None, address: str) -> None:
    """Send the answers of each slice, then the error that ended them, or None."""
    signal.signal(signal.SIGINT, _interrupt_once)
    gone = contextlib.suppress(KeyboardInterrupt, BrokenPipeError)  # the other process has ended
    with gone, _faults_told(tells), _connected(address, workers), _faults_told(tells):  # told before Ray ends
        for answers in _stream(job, workers):
            tells.send(answers)
        tells.send(None)


@contextlib.contextmanager
def _faults_told(tells: Connection) -> Iterator[None]:
    try:
        yield
    except MlaServeError as error:
        tells.send(error)


def _interrupt_once(number: int, _: object) -> None:
    """Raise KeyboardInterrupt once. Ctrl-C arrives twice: from the terminal and from the process that started this one."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _stream(job: Job, workers: int | None) -> Iterator[Answers]:
    """Yield the answers of each slice. Raises: DataError when Ray gives up."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 1  # byte, so that every slice gets a block of its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    most = workers or max(1, int(ray.cluster_resources()["CPU"]))
    actors = ActorPoolStrategy(min_size=1, max_size=most, initial_size=most)
    answers = (
        ray.data.from_items([{"table": str(job.source.path)}])
        .map_batches(_read, fn_args=(job,), batch_format="pyarrow", num_cpus=0)
        .map_batches(
            Actor, fn_constructor_args=(job,), batch_format="pyarrow", batch_size=1, compute=actors, num_cpus=1
        )
    )
    try:
        for block in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in block.to_pylist():
                if row["fault"] is not None:
                    raise pickle.loads(row["fault"])
                yield row["number"], row["rows"], row["content"]
    except ray.exceptions.RayError as error:
        raise DataError(f"Ray gave up: {_first_line(error)}; run the same command again to continue") from None


def _read(_: pa.Table, job: Job) -> Iterator[pa.Table]:
    """Read the table slice by slice; leave out the content of finished slices."""
    try:
        _check_table(job)
        for rows in job.source.slices(job.size):
            content = None if rows.number in job.done else pickle.dumps(rows)
            yield _row(number=rows.number, rows=len(rows.lines), content=content)
    except (MlaServeError, OSError) as error:
        yield _fault(error)


class Actor:
    """A process that answers slices, on the machine that Ray chose."""

    def __init__(self, job: Job) -> None:
        """Keep the job. The bundle is opened with the first slice, because an error can be returned from there."""
        self.job = job
        self.scorer: Scorer | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        """Answer one slice."""
        row: Mapping[str, Any] = block.to_pylist()[0]
        if row["content"] is None:
            return block
        try:
            self.scorer = self.scorer or _open(self.job)
        except MlaServeError as error:
            return _fault(error)
        rows: Slice = pickle.loads(row["content"])
        sink = pa.BufferOutputStream()
        answers = self.scorer.score(rows)
        with pa.ipc.new_stream(sink, answers.schema) as writer:
            writer.write_table(answers)
        return _row(number=rows.number, rows=row["rows"], content=sink.getvalue().to_pybytes())


def _open(job: Job) -> Scorer:
    """Open the bundle, and check that this machine sees the same bundle and table as the driver.

    Raises: ConfigError, or BundleError when there is no bundle.
    """
    _check_table(job)
    scorer = Scorer(job.ask, job.source.path.parent)
    if scorer.predictor.bundle.manifest.sha256 != job.bundle:
        raise ConfigError(
            f"--ray: {socket.gethostname()} has another bundle in {job.ask.model}; give all machines the same one"
        )
    return scorer


def _check_table(job: Job) -> None:
    """Check that this machine sees the table of the driver, and so the files beside it. Raises: ConfigError."""
    table = job.source.path
    if not table.is_file() or table.stat().st_size != job.table_bytes:
        raise ConfigError(
            f"--ray: {socket.gethostname()} has no such file, or another: {table}; put the table, its media files and the "
            "bundle where all machines see them at the same path"
        )


def _row(**given: object) -> pa.Table:
    types = (pa.int64(), pa.int64(), pa.large_binary(), pa.binary())
    return pa.table({name: pa.array([given.get(name)], of) for name, of in zip(COLUMNS, types, strict=True)})


def _fault(error: Exception) -> pa.Table:
    raised = error if isinstance(error, MlaServeError) else DataError(f"--ray: {socket.gethostname()}: {error}")
    return _row(fault=pickle.dumps(raised))


@contextlib.contextmanager
def _connected(address: str, workers: int | None) -> Iterator[None]:
    """Connect to Ray, or start one here, until the block ends. Raises: ConfigError when it cannot be reached."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        options |= {"num_cpus": workers or cores(), "include_dashboard": False, "object_store_memory": STORE_BYTES}
    else:
        _find_running() if address == AUTO else _reach(address)
    try:
        with _hushed():
            ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        raise ConfigError(
            f"--ray {address}: {_first_line(error)}; expected auto or HOST:PORT of a Ray of this version whose machines "
            "include this one; one that asks for a token wants RAY_AUTH_MODE=token in the environment"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Let nothing through to standard error until the block ends: Ray's own core first says there that it will be quiet."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reach(address: str) -> None:
    """Knock: Ray itself would knock for minutes. Raises: ConfigError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or CLIENT in address:
        raise ConfigError(
            f"--ray {address}: expected auto or HOST:PORT, or nothing for a Ray that is started here. Ray Data cannot be "
            "reached by ray://: run this on a machine of the cluster with --ray auto, as ray job submit does"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray {address}: cannot be reached ({error}); start Ray there, or leave the address out to start one here"
        ) from None


def _find_running() -> None:
    """Ask `ray status` with a time limit: ray.init would try for minutes to reach a Ray that is gone. Raises: ConfigError."""
    command = [str(Path(sys.executable).with_name("ray")), "status"]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=STATUS_S)
    except (OSError, subprocess.SubprocessError):
        raise ConfigError("--ray auto: no Ray runs here; start one, or leave auto out to start one for this") from None


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
