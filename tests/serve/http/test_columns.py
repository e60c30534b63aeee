"""Cells of columns in a request: as one JSON object or as single fields, in a form or in JSON."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mla_serve.inputs import Column, ColumnsInput
from mla_serve.serve.api import create_app
from mla_serve.serve.metrics import meters
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings

COLUMNS = (
    Column("price", "number", low=1.0, high=250.0, middle=20.0, spread=40.0),
    Column("Größe in cm.", "number", low=-3.0, high=3.0),
    Column('a "quoted" name', "category", ("red", "green", "blue")),
    Column("__proto__", "category", ("x", "y")),
    Column("listed", "date", low=19_000.0, high=20_000.0, spread=300.0),
    Column("in stock", "yes_no"),
)
CELLS: dict[str, Any] = {
    "price": 12.5,
    "Größe in cm.": -1,
    'a "quoted" name': "green",
    "__proto__": "y",
    "listed": "2023-06-01",
    "in stock": True,
}
TEXTS = {name: {True: "yes"}.get(value, str(value)) for name, value in CELLS.items()}
JSON = {"Content-Type": "application/json"}
MANY = 300


@pytest.fixture(scope="module")
def client(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("columns")
    inputs = {"columns": ColumnsInput(COLUMNS)}
    bundle = make_bundle(folder / "cells", {"text": "text", "columns": "columns"}, inputs=inputs)
    settings = Settings(model=bundle, device="cpu")
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        yield client


@pytest.fixture(scope="module")
def wide(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Serve a model of many columns and nothing else."""
    columns = tuple(Column(f"column {number}", "number", low=0.0, high=1.0) for number in range(MANY))
    inputs = {"facts": ColumnsInput(columns)}
    bundle = make_bundle(tmp_path_factory.mktemp("wide") / "wide", {"facts": "columns"}, inputs=inputs)
    settings = Settings(model=bundle, device="cpu")
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        yield client


def multipart(fields: list[tuple[str, str]]) -> list[Any]:
    return [(name, (None, value)) for name, value in fields]


def single(cells: dict[str, str]) -> list[tuple[str, str]]:
    return [(f"columns.{name}", text) for name, text in cells.items()]


def in_columns(cells: str) -> str:
    """Write a body around the JSON of cells."""
    return f'{{"columns": {cells}}}'


def in_price(cell: str) -> str:
    return f'{{"price": {cell}}}'


def answer_of(reply: Any) -> Any:
    assert reply.status_code == 200, reply.text
    return reply.json()["probabilities"]


def problem_of(reply: Any, status: int, field: str) -> str:
    problem = reply.json()
    assert (reply.status_code, problem.get("field")) == (status, field), problem
    return str(problem["detail"])


@pytest.mark.parametrize("path", ["/predict", "/embed"])
def test_every_way_to_send_cells_gives_the_same_answer(client: TestClient, path: str) -> None:
    whole = json.dumps(CELLS)
    replies = [
        client.post(path, json={"columns": CELLS}),
        client.post(path, files=multipart([("columns", whole)])),
        client.post(path, files=[("columns", ("row.json", whole, "application/json"))]),
        client.post(path, data={"columns": whole}),
        client.post(path, files=multipart(single(TEXTS))),
        client.post(path, data=dict(single(TEXTS))),
    ]
    assert all(reply.status_code == 200 for reply in replies), [reply.text for reply in replies]
    first, *others = (reply.json() for reply in replies)
    assert all(other == first for other in others)


