"""Cells of a row: what each type of column reads, what is missing, what is refused."""

import dataclasses
import datetime
import json
from typing import Any

import numpy as np
import pytest

from mla_serve.errors import BundleError, InputError, TooLarge
from mla_serve.inputs import Array, Column, ColumnsInput
from mla_serve.inputs.columns import LARGEST, to_json_cells
from tests.conftest import COLUMNS

SPEC = ColumnsInput(COLUMNS)


def decode(**cells: Any) -> Array:
    """Decode cells and return the numbers of the first column that was given."""
    row = SPEC.decode(cells, "facts")[0]
    return row[SPEC.slices[next(iter(cells))]]


def refusal(**cells: Any) -> str:
    with pytest.raises(InputError) as caught:
        SPEC.decode(cells, "facts")
    assert caught.value.field == f"facts.{next(iter(cells))}"
    return caught.value.message


@pytest.mark.parametrize(("cell", "number"), [(12.5, 12.5), (7, 7), ("12.5", 12.5), (" -1e3 ", -1000), (True, None)])
def test_a_number_is_decoded_as_it_is_and_may_be_text(cell: Any, number: float | None) -> None:
    if number is None:
        assert "expected a number such as 12.5, got True" in refusal(price=cell)
    else:
        assert decode(price=cell) == pytest.approx(number)


@pytest.mark.parametrize("cell", ["1,299", "12 EUR", "ten", [1], {"a": 1}, float("inf"), "inf", 10**400])
def test_what_is_no_number_is_refused(cell: Any) -> None:
    message = refusal(price=cell)
    assert message.startswith("expected a number such as 12.5, got ")
    assert len(message) < 200


def test_ids_and_prices_keep_their_digits() -> None:
    spec = ColumnsInput((Column("id", "number", low=1e9, high=1e9 + 9, origin=1e9 + 5),))
    rows = [spec.decode({"id": 1_000_000_000 + n}, "facts")[0, 0] for n in range(10)]
    np.testing.assert_array_equal(np.diff(rows), 1)
    assert spec.decode({"id": -1e308}, "facts")[0, 0] == np.float32(-LARGEST)


@pytest.mark.parametrize(("cell", "index"), [("red", 0), (" blue ", 2), ("mauve", 3), (5, 3)])
def test_a_category_is_its_index_and_an_unseen_one_the_next(cell: Any, index: int) -> None:
    assert decode(colour=cell) == [index]


def test_a_number_may_be_a_category() -> None:
    spec = ColumnsInput((Column("zipcode", "category", ("98103", "94720")),))
    for cell in ("98103", 98103, 98103.0):
        assert spec.decode({"zipcode": cell}, "facts")[0, 0] == 0
    with pytest.raises(InputError, match="zipcode: expected text, got \\["):
        spec.decode({"zipcode": [98103]}, "facts")  # type: ignore[dict-item]


@pytest.mark.parametrize(("cell", "value"), [(True, 1), (False, 0), ("Yes", 1), ("no", 0), (1, 1), ("0", 0)])
def test_yes_and_no_in_any_common_writing(cell: Any, value: int) -> None:
    assert decode(**{"in stock": cell}) == [value]


def test_what_is_neither_yes_nor_no_is_refused() -> None:
    assert refusal(**{"in stock": "maybe"}) == "expected yes or no, got 'maybe'; send true or false"


@pytest.mark.parametrize(
    "cell",
    [
        "2024-02-29T18:30",
        "2024-02-29T19:30:00+01:00",
        datetime.datetime(2024, 2, 29, 18, 30),
        datetime.datetime(2024, 2, 29, 18, 30, tzinfo=datetime.UTC),
    ],
)
def test_a_date_becomes_its_parts(cell: Any) -> None:
    days = (datetime.date(2024, 2, 29) - datetime.date(1970, 1, 1)).days
    np.testing.assert_allclose(decode(listed=cell), [days + 18.5 / 24, 2, 29, 3, 18.5], atol=1e-2)


@pytest.mark.parametrize("cell", ["29/02/2024", "yesterday", 20240229, "9999-13-01"])
def test_what_is_no_date_is_refused(cell: Any) -> None:
    assert refusal(listed=cell).startswith("expected a date such as 2026-03-31 or 2026-03-31T14:30, got ")


def test_missing_cells_are_nan() -> None:
    row = SPEC.decode({"price": None, "colour": " ", "size": float("nan"), "in stock": True}, "facts")[0]
    assert np.isnan(row).tolist() == [True] * (len(row) - 1) + [False]


@pytest.mark.parametrize("payload", [{}, {"price": None}, {"colour": "", "size": None}, "{}"])
def test_a_row_without_a_cell_is_refused(payload: Any) -> None:
    with pytest.raises(InputError, match="every cell is missing; fill one at least, or leave the field out"):
        SPEC.decode(payload, "facts")


def test_an_unknown_column_is_refused_with_the_nearest_name() -> None:
    assert refusal(Colour="red") == "no column 'Colour'; did you mean 'colour'?"


def test_cells_may_be_a_json_object_in_text() -> None:
    cells = {"price": 12.5, "colour": None, "in stock": False}
    for text in (json.dumps(cells), json.dumps(cells).encode()):
        np.testing.assert_array_equal(SPEC.decode(text, "facts"), SPEC.decode(cells, "facts"))
    with pytest.raises(InputError, match="expected a JSON object such as"):
        SPEC.decode("price=12.5", "facts")
    with pytest.raises(InputError, match="expected an object of cells, got list; send one like"):
        SPEC.decode("[1, 2]", "facts")
    with pytest.raises(TooLarge):
        SPEC.decode(" " * 100_000, "facts")


def test_golden_samples_hold_dates_as_text() -> None:
    cells = {"price": 1.5, "listed": datetime.datetime(2024, 2, 29, 18, 30)}
    stored = json.loads(json.dumps(to_json_cells(cells)))
    np.testing.assert_array_equal(SPEC.decode(stored, "facts"), SPEC.decode(cells, "facts"))


def test_columns_of_another_version_are_refused() -> None:
    fields, files = SPEC.to_fields()
    fields["columns"][0]["unit"] = "EUR"
    with pytest.raises(BundleError, match="another version"):
        ColumnsInput.from_fields(fields, files.__getitem__)


def test_only_the_fields_that_a_type_uses_are_stored() -> None:
    assert SPEC.to_fields()[0]["columns"][-1] == {"name": "in stock", "type": "yes_no"}


def test_large_samples_have_every_cell_and_categories_that_training_lacked() -> None:
    generator = np.random.default_rng(0)
    rows = np.concatenate([SPEC.decode(SPEC.generate_large(generator), "facts") for _ in range(50)])
    assert not np.isnan(rows).any()
    assert rows[:, SPEC.slices["colour"]].max() == 3


def test_generated_samples_have_missing_cells_but_not_all_of_them() -> None:
    generator = np.random.default_rng(0)
    rows = np.concatenate([SPEC.decode(SPEC.generate(generator), "facts") for _ in range(50)])
    assert np.isnan(rows).any(axis=0).all()
    one = ColumnsInput((dataclasses.replace(COLUMNS[0], high=None),))
    assert all(one.generate(generator) for _ in range(50))


def test_a_corrupted_row_loses_whole_cells_and_keeps_one() -> None:
    cells = {"price": 3.0, "listed": "2024-02-29"}
    row = SPEC.corrupt(cells, "facts", "missing", 5, np.random.default_rng(0))[0]
    date = np.isnan(row[SPEC.slices["listed"]])
    assert date.all() != np.isnan(row[SPEC.slices["price"]]).all()
    assert date.all() == date.any()
