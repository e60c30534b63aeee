"""`python -m benchmarks.serving.profile`: where the processor time of a request goes, layer by layer.

The service is built up in this process from the inside out, and the same requests go through each stage of it: the
predictor alone, with what turns a request into an answer, with the thread hop, with the form, and so on to uvicorn's protocol
with a transport that is no socket. What a layer costs is what its stage costs more than the one inside it. Last the real
service is asked over as many connections, and its processes' time is read from /proc: what is more there is the kernel, its
sockets, and processes that take the caches from each other. Many short rounds, interleaved; of each stage the first
quartile, because whatever else runs can only add.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
import uvloop
from starlette.requests import Request
from starlette.types import Message, Receive, Scope
from uvicorn.server import ServerState

from benchmarks.serving.load import Case, cases_of, measure_load, shuffled
from benchmarks.serving.processes import Server, serving
from benchmarks.serving.serve import machine
from benchmarks.serving.systems import SYSTEMS
from mla_serve.cli import console, main
from mla_serve.predictor import Predictor
from mla_serve.serve import connection
from mla_serve.serve.bench import Stopwatch
from mla_serve.serve.drain import Drain, Drained
from mla_serve.serve.fields import Options
from mla_serve.serve.identity import Identity
from mla_serve.serve.metrics import tally
from mla_serve.serve.models.current_model import Mounted, PastBentoML
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.request_id import Identity
from mla_serve.serve.settings import Settings
from mla_serve.tune.load import BOUNDARY, HEAD_END, form_request

WARM_UP_S = 0.3  # of the real service, after its sleep
OPTIONS = Options()
One = Callable[[Case], Awaitable[Any]]
Found = dict[str, list[float]]
# Stages from the inside out, and what each adds to the one before.
STAGES = {
    "predictor": "the predictor, as the ceiling of serve.md runs it",
    "answer": "options, stopwatch, tally, JSON",
    "hop": "to a thread and back",
    "handler": "the form, payloads, the response",
    "application": "security headers, limits, deadline",
    "worker": "request id, draining, BentoML and FastAPI passed by",
    "protocol": "uvicorn: HTTP parsed, tasks, headers written",
    "service": "kernel, sockets, what the processes cost each other, BentoML's own",
}


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """Say where the processor time of a request goes."""

    model: Path = Path("models/digits")
    """The bundle; with golden samples."""
    requests: int = 140
    """Requests of each stage in each round."""
    rounds: int = 41
    """Interleaved rounds; the first is not counted."""
    seconds: float = 0.7
    """For how long the real service is asked in each round."""
    connections: int = 8
    """Requests that are under way at once, from the thread hop outwards."""
    out: Path = Path("benchmarks/serving/profile.md")
    """File that the table is written to."""


class Layers:
    """The service's own parts, and one case through each stage of them."""

    def __init__(self, config: ProfileConfig) -> None:
        """Open the bundle and build a worker's application around it."""
        self.settings = Settings(model=config.model, device="cpu")
        self.predictor = open_predictor(self.settings)
        self.cases = cases_of(self.predictor.bundle)
        mounted = Mounted(self.settings)
        mounted.take(self.predictor)
        self._application = mounted
        assert mounted.routes is not None
        self._routes = mounted.routes
        inner = PastBentoML(mounted, mounted)
        self.worker = Drained(Identity(inner, mounted.name, log=False), Drain(self.settings))
        self.requests = {id(case): form_request(case.sample) for case in self.cases}

    def watch(self) -> Stopwatch:
        """Start a stopwatch as a request does."""
        return Stopwatch(self.settings.request_timeout_s, self.settings.max_decode_s)

    def answer(self, case: Case) -> None:
        """Answer a sample, without a loop."""
        self._routes.answerer.predict(case.sample, OPTIONS, self.watch())

    async def hop(self, case: Case) -> None:
        """Answer it in a thread."""
        work = functools.partial(self._routes.answerer.predict, case.sample, OPTIONS)
        await self._routes.bench.run(work, self.watch(), _stay)

    async def handler(self, case: Case) -> None:
        """Answer a form."""
        await self._routes.predict(Request(*self._asked(case)))

    async def application(self, case: Case) -> None:
        """Answer through our own layers."""
        await self._application(*self._asked(case), _nowhere)

    async def through_worker(self, case: Case) -> None:
        """Answer through a worker's whole application."""
        await self.worker(*self._asked(case), _nowhere)

    def _asked(self, case: Case) -> tuple[Scope, Receive]:
        """Make what uvicorn would make of a case."""
        body = self.requests[id(case)].partition(HEAD_END)[2]
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return waiting.pop() if waiting else await _stay()

        return _scope(len(body)), receive


