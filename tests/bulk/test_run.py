"""Scoring a table: the same answers as one at a time, bad rows told and not fatal, nothing lost or doubled on the way."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from mla_serve import __version__
from mla_serve.bulk import run as bulk
from mla_serve.bulk.parts import Joined, Parts
from mla_serve.bulk.run import score_table
from mla_serve.bulk.score import Ask, Scorer
from mla_serve.bulk.slices import Source
from mla_serve.bulk.writers import WRITERS
from mla_serve.bundle.answer_columns import ANSWER, BOUNDS, MISSING
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.commands.predict import PredictConfig
from mla_serve.commands.predict import run as predict
from mla_serve.errors import ConfigError, DataError, InputError
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.tasks import Number

KINDS = {"image": "image", "text": "text", "numbers": "vector"}


@pytest.fixture
def ask(make_bundle: Callable[..., Path], tmp_path: Path) -> Ask:
    """A bundle of three modalities."""
    return Ask(make_bundle(tmp_path / "model", KINDS), DEFAULT_RULE, None)


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SLICE_ROWS", 4)


def rows_of(folder: Path, ask: Ask, count: int) -> list[dict[str, Any]]:
    """Make rows with every subset of the modalities, files beside the table."""
    inputs = Bundle.load(ask.model).inputs
    generator = np.random.default_rng(0)
    rows = []
    for n in range(count):
        row: dict[str, Any] = {"id": f"r{n}"}
        for m, (name, spec) in enumerate(inputs.items()):
            if (n % 7 + 1) >> m & 1:
                value = spec.generate(generator)
                if isinstance(value, bytes):
                    (folder / f"{n}-{name}.bin").write_bytes(value)
                    value = f"{n}-{name}.bin"
                row[name] = list(value) if isinstance(value, tuple) else value
        rows.append(row)
    return rows


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a table."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one_by_one(folder: Path, ask: Ask, rows: Sequence[dict[str, Any]]) -> list[Any]:
    """Answer rows with the predictor."""
    predictor = Predictor(Bundle.load(ask.model))
    samples = [
        {
            name: (folder / value).read_bytes() if str(value).endswith(".bin") else value
            for name, value in row.items()
            if name in predictor.names
        }
        for row in rows
    ]
    return [predictor.predict([sample], ask.rule, coverage=ask.coverage)[0] for sample in samples]


def score_here(table: Path, out: Path, ask: Ask, only: int | None = None) -> int:
    """Score in this process, all slices or the first few; returns how many there were."""
    source, parts = Source.of(table), Parts(out)
    parts.begin({"slice": bulk.SLICE_ROWS})
    scorer = Scorer(ask, source.path.parent)
    slices = list(source.slices(bulk.SLICE_ROWS))
    for rows in slices[:only]:
        parts.keep(rows.number, scorer.score(rows))
    return len(slices)


@pytest.fixture
def task_ask(task_bundle: Path) -> Ask:
    """A bundle of each task."""
    return Ask(task_bundle, DEFAULT_RULE, 0.9)


def test_every_row_gets_the_answer_it_would_get_alone(tmp_path: Path, task_ask: Ask) -> None:
    ask, rows = task_ask, rows_of(tmp_path, task_ask, 30)
    table = write_jsonl(tmp_path / "rows.jsonl", rows)
    scored = score_table(table, tmp_path / "out.parquet", ask, workers=2)
    assert (scored.rows, scored.bad, scored.new) == (30, 0, 30)
    answers = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert [answer["row"] for answer in answers] == list(range(30))
    assert [answer["line"] for answer in answers] == list(range(1, 31))
    for answer, alone in zip(answers, one_by_one(tmp_path, ask, rows), strict=True):
        task = Bundle.load(ask.model).task.name
        for column in (*ANSWER[task], MISSING, *BOUNDS[task]):
            expected = column.cell(alone)
            assert answer[column.name] == (pytest.approx(expected, rel=1e-4) if column.kind == "number" else expected)
        assert answer["error"] is None
        assert ("probabilities" in answer) == bool(alone.by_label())
        for name, p in alone.by_label().items():
            assert answer["probabilities"][name] == pytest.approx(p, abs=1e-5)
        given = {name: weight for name, weight in answer["weight"].items() if weight is not None}
        assert given == pytest.approx({name: said.weight for name, said in alone.modalities.items()}, abs=1e-5)
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_holds_the_answers_of_every_task(tmp_path: Path, task_ask: Ask, suffix: str) -> None:
    table, out = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, task_ask, 6)), tmp_path / f"out{suffix}"
    flat = bool(Bundle.load(task_ask.model).task.names)
    for _ in range(2):  # the second time, the first file is replaced, as one that predict wrote
        Parts(out).finish(score_here(table, out, task_ask), flat=flat)
    found = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": lambda p: pd.read_json(p, lines=True)}[suffix](
        out
    )
    assert len(found) == 6
    assert found["entropy"].notna().all()
    probabilities = [name for name in found.columns if name.startswith("probabilities.")]
    assert len(probabilities) == len(Bundle.load(task_ask.model).task.names)
    assert found[probabilities].map(lambda p: 0 < p < 1).all(axis=None)


def test_a_number_has_no_probabilities_in_columns(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    model = make_bundle(tmp_path / "price", KINDS, task=Number("price"))
    ask = Ask(model, DEFAULT_RULE, None)
    table = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 3))
    with pytest.raises(ConfigError, match="--probabilities: this model answers a number"):
        score_table(table, tmp_path / "out.csv", ask, flat=True)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_the_other_table_formats_give_the_same(tmp_path: Path, ask: Ask, suffix: str) -> None:
    rows = [{"image": "", "text": "", "numbers": ""} | row for row in rows_of(tmp_path, ask, 10)]
    count = score_here(write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "a.parquet", ask)
    Parts(tmp_path / "a.parquet").finish(count)
    other = tmp_path / f"rows{suffix}"
    if suffix != ".parquet":
        encoding, separator = ("utf-8", ";") if suffix == ".csv" else ("utf-16", "\t")
        with other.open("w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(pa.Table.from_pylist([{**row, "numbers": row["numbers"] or None} for row in rows]), other)
    assert Source.of(other).rows >= len(rows)
    count = score_here(other, tmp_path / "b.parquet", ask)
    Parts(tmp_path / "b.parquet").finish(count)
    first, second = (parquet.read_table(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert first.drop(["line"]).equals(second.drop(["line"]))
    start = 1 if suffix == ".parquet" else 2  # the line of the first row, as messages name it
    assert second["line"].to_pylist() == list(range(start, start + 10))


def test_a_bad_row_is_told_and_its_neighbours_are_answered(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "broken.bin").write_bytes(b"no picture")
    table = tmp_path / "rows.jsonl"
    table.write_text(
        '{"id": 1, "text": "red"}\n'
        '{"id": 2, "image": "broken.bin", "text": "red"}\n'
        '{"id": 3, "image": "../escape.bin"}\n'
        '{"id": 4}\n'
        "not json\n"
        '{"id": 6, "numbers": [1, 2]}\n'
        '{"id": 7, "image": "not-there.bin"}\n'
        '{"id": 8, "text": "red"}\n'
        '{"id": 9, "text": "red", "numbers": [3e38, 3e38, 3e38, 3e38]}\n'
        '{"id": 10, "image": "broken.bin", "numbers": [3e38, 3e38, 3e38, 3e38]}\n'
    )
    joined = Parts(tmp_path / "out.parquet").finish(score_here(table, tmp_path / "out.parquet", ask))
    assert joined == Joined(bad=6, partial=2)
    answers = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [answer["error"] is None for answer in answers] == [True, True, *[False] * 5, True, True, False]
    for n, word in {
        2: "image: the path",
        3: "no modality",
        4: "JSON",
        5: "numbers: expected",
        6: "image: no file",
    }.items():
        assert word in answers[n]["error"]
        assert answers[n]["label"] is None
    assert answers[4]["id"] == "4"  # a row without an id has its number
    assert "image: 'broken.bin': this is plain text, expected PNG" in answers[9]["error"]
    assert "| numbers: the model returns infinity or NaN for it" in answers[9]["error"]


def test_a_modality_that_cannot_be_used_leaves_the_row_to_the_others(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "broken.bin").write_bytes(b"no picture")
    table = write_jsonl(
        tmp_path / "rows.jsonl",
        [
            {"text": "red"},
            {"image": "broken.bin", "text": "red"},
            {"image": "not-there.bin", "text": "red"},
            {"text": "red", "numbers": [3e38, 3e38, 3e38, 3e38]},
        ],
    )
    Parts(tmp_path / "out.parquet").finish(score_here(table, tmp_path / "out.parquet", ask))
    alone, *others = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert set(alone["faults"].values()) == {None}
    said = {1: ("image", "expected PNG"), 2: ("image", "no file 'not-there.bin'"), 3: ("numbers", "infinity or NaN")}
    for n, answer in enumerate(others, start=1):
        modality, fault = said[n]
        assert fault in answer["faults"].pop(modality)
        assert set(answer["faults"].values()) == {None}
        same = ("label", "probability", "probabilities", "weight", "missing", "error")
        assert {name: answer[name] for name in same} == {name: alone[name] for name in same}


OWN: list[dict[str, Any]] = [
    {"text": "red", "label": "a", "price": 3, "tags": ["x", "y"]},
    {"text": "blue", "label": 'b, "c"', "price": 2.5, "tags": []},
    {"text": "", "label": None, "price": None},
    {"text": "red", "label": "a", "price": 1, "extra": {"deep": "é\n"}},
    {"text": "red", "label": 7, "price": 0},
]


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Read a file of answers in any of its formats."""
    if path.suffix == ".parquet":
        return [dict(row) for row in parquet.read_table(path).to_pylist()]
    with path.open(newline="", encoding="utf-8") as file:
        return [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_own_columns_are_carried_over(tmp_path: Path, ask: Ask, suffix: str) -> None:
    asked = dataclasses.replace(ask, keep=("all",))
    table = write_jsonl(tmp_path / "rows.jsonl", OWN)
    scored = score_table(table, tmp_path / f"out{suffix}", asked, workers=1)
    assert (scored.rows, scored.bad) == (5, 1)
    answers = read_answers(tmp_path / f"out{suffix}")
    missing = "" if suffix == ".csv" else None
    labels = ["a", 'b, "c"', None, "a", "7"]  # one is a number: no common type, so all are texts
    assert [answer["own_label"] for answer in answers] == [missing if label is None else label for label in labels]
    assert [answer["text"] for answer in answers] == [row["text"] for row in OWN]
    prices = [answer["price"] for answer in answers]
    assert [None if price in ("", None) else float(price) for price in prices] == [3, 2.5, None, 1, 0]
    tags = answers[0]["tags"]
    assert (json.loads(tags) if suffix == ".csv" else tags) == ["x", "y"]
    deep = answers[3]["extra.deep"] if suffix == ".csv" else answers[3]["extra"]["deep"]
    assert deep == "é\n"


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_the_three_formats_hold_the_same_answers(tmp_path: Path, ask: Ask, suffix: str) -> None:
    table = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 6))
    score_table(table, tmp_path / "whole.parquet", ask, workers=1)
    score_table(table, tmp_path / f"out{suffix}", ask, workers=1, flat=True)
    whole, answers = read_answers(tmp_path / "whole.parquet"), read_answers(tmp_path / f"out{suffix}")
    for one, other in zip(whole, answers, strict=True):
        assert (one["id"], one["label"]) == (other["id"], other["label"])
        for label, probability in one["probabilities"].items():
            assert float(other[f"probabilities.{label}"]) == pytest.approx(probability, abs=1e-12)
        missing = json.loads(other["missing"]) if suffix == ".csv" else other["missing"]
        assert missing == one["missing"]