def test_a_batch_answers_the_same(client: TestClient) -> None:
    alone = client.post("/predict", json={"columns": CELLS}).json()
    samples = [
        {"columns": CELLS},
        {"columns": {"price": None}},
        {"columns": {"pricee": 1}},
        {"columns": CELLS, "text": "a"},
    ]
    results = client.post("/predict/batch", json={"samples": samples}).json()["results"]
    assert results[0]["probability"] == pytest.approx(alone["probability"], abs=1e-6)
    assert results[1]["problem"]["type"] == "/problems/missing-input"
    assert results[2]["problem"]["field"] == "columns.pricee"
    assert set(results[3]["modalities"]) == {"columns", "text"}


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_a_missing_cell_is_left_out(client: TestClient, missing: Any) -> None:
    cells = CELLS | {"price": missing, "listed": missing}
    rest = {name: cell for name, cell in CELLS.items() if name not in ("price", "listed")}
    expected = answer_of(client.post("/predict", json={"columns": rest}))
    body = json.dumps({"columns": cells})  # with NaN, as Python writes it
    assert answer_of(client.post("/predict", content=body, headers=JSON)) == expected
    assert answer_of(client.post("/predict", files=multipart([("columns", json.dumps(cells))]))) == expected
    texts = single(TEXTS | {"price": "", "listed": ""})
    assert answer_of(client.post("/predict", files=multipart(texts))) == expected
    assert answer_of(client.post("/predict", data=dict(texts))) == expected
    assert answer_of(client.post("/predict", json={"columns": CELLS})) != expected


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"columns": {}}},
        {"json": {"columns": {"price": None, "in stock": ""}}},
        {"files": multipart([("columns", "{}")])},
        {"files": multipart([("columns", '{"price": null}')])},
        {"files": multipart([("columns.price", ""), ("columns.in stock", "")])},
        {"data": {"columns.price": ""}},
    ],
)
def test_a_modality_without_cells_is_missing(client: TestClient, sent: dict[str, Any]) -> None:
    reply = client.post("/predict", **sent)
    assert reply.status_code == 400
    assert reply.json()["type"] == "/problems/missing-input"
    kind, value = next(iter(sent.items()))
    more = {"json": {"text": "a"}, "files": multipart([("text", "a")]), "data": {"text": "a"}}[kind]
    answer = client.post("/predict", **{kind: value | more if isinstance(value, dict) else value + more}).json()
    assert answer["missing"] == ["columns"]


@pytest.mark.parametrize("missing", ["12.5", ""])
def test_an_unknown_column_is_named_and_the_nearest_one_too(client: TestClient, missing: str) -> None:
    sent = [
        client.post("/predict", json={"columns": {"pricee": missing}}),
        client.post("/predict", files=multipart([("columns", json.dumps({"pricee": missing}))])),
        client.post("/predict", files=multipart([("columns.pricee", missing)])),
        client.post("/predict", data={"columns.pricee": missing}),
    ]
    for reply in sent:
        assert "'price'" in problem_of(reply, 422, "columns.pricee")


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("price", "cheap"),
        ("price", True),
        ("price", [1]),
        ("price", {"a": 1}),
        ("listed", "tomorrow"),
        ("listed", 7.5),
        ("in stock", "perhaps"),
        ("__proto__", ["x"]),
    ],
)
def test_a_cell_of_another_type_is_named(client: TestClient, column: str, cell: Any) -> None:
    detail = problem_of(client.post("/predict", json={"columns": CELLS | {column: cell}}), 422, f"columns.{column}")
    assert "expected" in detail
    assert ";" in detail
    whole = client.post("/predict", files=multipart([("columns", json.dumps({column: cell}))]))
    assert problem_of(whole, 422, f"columns.{column}") == detail
    if isinstance(cell, str):
        assert (
            problem_of(client.post("/predict", files=multipart(single({column: cell}))), 422, f"columns.{column}")
            == detail
        )
    problems = meters().problems.labels("invalid-input", "columns")
    assert problems._value.get() > 0


@pytest.mark.parametrize("cell", ["1e999", "-1e999", "Infinity"])
def test_a_number_that_no_float_holds_is_refused(client: TestClient, cell: str) -> None:
    body = in_columns(in_price(cell))
    assert client.post("/predict", content=body, headers=JSON).status_code in (400, 422)
    reply = client.post("/predict", files=multipart([("columns", in_price(cell))]))
    assert reply.status_code == 422
    assert reply.json()["field"].startswith("columns")
    assert problem_of(client.post("/predict", files=multipart([("columns.price", cell)])), 422, "columns.price")


def test_huge_numbers_are_answered_or_refused(client: TestClient) -> None:
    for number in (1e308, -1e308, 10**300, 5e-324):
        for sent in ({"json": {"columns": {"price": number}}}, {"data": {"columns.price": str(number)}}):
            reply = client.post("/predict", **sent)  # type: ignore[arg-type]
            assert reply.status_code in (200, 422), reply.text
    assert client.post("/predict", files=multipart([("columns.price", "9" * 5000)])).status_code == 422