async def _stay() -> Message:
    message: Message = await asyncio.get_running_loop().create_future()
    return message


async def _nowhere(message: Message) -> None:
    """Send nothing."""


def _scope(length: int) -> Scope:
    content_type = f"multipart/form-data; boundary={BOUNDARY}".encode()
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/predict", "raw_path": b"/predict", "query_string": b"", "root_path": "", "state": {},
        "server": ("127.0.0.1", 3000), "client": ("127.0.0.1", 50000),
        "headers": [(b"host", b"load"), (b"content-type", content_type), (b"content-length", str(length).encode())],
    }  # fmt: skip


class Transport(asyncio.Transport):
    """No socket: takes an answer, and calls for the next request."""

    def __init__(self, answered: Callable[[], None]) -> None:
        """Call `answered` at the end of each answer."""
        super().__init__({"sockname": ("127.0.0.1", 3000), "peername": ("127.0.0.1", 50000)})
        self._answered = answered
        self._written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take a piece of an answer."""
        self._written += data
        head, found, body = self._written.partition(HEAD_END)
        if found and len(body) == int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            assert head[9:12] == b"200", self._written
            self._written = b""
            self._answered()

    def is_closing(self) -> bool:
        """Stay open."""
        return False

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def pause_reading(self) -> None:
        """Read on: there is one request at a time."""

    def resume_reading(self) -> None:
        """Read on."""


async def through_protocol(layers: Layers, order: Iterator[Case], connections: int) -> None:
    """Send cases through uvicorn's protocol with the limits of `connection`."""
    connection.install(layers.settings)
    config = uvicorn.Config(layers.worker, lifespan="off", log_config=None, access_log=False)
    config.load()
    protocol: Any = config.http_protocol_class
    loop, state = asyncio.get_running_loop(), ServerState()

    async def client() -> None:
        made, ended = protocol(config=config, server_state=state, app_state={}, _loop=loop), asyncio.Event()

        def go_on() -> None:
            if (case := next(order, None)) is None:
                ended.set()
            else:
                loop.call_soon(made.data_received, layers.requests[id(case)])

        made.connection_made(Transport(go_on))
        go_on()
        await ended.wait()
        made.connection_lost(None)

    await asyncio.gather(*(client() for _ in range(connections)))


async def at_once(one: One, order: Iterator[Case], connections: int) -> None:
    """Send cases through a stage, so many at once."""

    async def client() -> None:
        for case in order:
            await one(case)

    await asyncio.gather(*(client() for _ in range(connections)))


def stage_runs(layers: Layers, connections: int, runner: asyncio.Runner) -> dict[str, Callable[[Iterator[Case]], None]]:
    """Say how each stage but the last is run: cases in, nothing out."""

    def in_turn(one: Callable[[Case], Any]) -> Callable[[Iterator[Case]], None]:
        def run(order: Iterator[Case]) -> None:
            for case in order:
                one(case)

        return run

    def on_loop(one: One) -> Callable[[Iterator[Case]], None]:
        return lambda order: runner.run(at_once(one, order, connections))

    return {
        "predictor": in_turn(lambda case: layers.predictor.predict([case.sample])),
        "answer": in_turn(layers.answer),
        "hop": on_loop(layers.hop),
        "handler": on_loop(layers.handler),
        "application": on_loop(layers.application),
        "worker": on_loop(layers.through_worker),
        "protocol": lambda order: runner.run(through_protocol(layers, order, connections)),
    }


def measure(config: ProfileConfig) -> tuple[Found, Found]:
    """Return the processor time of a request in us, a value for each round: by stage, and by part of the predictor."""
    layers = Layers(config)
    found: Found = defaultdict(list)
    inside: Found = defaultdict(list)
    ours = SYSTEMS[0]
    environment = ours.environment(config.model.resolve(), {})
    with serving(ours.command, environment, ours.ready_path) as server, _runner() as runner:
        server.settle()
        server.sleep()
        runs = stage_runs(layers, config.connections, runner)
        gc.collect()
        gc.freeze()
        for number in range(config.rounds):
            took = {name: _timed(run, _order(layers, config, number)) / config.requests for name, run in runs.items()}
            took["service"] = _served(server, layers.cases, config, number)
            tally().count()
            for name, us in took.items() if number else ():
                found[name].append(us)
            for name, us in parts(layers.predictor, list(_order(layers, config, number))).items() if number else ():
                inside[name].append(us)
    return found, inside


