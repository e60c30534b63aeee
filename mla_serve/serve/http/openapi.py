"""Descriptions of the service, built from the bundle: the answer of GET /model, curl examples, the OpenAPI schemas."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mla_serve import __version__
from mla_serve.bundle.manifest import Bundle, Manifest
from mla_serve.bundle.results import DEFAULT_TOP_K
from mla_serve.bundle.runtime import WHEELS
from mla_serve.fusion.formula import Fusion
from mla_serve.fusion.rules import DEFAULT_RULE, MEANINGS, rules_for
from mla_serve.inputs import Column, ColumnsInput, Input
from mla_serve.inputs.base import SentAs
from mla_serve.inputs.columns import DAY, EPOCH, ColumnType
from mla_serve.serve.http import replies
from mla_serve.serve.http.content_type import JSON, MULTIPART
from mla_serve.serve.problems import MEDIA_TYPE, PROBLEM_KINDS, ProblemKind
from mla_serve.serve.settings import Settings

NOT_BLANK = r"\S"
ROWS_NOTE = re.compile(r"(\d+) rows for (train|val|test)")
EXAMPLE_COLUMNS, EXAMPLE_VALUES = 3, 5
MOST_VALUES = 100  # of a category's values that GET /model lists
CELL_SCHEMAS: dict[ColumnType, dict[str, Any]] = {
    "number": {"type": ["number", "null"]},
    "category": {"type": ["string", "null"]},
    "date": {"type": ["string", "null"], "format": "date"},
    "yes_no": {"type": ["boolean", "null"]},
}
PACKAGES = ("numpy", *WHEELS, "bentoml", "fastapi", "pillow", "soundfile", "tokenizers")


@dataclasses.dataclass(frozen=True)
class ColumnDescription:
    """One column of a modality, as it was in the training rows.

    values: of a category, the most frequent first, at most 100 of value_count. low, middle, high: the range and the median of
    a number; the range of a date, in ISO 8601.
    """

    name: str
    type: ColumnType
    values: list[str]
    value_count: int
    low: float | str | None = None
    middle: float | None = None
    high: float | str | None = None


@dataclasses.dataclass(frozen=True)
class ModalityDescription:
    """How one modality is sent: its kind, formats, shape and every field that decoding depends on, or its columns."""

    kind: str
    sent_as: SentAs
    formats: list[str]
    shape: list[int]
    input: dict[str, Any]
    columns: list[ColumnDescription] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class FusionDescription:
    """The rule when none is asked for, all rules, and the fitted parameters."""

    default: str
    rules: list[str]
    fitted: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Versions:
    """Versions of packages: of those that trained the model, and of those that compute the answers."""

    trained: dict[str, str]
    serving: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may send, and how long it may take."""

    body_bytes: int
    part_bytes: int
    batch_body_bytes: int
    batch_items: int
    request_seconds: float


@dataclasses.dataclass(frozen=True)
class AboutDescription:
    """What the one who trained the model says about it, in Markdown; limits: what not to use it for."""

    purpose: str
    limits: list[str]
    data: str
    licence: str


@dataclasses.dataclass(frozen=True)
class FittedAgain:
    """How a finished model was fitted to other rows; its graphs stayed as they were.

    split: what the data call these rows. mla_serve: the version.
    """

    date: str
    rows: int
    split: str
    mla_serve: str


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """The reply of GET /model.

    created: when this bundle was written. trained: when its graphs were; fitted_again: what was done to it since, null where
    nothing was.
    task: what is predicted, classes, labels or number; the field of that name describes it.
    coverage: the highest coverage that the validation rows allow: {fusion rule: {pattern: coverage}}.
    rows: how many there were for train, val and test; empty where it is not known.
    update_refused: why a newer bundle is not served.
    """

    name: str
    sha256: str
    created: str
    trained: str
    task: str
    modalities: dict[str, ModalityDescription]
    fusion: FusionDescription
    coverage: dict[str, dict[str, float]]
    about: AboutDescription
    rows: dict[str, int]
    metrics: dict[str, Any]
    golden_samples: int
    golden_source: str
    versions: Versions
    providers: list[str]
    limits: Limits
    classes: list[str] = dataclasses.field(default_factory=list)
    labels: list[replies.LabelDescription] = dataclasses.field(default_factory=list)
    number: replies.NumberDescription | None = None
    fitted_again: FittedAgain | None = None
    update_refused: dict[str, str] | None = None


