"""The REST API of one model: its routes, and the layers that a request passes before it gets to one.

A request to /predict goes through the layers (`_layers`: headers, CORS, body limit, key, deadline) to its handler in
`Routes`. The handler receives the body on the event loop (http/read_sample.py). A thread of the worker pool does the rest:
parse the fields, let the predictor decode, encode and fuse them, and write the JSON (answerer.py).
"""

from __future__ import annotations

import dataclasses
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
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.results import Embedding
from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.serve.answerer import Answerer
from mla_serve.serve.http import json_body, openapi, replies
from mla_serve.serve.http.about import about_pages
from mla_serve.serve.http.accept import PageOrJson
from mla_serve.serve.http.body_limits import BodyLimit, cost_of_body
from mla_serve.serve.http.content_type import JSON
from mla_serve.serve.http.deadline import Deadline
from mla_serve.serve.http.examples import add_examples, examples
from mla_serve.serve.http.guard import Guard, Keys, SecurityHeaders, parse_origins
from mla_serve.serve.http.options import OPTIONS, merge_options, options_from_query
from mla_serve.serve.http.pages import Page, all_pages, model_page, page_response
from mla_serve.serve.http.read_sample import SampleAndOptions, receive_sample
from mla_serve.serve.metrics import metrics_buffer
from mla_serve.serve.problems import (
    answer_http_error,
    answer_package_error,
    problem_response,
)
from mla_serve.serve.settings import Settings
from mla_serve.serve.tracing import stage_spans
from mla_serve.serve.workers.stopwatch import Stopwatch
from mla_serve.serve.workers.threads import WorkerPool

THREADS = 2  # one decodes while another runs a graph
BATCH_PATH = "/predict/batch"
ASK, ABOUT = "Ask the model", "About the model"
TAGS = {
    ASK: "Send any of the inputs, one or more. What is not sent counts as missing.",
    ABOUT: "What it predicts, what it takes, and how good it was on rows that it had not seen.",
}
PROBLEMS = (401, 408, 414, 431, 500, 503, 504)  # statuses with which any request may be answered
SAMPLE_PROBLEMS = (400, 413, 415, 422, *PROBLEMS)
EXPOSED_HEADERS = (
    "X-Request-ID",
    "Server-Timing",
    "Retry-After",
    "Allow",
    "WWW-Authenticate",
)  # that scripts of other origins may read


class Routes:
    """The handlers of the routes: read the request, compute the answer in a thread, send it."""

    update_refused: dict[str, str] | None = None
    """Why a newer bundle is not served; None if there is none."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        """Serve one predictor."""
        self.answerer = Answerer(predictor, settings)
        self.settings = settings
        self.inputs, self.fusion, self.task = predictor.bundle.inputs, predictor.bundle.fusion, predictor.task
        self.description = openapi.model_description(predictor.bundle, settings, predictor.providers)
        largest = max(self.answerer.batch_sizes.values())  # each request of a batch waits in a thread of its own
        self.pool = WorkerPool(THREADS if largest == 1 else THREADS + largest, settings.max_queue)
        self.by_path = {"/predict": self.predict, BATCH_PATH: self.predict_batch, "/embed": self.embed}

    async def predict(self, request: Request) -> Response:
        """Answer one sample from one or more of its inputs."""
        read = await self._read_sample(request, OPTIONS)
        return await self._reply(request, lambda watch: self.answerer.predict(*read(), watch))

    async def _read_sample(self, request: Request, known: tuple[str, ...]) -> Callable[[], SampleAndOptions]:
        """Receive a sample with the options that are known; returns a function that parses them, for a thread to call."""
        query = options_from_query(request.scope["query_string"], known)
        self.pool.check()  # before the body is read
        return await receive_sample(request, self.inputs, query, known, self.settings)

    async def _reply(self, request: Request, answer: Callable[[Stopwatch], bytes]) -> Response:
        """Compute the body of the reply in a thread, and send it with the times of its stages."""
        watch = Stopwatch(self.settings.max_decode_s)
        body = await self.pool.run(answer, watch, request.receive)
        metrics_buffer().add_stages(watch.laps)
        stage_spans.add(watch.laps)
        return Response(body, headers=watch.header(), media_type=JSON)

    async def embed(self, request: Request) -> Response:
        """Return the features of each input that was sent: the numbers that its encoder makes of it."""
        read = await self._read_sample(request, ())
        return await self._reply(request, lambda watch: self.answerer.embed(read()[0], watch))

    async def predict_batch(self, request: Request) -> Response:
        """Answer a list of samples; files are base64. One that cannot be used gets a problem in its place."""
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
        """Describe the model: what it predicts, modalities and how to send them, limits, metrics, hashes."""
        description = dataclasses.replace(self.description, update_refused=self.update_refused)
        return Response(orjson.dumps(description), headers={"Vary": "Accept"}, media_type=JSON)

    def close(self) -> None:
        """Release the threads and the graphs. Call it after the last request, when another model is served.

        The garbage collector would not release them, since gc.freeze excludes the objects that a worker starts with.
        """
        self.pool.close()
        del self.answerer


class DirectHandlers:
    """Call the handlers of samples without FastAPI's routing, which costs a request a fifth of a millisecond.

    FastAPI has these routes too: it describes them in the OpenAPI document, and answers every other method with 405.
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
        description=replies.purpose(predictor.bundle),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={MlaServeError: answer_package_error, HTTPException: answer_http_error},
    )
    routes = Routes(predictor, settings)
    _add_pages(app, predictor.bundle)
    _add_api(app, routes, predictor, guarded=keys is not None)
    _allow_head(app)
    return Application(app, routes, _layers(routes, settings, keys))


