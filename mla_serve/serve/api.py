"""The REST API of one model: its routes, its layers, and what a thread does for a request.

A request to /predict goes through the layers (`_layers`: headers, CORS, body limit, key, deadline) to its handler in
`Routes`. The handler reads the body on the event loop and hands the rest to a thread of the worker pool: parse the fields,
let the predictor decode, encode and fuse them, write the JSON (`Answerer`). One call takes a sample through the predictor;
the request's stopwatch and the micro-batches take part in it by hooks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mla_serve import __version__
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Hooks, Predictor
from mla_serve.bundle.results import Answer, Embedding, ModelId, Prediction
from mla_serve.errors import ConfigError, MlaServeError, NotFinite
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Array, Payload
from mla_serve.serve.http import forms, json_body, openapi
from mla_serve.serve.http.body_limits import BodyLimit, cost_of_body
from mla_serve.serve.http.content_type import JSON, URLENCODED, ContentType, body_content_type
from mla_serve.serve.http.deadline import Deadline
from mla_serve.serve.http.fields import OPTIONS, Options, merge_options, options_from_query
from mla_serve.serve.http.guard import Guard, Keys, SecurityHeaders, parse_origins
from mla_serve.serve.http.pages import Page, all_pages, swagger_files
from mla_serve.serve.metrics import meters, metrics_buffer
from mla_serve.serve.problems import (
    Problem,
    answer_http_error,
    answer_package_error,
    problem_response,
    to_problem,
)
from mla_serve.serve.settings import Settings
from mla_serve.serve.tracing import stage_spans
from mla_serve.serve.workers.batching import Batching, parse_batch_sizes
from mla_serve.serve.workers.stopwatch import Stopwatch
from mla_serve.serve.workers.threads import WorkerPool

THREADS = 2  # one decodes while another runs a graph
BATCH_PATH = "/predict/batch"
PROBLEMS = (401, 408, 414, 431, 500, 503, 504)  # statuses with which any request may be answered
SAMPLE_PROBLEMS = (400, 413, 415, 422, *PROBLEMS)
EXPOSED_HEADERS = (
    "X-Request-ID",
    "Server-Timing",
    "Retry-After",
    "Allow",
    "WWW-Authenticate",
)  # that scripts of other origins may read
SampleAndOptions = tuple[dict[str, Payload], Options]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What stands in a batch's results in the place of a sample that cannot be used."""

    problem: Problem


@dataclasses.dataclass(frozen=True)
class BatchAnswer:
    """The reply of /predict/batch: one result per sample, in their order."""

    results: list[Prediction | Refusal]
    model: ModelId


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
        meters().expect(predictor.names)

    def predict(self, sample: Mapping[str, Payload], options: Options, watch: Stopwatch) -> bytes:
        """Classify one sample."""
        prediction = self.predictor.predict_one(sample, *_arguments(options), self._hooks(watch))
        self._queue_for_metrics([prediction])
        return orjson.dumps({**vars(prediction), "model": self.model})

    def embed(self, sample: Mapping[str, Payload], watch: Stopwatch) -> bytes:
        """Encode one sample."""
        features = self.predictor.embed(sample, self._hooks(watch))
        lists = {name: row.tolist() for name, row in features.items()}
        return orjson.dumps({"features": lists, "model": self.model})

    def predict_batch(self, items: Sequence[Any], options: Options, watch: Stopwatch) -> bytes:
        """Classify many samples in one run of the graphs; a sample that cannot be used gets its problem instead."""
        arguments = _arguments(options)
        self.predictor.check_options(*arguments)
        decoded = [self._decode_item(item, watch) for item in items]
        watch.lap("decode")
        good = [arrays for arrays in decoded if not isinstance(arrays, Problem)]
        answers = self.predictor.predict_decoded(good, *arguments, self._hooks(watch))
        self._queue_for_metrics([each for each in answers if isinstance(each, Prediction)])
        rest = iter(answers)
        results = [_batch_result(item if isinstance(item, Problem) else next(rest)) for item in decoded]
        watch.lap("fuse")
        return orjson.dumps({"results": results, "model": self.model})

    def _hooks(self, watch: Stopwatch) -> Hooks:
        """Let a request's stopwatch time and stop the predictor, and share runs of graphs with other requests."""
        return Hooks(watch.lap, watch.decoding, functools.partial(self._batching.encode, watch))

    def _queue_for_metrics(self, predictions: Sequence[Prediction]) -> None:
        """Leave predictions to be counted once a second (metrics.py)."""
        for each in predictions:
            metrics_buffer().add_answer(each.modalities, len(each.missing), len(self.predictor.classes))

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


def _batch_result(result: Prediction | NotFinite | Problem) -> Prediction | dict[str, Any]:
    """Return what stands in a batch's results: a prediction, or the problem of a sample that cannot be used."""
    if isinstance(result, Prediction):
        return result
    return {"problem": (to_problem(result) if isinstance(result, NotFinite) else result).to_dict()}


