"""The whole corpus against a real service: no 5xx, no answer slower than 2 s, no memory that grows."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from mla_serve.commands.tune_load import BOUNDARY, Connection, post_request
from tests.hostile.corpus import Case, build
from tests.load.service import serving

ANSWERS = {200, 400, 413, 415, 422}


def request(case: Case) -> bytes:
    filename = '; filename="f"' if case.kind in ("image", "audio") else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{case.kind}"{filename}\r\n\r\n'
    body = head.encode() + case.content + f"\r\n--{BOUNDARY}--\r\n".encode()
    return post_request("/predict", body, f"multipart/form-data; boundary={BOUNDARY}")


async def send_all(port: int, cases: list[Case]) -> tuple[float, str]:
    """Send each on one connection after the other; returns the slowest answer and its name."""
    connection: Connection | None = None
    slowest = (0.0, "")
    for case in cases:
        connection = connection or await Connection.open(port)
        start = time.monotonic()
        answer = await connection.ask(request(case))
        assert answer.status in ANSWERS, (case.name, answer.status, answer.body)
        slowest = max(slowest, (time.monotonic() - start, case.name))
        if answer.header("connection") == "close":
            connection.close()
            connection = None
    if connection is not None:
        connection.close()
    return slowest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # streams that the loop outlives
def test_a_service_bears_the_corpus(tiny_bundle: Path) -> None:
    cases = build()
    with serving(tiny_bundle, workers=1, MAX_PIXELS="50000000", MAX_SECONDS="120") as service:
        asyncio.run(send_all(service.port, cases))
        memory = service.memory()
        slowest = max(asyncio.run(send_all(service.port, cases)) for _ in range(2))
        growth = service.memory() / memory
        log = service.log.read_text()
    print(f"\ncorpus: {2 * len(cases):,} answers, slowest {slowest}, memory {100 * (growth - 1):+.1f} %")
    assert slowest[0] < 2
    assert growth < 1.1
    assert "Traceback" not in log
    assert "internal error" not in log
