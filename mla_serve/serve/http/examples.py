"""Examples of requests with the answers that this model gives to them, for the OpenAPI document.

The sample is a golden one, or one that the inputs generate. The examples hold what is short of it: texts, numbers, cells and
files of a few hundred bytes. The answers are those to exactly what an example sends.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.results import ModelId, Prediction
from mla_serve.errors import InputError
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Payload
from mla_serve.serve.http.content_type import JSON

MOST_BYTES = 700  # of one modality in an example, as JSON
DIGITS = 4  # of the numbers in an answer
TOP_K, OTHER_RULE, COVERAGE = 3, "paper", 0.9
Sample = dict[str, Payload]


@dataclasses.dataclass(frozen=True)
class Example:
    """A request to /predict and its answer. summary: what it shows; request: empty where the sample is too long for one."""

    name: str
    summary: str
    request: dict[str, Any]
    answer: dict[str, Any]


def examples(predictor: Predictor, promise: str) -> list[Example]:
    """Answer a sample: all of it, one modality alone, and with each option that the model has.

    Args: promise, the name of what a coverage asks for. Returns: nothing where no sample is within the operator's limits.
    """
    for sample in _samples(predictor):
        short = {name: cut for name, payload in sample.items() if (cut := _cut(payload))}
        try:
            return _answered(predictor, short or sample, promise, is_short=bool(short))
        except InputError:
            continue
    return []


def add_examples(document: dict[str, Any], given: Sequence[Example]) -> None:
    """Add the examples to the requests and replies of an OpenAPI document."""
    paths = document["paths"]
    shown = {each.name: each for each in given if each.request}
    for path, names in {"/predict": list(shown), "/embed": ["sample"]}.items():
        values = {name: _value(shown[name].summary, shown[name].request) for name in names if name in shown}
        if values:
            paths[path]["post"]["requestBody"]["content"][JSON]["examples"] = values
    answers = {each.name: _value(each.summary, each.answer) for each in given}
    if answers:
        paths["/predict"]["post"]["responses"]["200"]["content"][JSON]["examples"] = answers
    if batch := [shown[name] for name in ("sample", "alone") if name in shown]:
        operation, summary = paths["/predict/batch"]["post"], f"{len(batch)} sample{'s' * (len(batch) > 1)}"
        body = {"samples": [each.request for each in batch]}
        operation["requestBody"]["content"][JSON]["examples"] = {"samples": _value(summary, body)}
        reply = {"results": [each.answer for each in batch], "model": batch[0].answer["model"]}
        operation["responses"]["200"]["content"][JSON]["examples"] = {"samples": _value(summary, reply)}


def _value(summary: str, value: Any) -> dict[str, Any]:
    return {"summary": summary, "value": value}


def _samples(predictor: Predictor) -> Iterator[Sample]:
    """Yield the golden samples, those with the most modalities first, then a generated one."""
    yield from sorted(predictor.bundle.golden_samples(), key=len, reverse=True)
    generator = np.random.default_rng(0)
    yield {name: reader.generate(generator) for name, reader in predictor.bundle.inputs.items()}


def _answered(predictor: Predictor, sample: Sample, promise: str, *, is_short: bool) -> list[Example]:
    """Run the graphs once, then fuse with each option. Raises: InputError for a sample that is not read."""
    alone = min(sample, key=lambda name: len(_json(sample[name])))
    outputs = predictor.run_graphs([predictor.decode(each) for each in (sample, {alone: sample[alone]})])
    model = ModelId(predictor.bundle.manifest.name, predictor.bundle.manifest.sha256)

    def example(name: str, summary: str, at: int = 0, **options: Any) -> Example:
        rule, top_k, coverage = options.get("fusion", DEFAULT_RULE), options.get("top_k"), options.get("coverage")
        answer = predictor.answer_from(outputs, rule, top_k, coverage)[at]
        sent = {alone: sample[alone]} if at else sample
        request = orjson.loads(_json(sent)) | options if is_short else {}
        return Example(name, summary, request, _as_sent(answer, model))

    found = [example("sample", " and ".join(sample))]
    if len(sample) > 1:
        found.append(example("alone", f"{alone} alone", 1))
    if predictor.classes:
        top_k = min(TOP_K, len(predictor.classes))
        found.append(example("top_k", f"the {top_k} most probable labels", top_k=top_k))
    found.append(example("fusion", f"another rule: {OTHER_RULE}", fusion=OTHER_RULE))
    if DEFAULT_RULE in predictor.bundle.intervals.rules:
        found.append(example("coverage", f"with a {promise} for 9 in 10", coverage=COVERAGE))
    return found


def _as_sent(answer: Prediction, model: ModelId) -> dict[str, Any]:
    """Return an answer as the service sends it, with fewer digits."""
    reply: dict[str, Any] = _rounded(orjson.loads(orjson.dumps({**vars(answer), "model": model})))
    return reply


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if not isinstance(value, float):
        return value
    candidates = (float(f"{value:.{digits}g}") for digits in range(DIGITS, 18))
    return next(each for each in candidates if each != 1 or value == 1)  # nearly sure is not written as sure


def _cut(payload: Payload) -> Payload | None:
    """Return as much of a payload as an example can show: part of a long text, the first cells of many; None for nothing."""
    if isinstance(payload, Mapping):
        kept: dict[str, Any] = {}
        for name, cell in payload.items():
            if len(_json(kept | {name: cell})) > MOST_BYTES:
                break
            kept[name] = cell
        return kept or None
    if isinstance(payload, str):
        return payload if len(payload) <= MOST_BYTES else payload[:MOST_BYTES].rpartition(" ")[0] or None
    return payload if len(_json(payload)) <= MOST_BYTES else None


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=lambda payload: base64.b64encode(payload).decode())
