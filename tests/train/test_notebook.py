"""The notebook of the documentation runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mla_serve
from mla_serve.bundle.results import ClassPrediction
from mla_serve.evaluation.results import Evaluation

NOTEBOOK = Path(__file__).parents[2] / "docs" / "how-to" / "notebook.ipynb"
CONTENT = json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; return the value of its last expression, which a notebook shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names) if last else None  # type: ignore[attr-defined]


def test_it_is_committed_without_outputs() -> None:
    code = [cell for cell in CONTENT["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    names: dict[str, Any] = {}
    sources = ["".join(cell["source"]) for cell in CONTENT["cells"] if cell["cell_type"] == "code"]
    shown = [value for value in (run_cell(source, names) for source in sources) if value is not None]
    assert [type(value) for value in shown] == [
        pd.DataFrame,
        mla_serve.Predictor,
        ClassPrediction,
        ClassPrediction,
        pd.DataFrame,
        Evaluation,
    ]
    assert all("<table" in value._repr_html_() for value in shown)
    _, model, by_text, by_picture, answers, measured = shown
    assert (by_text.label, by_picture.label) == ("sock", "lamp")
    assert answers.error.isna().all()
    assert measured.accuracy > 0.9
    assert np.isfinite(model.metrics["conditions"]["full"]["calibrated"]["nll"])
