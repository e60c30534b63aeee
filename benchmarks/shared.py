"""What several benchmarks share: the machine's description, files written whole, cells in fresh processes, figures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mla_serve.errors import ConfigError

TAIL = 2000  # characters of a failed process's last words


def machine() -> str:
    """Say in three words what this runs on."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


def machine_in_full() -> str:
    """Say what this runs on: processor, cores, memory, system."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{processor}, {os.cpu_count()} cores, {memory_gb:.0f} GB, {platform.system()} {platform.release()}"


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that an interruption leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def write_results(folder: Path, stem: str, results: object, page: str) -> None:
    """Write the numbers as STEM.json and the page as STEM.md."""
    write_whole(folder / f"{stem}.json", json.dumps(results, indent=1) + "\n")
    write_whole(folder / f"{stem}.md", page)


def run_in_process(module: str, cell: Any, work: Path, environment: Mapping[str, str] | None = None) -> None:
    """Let a fresh process of `module` measure a cell, unless its results are there.

    Args: cell, a dataclass with `path`; the process is started with --cell, the cell as JSON, and `work`.
    Raises: ConfigError with the last words of a process that fails.
    """
    path: Path = cell.path(work)
    if path.exists():
        return
    command = [sys.executable, "-m", module, "--cell", json.dumps(dataclasses.asdict(cell)), str(work)]
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"{path.name}: {done.stderr.strip()[-TAIL:] or f'ended with {done.returncode}'}")


def status_mb(pid: int | str, field: str) -> float:
    """Read a memory field of /proc/PID/status, in MB of 2^20 bytes; 0 where the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return 0.0


@contextlib.contextmanager
def figure(path: Path, rows: int, columns: int, size: tuple[float, float], salt: str) -> Iterator[Any]:
    """Yield the axes of a figure, row by row, and write it as SVG: the same drawing gives the same file."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = salt
    from matplotlib import pyplot as plt

    drawing, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    yield axes
    drawing.tight_layout()
    drawing.savefig(path, metadata={"Date": None})
    plt.close(drawing)
