"""Run two processes under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def torchrun(*args: object, restarts: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run two processes on this machine."""
    flags = ["--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    command = [sys.executable, "-m", "torch.distributed.run", *flags, *map(str, args)]
    with subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            out, error = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            process.terminate()  # and it ends its processes
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)
