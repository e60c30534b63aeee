"""Run a command in an empty home folder under strace, without a route where the system allows it, and say what it tried.

strace sees the C++ of the libraries, which Python's audit hooks do not. The environment is made from nothing: a library
that keeps quiet where CI is set shall not do so here.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).absolute().parents[2]
REQUIRED = os.environ.get("MLA_REQUIRE_STRACE") == "1"
KEPT = ("PATH", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "TMPDIR")
CALLS = "connect,sendto,sendmsg,sendmmsg"
ADDRESS = re.compile(r"sa_family=AF_INET6?, .*?port=htons\((\d+)\).*?\"([0-9a-f.:]+)\"")
LOCAL = ("127.", "::1", "0.0.0.0")
DNS = "53"  # a resolver on this machine asks others


@dataclasses.dataclass(frozen=True)
class Traced:
    """What a command did: its exit code and output, the files in its home folder, system calls with foreign addresses."""

    code: int
    output: str
    files: list[str]
    calls: list[str]


def need_strace() -> str:
    """Find strace. Without it the test is skipped; with MLA_REQUIRE_STRACE=1 it fails instead."""
    found = shutil.which("strace")
    if found is None:
        missing = "there is no strace: apt-get install strace"
        pytest.fail(f"MLA_REQUIRE_STRACE=1, but {missing}") if REQUIRED else pytest.skip(missing)
    return found


def run_alone(command: Sequence[object], folder: Path, timeout: float = 300) -> tuple[int, str, list[str]]:
    """Run a command with an empty home folder; returns its exit code, its output and the files in that folder."""
    home, work = folder / "home", folder / "work"
    home.mkdir(parents=True, exist_ok=True)
    work.mkdir(exist_ok=True)
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "MLA_WORKERS": "1"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, timeout=timeout)
    files = sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir())
    return done.returncode, done.stdout + done.stderr, files


def run_traced(command: Sequence[object], folder: Path, timeout: float = 300) -> Traced:
    """The same, under strace and cut off from every network."""
    log = folder / "strace"
    strace = [need_strace(), "-f", "--seccomp-bpf", "-qq", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(log)]
    code, output, files = run_alone([*_cut_off(), *strace, *command], folder, timeout)
    return Traced(code, output, files, [line for line in log.read_text().splitlines() if _is_foreign(line)])


def _is_foreign(line: str) -> bool:
    found = ADDRESS.search(line)
    return found is not None and (found[1] == DNS or not found[2].startswith(LOCAL))


@functools.cache
def _cut_off() -> tuple[str, ...]:
    """Return what to put before a command so that it has a network of its own, with nothing in it but itself."""
    start = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    try:
        allowed = subprocess.run([*start, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return start if allowed else ()
