"""Training and export ask nobody for anything, and write nothing into the home folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.offline.trace import run_traced

FLAGS = ("--epochs", "1", "--batch-size", "16", "--width", "8", "--device", "cpu", "--threads", "1")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_training_and_export_ask_nobody(precision: str, write_table: Callable[..., Path], tmp_path: Path) -> None:
    start = (sys.executable, "-m", "mla_serve")
    train = (*start, "train", "--data", write_table(), "--name", "mine", "--modalities", "text", "numbers", *FLAGS)
    trained = run_traced(train, tmp_path, 600)
    assert trained.code == 0, trained.output
    export = (*start, "export", "runs/mine", "--out", "again", "--precision", precision, "--precision-loss", "0.9")
    exported = run_traced(export, tmp_path, 600)
    assert exported.code == 0, exported.output
    assert (exported.files, trained.calls + exported.calls) == ([], [])
