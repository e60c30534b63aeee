"""Columns in training: what a column is taken for, any scale of numbers, missing cells, the graph in every precision."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mla_serve.export.graphs import export_graph, largest_difference
from mla_serve.export.quantise import to_fp16, to_int8
from mla_serve.inputs import Array, ColumnsInput
from mla_serve.inputs.columns import LARGEST
from mla_serve.train.config import TrainConfig
from mla_serve.train.encoders.cells import BINS, Categories, CellDropout, Numbers
from mla_serve.train.encoders.columns import MAX_CATEGORIES, SmallColumns, describe_column
from tests.conftest import COLUMNS

SPEC = ColumnsInput(COLUMNS)
WIDTH = 16


def rows(count: int, seed: int = 0) -> Array:
    """Decode generated samples: some with missing cells, some beyond the ranges and categories of training."""
    generator = np.random.default_rng(seed)
    payloads = [(SPEC.generate, SPEC.generate_large)[n % 2](generator) for n in range(count)]
    return np.concatenate([SPEC.decode(payload, "columns") for payload in payloads])


def measured(spec: ColumnsInput, windows: Array) -> SmallColumns:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = SmallColumns(spec, WIDTH)
    encoder.measure(torch.from_numpy(windows))
    return encoder.eval()


# ---- choosing the input


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([1, 2.5, 3], "number"),
        ([True, False], "yes_no"),
        ([datetime.datetime(2024, 1, 1)], "date"),
        (["red", "red"], "category"),
        ([1, "two"], "category"),
        ([True, 1.5], "category"),
    ],
)
def test_the_type_of_a_column_is_that_of_its_cells(cells: list[Any], expected: str) -> None:
    assert describe_column("x", cells).type == expected


def test_the_range_middle_and_spread_of_training_are_kept() -> None:
    column = describe_column("price", [1.0, 2.0, 9.0])
    assert (column.low, column.high, column.middle, column.origin) == (1.0, 9.0, 2.0, 0.0)
    assert describe_column("id", [1e9, 1e9 + 1, 1e9 + 9]).origin == 1e9 + 1
    assert column.spread == pytest.approx(np.std([1, 2, 9]))
    assert describe_column("price", [3.0, 3.0]).spread == 1.0
    largest = describe_column("price", [1e308, 1e308, -1e308, 3.0])
    assert all(map(math.isfinite, (largest.low, largest.high, largest.middle, largest.spread, largest.origin)))
    dates = [datetime.datetime(1970, 1, 2), datetime.datetime(1970, 1, 4)]
    assert (describe_column("day", dates).low, describe_column("day", dates).high) == (1.0, 3.0)


def test_a_category_needs_two_rows_and_the_most_frequent_come_first() -> None:
    assert describe_column("brand", ["b", "a", "a ", "c", "a", "b"]).values == ("a", "b")
    many = [str(n) for n in range(MAX_CATEGORIES + 5)] * 2
    assert len(describe_column("brand", many).values) == MAX_CATEGORIES


def test_columns_come_in_the_order_of_the_fullest_row_and_missing_cells_do_not_count() -> None:
    rows = [{"b": 1.0}, {"a": "x", "b": 1.0, "c": float("nan")}, {"d": True, "c": None}]
    spec = SmallColumns.choose_input(rows, TrainConfig())
    described = [(column.name, column.type) for column in spec.columns]
    assert described == [("a", "category"), ("b", "number"), ("d", "yes_no")]


# ---- numbers and categories as layers


@pytest.mark.parametrize(
    "values",
    [
        np.arange(1e9, 1e9 + 1000, dtype=np.float64),
        np.logspace(-3, 12, 1000),
        np.r_[np.linspace(0, 1, 999), 1e9],
        np.linspace(-1e-6, 1e-6, 1000),
    ],
    ids=["ids", "skewed", "one outlier", "tiny"],
)
@torch.no_grad()
def test_the_encoding_tells_the_quantiles_apart_at_any_scale(values: Array) -> None:
    spec = ColumnsInput((describe_column("x", values.tolist()),))
    decoded = torch.from_numpy(np.concatenate([spec.decode({"x": value}, "columns") for value in values.tolist()]))
    layer = Numbers(1)
    layer.measure(decoded)
    below = layer(decoded)[:, :BINS].sum(dim=1)
    assert torch.isfinite(layer(decoded)).all()
    assert below.diff().min() >= 0
    assert below.max() == BINS
    assert len(below[::60].unique()) > 12


@torch.no_grad()
def test_a_missing_or_constant_number_or_one_without_values_has_zeros_and_says_that_it_is_missing() -> None:
    layer = Numbers(3)
    layer.measure(torch.tensor([[5.0, torch.nan, 1.0], [5.0, torch.nan, 2.0]]))
    given, missing = layer(torch.tensor([[5.0, 3.0, 1.5], [torch.nan] * 3]))
    assert missing.tolist() == [0.0] * 3 * BINS + [0, 0, 0] + [1, 1, 1]
    assert given[-6:].tolist() == [0, 3, 0, 0, 0, 0]


@torch.no_grad()
def test_unknown_and_missing_categories_have_embeddings_of_their_own() -> None:
    layer = Categories([2, 0], 4)
    cells = torch.tensor([[0.0, 0.0], [1.0, torch.nan], [2.0, 7.0], [torch.nan, -1.0], [1e30, 0.0]])
    embedded = layer(cells).view(5, 2, 4)
    assert len(embedded[:4, 0].unique(dim=0)) == 4
    assert torch.equal(embedded[4, 0], embedded[2, 0])
    assert torch.equal(embedded[0, 1], embedded[2, 1])
    assert not torch.equal(embedded[0, 1], embedded[1, 1])


def test_training_empties_whole_cells_and_makes_categories_unknown() -> None:
    windows = torch.from_numpy(np.concatenate([SPEC.decode(SPEC.generate(np.random.default_rng(3)), "c")] * 2000))
    layer = CellDropout([*SPEC.slices.values()], SPEC.layout.unknown)
    torch.manual_seed(0)
    dropped = layer(windows)
    date = dropped[:, SPEC.slices["listed"]].isnan()
    assert torch.equal(date.all(dim=1), date.any(dim=1))
    there = ~windows[0].isnan()
    assert 0.07 < dropped[:, there].isnan().float().mean() < 0.13
    unknown = torch.from_numpy(SPEC.layout.unknown)
    share = (dropped == unknown)[:, there & ~unknown.isnan()].float().mean()
    assert 0.06 < share < 0.12
    assert torch.equal(layer.eval()(windows).nan_to_num(-9), windows.nan_to_num(-9))


# ---- the graph


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallColumns, Path]:
    encoder = measured(SPEC, rows(300))
    path = tmp_path_factory.mktemp("graph") / "columns.onnx"
    export_graph(encoder, torch.from_numpy(rows(2)), SPEC.tensor, "features", path)
    return encoder, path


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_graph_gives_what_torch_gives_with_missing_cells(graph: tuple[SmallColumns, Path], count: int) -> None:
    encoder, path = graph
    windows = np.concatenate([rows(count), np.full((1, *SPEC.shape), np.nan, np.float32)])
    assert np.isnan(windows).any()
    assert largest_difference(encoder, path, windows, 1e-4) < 1e-5


@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.05), ("fp16", 0.002)])
def test_a_smaller_graph_reads_missing_cells_and_the_largest_numbers(
    graph: tuple[SmallColumns, Path], precision: str, bound: float
) -> None:
    encoder, path = graph
    fixed, windows = {name for name, _ in encoder.named_buffers()}, rows(300)
    content = path.read_bytes()
    smaller = to_int8(content, fixed, windows, "linear") if precision == "int8" else to_fp16(content, fixed)
    session = onnxruntime.InferenceSession(smaller, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = encoder(torch.from_numpy(windows)).numpy()
    assert np.abs(session.run(None, {SPEC.tensor: windows})[0] - expected).max() < bound
    largest = np.full((2, *SPEC.shape), LARGEST, np.float32)
    assert np.isfinite(session.run(None, {SPEC.tensor: largest})[0]).all()


@torch.no_grad()
def test_three_hundred_columns_and_ten_thousand_categories() -> None:
    generator = np.random.default_rng(0)
    values: list[dict[str, Any]] = [
        {f"c{n}": float(x) for n, x in enumerate(generator.standard_normal(300))} | {"city": str(at % 10_000)}
        for at in range(20_000 // 10)
    ]
    cities = [{"city": str(n)} for n in range(10_000)] * 2
    spec = SmallColumns.choose_input([*values, *cities], TrainConfig())
    assert len(spec.columns) == 301
    assert len(spec.by_name["city"].values) == 10_000
    windows = np.concatenate([spec.decode(value, "columns") for value in values[:50]])
    assert torch.isfinite(measured(spec, windows)(torch.from_numpy(windows))).all()


@pytest.mark.parametrize("values", [[{"x": 1.0}, {"x": 1.0}], [{"x": "a"}, {"x": "b"}], [{"x": True}, {"x": True}]])
@torch.no_grad()
def test_a_column_that_says_nothing_still_works(values: list[dict[str, Any]]) -> None:
    spec = SmallColumns.choose_input(values, TrainConfig())
    windows = np.concatenate([spec.decode(value, "columns") for value in values])
    assert torch.isfinite(measured(spec, windows)(torch.from_numpy(windows))).all()