def _layers(routes: Routes, settings: Settings, keys: Keys | None) -> list[Callable[[ASGIApp], ASGIApp]]:
    """List the layers that a request passes, from the inside out."""
    by_path = {BATCH_PATH: settings.max_batch_body_bytes}
    layers: list[Callable[[ASGIApp], ASGIApp]] = [
        lambda app: DirectHandlers(app, routes.by_path),
        lambda app: Deadline(app, settings.request_timeout_s),
    ]
    if keys is not None:
        layers.append(lambda app: Guard(app, keys))
    layers.append(lambda app: PageOrJson(app, {"/model": model_page()}))
    layers.append(lambda app: BodyLimit(app, settings.max_body_bytes, by_path, settings.max_held_bytes, cost_of_body))
    if origins := parse_origins(settings.cors_origins):
        methods = ["GET", "HEAD", "POST"]
        layers.append(
            lambda app: CORSMiddleware(
                app, origins, allow_methods=methods, allow_headers=["*"], expose_headers=EXPOSED_HEADERS
            )
        )
    return [*layers, SecurityHeaders]


def _add_api(app: FastAPI, routes: Routes, predictor: Predictor, *, guarded: bool) -> None:
    """Add the routes for programs, and write the OpenAPI document with this model's fields and answers."""
    sample, embed = openapi.sample_body(routes.inputs, routes.fusion), openapi.sample_body(routes.inputs)
    batch = openapi.batch_body(routes.inputs, routes.fusion, routes.settings.max_batch_items)
    options = openapi.query_parameters(routes.fusion)
    answer, answers = replies.answer_type(routes.task), replies.batch_type(routes.task)
    operations: list[tuple[str, str, Callable[..., Any], type, dict[str, Any]]] = [
        ("/predict", "Answer one sample", routes.predict, answer, {"requestBody": sample, "parameters": options}),
        (
            BATCH_PATH,
            "Answer many samples",
            routes.predict_batch,
            answers,
            {"requestBody": batch, "parameters": options},
        ),
        ("/embed", "Turn inputs into features", routes.embed, Embedding, {"requestBody": embed}),
        ("/model", "Describe the model", routes.model, openapi.ModelDescription, {}),
    ]
    for path, summary, handler, reply, extra in operations:
        app.add_api_route(
            path,
            handler,
            methods=["POST" if "requestBody" in extra else "GET"],
            operation_id=handler.__name__,
            summary=summary,
            tags=[ASK if "requestBody" in extra else ABOUT],
            response_model=reply,
            responses=openapi.problem_responses(*(SAMPLE_PROBLEMS if "requestBody" in extra else PROBLEMS)),
            openapi_extra=extra,
        )
    document = app.openapi()
    replies.complete_document(document, routes.task)
    add_examples(document, examples(predictor, replies.promise(routes.task)))
    document["components"]["examples"] = openapi.problem_examples()
    document["tags"] = [{"name": name, "description": about} for name, about in TAGS.items()]
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    if guarded:
        document["security"] = [{"key": []}]


def _add_pages(app: FastAPI, bundle: Bundle) -> None:
    """Add the routes for people: the playground, its samples, what the model is, /docs, the explanation of each problem."""

    def content(page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def send(_: Request) -> Response:
            return page_response(page)

        return send

    for route, page in (all_pages(bundle) | about_pages(bundle)).items():
        app.add_route(route, content(page), include_in_schema=False)


def _allow_head(app: FastAPI) -> None:
    """Answer HEAD where GET is answered. Call it after the OpenAPI document is written, which would list each HEAD."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")