def _runner() -> asyncio.Runner:
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _order(layers: Layers, config: ProfileConfig, seed: int) -> Iterator[Case]:
    return itertools.islice(shuffled(layers.cases, seed), config.requests)


def _timed(run: Callable[[Iterator[Case]], None], order: Iterator[Case]) -> float:
    before = time.process_time()
    run(order)
    return 1e6 * (time.process_time() - before)


def _served(server: Server, found: Sequence[Case], config: ProfileConfig, seed: int) -> float:
    """Ask the real service, and return its time for a request."""
    tree, cpu = server.tree(), {}

    def mark(begins: bool) -> None:
        cpu[begins] = tree.cpu_s()

    with server.awake():
        questions = SYSTEMS[0].questions(found, seed)
        heard = measure_load(server.port, questions, config.connections, config.seconds, WARM_UP_S, mark)
    return 1e6 * (cpu[False] - cpu[True]) / heard.answers


def parts(predictor: Predictor, found: Sequence[Case]) -> dict[str, float]:
    """Time the predictor's own parts on the same cases, in us a request."""
    spent: dict[str, float] = defaultdict(float)
    for case in found:
        clock = _Clock(spent)
        decoded = {}
        for name, payload in case.sample.items():
            decoded[name] = predictor.decode_one(name, payload)
            clock.lap(f"decode {name}")
        outputs = predictor.run_graphs(
            [decoded],
            lambda _, clock=clock: clock.lap("heads and familiarity"),  # type: ignore[misc]
            clock.around(predictor),
        )
        clock.lap("heads and familiarity")
        predictor.answer_from(outputs)
        clock.lap("fuse, explain, name")
    return {name: 1e6 * seconds / len(found) for name, seconds in spent.items()}


class _Clock:
    """This thread's processor time, split at each lap."""

    def __init__(self, spent: dict[str, float]) -> None:
        self._spent = spent
        self._last = time.thread_time()

    def lap(self, name: str) -> None:
        now = time.thread_time()
        self._spent[name] += now - self._last
        self._last = now

    def around(self, predictor: Predictor) -> Callable[[str, Sequence[Any]], Any]:
        """Return the predictor's `encode`, timed apart from what surrounds it."""

        def encode(name: str, arrays: Sequence[Any]) -> Any:
            self.lap("heads and familiarity")
            features = predictor.encode(name, arrays)
            self.lap(f"graph {name}")
            return features

        return encode


def markdown(config: ProfileConfig, found: Found, inside: Found) -> str:
    """Write both tables."""
    first = {name: float(np.percentile(values, 25)) for name, values in {**found, **inside}.items()}
    whole, before, lines = first["service"], 0.0, []
    for name, adds in STAGES.items():
        own, before = first[name] - before, first[name]
        middle = f"{np.median(found[name]):.0f}, {min(found[name]):.0f}"
        lines.append(f"| {name} | {adds} | {own:.0f} | {100 * own / whole:.0f} % | {before:.0f} | {middle} |")
    rows = [f"| {name} | {first[name]:.0f} | {100 * first[name] / whole:.0f} % |" for name in sorted(inside)]
    return f"""# Where the processor time of a request goes

`python -m benchmarks.serving.profile` on {time.strftime("%Y-%m-%d")}: {config.model}, every subset alike, {config.connections} requests at once,
{config.requests} of each stage in each of {config.rounds - 1} rounds. Microseconds of processor time a request, of all threads and processes
together; first quartiles of the rounds. {machine()}; load after: {os.getloadavg()[0]:.2f}.

| stage | what it adds to the one before | adds | share | so far | median, least |
|---|---|--:|--:|--:|--:|
{chr(10).join(lines)}

Inside the predictor, on one thread, with nothing else between; shares of the whole request:

| part | us a request | share |
|---|--:|--:|
{chr(10).join(rows)}
"""


def run(config: ProfileConfig) -> None:
    """Measure, print and write."""
    text = markdown(config, *measure(config))
    config.out.write_text(text)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(run, ProfileConfig, needs="train")
