"""What bodies cost a worker: MLA_MAX_HELD_BYTES bounds its memory, whatever they hold."""

from __future__ import annotations

import base64
import json
import math
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_serve.commands.tune_load import form_request, get, post_request
from mla_serve.serve.http.body_limits import COST_OF_FORM, COST_OF_OTHER
from mla_serve.serve.settings import Settings
from tests.load.service import Service, serving

MIB = 2**20
HELD = Settings.model_fields["max_held_bytes"].default
PNG = b"\x89PNG\r\n\x1a\n"
EMOJI = "\N{GRINNING FACE}"  # its text takes four bytes for each character
FITTING = {"form": HELD // COST_OF_FORM, "batch": HELD // COST_OF_OTHER}


def batch(modality: str, content: str, count: int) -> bytes:
    """Write a request to /predict/batch."""
    body = json.dumps({"samples": [{modality: content}] * count}, ensure_ascii=False).encode()
    return post_request("/predict/batch", body, "application/json")


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "files": ("form", lambda: form_request({"image": PNG + bytes(9 * MIB)})),
    "texts": ("form", lambda: form_request({"text": EMOJI + "x" * (9 * MIB)})),
    "many files in JSON": ("batch", lambda: batch("image", base64.b64encode(PNG + bytes(MIB)).decode(), 46)),
    "large files in JSON": ("batch", lambda: batch("image", base64.b64encode(PNG + bytes(7 * MIB)).decode(), 6)),
    "texts in JSON": ("batch", lambda: batch("text", EMOJI + "x" * MIB, 62)),
}


def memory(service: Service, field: str) -> int:
    """Return a worker's bytes: VmRSS now, VmHWM the most there was."""
    lines = Path(f"/proc/{service.workers()[0].pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def send_all_but_the_last_byte(port: int, request: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    threading.Thread(target=connection.sendall, args=(request[:-1],)).start()
    return connection


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_bodies_take_no_more_memory_than_they_may(case: str, tiny_bundle: Path) -> None:
    """With the limits as they are by default, and half as much again as fits into them."""
    kind, make = CASES[case]
    request = make()
    with serving(tiny_bundle, workers=1) as service:
        get(service.port, "/model")
        before = memory(service, "VmRSS")
        count = math.ceil(1.5 * FITTING[kind] / len(request))
        connections = [send_all_but_the_last_byte(service.port, request) for _ in range(count)]
        time.sleep(5)
        for connection in connections:
            connection.sendall(request[-1:])
        statuses = [connection.recv(12)[-3:] for connection in connections]
        grown = memory(service, "VmHWM") - before
        for connection in connections:
            connection.close()
    assert b"503" in statuses, "more was sent than fits"
    assert set(statuses) > {b"503"}, "but some of it was answered"
    assert grown < HELD