def _encode(predictor: Predictor, name: str, arrays: Sequence[Array]) -> Array:
    """Run a modality's graph, for one request or several.

    A function and not a method of Answerer, which would refer to itself through it. Objects that gc.freeze has frozen are
    freed only by their reference count, and a circle would keep an old model in memory.
    """
    metrics_buffer().add_run(name, len(arrays))
    return predictor.encode(name, arrays)


class Routes:
    """The handlers of the routes: read the request, compute the answer in a thread, send it."""

    refusal: dict[str, str] | None = None
    """Why a newer bundle is not served; None if there is none."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        """Serve one predictor."""
        self.answerer = Answerer(predictor, settings)
        self.settings = settings
        self.inputs = predictor.bundle.inputs
        self.description = openapi.model_description(predictor.bundle, settings, predictor.providers)
        largest = max(self.answerer.batch_sizes.values())  # each request of a batch waits in a thread of its own
        self.pool = WorkerPool(THREADS if largest == 1 else THREADS + largest, settings.max_queue)
        self.by_path = {"/predict": self.predict, BATCH_PATH: self.predict_batch, "/embed": self.embed}

    async def predict(self, request: Request) -> Response:
        """Classify one sample from any non-empty subset of its modalities."""
        read = await self._read_sample(request, OPTIONS)
        return await self._reply(request, lambda watch: self.answerer.predict(*read(), watch))

    async def embed(self, request: Request) -> Response:
        """Return the encoder's features of each modality that was sent."""
        read = await self._read_sample(request, ())
        return await self._reply(request, lambda watch: self.answerer.embed(read()[0], watch))

    async def predict_batch(self, request: Request) -> Response:
        """Classify a list of samples; files are base64. One that cannot be used gets a problem in its place."""
        query = options_from_query(request.scope["query_string"], OPTIONS)
        kind = json_body.check_content_type(request)
        self.pool.check()
        body = await request.body()

        def answer(watch: Stopwatch) -> bytes:
            items, options = json_body.parse_batch(
                body, kind, self.settings.max_batch_items, self.settings.max_json_values
            )
            return self.answerer.predict_batch(items, merge_options(query, options), watch)

        return await self._reply(request, answer)

    async def model(self) -> Response:
        """Describe the model: classes, modalities and how to send them, limits, metrics, hashes."""
        description = dataclasses.replace(self.description, update_refused=self.refusal)
        return Response(orjson.dumps(description), media_type=JSON)

    def close(self) -> None:
        """Release the threads and the graphs. Call it after the last request, when another model is served.

        The garbage collector would not release them, since gc.freeze excludes the objects that a worker starts with.
        """
        self.pool.close()
        del self.answerer

    async def _read_sample(self, request: Request, options: tuple[str, ...]) -> Callable[[], SampleAndOptions]:
        """Receive a sample and its options; returns a function that parses them, which belongs into a thread."""
        query = options_from_query(request.scope["query_string"], options)
        self.pool.check()  # before the body is read
        kind = body_content_type(request)
        known, limit = (*self.inputs, *options), self.settings.max_part_bytes
        if kind.is_json:
            body = await request.body()
            return lambda: self._read_json(body, kind, query, options)
        if kind.media_type == URLENCODED:
            body = await request.body()
            return lambda: self._read_parts(forms.read_urlencoded(body, kind.codec(), known, limit), query)
        example = functools.partial(openapi.curl, self.inputs, request.scope["path"])
        parts = await forms.read_form(request, known, example, limit)
        return lambda: self._read_parts(parts, query)

    def _read_parts(self, parts: list[forms.Part], query: Mapping[str, Any]) -> SampleAndOptions:
        sample = forms.sample_from_form(parts, self.inputs, self.settings.max_part_bytes)
        return sample, merge_options(query, forms.options_from_form(parts))

    def _read_json(
        self, body: bytes, kind: ContentType, query: Mapping[str, Any], options: tuple[str, ...]
    ) -> SampleAndOptions:
        example = f'{{"{next(iter(self.inputs))}": ...}}'
        content = json_body.parse_object(body, kind, self.settings.max_json_values, example)
        sample, given = json_body.split_options(content, tuple(self.inputs), options)
        payloads = json_body.sample_from_json(sample, self.inputs, self.settings.max_part_bytes)
        return payloads, merge_options(query, given)

    async def _reply(self, request: Request, answer: Callable[[Stopwatch], bytes]) -> Response:
        watch = Stopwatch(self.settings.max_decode_s)
        body = await self.pool.run(answer, watch, request.receive)
        metrics_buffer().add_stages(watch.laps)
        stage_spans.add(watch.laps)
        return Response(body, headers=watch.header(), media_type=JSON)


class PastFastAPI:
    """Call what answers samples straight away: FastAPI's own way there costs a request a fifth of a millisecond.

    FastAPI keeps the routes for what they say in the OpenAPI and for any other method.
    """

    def __init__(self, app: ASGIApp, handlers: Mapping[str, Callable[[Request], Awaitable[Response]]]) -> None:
        """Wrap FastAPI's routing. Args: handlers, of POST by path."""
        self.app = app
        self.handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        handler = self.handlers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if handler is None:
            await self.app(scope, receive, send)
            return
        try:
            response = await handler(Request(scope, receive, send))
        except MlaServeError as error:
            response = problem_response(error)
        await response(scope, receive, send)


