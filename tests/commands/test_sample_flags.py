"""The cells of columns as flags of `predict`, and what a command says about flags that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.commands.sample_flags import SampleFlags, read_sample
from tests.commands.test_commands import one_line, run

CELLS: dict[str, Any] = {"price": 12.5, "colour": "red", "in stock": True, "listed": "2023-06-01"}
SINGLE = ("price=12.5", "colour=red", "in stock=yes", "listed=2023-06-01")


@pytest.fixture(scope="module")
def shop(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle with two modalities of columns."""
    names = {"text": "text", "columns": "columns", "facts": "columns"}
    return make_bundle(tmp_path_factory.mktemp("models") / "shop", names)


WAYS: list[tuple[str, ...]] = [
    ("--columns", *SINGLE),
    ("--columns", *SINGLE, "size="),
    ("--columns", json.dumps(CELLS)),
    ("--columns", json.dumps(CELLS | {"size": None})),
    ("--columns", "-"),
    ("--input", f"columns={json.dumps(CELLS)}"),
    ("--input", *(f"columns.{cell}" for cell in SINGLE)),
    ("--columns", *SINGLE[:2], "--input", *(f"columns.{cell}" for cell in SINGLE[2:])),
]


@pytest.mark.parametrize("flags", WAYS, ids=str)
def test_every_way_to_give_cells_gives_the_same_answer(shop: Path, flags: tuple[str, ...]) -> None:
    expected = Predictor(Bundle.load(shop)).predict([{"columns": CELLS}])[0]
    answer = json.loads(run("predict", "--model", shop, "--json", *flags, stdin=json.dumps(CELLS).encode()).stdout)
    assert answer["label"] == expected.label
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert answer["missing"] == ["text", "facts"]


def test_two_modalities_of_columns_are_told_apart(shop: Path) -> None:
    flags = ("--columns", "price=1", "--input", "facts.price=200", "facts.colour=blue")
    expected = Predictor(Bundle.load(shop)).predict(
        [{"columns": {"price": 1}, "facts": {"price": 200, "colour": "blue"}}]
    )
    answer = json.loads(run("predict", "--model", shop, "--json", *flags).stdout)
    assert answer["probability"] == pytest.approx(expected[0].probability, abs=1e-6)


@pytest.mark.parametrize("empty", [("price=", "size= "), ('{"price": null}',), ("{}",)], ids=str)
def test_cells_that_are_all_empty_are_a_missing_modality(shop: Path, empty: tuple[str, ...]) -> None:
    answer = json.loads(run("predict", "--model", shop, "--json", "--text", "a", "--columns", *empty).stdout)
    assert answer["missing"] == ["columns", "facts"]
    done = run("predict", "--model", shop, "--columns", *empty, code=2)
    assert "nothing was sent; send at least one of text, columns, facts" in one_line(done)


@pytest.mark.parametrize(
    "flags",
    [
        SampleFlags(columns=("My text=rot", "price=1")),
        SampleFlags(input=("My text=rot", "columns.price=1")),
        SampleFlags(input=("my_text=rot",), columns=("price=1",)),
    ],
    ids=str,
)
def test_a_column_names_the_modality_that_it_became(flags: SampleFlags) -> None:
    assert read_sample(flags, {"my_text": "text", "columns": "cells"}, ["price"]) == {
        "my_text": "rot",
        "columns": {"price": "1"},
    }


def test_a_cell_comes_before_a_modality_of_the_same_name() -> None:
    sent_as = {"price": "text", "columns": "cells"}
    assert read_sample(SampleFlags(columns=("price=1",)), sent_as, ["price"]) == {"columns": {"price": "1"}}
    assert read_sample(SampleFlags(columns=("price=1",)), sent_as) == {"price": "1"}
    assert read_sample(SampleFlags(columns=("cost=1",)), sent_as, ["price"]) == {"columns": {"cost": "1"}}


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("--columns", "price"), "--columns price: expected COLUMN=VALUE, or a JSON object"),
    (("--columns", "price=1", "price=2"), "columns.price was given before; give it once"),
    (("--columns", "price=1", "--input", "columns.price=2"), "columns.price was given before; give it once"),
    (("--columns", '{"price": 1}', "size=S"), "columns: was given as a whole and as single cells"),
    (("--columns", '{"price": 1}', '{"size": "S"}'), "columns was given before; give it once"),
    (("--columns", '{"price": 1'), "columns: expected a JSON object"),
    (("--columns", "pricee=1"), "columns.pricee: no column 'pricee'; did you mean 'price'?"),
    (("--columns", "price=cheap"), "columns.price: expected a number such as 12.5, got 'cheap'"),
    (("--input", "facts.price=cheap"), "facts.price: expected a number"),
    (("--input", "text.price=1"), "text.price"),
    (("--input", "other.price=1"), "other: this model has no such modality"),
]


@pytest.mark.parametrize(("flags", "advice"), WRONG, ids=str)
def test_cells_that_cannot_be_used_are_one_line(shop: Path, flags: tuple[str, ...], advice: str) -> None:
    assert advice in one_line(run("predict", "--model", shop, *flags, code=2))


def test_columns_are_for_one_sample(shop: Path, tmp_path: Path) -> None:
    flags = ("--table", tmp_path / "a.csv", "--out", tmp_path / "b.parquet", "--columns", "price=1")
    assert "--columns: is for one sample" in one_line(run("predict", "--model", shop, *flags, code=2))
