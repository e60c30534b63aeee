"""The comparison of strategies, on a small table: cells are files, finished ones are kept, the report adds up."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import strategies
from benchmarks.accuracy.strategies import BenchConfig, Cell
from benchmarks.accuracy.strategies_report import (
    SHOWN,
    differences,
    grouped,
    interval,
    markdown,
    preferred,
    read_rows,
    result_rows,
    values,
    write_report,
)  # fmt: skip
from benchmarks.mla_up_front import NAME, UpFront
from mla_serve.errors import ConfigError
from mla_serve.table import Row
from mla_serve.train.data.batches import TrainingBatch
from mla_serve.train.data.samples import Samples
from mla_serve.train.strategies import STRATEGIES, Strategy

Make = Callable[..., Strategy]
MakeSamples = Callable[..., Samples]


@pytest.fixture(autouse=True)
def _up_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ablation is a strategy while a test of this file runs."""
    monkeypatch.setitem(STRATEGIES, NAME, UpFront)


@pytest.fixture
def config(write_table: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BenchConfig:
    """A comparison of two strategies whose cells are trained in this process."""
    monkeypatch.setattr(strategies, "CORE", ("mla", "joint_concat"))
    monkeypatch.setattr(strategies, "VARIANTS", {"mla_up_front": {"strategy": "mla_up_front"}})
    monkeypatch.setattr(strategies, "GRID", {"adamw": (0.01,), "sgd": (0.1,)})
    trained: list[Cell] = []

    def run_cell(cell: Cell, work: Path) -> None:
        if not cell.path(work).exists():
            trained.append(cell)
            strategies.train_cell(cell, work)

    monkeypatch.setattr(strategies, "run_cell", run_cell)
    monkeypatch.setattr(strategies, "trained", trained, raising=False)
    folder = write_table()
    return BenchConfig(
        (f"small={folder}",),
        core=True,
        seeds=2,
        epochs=2,
        search_epochs=1,
        work=tmp_path / "work",
        out=tmp_path / "out",
    )


def test_a_comparison_is_searched_trained_reported_and_resumable(config: BenchConfig) -> None:
    cells = strategies.compare(config)
    assert [(cell.strategy, cell.seed) for cell in cells] == [
        ("mla", 0), ("mla", 1), ("joint_concat", 0), ("joint_concat", 1),
    ]  # fmt: skip
    assert len(strategies.trained) == 2 * (2 + 2)  # type: ignore[attr-defined]
    assert strategies.compare(config) == cells
    assert len(strategies.trained) == 8  # type: ignore[attr-defined]

    results = [strategies.read(cell, config.work) for cell in cells]
    write_report(results, config.out)
    rows = read_rows(config.out)
    assert rows == result_rows(results)
    assert {row["condition"] for row in rows} == set(SHOWN)
    assert {row["fusion"] for row in rows} <= {"native", "calibrated"}
    assert "| joint_concat |" in (config.out / "strategies.md").read_text()
    assert (config.out / "strategies.svg").read_text().startswith("<?xml")
    assert preferred(results[:2]) in ("native", "calibrated")


def test_the_committed_page_is_written_from_the_committed_rows() -> None:
    folder = Path(strategies.__file__).parent
    without_machine = lambda page: re.sub(r"\S+, \d+ cores\.", "", page)  # noqa: E731
    page = (folder / "strategies.md").read_text()
    assert without_machine(markdown(read_rows(folder))) == without_machine(page)
    assert (folder / "strategies.parquet").stat().st_size < 500_000


def test_differences_are_of_the_very_figures_in_the_table(config: BenchConfig) -> None:
    rows = result_rows([strategies.read(cell, config.work) for cell in strategies.compare(config)])
    small = grouped(rows)["small"]
    found = differences(small)["joint_concat"]
    for condition in SHOWN:
        gap = 100 * (values(small["mla"], condition) - values(small["joint_concat"], condition)).mean()
        mean, low, high = found[condition]
        assert mean == pytest.approx(gap, abs=0.01)
        assert low <= mean <= high


def test_intervals_are_wider_where_rows_of_one_group_are_right_together() -> None:
    """Ten groups of twenty rows that agree are ten observations, not two hundred."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 20)
    ours = np.tile(generator.integers(2, size=10)[groups], (5, 1)).astype(float)
    theirs = np.full_like(ours, 0.5)
    widths = [high - low for _, low, high in (interval(ours, theirs, g) for g in (np.arange(200), groups))]
    assert widths[1] > 3 * widths[0]


def test_intervals_cover_the_true_difference_with_five_seeds() -> None:
    """Both seeds and groups have effects of their own; n - 1 of n are drawn, so that few seeds are not taken for many."""
    generator, covered = np.random.default_rng(0), []
    groups = np.repeat(np.arange(30), 4)
    for _ in range(150):
        difference = generator.normal(size=(5, 1)) + 2 * generator.normal(size=30)[groups]
        difference = difference + generator.normal(size=(5, 120))
        _, low, high = interval(difference, np.zeros_like(difference), groups)
        covered.append(low <= 0 <= high)
    assert np.mean(covered) > 0.87


def test_strategies_with_other_numbers_of_seeds_are_not_paired(config: BenchConfig) -> None:
    strategies.run(config)
    strategies.run(dataclasses.replace(config, again=("joint_concat",), seeds=3, only=("joint_concat",)))
    assert differences(grouped(read_rows(config.out))["small"]) == {}
    assert "mla minus the other" not in (config.out / "strategies.md").read_text()


def test_missing_modalities_are_averaged_over_what_can_be_missing(
    config: BenchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers outvote words that are always wrong; where each is gone with probability .5, words are alone in 3 of 8."""

    def modality_opinions(_: Strategy, samples: Samples, __: torch.device) -> tuple[np.ndarray, np.ndarray]:
        labels = samples.targets.numpy()
        words, numbers = np.eye(3)[(labels + 1) % 3], 4 * np.eye(3)[labels]
        return np.stack([words, numbers]), np.ones((2, len(labels)), dtype=bool)

    monkeypatch.setattr("mla_serve.train.loop.modality_opinions", modality_opinions)
    strategies.run(dataclasses.replace(config, only=("mla",)))
    of = {row["condition"]: row for row in grouped(read_rows(config.out))["small"]["mla"]}
    assert of["full"]["accuracy"] == 1
    assert of["missing50"]["accuracy"] == pytest.approx(5 / 8, abs=0.03)
    right = np.frombuffer(of["missing50"]["right"], np.uint8) / of["missing50"]["draws"]
    assert 0.4 < right.min() < right.max() < 0.85, "every row is seen under many masks"
    assert right.mean() == pytest.approx(of["missing50"]["accuracy"], abs=1e-4)


def test_what_has_results_is_not_trained_again_and_variants_take_mlas_setting(config: BenchConfig) -> None:
    strategies.run(config)
    before = len(strategies.trained)  # type: ignore[attr-defined]
    elsewhere = dataclasses.replace(config, work=config.work.with_name("fresh"), ablations=True)
    strategies.run(elsewhere)
    new = strategies.trained[before:]  # type: ignore[attr-defined]
    assert [(cell.strategy, cell.seed) for cell in new] == [("mla_up_front", 0), ("mla_up_front", 1)], (
        "no search, no rerun"
    )
    rows = grouped(read_rows(config.out))["small"]
    assert list(rows) == ["mla", "joint_concat", "mla_up_front"]
    assert (new[0].optimizer, new[0].lr) == (rows["mla"][0]["optimizer"], rows["mla"][0]["lr"])
    assert set(differences(rows)) == {"joint_concat", "mla_up_front"}
    strategies.run(dataclasses.replace(elsewhere, again=("joint_concat",)))
    again = strategies.trained[before + 2 :]  # type: ignore[attr-defined]
    assert [cell.strategy for cell in again] == ["joint_concat"] * 4, "it is searched again too"
    with pytest.raises(ConfigError, match="--again mib: expected one or more of mla, joint_concat"):
        strategies.run(dataclasses.replace(elsewhere, again=("mib",)))
    with pytest.raises(ConfigError, match="--only nothing: expected one or more of mla, joint_concat"):
        strategies.run(dataclasses.replace(elsewhere, only=("nothing",)))
    with pytest.raises(ConfigError, match="--only: variants have the setting of mla, which has no results"):
        strategies.run(dataclasses.replace(elsewhere, only=("mla_up_front",), out=elsewhere.out / "new"))


def test_strategies_that_are_not_named_are_not_trained(config: BenchConfig) -> None:
    strategies.run(dataclasses.replace(config, only=("joint_concat",)))
    assert {cell.strategy for cell in strategies.trained} == {"joint_concat"}  # type: ignore[attr-defined]


def test_encoding_up_front_takes_the_same_steps_to_the_bit(make_strategy: Make, make_samples: MakeSamples) -> None:
    ends, orders = [], []
    for name in ("mla", NAME):
        strategy, order = make_strategy(name), []
        for encoder in strategy.encoders.values():
            encoder.register_forward_hook(lambda *_, order=order: order.append("encode"))
        strategy.heads["head"].register_forward_hook(lambda *_, order=order: order.append("turn"))
        torch.manual_seed(0)
        samples = make_samples()
        for _ in range(3):
            strategy.step(TrainingBatch(samples, torch.arange(24), torch.Generator(), torch.device("cpu"), {}))
        ends.append(torch.cat([value.flatten().double() for value in strategy.state_dict().values()]))
        orders.append(order[:4])
    assert torch.equal(*ends)
    assert orders == [["encode", "turn", "encode", "turn"], ["encode", "encode", "turn", "turn"]]


def test_a_setting_that_diverges_loses_the_search_and_fails_a_final_run(
    config: BenchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = config.data[0].partition("=")[2]
    cell = Cell("small", folder, "mla", "sgd", 9.0, strategies.SEARCH_SEED, 1)
    good = dataclasses.replace(cell, lr=0.01)
    strategies.train_cell(good, config.work)
    monkeypatch.setattr(STRATEGIES["mla"], "step", lambda *_: {"loss/a": float("nan")})
    strategies.train_cell(cell, config.work)
    assert strategies.read(cell, config.work)["validation"] == -1
    assert strategies.best([cell, good], config.work) == ("sgd", 0.01)
    with pytest.raises(ConfigError, match="no longer finite"):
        strategies.train_cell(dataclasses.replace(cell, seed=0), config.work)


def test_a_cell_that_fails_says_so_and_leaves_no_result(tmp_path: Path) -> None:
    cell = Cell("none", str(tmp_path / "nowhere"), "mla", "adamw", 0.01, 0, 1)
    with pytest.raises(ConfigError, match="nowhere"):
        strategies.run_cell(cell, tmp_path)
    assert not cell.path(tmp_path).exists()


@pytest.mark.parametrize(("shares", "form"), [([0.25] * 4, []), ([0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1])])
def test_unbalanced_classes_are_calibrated_as_training_does(shares: list[float], form: list[float]) -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(4, 120, p=shares)
    logits = generator.normal(size=(2, 120, 4)) + 2 * np.eye(4)[labels]
    rows = [Row("id", str(label), {}, {}, {}) for label in labels]
    fitted = strategies._fit(logits, np.ones((2, 120), dtype=bool), labels, ("a", "b"), rows, shares)
    assert list(fitted.prior) == form
    assert all(np.isfinite(list(fitted.temperatures.values())))