class Application:
    """The ASGI application of one predictor: FastAPI, wrapped in the layers that every request passes."""

    def __init__(self, fastapi: FastAPI, routes: Routes, layers: Sequence[Callable[[ASGIApp], ASGIApp]]) -> None:
        """Wrap FastAPI, with its routes, in layers, the first one innermost."""
        self.routes = routes
        self.paths = frozenset(getattr(route, "path", "") for route in fastapi.routes)
        self._app: ASGIApp = fastapi
        for layer in layers:
            self._app = layer(self._app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await self._app(scope, receive, send)


def create_app(predictor: Predictor, settings: Settings, keys: Keys | None = None) -> Application:
    """Build the application that serves a predictor.

    Args: keys, those of settings.api_keys_file, which a worker reads once for all its models; None lets everybody in.
    Raises: ConfigError when a modality has the name of an option.
    """
    assert (keys is None) == (settings.api_keys_file is None), "settings.api_keys_file and its keys go together"
    if clash := set(predictor.names) & set(OPTIONS):
        raise ConfigError(
            f"the modalities {sorted(clash)} have the names of request options; rename them and train again"
        )
    manifest = predictor.bundle.manifest
    app = FastAPI(
        title=f"mla_serve: {manifest.name}",
        version=__version__,
        description=f"Tells {', '.join(manifest.classes[:20])} apart by any of {', '.join(predictor.names)}.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={MlaServeError: answer_package_error, HTTPException: answer_http_error},
    )
    routes = Routes(predictor, settings)
    _add_pages(app, predictor.bundle)
    _add_api(app, routes, guarded=keys is not None)
    _allow_head(app)
    return Application(app, routes, _layers(routes, settings, keys))


def _layers(routes: Routes, settings: Settings, keys: Keys | None) -> list[Callable[[ASGIApp], ASGIApp]]:
    """List the layers that a request passes, from the inside out."""
    by_path = {BATCH_PATH: settings.max_batch_body_bytes}
    layers: list[Callable[[ASGIApp], ASGIApp]] = [
        lambda app: PastFastAPI(app, routes.by_path),
        lambda app: Deadline(app, settings.request_timeout_s),
    ]
    if keys is not None:
        layers.append(lambda app: Guard(app, keys))
    layers.append(lambda app: BodyLimit(app, settings.max_body_bytes, by_path, settings.max_held_bytes, cost_of_body))
    if origins := parse_origins(settings.cors_origins):
        methods = ["GET", "HEAD", "POST"]
        layers.append(
            lambda app: CORSMiddleware(
                app, origins, allow_methods=methods, allow_headers=["*"], expose_headers=EXPOSED_HEADERS
            )
        )
    return [*layers, SecurityHeaders]


def _add_api(app: FastAPI, routes: Routes, *, guarded: bool) -> None:
    """Add the routes for programs, and write the OpenAPI document with this model's fields."""
    sample, embed = (openapi.sample_body(routes.inputs, with_options) for with_options in (True, False))
    batch = openapi.batch_body(routes.inputs, routes.settings.max_batch_items)
    options = openapi.query_parameters()
    operations: list[tuple[str, Callable[..., Any], type, dict[str, Any]]] = [
        ("/predict", routes.predict, Answer, {"requestBody": sample, "parameters": options}),
        (BATCH_PATH, routes.predict_batch, BatchAnswer, {"requestBody": batch, "parameters": options}),
        ("/embed", routes.embed, Embedding, {"requestBody": embed}),
        ("/model", routes.model, openapi.ModelDescription, {}),
    ]
    for path, handler, answer, extra in operations:
        app.add_api_route(
            path,
            handler,
            methods=["POST" if "requestBody" in extra else "GET"],
            operation_id=handler.__name__,
            response_model=answer,
            responses=openapi.problem_responses(*(SAMPLE_PROBLEMS if "requestBody" in extra else PROBLEMS)),
            openapi_extra=extra,
        )
    document = app.openapi()
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    if guarded:
        document["security"] = [{"key": []}]


def _add_pages(app: FastAPI, bundle: Bundle) -> None:
    """Add the routes for people: the playground, its samples, /docs, the explanation of each problem."""

    def content(page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def send(_: Request) -> Response:
            return Response(page.content, headers={"Cache-Control": "no-cache"}, media_type=page.media_type)

        return send

    def file(path: Path) -> Callable[[Request], Awaitable[Response]]:
        async def send(_: Request) -> Response:
            return FileResponse(path, headers={"Cache-Control": "max-age=86400"})

        return send

    for route, page in all_pages(bundle, app.title).items():
        app.add_route(route, content(page), include_in_schema=False)
    for route, path in swagger_files().items():
        app.add_route(route, file(path), include_in_schema=False)


def _allow_head(app: FastAPI) -> None:
    """Answer HEAD where GET is answered. Call it after the OpenAPI document is written, which would list each HEAD."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")
