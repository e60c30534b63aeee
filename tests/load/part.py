"""What the parts of chaos have in common: load while harm is done, patience, a verdict, a small disk."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.load.clients import Question, Tally, load
from tests.load.service import Service

CLIENTS = 8


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


def eventually(true: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait until something is true; False when it does not become so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.3)
    return False


def faults(*tallies: Tally, **checks: object) -> list[str]:
    """Say what is bad: the answers that no part may have, and each check that is true, by its name in words."""
    found = {
        "wrong answers": sum(tally.wrong for tally in tallies),
        "5xx": sum(tally.failures for tally in tallies),
        **checks,
    }
    for tally in tallies:
        if tally.first_wrong:
            print(f"wrong          {tally.first_wrong}")
    return [what.replace("_", " ") for what, bad in found.items() if bad]


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """Give a folder on a disk of its own, of `size` bytes.

    Raises: PermissionError where none can be mounted, which takes root.
    """
    folder = tempfile.mkdtemp()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
    try:
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
            raise PermissionError("mounting a small disk takes root")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
    finally:
        Path(folder).rmdir()


def fill(folder: Path) -> Path:
    """Write a file until the disk is full, to the last byte; returns its path."""
    path = folder / "fill"
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    return path
