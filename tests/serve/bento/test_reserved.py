"""Metrics on a disk that is full, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import errno, os, sys
from pathlib import Path

reserve, room = os.posix_fallocate, 2**30

def disk(descriptor, start, size):
    if size > room:
        raise OSError(errno.ENOSPC, "full")
    reserve(descriptor, start, size)

os.posix_fallocate = disk
from mla_serve.serve.bento import reserved
reserved.install()
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
early = Counter("early", "made while there is room", ["name"])
early.labels("first").inc()
room = int(sys.argv[1])
late = Gauge("late", "made when there is none")
late.set(3)
for number in range(5000):  # more than the files hold
    early.labels(f"{number:0100}").inc()
early.labels("first").inc()
assert early.labels("first")._value.get() == 2
assert late._value.get() == 3
registry = CollectorRegistry()
MultiProcessCollector(registry)
assert b'early_total{name="first"}' in generate_latest(registry)
"""


@pytest.mark.parametrize("room", [0, 2**18, 2**30])
def test_a_full_disk_takes_no_process_and_no_number(tmp_path: Path, room: int) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": ""}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(room)], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ("no room on the disk for metrics" in ended.stderr) == (room == 0)
    for path in tmp_path.iterdir():
        assert path.stat().st_blocks * 512 >= path.stat().st_size, path  # what is mapped is there
