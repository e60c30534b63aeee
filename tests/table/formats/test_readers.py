"""What holds for every reader."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from mla_serve.table.faults import BrokenTable, InvalidValue
from mla_serve.table.formats import READERS, suffix_of

ROWS = [{"label": "a", "text": "one"}, {"label": "b", "text": "two"}, {"label": "b", "text": "three"}]


def write(suffix: str) -> bytes:
    """Write ROWS in the format of a suffix."""
    if suffix.endswith(".gz"):
        return gzip.compress(write(suffix.removesuffix(".gz")))
    buffer = io.BytesIO()
    separator = "," if suffix == ".csv" else "\t"
    if suffix in (".csv", ".tsv", ".tab", ".txt"):
        return "".join(f"{separator.join(row)}\n" for row in [["label", "text"], *map(dict.values, ROWS)]).encode()
    if suffix in (".jsonl", ".ndjson"):
        return "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
    if suffix == ".json":
        return json.dumps(ROWS).encode()
    if suffix in (".xlsx", ".xlsm"):
        workbook = openpyxl.Workbook()
        for row in [["label", "text"], *map(dict.values, ROWS)]:
            workbook.active.append(list(row))
        workbook.save(buffer)
        return buffer.getvalue()
    writer = {".parquet": parquet.write_table, ".feather": feather.write_feather, ".arrow": feather.write_feather}
    writer[suffix](pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_gives_the_same_rows_with_rising_numbers_and_says_nothing(suffix: str) -> None:
    notes: list[str] = []
    stream = io.BytesIO(write(suffix))
    lines = list(READERS[suffix](stream, notes.append))
    assert [cells for _, cells in lines] == ROWS
    numbers = [number for number, _ in lines]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert numbers[0] in (1, 2)
    assert notes == []
    assert not stream.closed
    assert list(READERS[suffix](stream)) == lines  # it rewinds the stream


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_gives_rows_or_faults_and_never_another_error(suffix: str, share: float) -> None:
    data = write(suffix)
    lines = list(READERS[suffix](io.BytesIO(data[: int(len(data) * share)])))
    assert all(isinstance(cells, dict | InvalidValue) for _, cells in lines)


@pytest.mark.parametrize("suffix", READERS)
def test_a_picture_under_the_name_of_a_table_gives_no_rows(suffix: str) -> None:
    lines: list[Any] = list(
        READERS[suffix](io.BytesIO(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x81\xff\xfe" + bytes(range(256))))
    )
    assert lines
    assert all(isinstance(cells, InvalidValue) for _, cells in lines)
    if suffix not in (".jsonl", ".ndjson"):
        assert isinstance(lines[-1][1], BrokenTable)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.CSV", ".csv"), ("a.b.csv.gz", ".csv.gz"), ("a.tar.gz", ""), ("a", ""), ("a.png", ""), ("x/a.b.json", ".json")],
)
def test_the_suffix_of_a_table_is_known_in_any_case_and_compressed(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix
