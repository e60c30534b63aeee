"""What a bundle reads and answers, for people and machines: GET /model, curl examples, the OpenAPI fields."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from mla_serve import __version__
from mla_serve.bundle import Bundle
from mla_serve.fusion import DEFAULT_RULE, RULES
from mla_serve.inputs import Input
from mla_serve.results import DEFAULT_TOP_K
from mla_serve.runtime import WHEELS
from mla_serve.serve.problems import KINDS, MEDIA_TYPE
from mla_serve.serve.settings import Settings

JSON = "application/json"
MULTIPART = "multipart/form-data"
PACKAGES = ("numpy", *WHEELS, "bentoml", "fastapi", "pillow", "soundfile", "tokenizers")


def model_description(bundle: Bundle, settings: Settings, providers: Iterable[str]) -> dict[str, Any]:
    """Return all that a caller may want to know of the model, as GET /model sends it."""
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "sha256": manifest.sha256,
        "created": manifest.created,
        "classes": manifest.classes,
        "modalities": {name: describe_input(reader) for name, reader in bundle.inputs.items()},
        "fusion": {"default": DEFAULT_RULE, "rules": list(RULES), "fitted": manifest.fusion.model_dump()},
        "coverage": possible_coverages(bundle),
        "metrics": manifest.metrics,
        "golden_samples": len(manifest.golden),
        "golden_source": manifest.golden_source,
        "versions": {"trained": manifest.versions, "serving": serving_versions()},
        "providers": list(providers),
        "limits": {
            "body_bytes": settings.max_body_bytes,
            "part_bytes": settings.max_part_bytes,
            "batch_body_bytes": settings.max_batch_body_bytes,
            "batch_items": settings.max_batch_items,
            "request_seconds": settings.request_timeout_s,
        },
    }


def possible_coverages(bundle: Bundle) -> dict[str, dict[str, float]]:
    """Say, by fusion rule and pattern (or number of modalities), up to which coverage a set need not hold all labels."""
    return {
        rule: {pattern: len(scores) / (len(scores) + 1) for pattern, scores in patterns.items()}
        for rule, patterns in bundle.conformal.scores.items()
    }


def describe_input(reader: Input) -> dict[str, Any]:
    """Say how one modality is sent: its kind, formats, shape and every field that decoding depends on."""
    contents = {field.name for field in dataclasses.fields(reader) if "file" in field.metadata}
    fields = {name: value for name, value in vars(reader).items() if name in _field_names(reader) - contents}
    return {
        "kind": reader.kind,
        "sent_as": reader.sent_as,
        "formats": list(reader.formats),
        "shape": list(reader.shape),
        "input": fields,
    }


def serving_versions() -> dict[str, str]:
    """Return the versions of what computes the answers here."""
    versions = {"mla_serve": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def curl(inputs: Mapping[str, Input], path: str = "/predict") -> str:
    """Write a command that sends these modalities to a service on this machine."""
    return " ".join(
        ["curl", *(f"-F {_curl_field(name, reader)}" for name, reader in inputs.items()), f"localhost:3000{path}"]
    )


def form_schema(inputs: Mapping[str, Input], with_options: bool) -> dict[str, Any]:
    """Return the OpenAPI request body of a form with one field per modality, at least one of them sent."""
    properties = {name: _form_field(reader) for name, reader in inputs.items()}
    schema = {
        "type": "object",
        "properties": properties | (_options() if with_options else {}),
        "anyOf": [{"required": [name]} for name in inputs],
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {MULTIPART: {"schema": schema}}}}


def batch_schema(inputs: Mapping[str, Input], max_items: int) -> dict[str, Any]:
    """Return the OpenAPI request body of a JSON batch."""
    item = {
        "type": "object",
        "properties": {name: _json_field(reader) for name, reader in inputs.items()},
        "minProperties": 1,
        "additionalProperties": False,
    }
    samples = {"type": "array", "items": item, "minItems": 1, "maxItems": max_items}
    schema = {
        "type": "object",
        "properties": {"samples": samples} | _options(),
        "required": ["samples"],
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses for these statuses."""
    titles: dict[int, list[str]] = {}
    for kind in KINDS.values():
        titles.setdefault(kind.status, []).append(kind.title)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": "; ".join(titles[status]), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def _field_names(reader: Input) -> set[str]:
    return {field.name for field in dataclasses.fields(reader)}


def _curl_field(name: str, reader: Input) -> str:
    if reader.sent_as == "numbers":
        return f"'{name}={[0.5] * reader.shape[0]}'" if reader.shape[0] <= 8 else f"'{name}=<numbers.txt'"
    return f"{name}=@{name}.{reader.formats[0].lower()}" if reader.sent_as == "file" else f"'{name}=some words'"


def _form_field(reader: Input) -> dict[str, Any]:
    if reader.sent_as == "file":
        return {"type": "string", "format": "binary", "description": _description(reader)}
    return {"type": "string", "minLength": 1, "description": _description(reader)}


def _json_field(reader: Input) -> dict[str, Any]:
    if reader.sent_as == "numbers":
        count = reader.shape[0]
        numbers = {"type": "array", "items": {"type": "number"}, "minItems": count, "maxItems": count}
        return numbers | {"description": _description(reader)}
    field = {"type": "string", "minLength": 1, "description": _description(reader)}
    return field | ({"contentEncoding": "base64"} if reader.sent_as == "file" else {})


def _description(reader: Input) -> str:
    formats = f" {', '.join(reader.formats)}." if reader.formats else ""
    return f"{reader.kind}.{formats} {(reader.__doc__ or '').splitlines()[0]}"


def _options() -> dict[str, Any]:
    return {
        "top_k": {
            "type": "integer",
            "minimum": 1,
            "description": f"How many labels to list; {DEFAULT_TOP_K} when left out.",
        },
        "fusion": {
            "type": "string",
            "enum": list(RULES),
            "description": f"The fusion rule; {DEFAULT_RULE} when left out.",
        },
        "coverage": {
            "type": "number",
            "exclusiveMinimum": 0,
            "exclusiveMaximum": 1,
            "description": "How often prediction_set shall hold the true label, such as 0.9; no set when left out.",
        },
    }