def test_bytes_are_carried_over_to_parquet_only(tmp_path: Path, ask: Ask) -> None:
    table = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"text": ["red", "blue"], "thumbnail": [b"a", b"\xff"]}), table)
    asked = dataclasses.replace(ask, keep=("all",))
    with pytest.raises(ConfigError, match=r"thumbnail holds bytes, which .csv cannot hold; name"):
        score_table(table, tmp_path / "out.csv", asked, workers=1)
    score_table(table, tmp_path / "out.parquet", asked, workers=1)
    assert [row["thumbnail"] for row in read_answers(tmp_path / "out.parquet")] == [b"a", b"\xff"]


def test_a_csv_file_of_answers_is_kept_and_any_other_refused(tmp_path: Path, ask: Ask) -> None:
    table, out = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 6)), tmp_path / "out.csv"
    score_table(table, out, ask, workers=1)
    first = out.read_bytes()
    score_table(table, out, dataclasses.replace(ask, keep=("id",)), workers=1)
    assert (tmp_path / "out.csv.old").read_bytes() == first
    out.write_text("mine\n")
    with pytest.raises(ConfigError, match="is another file, no answers of a model"):
        score_table(table, out, ask, workers=1)


def test_an_interrupted_scoring_goes_on_and_gives_the_same_file(tmp_path: Path, ask: Ask) -> None:
    table = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 22))
    whole = score_table(table, tmp_path / "whole.parquet", ask, workers=1)
    out = tmp_path / "resumed.parquet"
    plan = tmp_path / "resumed.parquet.parts"
    interrupted = Parts(out)
    scorer, source = Scorer(ask, tmp_path), Source.of(table)
    asked = {"fusion": ask.rule, "coverage": None, "keep": []}
    interrupted.begin(
        {"table": source.sha256, "model": Bundle.load(ask.model).manifest.sha256, **asked, "slice": bulk.SLICE_ROWS}
        | {"version": __version__}
    )
    for rows in list(source.slices(bulk.SLICE_ROWS))[::2]:
        interrupted.keep(rows.number, scorer.score(rows))
    (plan / "00000001.tmp").write_bytes(b"half a part")
    scored = score_table(table, out, ask, workers=1)
    assert (whole.new, scored.rows, scored.new) == (22, 22, 10)
    assert parquet.read_table(out).equals(parquet.read_table(tmp_path / "whole.parquet"))