def model_description(bundle: Bundle, settings: Settings, providers: Iterable[str]) -> ModelDescription:
    """Return the answer of GET /model."""
    manifest = bundle.manifest
    again = manifest.training.get("recalibrated")
    return ModelDescription(
        name=manifest.name,
        sha256=manifest.sha256,
        created=manifest.created,
        trained=again["trained"] if again else manifest.created,
        fitted_again=again
        and FittedAgain(manifest.created, again["rows"], again["split"], again["versions"]["mla_serve"]),
        modalities={name: describe_input(reader) for name, reader in bundle.inputs.items()},
        fusion=FusionDescription(DEFAULT_RULE, list(rules_for(bundle.fusion)), manifest.fusion.model_dump()),
        coverage=possible_coverages(bundle),
        about=AboutDescription(**manifest.about.model_dump()),
        rows=row_counts(manifest),
        metrics=manifest.metrics,
        golden_samples=len(manifest.golden),
        golden_source=manifest.golden_source,
        versions=Versions(manifest.versions, serving_versions()),
        providers=list(providers),
        limits=Limits(
            settings.max_body_bytes,
            settings.max_part_bytes,
            settings.max_batch_body_bytes,
            settings.max_batch_items,
            settings.request_timeout_s,
        ),
        **replies.target_fields(bundle.task),
    )


def row_counts(manifest: Manifest) -> dict[str, int]:
    """Return how many rows a model was made from, by split; those for test are the ones that were measured last.

    In bundles of older versions the counts stand in the notes on the training alone.
    """
    training, metrics = manifest.training, manifest.metrics
    noted = (ROWS_NOTE.fullmatch(note) for note in training.get("notes", []))
    counts: dict[str, int] = training.get("counts") or {found[2]: int(found[1]) for found in noted if found}
    if "recalibrated" not in training:
        return counts
    test = {} if metrics.get("fitted") or "rows" not in metrics else {"test": metrics["rows"]}
    return {split: count for split, count in counts.items() if split != "test"} | test


def possible_coverages(bundle: Bundle) -> dict[str, dict[str, float]]:
    """Return the highest coverage that the rows of each pattern allow: {fusion rule: {pattern: coverage}}."""
    return bundle.intervals.highest_coverages()


def describe_input(reader: Input) -> ModalityDescription:
    """Describe how one modality is sent."""
    contents = {field.name for field in dataclasses.fields(reader) if "file" in field.metadata}
    columns = [describe_column(column) for column in reader.columns] if isinstance(reader, ColumnsInput) else []
    left_out = contents | ({"columns"} if columns else set())  # described one by one, with a part of their values
    fields = {name: value for name, value in vars(reader).items() if name in _field_names(reader) - left_out}
    return ModalityDescription(reader.kind, reader.sent_as, list(reader.formats), list(reader.shape), fields, columns)


def describe_column(column: Column) -> ColumnDescription:
    """Describe one column; of a category with many values only the most frequent are listed."""
    values = list(column.values[:MOST_VALUES])
    about = ColumnDescription(column.name, column.type, values, len(column.values))
    if column.low is None or column.high is None:
        return about
    if column.type == "date":
        first, last = ((EPOCH + DAY * days).date().isoformat() for days in (column.low, column.high))
        return dataclasses.replace(about, low=first, high=last)
    return dataclasses.replace(about, low=column.low, middle=column.middle, high=column.high)


