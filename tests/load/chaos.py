"""Break things under a running service, and see that nobody gets a wrong answer, a hang or none at all.

python -m tests.load.chaos --model models/digits            all of it
python -m tests.load.chaos --only sigterm --seconds 10      one part
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mla_serve.commands.tune_load import get
from tests.load.clients import Question, Tally, load, questions
from tests.load.part import CLIENTS, Background, eventually, faults
from tests.load.service import Service, serving
from tests.load.swap import disk, swap

BACK_WITHIN_S = 10
PATIENCE_S = 60


def kill(model: Path, seconds: float) -> list[str]:
    """Kill a worker with SIGKILL: the others answer, a new one is there within 10 s, no answer is wrong."""
    with serving(model) as service:
        asked = questions(model)
        background = Background(service, asked, max(seconds, BACK_WITHIN_S + 5))
        time.sleep(2)
        before = _begun(service)
        service.workers()[0].kill()
        start = time.monotonic()
        there = eventually(lambda: _begun(service) > before, PATIENCE_S)
        back = time.monotonic() - start
        tally = background.end()
        again = asyncio.run(load(service.port, asked, 3, CLIENTS))
    print(f"kill           {tally.answered:,} answers, {tally.cut} connections cut, a new worker after {back:.1f} s")
    return faults(
        tally,
        again,
        more_connections_cut_than_clients=tally.cut > CLIENTS,
        no_new_worker_within_10_s=not there or back > BACK_WITHIN_S,
        the_new_worker_drops_connections=again.cut,
    )


def _begun(service: Service) -> int:
    """Return how many workers have begun to answer, since the service was started."""
    return service.log.read_text().count("Service MlaServe initialized")


def sigterm(model: Path, seconds: float) -> list[str]:
    """End the service under load: whatever it accepted it answers, no answer is cut, it is gone in time."""
    asked = questions(model)
    with serving(model, DRAIN_S="2") as service:
        background = Background(service, asked, seconds + 6)
        time.sleep(seconds)
        service.process.send_signal(signal.SIGTERM)
        start, unready = time.monotonic(), False
        while time.monotonic() < start + 1.5:
            with contextlib.suppress(OSError):
                unready = unready or get(service.port, "/readyz")[0] == 503
            time.sleep(0.05)
        code = service.process.wait(60)
        took = time.monotonic() - start
        tally = background.end()
        drained = [line for line in service.log.read_text().splitlines() if "drained:" in line]
    told = tally.statuses[503]  # that the service is ending, by its main process, once the workers accept no more
    accepted = sum(int(line.split("accepted ")[1].split(",")[0]) for line in drained)
    answered = sum(int(line.split("answered ")[1].split(" ")[0]) for line in drained)
    print(
        f"sigterm        {tally.answered - told:,} answers came, and {told:,} that the service ends; the workers accepted "
        f"{accepted:,} and answered {answered:,}; gone after {took:.1f} s with {code}"
    )
    return faults(
        tally,
        half_answers=tally.half,
        accepted_but_not_answered=accepted - answered,
        answers_that_did_not_arrive=answered < tally.answered - told or len(drained) != 2,
        ready_while_draining=not unready,
        not_gone_after_30_s=took > 30,
    )


def crowd(model: Path, seconds: float) -> list[str]:
    """Hold 1,000 idle connections and 200 slow senders: 8 normal clients keep half of their throughput."""
    asked = questions(model)
    with serving(model, HEADER_TIMEOUT_S="600", REQUEST_TIMEOUT_S="30") as service:
        before = asyncio.run(load(service.port, asked, seconds, CLIENTS))
        holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(service.port, asked[0].request))
        holder.start()
        there = eventually(lambda: service.files() > 1200, 60)
        together = asyncio.run(load(service.port, asked, seconds, CLIENTS))
        holder.kill()
        holder.join()
        time.sleep(2)
        after = asyncio.run(load(service.port, asked, seconds, CLIENTS))
    alone = (before.answered + after.answered) / 2
    share = together.answered / max(alone, 1)
    print(f"crowd          {alone / seconds:.0f} answers a second alone, {100 * share:.0f} % of it in the crowd")
    return faults(
        before,
        together,
        after,
        the_crowd_did_not_come=not there,
        normal_connections_cut=together.cut + after.cut,
        less_than_half_of_the_throughput=share < 0.5,
    )


def _hold(port: int, request: bytes) -> None:
    """Be the crowd, in a process of its own: real crowds do not share an interpreter with the normal clients."""
    asyncio.run(_stay(port, request))


async def _stay(port: int, request: bytes) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1000)]
    await asyncio.gather(*(_send_slowly(port, request) for _ in range(200)))
    del idle


async def _send_slowly(port: int, request: bytes) -> None:
    while True:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):
            for at in range(len(request)):
                writer.write(request[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0.5)
        writer.close()


def disconnect(model: Path, seconds: float) -> list[str]:
    """Leave in the middle of an upload, 1,000 times: nothing is held, the others are answered."""
    asked = questions(model)
    with serving(model) as service:
        _among(service, asked, seconds)  # what is opened and allocated once is there by now
        files, memory = service.settle(0, 10), service.memory()
        tally = _among(service, asked, seconds)
        left = service.settle(files)
        growth = service.memory() / memory
        traces = service.log.read_text().count("Traceback")
    print(f"disconnect     1,000 left; memory {100 * (growth - 1):+.1f} %, descriptors {files} -> {left}")
    return faults(
        tally,
        other_connections_cut=tally.cut,
        memory_that_grows_by_more_than_5_percent=growth > 1.05,
        file_descriptors_that_stay_open=left > files,
        tracebacks_in_the_log=traces,
    )


def _among(service: Service, asked: Sequence[Question], seconds: float) -> Tally:
    """Leave 1,000 times while others are answered; returns what those got."""
    background = Background(service, asked, seconds)
    asyncio.run(_leave(service.port, 1000))
    return background.end()


async def _leave(port: int, count: int) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="f"\r\n\r\n' + b"x" * 100_000
    for at in range(0, count, 50):
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(min(50, count - at))]
        for _, writer in streams:
            writer.write(head + b"\r\n\r\n" + part)
        await asyncio.sleep(0.05)
        for number, (_, writer) in enumerate(streams):
            writer.transport.abort() if number % 2 else writer.close()


PARTS: dict[str, Callable[[Path, float], list[str]]] = {
    "kill": kill,
    "sigterm": sigterm,
    "swap": swap,
    "disk": disk,
    "crowd": crowd,
    "disconnect": disconnect,
}


def main() -> None:
    """Run from the command line; ends with 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/digits"))
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        model = shutil.copytree(options.model, Path(folder, "model"))  # of its own: nobody trains it anew meanwhile
        for name, part in PARTS.items():
            if options.only in (None, name):
                found = part(model, options.seconds)
                print(f"VERDICT {name:10} {'FAILED: ' + ', '.join(found) if found else 'passed'}", flush=True)
                failed = failed or bool(found)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