@pytest.mark.parametrize("content", ["[1]", "7", '"price"', "price=1", '{"price": 1', '{"price": 1} x', "\x00"])
def test_what_is_no_object_is_refused(client: TestClient, content: str) -> None:
    for sent in ({"files": multipart([("columns", content)])}, {"data": {"columns": content}}):
        assert "expected" in problem_of(client.post("/predict", **sent), 422, "columns")  # type: ignore[arg-type]
    with_object = [1], 7, "price", True
    for value in with_object:
        assert "an object" in problem_of(client.post("/predict", json={"columns": value}), 422, "columns")


def test_deep_json_is_refused(client: TestClient) -> None:
    deep = "[" * 50_000 + "]" * 50_000
    for content in (deep, in_price(deep), '{"a":' * 50_000 + "1" + "}" * 50_000):
        reply = client.post("/predict", files=multipart([("columns", content)]))
        assert reply.status_code in (413, 422), reply.text
        reply = client.post("/predict", content=in_columns(content), headers=JSON)
        assert reply.status_code in (400, 422), reply.text


def test_both_ways_at_once_are_refused(client: TestClient) -> None:
    both = [("columns", '{"price": 1}'), ("columns.in stock", "yes")]
    for fields in (both, both[::-1]):
        for sent in ({"files": multipart(fields)}, {"data": dict(fields)}):
            assert "in one of these ways" in problem_of(client.post("/predict", **sent), 422, "columns")  # type: ignore[arg-type]
    empty = [("columns", ""), ("columns.in stock", "yes")]
    answer_of(client.post("/predict", files=multipart(empty)))


def test_a_column_that_is_sent_twice_is_refused(client: TestClient) -> None:
    twice = [("columns.price", "1"), ("columns.price", "2")]
    assert "more than once" in problem_of(client.post("/predict", files=multipart(twice)), 422, "columns.price")
    body = urllib.parse.urlencode(twice)
    reply = client.post("/predict", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert "more than once" in problem_of(reply, 422, "columns.price")
    for whole in ('{"price": 1, "price": 2}', '{"price": null, "price": 2}'):
        reply = client.post("/predict", files=multipart([("columns", whole)]))
        assert "more than once" in reply.json()["detail"]
        reply = client.post("/predict", content=in_columns(whole), headers=JSON)
        assert reply.status_code == 422
        assert "more than once" in reply.json()["detail"]
        samples = f'{{"samples": [{in_columns(whole)}]}}'
        reply = client.post("/predict/batch", content=samples, headers=JSON)
        assert reply.status_code == 422


def test_a_column_of_a_modality_without_columns_is_unknown(client: TestClient) -> None:
    for name in ("text.a", "top_k.a", "other.a", ".price", "columns", "columnsx.price"):
        if name != "columns":
            reply = client.post("/predict", files=multipart([(name, "1"), ("text", "a")]))
            assert reply.status_code == 400
            assert reply.json()["type"] == "/problems/unknown-field"
    for name in ("columns.", "columns..price", "columns.price.", "columns. price"):
        assert "did you mean" in problem_of(client.post("/predict", files=multipart([(name, "1")])), 422, name)


def test_three_hundred_columns_are_read(wide: TestClient) -> None:
    cells = {f"column {number}": number / MANY for number in range(MANY)}
    whole = wide.post("/predict", json={"facts": cells})
    fields = [(f"facts.{name}", str(cell)) for name, cell in cells.items()]
    for sent in ({"files": multipart(fields)}, {"data": dict(fields)}):
        assert answer_of(wide.post("/predict", **sent)) == answer_of(whole)  # type: ignore[arg-type]


def test_ten_thousand_fields_are_refused(wide: TestClient, client: TestClient) -> None:
    for end, known in ((wide, "facts.column 1"), (client, "columns.price")):
        for value in ("", "1"):
            fields = [(known, value)] * 10_000
            assert end.post("/predict", files=multipart(fields)).status_code in (400, 422)
            body = urllib.parse.urlencode(fields)
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            assert end.post("/predict", content=body, headers=form).status_code in (400, 422)
        unknown = [(f"{known.partition('.')[0]}.{number}", "1") for number in range(10_000)]
        assert end.post("/predict", files=multipart(unknown)).status_code == 422
        cells = {f"x{number}": 1 for number in range(10_000)}
        assert end.post("/predict", json={known.partition(".")[0]: cells}).status_code == 422


def test_a_name_of_megabytes_is_refused_at_once(client: TestClient) -> None:
    detail = client.post("/predict", json={"columns": {"price" * 400_000: 1}}).json()["detail"]
    assert len(detail) < 500


NAMES = st.sampled_from([column.name for column in COLUMNS])
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.dictionaries(NAMES, ANY_TEXT | st.sampled_from(list(TEXTS.values())), min_size=1))
def test_single_fields_and_an_object_of_texts_are_read_alike(client: TestClient, texts: dict[str, str]) -> None:
    texts = {name: text.replace("\r\n", "\n").replace("\r", "\n") for name, text in texts.items()}
    whole = client.post("/predict", json={"columns": texts})
    for sent in ({"files": multipart(single(texts))}, {"data": dict(single(texts))}):
        reply = client.post("/predict", **sent)  # type: ignore[arg-type]
        assert reply.status_code == whole.status_code, (reply.text, whole.text)
        if reply.status_code == 200:
            assert reply.json() == whole.json()
        else:
            assert reply.json()["field"] == whole.json()["field"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=ANY_TEXT, value=ANY_TEXT)
