"""Start the real service for a test of load, and look at its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from mla_serve.commands.tune_load import get

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90


class Service:
    """A service that runs: its port, its processes, its log."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "_bentoml_impl.worker.service" in child.cmdline():
                    found.append(child)
        return found

    def settle(self, files: int, seconds: float = 60) -> int:
        """Wait until no more than so many file descriptors are open; returns how many are in the end.

        Connections stay for a while after the client has gone: idle ones for 5 s, refused ones until LINGER_S.
        """
        end = time.monotonic() + seconds
        while self.files() > files and time.monotonic() < end:
            time.sleep(0.5)
        return self.files()

    def processor(self) -> tuple[float, float]:
        """Return for how many seconds the workers' threads have run, and have waited for a processor that was taken."""
        times = [
            path.read_text().split()
            for each in self.workers()
            for path in Path(f"/proc/{each.pid}/task").glob("*/schedstat")
        ]
        return sum(int(run) for run, _, _ in times) / 1e9, sum(int(waited) for _, waited, _ in times) / 1e9

    def memory(self) -> int:
        """Return the workers' resident bytes."""
        return sum(worker.memory_info().rss for worker in self.workers())

    def files(self) -> int:
        """Return the workers' open file descriptors."""
        return sum(worker.num_fds() for worker in self.workers())

    def is_ready(self) -> bool:
        """Ask /readyz."""
        try:
            return get(self.port, "/readyz")[0] == 200
        except OSError:
            return False

    def wait_until_ready(self, seconds: float = PATIENCE_S) -> float:
        """Wait; returns for how long."""
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            if self.process.poll() is not None:
                break
            if self.is_ready():
                return time.monotonic() - start
            time.sleep(0.1)
        raise SystemExit(f"the service is not ready after {seconds:g} s:\n{self.log.read_text()[-3000:]}")


def free_port() -> int:
    """Find a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(model: Path, workers: int = 2, folder: Path | None = None, **settings: str) -> Iterator[Service]:
    """Serve a bundle on loopback until the block ends; settings without their MLA_.

    What it writes goes to a new folder, within `folder` if there is one.
    """
    with tempfile.TemporaryDirectory(dir=folder) as home:
        port, log = free_port(), Path(home, "log")
        chosen = {"MODEL": str(model), "WORKERS": str(workers), "DEVICE": "cpu", "MODEL_POLL_S": "1", **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLA_", "BENTOML_"))}
        environment |= {f"MLA_{name}": value for name, value in chosen.items()}
        environment |= {"BENTOML_DO_NOT_TRACK": "True", "TMPDIR": home, "BENTOML_HOME": str(Path(home, "home"))}
        command = [sys.executable, "-m", "bentoml", "serve", "mla_serve.serve.bento.service:MlaServe"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            service = Service(process, port, log)
            service.wait_until_ready()
            time.sleep(2)  # the other workers: /readyz is whoever answers first
            yield service
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
