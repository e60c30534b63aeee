"""What a thread does for a request: let the predictor answer, and write the answer as JSON.

One call takes a sample through the predictor. The request's stopwatch and the micro-batches take part in it by hooks.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from mla_serve.bundle.predictor import Hooks, Predictor
from mla_serve.bundle.results import ModelId, Prediction
from mla_serve.errors import NotFinite
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Array, Payload
from mla_serve.serve.http import json_body
from mla_serve.serve.http.options import Options
from mla_serve.serve.metrics import meters, metrics_buffer
from mla_serve.serve.problems import Problem, to_problem
from mla_serve.serve.settings import Settings
from mla_serve.serve.workers.batching import Batching, parse_batch_sizes
from mla_serve.serve.workers.stopwatch import Stopwatch


class Answerer:
    """Compute the bodies of replies. Its methods run in threads."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        """Answer with this predictor, within the operator's limits.

        Raises: ConfigError when MLA_BATCH does not fit the model.
        """
        self.predictor = predictor
        self.settings = settings
        self.batch_sizes = parse_batch_sizes(settings.batch, predictor.names, gpu=settings.uses_gpu)
        self._batching = Batching(functools.partial(_encode, predictor), self.batch_sizes)
        manifest = predictor.bundle.manifest
        self.model = ModelId(manifest.name, manifest.sha256)
        meters().expect(predictor.names, predictor.task)

    def predict(self, sample: Mapping[str, Payload], options: Options, watch: Stopwatch) -> bytes:
        """Answer one sample."""
        prediction = self.predictor.predict_one(sample, *_arguments(options), self._hooks(watch))
        self._queue_for_metrics([prediction])
        return orjson.dumps(self._reply(prediction))

    def embed(self, sample: Mapping[str, Payload], watch: Stopwatch) -> bytes:
        """Encode one sample."""
        features = self.predictor.embed(sample, self._hooks(watch))
        lists = {name: row.tolist() for name, row in features.items()}
        return orjson.dumps({"features": lists, "model": self.model})

    def predict_batch(self, items: Sequence[Any], options: Options, watch: Stopwatch) -> bytes:
        """Answer many samples in one run of the graphs; a sample that cannot be used gets its problem instead."""
        arguments = _arguments(options)
        self.predictor.check_options(*arguments)
        decoded = [self._decode_item(item, watch) for item in items]
        watch.lap("decode")
        good = [arrays for arrays in decoded if not isinstance(arrays, Problem)]
        answers = self.predictor.predict_decoded(good, *arguments, self._hooks(watch))
        self._queue_for_metrics([each for each in answers if isinstance(each, Prediction)])
        rest = iter(answers)
        results = [self._batch_result(item if isinstance(item, Problem) else next(rest)) for item in decoded]
        watch.lap("fuse")
        return orjson.dumps({"results": results, "model": self.model})

    def _reply(self, prediction: Prediction) -> dict[str, Any]:
        """Name the model in an answer."""
        return {**vars(prediction), "model": self.model}

    def _batch_result(self, result: Prediction | NotFinite | Problem) -> dict[str, Any]:
        """Return what stands in a batch's results: an answer, or the problem of a sample that cannot be used."""
        if isinstance(result, Prediction):
            return self._reply(result)
        return {"problem": (to_problem(result) if isinstance(result, NotFinite) else result).to_dict()}

    def _hooks(self, watch: Stopwatch) -> Hooks:
        """Let a request's stopwatch time and stop the predictor, and share runs of graphs with other requests."""
        return Hooks(watch.lap, watch.decoding, functools.partial(self._batching.encode, watch))

    def _queue_for_metrics(self, predictions: Sequence[Prediction]) -> None:
        """Leave predictions to be counted once a second (metrics.py)."""
        for each in predictions:
            metrics_buffer().add_answer(each, self.predictor.task)

    def _decode_item(self, item: object, watch: Stopwatch) -> dict[str, Array] | Problem:
        watch.check()
        try:
            limit = self.settings.max_part_bytes
            sample = json_body.sample_from_json(item, self.predictor.bundle.inputs, limit)
            with watch.decoding(next(iter(sample), "samples")):
                return self.predictor.decode(sample)
        except Exception as error:  # a bug in a decoder must not fail the other samples
            return to_problem(error)


def _arguments(options: Options) -> tuple[str, int | None, float | None]:
    """Return the options as the predictor takes them: fusion rule, top_k, coverage."""
    return options.fusion or DEFAULT_RULE, options.top_k, options.coverage


def _encode(predictor: Predictor, name: str, arrays: Sequence[Array]) -> Array:
    """Run a modality's graph, for one request or several.

    A function and not a method of Answerer, which would refer to itself through it. Objects that gc.freeze has frozen are
    freed only by their reference count, and a circle would keep an old model in memory.
    """
    metrics_buffer().add_run(name, len(arrays))
    return predictor.encode(name, arrays)
