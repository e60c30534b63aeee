"""The comparison of projectors: cells are files, the number of batches is what was asked for, the page is of the numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.accuracy import hgm
from benchmarks.accuracy.hgm import Cell, HgmConfig, cells_of, page


def test_an_epoch_has_the_batches_that_were_asked_for_and_what_is_kept_is_noted(
    write_table: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    monkeypatch.setattr(hgm, "watch", lambda strategy, watch=hgm.watch: trained.append(watch(strategy)) or trained[-1])
    for mode in ("subspace", "epoch"):
        cell = Cell("small", str(write_table(folder=mode)), mode, 0, 1, 5, 0.003)
        hgm.train_cell(cell, tmp_path)
        result = json.loads(cell.path(tmp_path).read_text())
        assert 0 < result["kept_last"] < 1
        assert 0 < result["disturbed"] < 1
        assert result["hgm"] == mode
    assert [len(steps) for steps in trained] == [
        2 * 5 - 1
    ] * 2  # two modalities; the first turn has no other's features


def test_the_cells_are_the_kept_shares_and_the_accuracies() -> None:
    config = HgmConfig(data=("a=x", "b=y"), hgm=("subspace", "off"), batches=(20, 200), seeds=2, epochs=3)
    cells = cells_of(config)
    kept = [(cell.dataset, cell.hgm, cell.batches) for cell in cells if cell.batches]
    assert kept == [("a", "subspace", 20), ("a", "subspace", 200)]  # without a projector all is kept
    assert len(cells) - len(kept) == 2 * 2 * 2
    assert cells_of(HgmConfig())[0].dataset == "keypad"


def test_the_committed_page_is_written_from_the_committed_numbers() -> None:
    folder = Path(hgm.__file__).parent
    without_machine = lambda text: re.sub(r"\S+, \d+ cores\.", "", text)  # noqa: E731
    results = json.loads((folder / "hgm.json").read_text())
    assert without_machine(page(results)) == without_machine((folder / "hgm.md").read_text())


def test_what_the_default_keeps_does_not_depend_on_the_number_of_batches() -> None:
    results = json.loads((Path(hgm.__file__).parent / "hgm.json").read_text())
    kept = {
        mode: [one["kept"] for one in results if one["hgm"] == mode and one["batches"]]
        for mode in ("subspace", "epoch")
    }
    assert len(kept["subspace"]) == len(kept["epoch"]) == 3
    assert max(kept["subspace"]) < 1.5 * min(kept["subspace"])
    assert max(kept["epoch"]) > 10 * min(kept["epoch"])
