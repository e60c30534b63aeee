"""`make bench-profile`: where the processor time of a request goes.

The same requests go through three stages, each of which holds the one before: the predictor alone; the service's
application in this process, which reads the form and answers in a thread, without a server; the whole service over as
many connections, whose time is read from /proc. What a stage costs more than the one before is what it adds. Many short
rounds, interleaved; of each stage the first quartile, because whatever else runs can only add. Takes three minutes,
writes profile.md.

    python -m benchmarks.serving.profile
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from starlette.types import Message, Receive, Scope

from benchmarks.serving.load import Case, cases_of, measure_load, shuffled
from benchmarks.serving.processes import Server, serving
from benchmarks.serving.systems import SYSTEMS
from benchmarks.shared import machine_in_full, write_whole
from mla_serve.bundle.predictor import Hooks, Predictor
from mla_serve.commands.tune_load import BOUNDARY, HEAD_END, form_request
from mla_serve.console import console, main
from mla_serve.serve.metrics import metrics_buffer
from mla_serve.serve.models.current_model import CurrentModel
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings

WARM_UP_S = 0.3  # of the real service, which was stopped meanwhile
Times = dict[str, list[float]]
# Stages from the inside out, and what each adds to the one before.
STAGES = {
    "predictor": "the predictor, as the ceiling of serve.md runs it",
    "application": "options, the form, a thread and back, limits, JSON, headers",
    "service": "uvicorn, BentoML, sockets, what the processes cost each other",
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


class Application:
    """The service's application in this process, asked without a server."""

    def __init__(self, config: ProfileConfig) -> None:
        """Open the bundle and build the application."""
        settings = Settings(model=config.model, device="cpu")
        self.predictor = open_predictor(settings)
        self.cases = cases_of(self.predictor.bundle)
        self._application = CurrentModel(settings)
        self._application.serve(self.predictor)
        self._bodies = {id(case): form_request(case.sample).partition(HEAD_END)[2] for case in self.cases}

    async def answer(self, case: Case) -> list[Message]:
        """Return the messages of the answer to a case."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await self._application(*self._request(case), send)
        return sent

    async def answer_all(self, cases: Iterator[Case], at_once: int) -> None:
        """Answer cases, so many at once."""

        async def answer_in_turn() -> None:
            for case in cases:
                await self.answer(case)

        await asyncio.gather(*(answer_in_turn() for _ in range(at_once)))

    def _request(self, case: Case) -> tuple[Scope, Receive]:
        """Make what a server would make of a case."""
        body = self._bodies[id(case)]
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await _never()

        return _scope(len(body)), receive


async def _never() -> Message:
    """Wait as for a client that stays connected and sends no more."""
    message: Message = await asyncio.get_running_loop().create_future()
    return message


def _scope(length: int) -> Scope:
    content_type = f"multipart/form-data; boundary={BOUNDARY}".encode()
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/predict", "raw_path": b"/predict", "query_string": b"", "root_path": "", "state": {},
        "server": ("127.0.0.1", 3000), "client": ("127.0.0.1", 50000),
        "headers": [(b"host", b"load"), (b"content-type", content_type), (b"content-length", str(length).encode())],
    }  # fmt: skip


def measure(config: ProfileConfig) -> tuple[Times, Times]:
    """Return the processor time of a request in us, a value for each round: by stage, and by part of the predictor."""
    application = Application(config)
    by_stage: Times = defaultdict(list)
    by_part: Times = defaultdict(list)
    service = SYSTEMS[0]
    environment = service.environment(config.model.resolve(), {})
    with (
        serving(service.command, environment, service.ready_path) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        server.settle()
        server.pause()
        gc.collect()
        gc.freeze()
        for number in range(config.rounds):
            stages = _round(config, application, server, runner, number)
            inside = parts(application.predictor, list(_cases(application, config, number)))
            metrics_buffer().flush()  # as often as the service does, so that what it collects does not grow
            if number:  # the first is the warm-up
                _append(by_stage, stages)
                _append(by_part, inside)
    return by_stage, by_part


def _append(times: Times, new: Mapping[str, float]) -> None:
    for name, us in new.items():
        times[name].append(us)


def _round(
    config: ProfileConfig, application: Application, server: Server, runner: asyncio.Runner, number: int
) -> dict[str, float]:
    """Measure every stage once, in us a request."""

    def predict() -> None:
        for case in _cases(application, config, number):
            application.predictor.predict([case.sample])

    def answer() -> None:
        runner.run(application.answer_all(_cases(application, config, number), config.connections))

    return {
        "predictor": _processor_us(predict) / config.requests,
        "application": _processor_us(answer) / config.requests,
        "service": _service_us(server, application.cases, config, number),
    }


def _cases(application: Application, config: ProfileConfig, seed: int) -> Iterator[Case]:
    return itertools.islice(shuffled(application.cases, seed), config.requests)


def _processor_us(task: Callable[[], None]) -> float:
    before = time.process_time()
    task()
    return 1e6 * (time.process_time() - before)


def _service_us(server: Server, cases: Sequence[Case], config: ProfileConfig, seed: int) -> float:
    """Ask the real service, and return its processes' time for a request."""
    tree, cpu = server.tree(), {}

    def mark(begins: bool) -> None:
        cpu[begins] = tree.cpu_s()

    with server.resumed():
        questions = SYSTEMS[0].questions(cases, seed)
        load = measure_load(server.port, questions, config.connections, config.seconds, WARM_UP_S, mark)
    return 1e6 * (cpu[False] - cpu[True]) / load.answers


def parts(predictor: Predictor, cases: Sequence[Case]) -> dict[str, float]:
    """Time the predictor's own parts on the same cases, in us a request."""
    spent: dict[str, float] = defaultdict(float)
    for case in cases:
        clock = _Clock(spent)
        decoded = {}
        for name, payload in case.sample.items():
            decoded[name] = predictor.decode_one(name, payload)
            clock.lap(f"decode {name}")
        outputs = predictor.run_graphs(
            [decoded],
            Hooks(
                lambda _, clock=clock: clock.lap("heads and familiarity"),  # type: ignore[misc]
                encode=clock.around(predictor),
            ),
        )
        clock.lap("heads and familiarity")
        predictor.answer_from(outputs)
        clock.lap("fuse, explain, name")
    return {name: 1e6 * seconds / len(cases) for name, seconds in spent.items()}


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


def markdown(config: ProfileConfig, by_stage: Times, by_part: Times) -> str:
    """Write both tables."""
    quartile = {name: float(np.percentile(values, 25)) for name, values in {**by_stage, **by_part}.items()}
    whole, before, lines = quartile["service"], 0.0, []
    for name, adds in STAGES.items():
        own, before = quartile[name] - before, quartile[name]
        spread = f"{np.median(by_stage[name]):.0f}, {min(by_stage[name]):.0f}"
        lines.append(f"| {name} | {adds} | {own:.0f} | {100 * own / whole:.0f} % | {before:.0f} | {spread} |")
    rows = [f"| {name} | {quartile[name]:.0f} | {100 * quartile[name] / whole:.0f} % |" for name in sorted(by_part)]
    return f"""# Where the processor time of a request goes

`make bench-profile` on {time.strftime("%Y-%m-%d")}: {config.model}, every subset alike, {config.connections} requests at once, {config.requests} of each stage in each
of {config.rounds - 1} rounds. Microseconds of processor time a request, of all threads and processes together; first quartiles of the
rounds. {machine_in_full()}; load after: {os.getloadavg()[0]:.2f}.

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
    page = markdown(config, *measure(config))
    write_whole(config.out, page)
    console.print(page, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(run, ProfileConfig, needs="train")