def test_parts_of_another_scoring_are_not_mixed_in(tmp_path: Path, ask: Ask) -> None:
    table = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 5))
    Parts(tmp_path / "out.parquet").begin({"table": "another"})
    with pytest.raises(ConfigError, match=r"another scoring: table, model.* changed"):
        score_table(table, tmp_path / "out.parquet", ask)


def test_nothing_is_written_over_until_all_is_there(tmp_path: Path, ask: Ask) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"yesterday's")
    count = score_here(write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 9)), out, ask, only=1)
    with pytest.raises(DataError, match="cannot be joined"):
        Parts(out).finish(count)
    assert out.read_bytes() == b"yesterday's"
    assert Parts(out).has(0)
    assert not list(tmp_path.glob(".*tmp"))


def test_prediction_sets_come_with_a_coverage(tmp_path: Path, make_bundle: Callable[..., Path], ask: Ask) -> None:
    table = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 3))
    asked = dataclasses.replace(ask, coverage=0.9)
    with pytest.raises(
        InputError, match="coverage: this model keeps nothing to choose it by under 'calibrated'; leave it out"
    ):
        score_table(table, tmp_path / "out.parquet", asked)
    assert "prediction_set" in Scorer(asked, tmp_path).schema.names
    assert "prediction_set" not in Scorer(ask, tmp_path).schema.names


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"out": None}, "add --out"),
        ({"text": "seven"}, "--text: is for one sample"),
        ({"top_k": 3}, "--top-k: is for one sample"),
        ({"workers": 0}, "at least 1"),
        ({"out": Path("answers.txt")}, "ends in .parquet, .csv, .jsonl"),
        ({"keep": ("nothing",)}, "--keep nothing: no such column; the table has id"),
        ({"keep": ("all", "id")}, "give all alone"),
        ({"table": Path("rows.xls")}, "expected a table"),
        ({"table": Path("not-there.csv")}, "cannot be read"),
        ({"table": None}, "--out: needs --table"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    tmp_path: Path, ask: Ask, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 2))
    given: dict[str, Any] = {"model": ask.model, "table": table, "out": tmp_path / "out.parquet"} | changes
    with pytest.raises((ConfigError, DataError), match=said):
        predict(PredictConfig(**given))
    assert not list(tmp_path.glob("*.parts"))


