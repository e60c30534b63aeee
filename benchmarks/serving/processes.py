"""Servers as processes: started, watched from /proc, ended whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.shared import status_mb
from mla_serve.commands.tune_load import get
from mla_serve.errors import MlaServeError
from tests.load.service import free_port

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
POLL_S = 0.02
QUIET_SHARE, QUIET_S, SETTLE_S = 0.05, 0.4, 20.0
RESET_PEAK = "5"  # proc(5): clear_refs


class NotServing(MlaServeError):
    """A server that does not come up, or died."""


class ProcessTree:
    """A process and its descendants as they are now."""

    def __init__(self, pids: Sequence[int]) -> None:
        """Look at these and all below them."""
        self.processes: list[psutil.Process] = []
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                self.processes += [process, *process.children(recursive=True)]

    def cpu_s(self) -> float:
        """Processor seconds of all so far."""
        total = 0.0
        for process in self.processes:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def signal(self, number: signal.Signals) -> None:
        """Send all a signal."""
        for process in self.processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def reset_peak(self) -> None:
        """Let the kernel measure the largest resident memory anew."""
        for process in self.processes:
            with contextlib.suppress(OSError):
                Path(f"/proc/{process.pid}/clear_refs").write_text(RESET_PEAK)

    def peak_mb(self) -> float:
        """Sum of the largest resident memory of each; pages that they share count once for each."""
        return sum(status_mb(process.pid, "VmHWM") for process in self.processes)

    def workers_mb(self) -> float:
        """Mean resident memory of the BentoML workers among them, now."""
        found = []
        for process in self.processes:
            with contextlib.suppress(psutil.Error):
                if any(part.endswith("worker.service") for part in process.cmdline()):
                    found.append(status_mb(process.pid, "VmRSS"))
        return sum(found) / len(found) if found else 0.0


class Server:
    """A server that is ready: its port, and how long it took."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, start_s: float, ready: bytes) -> None:
        """Take what `serving` has started."""
        self.process = process
        self.port = port
        self.start_s = start_s
        self.ready = ready

    def tree(self) -> ProcessTree:
        """Return its processes."""
        return ProcessTree([self.process.pid])

    @contextlib.contextmanager
    def resumed(self) -> Iterator[None]:
        """Let a paused server run until the block ends."""
        self.tree().signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        """Stop all of its processes: one that busy-waits would take processor time from the one that is measured."""
        self.tree().signal(signal.SIGSTOP)

    def settle(self) -> None:
        """Wait until all of its workers have come up and rest."""
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end:
            before = self.tree().cpu_s()
            time.sleep(QUIET_S)
            if self.tree().cpu_s() - before < QUIET_SHARE * QUIET_S + 0.01:
                return


@contextlib.contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str], ready_path: str) -> Iterator[Server]:
    """Start a server on a free port until the block ends: "{port}" in the command and the environment stands for it.

    Raises: NotServing, with the end of its log.
    """
    with tempfile.TemporaryFile() as log:
        port = free_port()
        fill = lambda text: text.replace("{port}", str(port))  # noqa: E731
        process = subprocess.Popen(
            [fill(word) for word in command],
            cwd=ROOT,
            env={**os.environ, **{name: fill(value) for name, value in environment.items()}},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            began = time.monotonic()
            ready = _wait(process, port, ready_path)
            if ready is None:
                log.seek(0)
                said = log.read()[-3000:].decode(errors="replace")
                raise NotServing(f"{' '.join(command)}: not ready after {time.monotonic() - began:.0f} s:\n{said}")
            yield Server(process, port, time.monotonic() - began, ready)
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], port: int, path: str) -> bytes | None:
    """Return what it answers when it is ready, None when it never is."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            status, body = get(port, path)
            if status == 200:
                return body
        time.sleep(POLL_S)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it started."""
    tree = ProcessTree([process.pid])
    tree.signal(signal.SIGCONT)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for left in tree.processes:
        with contextlib.suppress(psutil.Error):
            left.kill()
    process.wait()
    psutil.wait_procs(tree.processes, timeout=10)
