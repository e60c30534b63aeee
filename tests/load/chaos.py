"""Break things under a running service, and see that nobody gets a wrong answer, a hang or none at all.

python -m tests.load.chaos --model models/digits            all of it
python -m tests.load.chaos --only sigterm --seconds 10      one part
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.load.clients import Question, Tally, load, questions
from tests.load.http import connect, get
from tests.load.service import Service, serving

CLIENTS = 8
BACK_WITHIN_S = 10


class Background:
    """Load from a thread, while the main one does harm."""

    def __init__(self, service: Service, asked: Sequence[Question], seconds: float, clients: int = CLIENTS) -> None:
        """Begin."""
        self.tally = Tally()
        self._thread = threading.Thread(target=self._run, args=(service.port, asked, seconds, clients))
        self._thread.start()

    def _run(self, port: int, asked: Sequence[Question], seconds: float, clients: int) -> None:
        self.tally = asyncio.run(load(port, asked, seconds, clients))

    def end(self) -> Tally:
        """Wait for the end; returns what came back."""
        self._thread.join()
        return self.tally


def kill(model: Path, seconds: float) -> list[str]:
    """Kill a worker with SIGKILL: the others answer, a new one is there within 10 s, no answer is wrong."""
    with serving(model) as service:
        background = Background(service, questions(model), max(seconds, BACK_WITHIN_S + 5))
        time.sleep(2)
        victim, before = service.workers()[0], len(service.workers())
        victim.kill()
        start, back = time.monotonic(), 0.0
        while time.monotonic() < start + BACK_WITHIN_S and not back:
            time.sleep(0.2)
            listening = [worker for worker in service.workers() if worker.pid != victim.pid and _serves(worker)]
            back = time.monotonic() - start if len(listening) == before else 0.0
        tally = background.end()
        again = asyncio.run(load(service.port, questions(model), 3, CLIENTS))
    print(f"kill           {tally.answered:,} answers, {tally.cut} connections cut, a new worker after {back:.1f} s")
    return _faults(
        {
            "wrong answers": tally.wrong + again.wrong,
            "5xx": tally.failures + again.failures,
            "more connections cut than clients": tally.cut > CLIENTS,
            "no new worker within 10 s": not back,
            "the new worker drops connections": again.cut,
        }
    )


def _serves(worker: psutil.Process) -> bool:
    """Whether a worker has come up: it has made its threads."""
    with contextlib.suppress(psutil.Error):
        return worker.num_threads() > 3
    return False


def sigterm(model: Path, seconds: float) -> list[str]:
    """End the service under load: whatever it accepted it answers, no answer is cut, it is gone in time."""
    asked = questions(model)
    with serving(model, DRAIN_S="2") as service:
        background = Background(service, asked, seconds + 6)
        time.sleep(seconds)
        service.process.send_signal(signal.SIGTERM)
        start, unready = time.monotonic(), False
        while time.monotonic() < start + 1.5:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                unready = unready or asyncio.run(get(service.port, "/readyz"))[0] == 503
            time.sleep(0.05)
        code = service.process.wait(60)
        took = time.monotonic() - start
        tally = background.end()
        drained = [line for line in service.log.read_text().splitlines() if "drained:" in line]
    accepted = sum(int(line.split("accepted ")[1].split(",")[0]) for line in drained)
    answered = sum(int(line.split("answered ")[1].split(" ")[0]) for line in drained)
    print(
        f"sigterm        {tally.answered:,} answers came; the workers accepted {accepted:,} and answered {answered:,}; "
        f"gone after {took:.1f} s with {code}"
    )
    return _faults(
        {
            "wrong answers": tally.wrong,
            "5xx": tally.failures,
            "half answers": tally.half,
            "accepted but not answered": accepted - answered,
            "answers that did not arrive": answered < tally.answered or len(drained) != 2,
            "ready while draining": not unready,
            "not gone after 30 s": took > 30,
        }
    )


def swap(model: Path, seconds: float) -> list[str]:
    """Swap models under load; then a half-copied one, and one that ran out of disk while it was copied."""
    with tempfile.TemporaryDirectory() as folder:
        first, second, link = Path(folder, "first"), Path(folder, "second"), Path(folder, "current")
        shutil.copytree(model, first)
        _rename(shutil.copytree(model, second))
        _point(link, first)
        asked = questions(first, second)
        with serving(link) as service:
            background = Background(service, asked, seconds + 30)
            harm = [_taken(service, link, second, asked), _half_copied(service, link, first)]
            harm += [_disk_full(service, link, second), _taken(service, link, first, asked)]
            tally = background.end()
    print(f"swap           {tally.answered:,} answers by {len(tally.models)} models, {tally.cut} connections cut")
    return _faults(
        {
            "wrong answers": tally.wrong,
            "5xx": tally.failures,
            "requests dropped": tally.cut,
            "a model that was not taken up": len(tally.models) < 2,
            **{fault: True for fault in harm if fault},
        }
    )


def _point(link: Path, target: Path) -> None:
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


def _rename(folder: Path) -> None:
    """Make another model of the same graphs: a manifest of another hash."""
    from mla_serve.bundle import Bundle, write_manifest

    manifest = Bundle.load(folder).manifest.model_copy(update={"created": "2000-01-01T00:00:00Z"})
    (folder / "manifest.json").unlink()
    write_manifest(folder, manifest)


def _served(service: Service) -> tuple[set[str], list[object]]:
    """Ask /model often enough to meet every worker: the hashes served, the refusals shown."""
    import json

    replies = [json.loads(asyncio.run(get(service.port, "/model"))[1]) for _ in range(12)]
    return {reply["sha256"] for reply in replies}, [reply["update_refused"] for reply in replies]


def _eventually(true: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.3)
    return False


def _taken(service: Service, link: Path, target: Path, asked: Sequence[Question]) -> str:
    from mla_serve.bundle import Bundle

    _point(link, target)
    wanted = {Bundle.load(target).manifest.sha256}
    assert wanted <= set(asked[0].answers)
    return "" if _eventually(lambda: _served(service)[0] == wanted) else f"{target.name} was not taken up by all"


def _half_copied(service: Service, link: Path, source: Path) -> str:
    half, before = link.with_name("half"), _served(service)[0]
    half.mkdir()
    shutil.copy(source / "manifest.json", half)
    _point(link, half)
    refused = _eventually(lambda: all(_served(service)[1]))
    return "" if refused and _served(service)[0] == before else "a half-copied bundle was not refused by all"


def _disk_full(service: Service, link: Path, source: Path) -> str:
    """Copy until the disk is full: the last file is cut, the rest is missing."""
    full, before = link.with_name("full"), _served(service)[0]
    shutil.copytree(source, full)
    graph = sorted(full.glob("*.onnx"))[-1]
    os.truncate(graph, graph.stat().st_size // 2)
    _point(link, full)
    time.sleep(3)
    refused = _eventually(lambda: all(_served(service)[1]))
    return "" if refused and _served(service)[0] == before else "a cut bundle was not refused by all"


def crowd(model: Path, seconds: float) -> list[str]:
    """Hold 1,000 idle connections and 200 slow senders: 8 normal clients keep half of their throughput."""
    asked = questions(model)
    with serving(model, HEADER_TIMEOUT_S="600", REQUEST_TIMEOUT_S="30") as service:
        before = asyncio.run(load(service.port, asked, seconds, CLIENTS))
        holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(service.port, asked[0].request))
        holder.start()
        there = _eventually(lambda: service.files() > 1200, 60)
        together = asyncio.run(load(service.port, asked, seconds, CLIENTS))
        holder.kill()
        holder.join()
        time.sleep(2)
        after = asyncio.run(load(service.port, asked, seconds, CLIENTS))
    alone = (before.answered + after.answered) / 2
    share = together.answered / max(alone, 1)
    print(f"crowd          {alone / seconds:.0f} answers a second alone, {100 * share:.0f} % of it in the crowd")
    return _faults(
        {
            "the crowd did not come": not there,
            "wrong answers": before.wrong + together.wrong + after.wrong,
            "5xx": before.failures + together.failures + after.failures,
            "normal connections cut": together.cut + after.cut,
            "less than half of the throughput": share < 0.5,
        }
    )


def _hold(port: int, request: bytes) -> None:
    """Be the crowd, in a process of its own: it shall not slow the normal clients down by itself."""
    asyncio.run(_stay(port, request))


async def _stay(port: int, request: bytes) -> None:
    idle = [await connect(port) for _ in range(1000)]
    await asyncio.gather(*(_send_slowly(port, request) for _ in range(200)))
    del idle


async def _send_slowly(port: int, request: bytes) -> None:
    while True:
        _, writer = await connect(port)
        with contextlib.suppress(OSError):
            for at in range(len(request)):
                writer.write(request[at : at + 1])
                await writer.drain()
                await asyncio.sleep(1.0)
        writer.close()


def disconnect(model: Path, seconds: float) -> list[str]:
    """Leave in the middle of an upload, 1,000 times: nothing is held, the others are answered."""
    asked = questions(model)
    with serving(model) as service:
        asyncio.run(load(service.port, asked, 3, CLIENTS))
        asyncio.run(_leave(service.port, 100))  # what is opened once (the files of metrics) is open by now
        time.sleep(7)
        memory, files = service.memory(), service.files()
        background = Background(service, asked, seconds)
        asyncio.run(_leave(service.port, 1000))
        tally = background.end()
        time.sleep(7)
        growth, more = service.memory() / memory, service.files() - files
        traces = service.log.read_text().count("Traceback")
    print(f"disconnect     1,000 left; memory {100 * (growth - 1):+.1f} %, descriptors {more:+d}, {traces} tracebacks")
    return _faults(
        {
            "wrong answers": tally.wrong,
            "5xx": tally.failures,
            "other connections cut": tally.cut,
            "memory that grows by more than 10 %": growth > 1.1,
            "more file descriptors than the workers' own few": more > 10,
            "tracebacks in the log": traces,
        }
    )


async def _leave(port: int, count: int) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="f"\r\n\r\n' + b"x" * 100_000
    for at in range(0, count, 50):
        streams = [await connect(port) for _ in range(min(50, count - at))]
        for _, writer in streams:
            writer.write(head + b"\r\n\r\n" + part)
        await asyncio.sleep(0.05)
        for number, (_, writer) in enumerate(streams):
            writer.transport.abort() if number % 2 else writer.close()


def _faults(checks: dict[str, object]) -> list[str]:
    return [what for what, bad in checks.items() if bad]


PARTS: dict[str, Callable[[Path, float], list[str]]] = {
    "kill": kill,
    "sigterm": sigterm,
    "swap": swap,
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
    for name, part in PARTS.items():
        if options.only in (None, name):
            faults = part(options.model.resolve(), options.seconds)
            print(f"VERDICT {name:10} {'FAILED: ' + ', '.join(faults) if faults else 'passed'}", flush=True)
            failed = failed or bool(faults)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