def test_any_name_behind_the_dot_is_a_column_or_a_problem(client: TestClient, name: str, value: str) -> None:
    for sent in ({"files": multipart([(f"columns.{name}", value)])}, {"data": {f"columns.{name}": value}}):
        reply = client.post("/predict", **sent)  # type: ignore[arg-type]
        assert reply.status_code in (200, 400, 422)
        if name not in CELLS:
            assert reply.status_code == 422, reply.text


# Descriptions


def test_the_model_lists_its_columns(client: TestClient) -> None:
    modality = client.get("/model").json()["modalities"]["columns"]
    assert (modality["kind"], modality["sent_as"]) == ("columns", "cells")
    columns = {column["name"]: column for column in modality["columns"]}
    assert list(columns) == list(CELLS)
    assert columns["price"] == {
        "name": "price", "type": "number", "values": [], "value_count": 0, "low": 1.0, "middle": 20.0, "high": 250.0,
    }  # fmt: skip
    assert columns["listed"]["low"] == "2022-01-08"
    assert columns["__proto__"]["values"] == ["x", "y"]


def test_of_many_categories_the_most_frequent_are_listed(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    many = tuple(f"brand {number}" for number in range(5000))
    inputs = {"columns": ColumnsInput((Column("brand", "category", many),))}
    bundle = make_bundle(tmp_path / "brands", {"columns": "columns"}, inputs=inputs)
    settings = Settings(model=bundle, device="cpu")
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        reply = client.get("/model")
        (brand,) = reply.json()["modalities"]["columns"]["columns"]
        assert len(client.get("/openapi.json").content) < 100_000
    assert (brand["value_count"], brand["values"]) == (5000, list(many[:100]))
    assert len(reply.content) < 20_000


def test_the_schema_has_the_columns_and_their_types(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    for each in content.values():
        schema = each["schema"]["properties"]["columns"]
        assert schema["type"] == "object"
        assert list(schema["properties"]) == list(CELLS)
        assert schema["properties"]["price"]["type"] == ["number", "null"]
        assert schema["properties"]["in stock"]["type"] == ["boolean", "null"]
        assert schema["properties"]["listed"]["format"] == "date"
        assert schema["properties"]["__proto__"]["examples"] == ["x", "y"]


def test_the_schema_accepts_what_the_service_accepts(client: TestClient) -> None:
    import jsonschema

    document = client.get("/openapi.json").json()
    schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for cells in (CELLS, CELLS | {"price": None}, {"price": 1e30}, {"in stock": False}):
        validator.validate({"columns": cells})
        answer_of(client.post("/predict", json={"columns": cells}))
    for cells in ({"pricee": 1}, {"price": "cheap"}, {"in stock": 0.5}, {"price": [1]}):
        assert not validator.is_valid({"columns": cells})
        assert client.post("/predict", json={"columns": cells}).status_code == 422
