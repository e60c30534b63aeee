"""Parquet, Feather and Arrow: every type becomes a plain value, class numbers become names."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_serve.table.formats.arrow import BATCH

pa = pytest.importorskip("pyarrow")
feather, parquet = pytest.importorskip("pyarrow.feather"), pytest.importorskip("pyarrow.parquet")

Read = Callable[..., list[tuple[int, Any]]]


def as_parquet(table: Any) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def as_feather(table: Any) -> bytes:
    buffer = io.BytesIO()
    feather.write_feather(table, buffer)
    return buffer.getvalue()


def as_stream(table: Any) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


WRITERS = ((".parquet", as_parquet), (".feather", as_feather), (".arrow", as_feather), (".arrow", as_stream))
SOME_TIME = datetime.datetime(2024, 5, 1, 12, 30)


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array([True, None]), [True, None]),
        (pa.array([2**53 + 1, None]), [2**53 + 1, None]),
        (pa.array([0.5, None]), [0.5, None]),
        (pa.array([Decimal("12.50"), Decimal("9007199254740993.00")]), [12.5, 9007199254740993]),
        (pa.array([SOME_TIME, None], pa.timestamp("ns")), [SOME_TIME, None]),
        (pa.array([SOME_TIME, None], pa.timestamp("ms")), [SOME_TIME, None]),
        (pa.array([SOME_TIME.date(), None]), [SOME_TIME.date(), None]),
        (pa.array([SOME_TIME.time(), None]), ["12:30:00", None]),
        (pa.array([1_500_000_001, None], pa.duration("ns")), [1.5, None]),
        (pa.array([[1.0, 2.0], None]), [[1.0, 2.0], None]),
        (pa.array([[Decimal("1")], None]), [[1], None]),
        (pa.array([b"\x89PNG", None]), [b"\x89PNG", None]),
        (
            pa.array([{"bytes": b"\x89PNG", "path": "a.png"}, {"bytes": None, "path": None}]),
            [{"bytes": b"\x89PNG", "path": "a.png"}, None],
        ),
    ],
)
def test_every_type_becomes_a_plain_value(
    read: Read, suffix: str, write: Callable[[Any], bytes], column: Any, expected: list[Any]
) -> None:
    lines = read(suffix, write(pa.table({"c": column})))
    assert lines == [(1, {"c": expected[0]}), (2, {"c": expected[1]})]
    assert [type(row["c"]) for _, row in lines] == [type(cell) for cell in expected]


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "n": st.none() | st.integers(-(2**63), 2**63 - 1),
                "x": st.none() | st.floats(allow_nan=False),
                "t": st.none() | st.text(st.characters(codec="utf-8")),
                "b": st.none() | st.booleans(),
                "v": st.none() | st.lists(st.floats(allow_nan=False), max_size=3),
            }
        ),
        min_size=1,
        max_size=5,
    ),
    writer=st.sampled_from(WRITERS),
)
def test_whatever_pyarrow_writes_is_read_back(read: Read, rows: list[dict[str, Any]], writer: Any) -> None:
    kinds = {"n": pa.int64(), "x": pa.float64(), "t": pa.string(), "b": pa.bool_(), "v": pa.list_(pa.float64())}
    suffix, write = writer
    assert read(suffix, write(pa.Table.from_pylist(rows, pa.schema(kinds)))) == list(enumerate(rows, start=1))


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_rows_are_numbered_across_batches(read: Read, suffix: str, write: Callable[[Any], bytes]) -> None:
    lines = read(suffix, write(pa.table({"a": list(range(BATCH + 2))})))
    assert lines == [(number, {"a": number - 1}) for number in range(1, BATCH + 3)]


def test_the_index_of_a_data_frame_is_left_out_and_it_is_said(read: Read) -> None:
    frame = pd.DataFrame({"a": ["x", "y"]}, index=["one", "two"])
    notes: list[str] = []
    assert read(".parquet", as_parquet(pa.Table.from_pandas(frame)), notes) == [(1, {"a": "x"}), (2, {"a": "y"})]
    assert notes == ["the index of the data frame is left out; call reset_index() before saving it to use it"]


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_class_numbers_of_a_hugging_face_data_set_become_names(
    read: Read, suffix: str, write: Callable[[Any], bytes]
) -> None:
    names = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    features = {"label": names, "tags": {"feature": names, "_type": "List"}, "n": {"dtype": "int64", "_type": "Value"}}
    table = pa.table({"label": [1, -1, None], "tags": [[0, 1], None, []], "n": [0, 1, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    assert [row for _, row in read(suffix, write(table))] == [
        {"label": "dog", "tags": ["cat", "dog"], "n": 0},
        {"label": None, "tags": None, "n": 1},
        {"label": None, "tags": [], "n": 1},
    ]


@pytest.mark.parametrize("metadata", ["{", "[]", '{"info": 3}', '{"info": {"features": {"a": 1}}}'])
def test_other_metadata_of_that_name_changes_nothing(read: Read, metadata: str) -> None:
    table = pa.table({"a": [1]}).replace_schema_metadata({"huggingface": metadata})
    assert read(".parquet", as_parquet(table)) == [(1, {"a": 1})]


def test_columns_of_the_same_name_are_refused(read: Read) -> None:
    table = pa.table([[1], [2]], names=["a", "a"])
    assert read(".feather", as_stream(table)) == [(0, "two columns are called 'a'; rename one")]


@pytest.mark.parametrize(("suffix", "name"), [(".parquet", "Parquet"), (".feather", "Arrow"), (".arrow", "Arrow")])
def test_a_damaged_file_is_refused(read: Read, suffix: str, name: str) -> None:
    for data in (b"", b"PAR1 no", b"ARROW1\0\0 no", as_parquet(pa.table({"a": [1]}))[:-20]):
        [(line, damaged)] = read(suffix, data)
        assert line == 0
        assert damaged.startswith(f"not readable as {name} (")