def test_an_empty_table_is_refused(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "rows.csv").write_text("text\n")
    with pytest.raises(DataError, match="holds no rows"):
        score_table(tmp_path / "rows.csv", tmp_path / "out.parquet", ask, workers=1)
    assert [path.name for path in tmp_path.glob("*out*")] == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", b"id,text\n1,red\n2,\x81\n3,blue\n", "line 3: its encoding is not known"),
        ("rows.csv", b'id,text\n1,red\n2,"a"b\n3,blue\n', "line 3: not readable as CSV"),
        ("rows.parquet", b"PAR1", "not readable as Parquet"),
    ],
)
def test_a_table_that_ends_in_a_fault_gives_no_shorter_answer(
    tmp_path: Path, ask: Ask, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        score_table(tmp_path / name, tmp_path / "out.parquet", ask, workers=1)
    assert not (tmp_path / "out.parquet").exists()


def test_a_damaged_part_is_scored_again(tmp_path: Path, ask: Ask) -> None:
    out = tmp_path / "out.parquet"
    count = score_here(write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 9)), out, ask)
    damaged = tmp_path / "out.parquet.parts" / "00000001.parquet"
    damaged.write_bytes(b"")
    with pytest.raises(DataError, match="run it again"):
        Parts(out).finish(count)
    assert [Parts(out).has(n) for n in range(count)] == [True, False, True]


def test_a_full_disk_is_told_and_leaves_no_half_part(tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_: pa.Table, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", write)
    table = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 2))
    with pytest.raises(DataError, match=r"No space left.*make room"):
        score_here(table, tmp_path / "out.parquet", ask)
    assert [path.name for path in (tmp_path / "out.parquet.parts").iterdir()] == ["plan.json"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="choose another place"):
        Parts(tmp_path / "file" / "out.parquet").begin({})