def serving_versions() -> dict[str, str]:
    """Return the versions of the installed packages that compute the answers."""
    versions = {"mla_serve": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def curl(inputs: Mapping[str, Input], path: str = "/predict") -> str:
    """Write a curl command that sends these modalities to a service on this machine."""
    return " ".join(
        ["curl", *(f"-F {_curl_field(name, reader)}" for name, reader in inputs.items()), f"localhost:3000{path}"]
    )


def sample_body(inputs: Mapping[str, Input], fusion: Fusion | None = None) -> dict[str, Any]:
    """Return the OpenAPI request body of one sample, as a form or as JSON.

    Args: fusion, of the model, for the options of an answer; None for a body without options.

    Two facts are left out because they break generated clients. That at least one modality is needed: generators make
    classes without fields of `anyOf`. That a body is required: openapi-python-client 0.29 then writes modules that cannot
    be imported (its issue 1451).
    """
    options = option_schemas(fusion) if fusion else {}
    form = {name: _form_field(name, reader) for name, reader in inputs.items()}
    values = {name: _json_field(reader) for name, reader in inputs.items()}
    return {
        "content": {
            MULTIPART: {"schema": _object("Form", form | options)},
            JSON: {"schema": _object("Sample", values | options)},
        },
    }


def batch_body(inputs: Mapping[str, Input], fusion: Fusion, max_items: int) -> dict[str, Any]:
    """Return the OpenAPI request body of a JSON batch."""
    item = _object("BatchSample", {name: _json_field(reader) for name, reader in inputs.items()})
    samples = {"type": "array", "items": item, "minItems": 1, "maxItems": max_items}
    schema = _object("Batch", {"samples": samples} | option_schemas(fusion)) | {"required": ["samples"]}
    return {"required": True, "content": {JSON: {"schema": schema}}}


def query_parameters(fusion: Fusion) -> list[dict[str, Any]]:
    """Return the options as OpenAPI parameters of the URL."""
    return [
        {"name": name, "in": "query", "required": False, "description": schema["description"], "schema": schema}
        for name, schema in option_schemas(fusion).items()
    ]


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses for these HTTP statuses."""
    kinds: dict[int, list[ProblemKind]] = {}
    for kind in PROBLEM_KINDS.values():
        kinds.setdefault(kind.status, []).append(kind)
    return {status: _problem_response(kinds[status]) for status in statuses}


def _problem_response(kinds: Sequence[ProblemKind]) -> dict[str, Any]:
    """Describe the problems with the same status. Their examples are those of `problem_examples`."""
    examples = {kind.slug: {"$ref": f"#/components/examples/{kind.slug}"} for kind in kinds}
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}}
    return {"description": "; ".join(kind.title for kind in kinds), "content": content}


def problem_examples() -> dict[str, dict[str, Any]]:
    """Return an example of each kind of problem; its description is that of the page at the problem's type."""
    detail = "What was sent, what was expected, and what to do."
    return {
        kind.slug: {
            "summary": kind.title,
            "description": kind.explanation,
            "value": {"type": kind.type, "title": kind.title, "status": kind.status, "detail": detail},
        }
        for kind in PROBLEM_KINDS.values()
    }


def _object(title: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "properties": properties,
        "minProperties": 1,
        "additionalProperties": False,
    }


def _field_names(reader: Input) -> set[str]:
    return {field.name for field in dataclasses.fields(reader)}


def _curl_field(name: str, reader: Input) -> str:
    if isinstance(reader, ColumnsInput):
        return shlex.quote(f"{name}={json.dumps(example_cells(reader), ensure_ascii=False)}")
    if reader.sent_as == "numbers":
        return f"'{name}={[0.5] * reader.shape[0]}'" if reader.shape[0] <= 8 else f"'{name}=<numbers.txt'"
    return f"{name}=@{name}.{reader.formats[0].lower()}" if reader.sent_as == "file" else f"'{name}=some words'"


def example_cells(reader: ColumnsInput) -> dict[str, Any]:
    """Return cells of the first columns that could have been sent."""
    return {column.name: _example_cell(describe_column(column)) for column in reader.columns[:EXAMPLE_COLUMNS]}


def _example_cell(column: ColumnDescription) -> float | str | bool | None:
    if column.type == "yes_no":
        return True
    return next(iter(column.values), None) if column.type == "category" else column.middle or column.high


def _cells_schema(reader: ColumnsInput, advice: str = "") -> dict[str, Any]:
    """Return the schema of an object of cells. The categories of training are examples: others may be sent."""
    properties = {column.name: dict(CELL_SCHEMAS[column.type]) for column in reader.columns}
    for column in reader.columns:
        if column.values:
            properties[column.name]["examples"] = list(column.values[:EXAMPLE_VALUES])
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"description": f"{_description(reader)}{advice}"}


def _form_field(name: str, reader: Input) -> dict[str, Any]:
    if isinstance(reader, ColumnsInput):
        return _cells_schema(reader, f" Or a field for each column: {name}.{reader.columns[0].name}.")
    if reader.sent_as == "file":
        return {"type": "string", "format": "binary", "description": _description(reader)}
    return {"type": "string", "pattern": NOT_BLANK, "description": _description(reader)}


def _json_field(reader: Input) -> dict[str, Any]:
    if isinstance(reader, ColumnsInput):
        return _cells_schema(reader)
    if reader.sent_as == "numbers":
        count = reader.shape[0]
        numbers = {"type": "array", "items": {"type": "number"}, "minItems": count, "maxItems": count}
        return numbers | {"description": _description(reader)}
    field = {"type": "string", "description": _description(reader)}
    return field | ({"contentEncoding": "base64"} if reader.sent_as == "file" else {"pattern": NOT_BLANK})


def _description(reader: Input) -> str:
    ways: dict[SentAs, str] = {
        "file": f": {', '.join(reader.formats)}",
        "text": ", of which the end is not read where it is long",
        "numbers": f" of {reader.shape[0]:,} numbers",
        "cells": ", an object of cells by column, any of which may be left out",
    }
    return f"{reader.kind}{ways[reader.sent_as]}."


def rule_meanings(fusion: Fusion) -> dict[str, str]:
    """Say in a sentence what each rule that fits the model does."""
    meanings = {rule: MEANINGS[rule] for rule in rules_for(fusion)}
    return meanings | {"native": f"{meanings['native']} For this model that is the rule {fusion.native}."}


def option_schemas(fusion: Fusion) -> dict[str, Any]:
    """Return the OpenAPI schema of each option. A number has no labels to list."""
    top_k = {
        "type": "integer",
        "minimum": 1,
        "description": f"How many labels to list; {DEFAULT_TOP_K} when left out.",
    }
    return ({"top_k": top_k} if fusion.task.names else {}) | {
        "fusion": {
            "type": "string",
            "enum": list(rules_for(fusion)),
            "x-enumDescriptions": rule_meanings(fusion),
            "description": f"The fusion rule; {DEFAULT_RULE} when left out.",
        },
        "coverage": {
            "type": "number",
            "exclusiveMinimum": 0,
            "exclusiveMaximum": 1,
            "description": replies.coverage_option(fusion.task),
        },
    }
