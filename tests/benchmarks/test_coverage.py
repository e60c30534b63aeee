"""bench-coverage: what is averaged over splits, and what the page says of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy.coverage import COVERAGES, Half, measure, summarise, write_page
from mla_serve.fusion.formula import Fusion
from mla_serve.tasks import Classes, Number, Task
from mla_serve.train.fit.evidence import Evidence


@pytest.mark.parametrize("task", [Classes(("x", "y", "z")), Number()])
def test_every_pattern_is_asked_in_every_split(task: Task) -> None:
    generator = np.random.default_rng(0)
    present = np.ones((2, 160), dtype=bool)
    present[1, ::3] = False
    targets: Any = generator.integers(0, 3, 160) if task.name == "classes" else generator.normal(size=160)
    evidence = Evidence.of(generator.normal(size=(2, 160, task.outputs)), present, targets, task=task)
    rows: Any = [SimpleNamespace(groups={}, label=target) for target in targets]
    halves, note = measure(evidence, rows, Fusion.paper(("a", "b"), task), 3)
    assert {key: len(each) for key, each in halves.items()} == {
        (pattern, coverage): 3 for pattern in ("a", "b", "a+b") for coverage in COVERAGES
    }
    assert note.startswith("fusion: ")
    found = summarise(halves["a", 0.9], 0.9)
    assert (found["rows"], found["asked"], found["pooled"]) == (80, 80, 0)
    assert found["coverage"] == pytest.approx(0.9, abs=0.12)


def test_a_coverage_outside_of_its_band_is_told() -> None:
    halves = [Half(400, False, 400, share, share, 2.0, [share] * 5) for share in (0.8, 0.81)]
    low = summarise(halves, 0.9)
    assert low["coverage"] == pytest.approx(0.805)
    assert low["band"] == [pytest.approx(0.86, abs=0.01), pytest.approx(0.94, abs=0.01)]
    assert (low["inside"], low["below"]) == (False, 1.0)
    assert summarise([Half(400, False, 400, 0.99, 0.9, 1.0, [1.0] * 5)], 0.9)["inside"]
    patterns = {"image": {str(coverage): low for coverage in COVERAGES}}
    section = {"task": "classes", "rows": 800, "splits": 2, "note": "n", "machine": "m"}
    page = write_page({"digits": section | {"patterns": patterns, "outside": ["image at 0.9"]}})
    assert "## digits" in page
    assert "| image | 400 | 0.805 (0.86" in page
    assert "Outside of the band: image at 0.9." in page
