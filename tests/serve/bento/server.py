"""A real service in processes of its own, on a free port of this machine, with a torch that raises."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[3]
BENTOML = ("bentoml", "serve", "mla_serve.serve.bento.service:MlaServe")
MLA_SERVE = ("mla_serve", "serve")
FAKE_TORCH = "import os, pathlib\npathlib.Path(os.environ['TORCH_WAS_IMPORTED']).touch()\nraise RuntimeError('torch')\n"
PATIENCE_S = 90


@contextlib.contextmanager
def started(
    folder: Path, port: int, start: Sequence[str] = BENTOML, **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run `bentoml serve`, or another command; yields the process and the file that it logs to; nothing of it is left at the end."""
    (folder / "torch").mkdir(parents=True, exist_ok=True)
    (folder / "torch" / "__init__.py").write_text(FAKE_TORCH)
    environment = {key: value for key, value in os.environ.items() if not key.upper().startswith(("MLA_", "BENTOML_"))}
    environment |= {
        "PYTHONPATH": str(folder),
        "TORCH_WAS_IMPORTED": str(folder / "torch-was-imported"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "MLA_DEVICE": "cpu",
        "MLA_WORKERS": "1",
        **settings,
    }
    command = [sys.executable, "-m", *start, "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process, log
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and its children, gently first."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[bytes], log: Path, client: httpx.Client) -> None:
    for _ in range(10 * PATIENCE_S):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"not ready after {PATIENCE_S} s: {log.read_text()}")
