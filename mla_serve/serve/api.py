"""The REST surface as a FastAPI application: routes, and what happens off the event loop."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mla_serve import __version__
from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.bundle.results import Answer, Embedding, ModelId, Prediction
from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Array, Payload
from mla_serve.serve.http import forms, json_body, openapi
from mla_serve.serve.http.body_limits import BodyLimit, Deadline, cost_of_body
from mla_serve.serve.http.content_type import JSON, URLENCODED, ContentType, content_type_of
from mla_serve.serve.http.fields import OPTIONS, Options, options_from, read_query
from mla_serve.serve.http.guard import Guard, Keys, KeysFile, SecurityHeaders, parse_origins
from mla_serve.serve.http.pages import add_pages
from mla_serve.serve.metrics import meters, metrics_buffer
from mla_serve.serve.problems import (
    Problem,
    answer_http_error,
    answer_input_error,
    problem_response,
    to_problem,
)
from mla_serve.serve.settings import Settings
from mla_serve.serve.tracing import stage_spans
from mla_serve.serve.workers.batching import Batching, parse_caps
from mla_serve.serve.workers.threads import Bench, Stopwatch

THREADS = 2  # one decodes while another runs a graph
BATCH_PATH = "/predict/batch"
PROBLEMS = (401, 408, 414, 431, 500, 503, 504)  # that any request may be answered with
SAMPLE_PROBLEMS = (400, 413, 415, 422, *PROBLEMS)
EXPOSED = ("X-Request-ID", "Server-Timing", "Retry-After", "Allow", "WWW-Authenticate")  # to pages of other origins
Read = tuple[dict[str, Payload], Options]


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
    """Turn requests into the bodies of replies. Runs in threads."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        """Answer with this predictor, within the operator's limits.

        Raises: ConfigError when MLA_BATCH does not fit the model.
        """
        self.predictor = predictor
        self.settings = settings
        self.caps = parse_caps(settings.batch, predictor.names, gpu=settings.uses_gpu)
        self._batching = Batching(functools.partial(_encode, predictor), self.caps)
        manifest = predictor.bundle.manifest
        self.model = ModelId(manifest.name, manifest.sha256)
        meters().expect(predictor.names)

    def predict(self, sample: Mapping[str, Payload], options: Options, watch: Stopwatch) -> bytes:
        """Classify one sample."""
        rule = self._rule(options)
        outputs = self._run_graphs([self._decode(sample, watch)], watch)
        prediction = self.predictor.answer_from(outputs, rule, options.top_k, options.coverage)[0]
        watch.lap("fuse")
        self._tell([prediction])
        return orjson.dumps({**vars(prediction), "model": self.model})

    def embed(self, sample: Mapping[str, Payload], watch: Stopwatch) -> bytes:
        """Encode one sample."""
        features = {}
        for name, array in self._decode(sample, watch).items():
            features[name] = self._batching.encode(watch, name, [array])[0].tolist()
            watch.lap(f"encode-{name}")
        return orjson.dumps({"features": features, "model": self.model})

    def predict_batch(self, items: Sequence[Any], options: Options, watch: Stopwatch) -> bytes:
        """Classify many samples in one run of the graphs; a sample that cannot be used gets its problem instead."""
        rule = self._rule(options)
        decoded = [self._decode_item(item, watch) for item in items]
        watch.lap("decode")
        good = [arrays for arrays in decoded if not isinstance(arrays, Problem)]
        answers = iter(self._conclude_each(good, rule, options, watch) if good else ())
        each = (result if isinstance(result, Problem) else next(answers) for result in decoded)
        results = [{"problem": result.to_dict()} if isinstance(result, Problem) else result for result in each]
        watch.lap("fuse")
        return orjson.dumps({"results": results, "model": self.model})

    def _conclude_each(
        self, samples: Sequence[Mapping[str, Array]], rule: str, options: Options, watch: Stopwatch
    ) -> list[Prediction | Problem]:
        """Answer decoded samples; one of which the model makes no finite numbers gets its problem."""
        encode = functools.partial(self._batching.encode, watch)
        outputs, refused = self.predictor.run_usable(samples, watch.lap, encode)
        predictions: list[Prediction] = []
        if len(refused) < len(samples):
            predictions = self.predictor.answer_from(outputs, rule, options.top_k, options.coverage)
        self._tell(predictions)
        rest = iter(predictions)
        return [to_problem(refused[at]) if at in refused else next(rest) for at in range(len(samples))]

    def _tell(self, predictions: Sequence[Prediction]) -> None:
        """Leave what one run of the graphs said to be counted."""
        for each in predictions:
            metrics_buffer().add_answer(each.modalities, len(each.missing), len(self.predictor.classes))

    def _rule(self, options: Options) -> str:
        rule = options.fusion or DEFAULT_RULE
        self.predictor.check_options(rule, options.top_k, options.coverage)
        return rule

    def _run_graphs(self, samples: Sequence[Mapping[str, Array]], watch: Stopwatch) -> GraphOutputs:
        return self.predictor.run_graphs(samples, watch.lap, functools.partial(self._batching.encode, watch))

    def _decode(self, sample: Mapping[str, Payload], watch: Stopwatch) -> dict[str, Array]:
        self.predictor.check_names(sample)
        arrays = {}
        for name, payload in sample.items():
            with watch.decoding(name):
                arrays[name] = self.predictor.decode_one(name, payload)
            watch.lap(f"decode-{name}")
        return arrays

    def _decode_item(self, item: object, watch: Stopwatch) -> dict[str, Array] | Problem:
        watch.check()
        try:
            limit = self.settings.max_part_bytes
            sample = json_body.sample_from_json(item, self.predictor.bundle.inputs, limit)
            with watch.decoding(next(iter(sample), "samples")):
                return self.predictor.decode(sample)
        except Exception as error:  # even a bug in a decoder shall not cost the neighbours their answers
            return to_problem(error)


def _encode(predictor: Predictor, name: str, arrays: Sequence[Array]) -> Array:
    """Run a modality's graph, for one request or several.

    Not the Answerer's own: it would be a circle, and what a worker froze is let go only without one.
    """
    metrics_buffer().add_run(name, len(arrays))
    return predictor.encode(name, arrays)


class Routes:
    """The handlers: read the request, answer in a thread, send the reply."""

    refusal: dict[str, str] | None = None
    """Why a newer bundle is not served, if there is one."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        """Serve one predictor."""
        self.answerer = Answerer(predictor, settings)
        self.settings = settings
        self.inputs = predictor.bundle.inputs
        self.description = openapi.model_description(predictor.bundle, settings, predictor.providers)
        most = max(self.answerer.caps.values())  # a batch is made of threads that wait for it
        self.bench = Bench(THREADS if most == 1 else THREADS + most, settings.max_queue)
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
        query = read_query(request.scope["query_string"], OPTIONS)
        kind = json_body.check_content_type(request)
        self.bench.check()
        body = await request.body()

        def answer(watch: Stopwatch) -> bytes:
            items, options = json_body.parse_batch(
                body, kind, self.settings.max_batch_items, self.settings.max_json_values
            )
            return self.answerer.predict_batch(items, options_from(query, options), watch)

        return await self._reply(request, answer)

    async def model(self) -> Response:
        """Describe the model: classes, modalities and how to send them, limits, metrics, hashes."""
        description = dataclasses.replace(self.description, update_refused=self.refusal)
        return Response(orjson.dumps(description), media_type=JSON)

    def close(self) -> None:
        """Let go of the threads and the graphs: after the last request, when another model has taken over.

        Without it they would stay: gc.freeze keeps the worker's first application from being collected.
        """
        self.bench.close()
        del self.answerer

    async def _read_sample(self, request: Request, options: tuple[str, ...]) -> Callable[[], Read]:
        """Receive one sample and the options that are known; returns what parses them, in a thread."""
        query = read_query(request.scope["query_string"], options)
        self.bench.check()  # before a body is read for nothing
        kind = content_type_of(request)
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

    def _read_parts(self, parts: list[forms.Part], query: Mapping[str, Any]) -> Read:
        sample = forms.sample_from_form(parts, self.inputs, self.settings.max_part_bytes)
        return sample, options_from(query, forms.options_from_form(parts))

    def _read_json(self, body: bytes, kind: ContentType, query: Mapping[str, Any], options: tuple[str, ...]) -> Read:
        example = f'{{"{next(iter(self.inputs))}": ...}}'
        content = json_body.parse_object(body, kind, self.settings.max_json_values, example)
        sample, given = json_body.split_options(content, tuple(self.inputs), options)
        payloads = json_body.sample_from_json(sample, self.inputs, self.settings.max_part_bytes)
        return payloads, options_from(query, given)

    async def _reply(self, request: Request, answer: Callable[[Stopwatch], bytes]) -> Response:
        watch = Stopwatch(self.settings.request_timeout_s, self.settings.max_decode_s)
        body = await self.bench.run(answer, watch, request.receive)
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


class Surface:
    """The application that serves one predictor: FastAPI inside of what every request passes."""

    def __init__(self, fastapi: FastAPI, routes: Routes, layers: Sequence[Callable[[ASGIApp], ASGIApp]]) -> None:
        """Wrap FastAPI, which has its routes, in layers, the first innermost."""
        self.routes = routes
        self.paths = frozenset(getattr(route, "path", "") for route in fastapi.routes)
        self._app: ASGIApp = fastapi
        for layer in layers:
            self._app = layer(self._app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await self._app(scope, receive, send)


def create_app(predictor: Predictor, settings: Settings, keys: Keys | None = None) -> Surface:
    """Build the application that serves a predictor.

    Args: keys, those of the settings' file when there has been an application before; left out, the file is read.
    Raises: ConfigError when a modality bears the name of an option, or the file of keys cannot be used.
    """
    if clash := set(predictor.names) & set(OPTIONS):
        raise ConfigError(f"the modalities {sorted(clash)} bear names of request options; rename them and train again")
    manifest = predictor.bundle.manifest
    app = FastAPI(
        title=f"mla_serve: {manifest.name}",
        version=__version__,
        description=f"Tells {', '.join(manifest.classes[:20])} apart by any of {', '.join(predictor.names)}.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={MlaServeError: answer_input_error, HTTPException: answer_http_error},
    )
    routes = Routes(predictor, settings)
    add_pages(app, predictor.bundle)
    _add_api(app, routes, guarded=settings.api_keys_file is not None)
    _let_head_in(app)
    return Surface(app, routes, _layers(routes, settings, keys))


def _layers(routes: Routes, settings: Settings, keys: Keys | None) -> list[Callable[[ASGIApp], ASGIApp]]:
    """List what a request passes, from the inside out. FastAPI's own middleware would stand outside of it all."""
    by_path = {BATCH_PATH: settings.max_batch_body_bytes}
    layers: list[Callable[[ASGIApp], ASGIApp]] = [
        lambda app: PastFastAPI(app, routes.by_path),
        lambda app: Deadline(app, settings.request_timeout_s),
    ]
    if settings.api_keys_file is not None:
        known = keys or KeysFile(settings.api_keys_file)
        layers.append(lambda app: Guard(app, known))
    layers.append(lambda app: BodyLimit(app, settings.max_body_bytes, by_path, settings.max_held_bytes, cost_of_body))
    if origins := parse_origins(settings.cors_origins):
        methods = ["GET", "HEAD", "POST"]
        layers.append(
            lambda app: CORSMiddleware(app, origins, allow_methods=methods, allow_headers=["*"], expose_headers=EXPOSED)
        )
    return [*layers, SecurityHeaders]


def _add_api(app: FastAPI, routes: Routes, *, guarded: bool) -> None:
    """Add what programs call, with the OpenAPI of this model's fields. Names of operations are those of the functions."""
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


def _let_head_in(app: FastAPI) -> None:
    """Answer HEAD where GET is answered; after the OpenAPI is written, where each would be an operation of its own."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")
