"""Training and exporting for machines: JSON on standard output and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_train_and_export_print_the_manifest(write_table: Callable[..., Path], tmp_path: Path) -> None:
    def run(*args: str) -> dict[str, object]:
        command = [sys.executable, "-m", "mla_serve", *args, "--json"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr.decode()
        manifest: dict[str, object] = json.loads(done.stdout)
        return manifest

    flags = ("--epochs", "1", "--batch-size", "16", "--width", "16", "--device", "cpu")
    trained = run("train", "--data", str(write_table()), "--name", "mine", "--modalities", "numbers", *flags)
    exported = run("export", "runs/mine", "--out", "models/again")
    assert trained["name"] == exported["name"] == "mine"
    assert trained["classes"] == exported["classes"]
