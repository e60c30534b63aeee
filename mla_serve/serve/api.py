"""The REST surface as a FastAPI application: routes, and what happens off the event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from mla_serve import __version__
from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.fusion import DEFAULT_RULE
from mla_serve.inputs import Array, Payload
from mla_serve.predictor import Predictor
from mla_serve.results import Answer, Embedding, ModelId, Prediction
from mla_serve.serve import describe, forms
from mla_serve.serve.limits import BodyLimit, Deadline
from mla_serve.serve.problems import (
    DeadlineExceeded,
    Problem,
    answer_http_error,
    answer_input_error,
    to_problem,
)
from mla_serve.serve.settings import Settings

THREADS = 2  # one decodes while another runs a graph
BATCH_PATH = "/predict/batch"
INDEX = Path(__file__).parent / "web" / "index.html"
SWAGGER = {"js": "swagger-ui-bundle.js", "css": "swagger-ui.css"}


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What stands in a batch's results in the place of a sample that cannot be used."""

    problem: Problem


@dataclasses.dataclass(frozen=True)
class BatchAnswer:
    """The reply of /predict/batch: one result per sample, in their order."""

    results: list[Prediction | Refusal]
    model: ModelId


class Stopwatch:
    """Time the stages of one request, and stop it between two of them once nobody waits for it any more."""

    def __init__(self, seconds: float) -> None:
        """Start; `seconds` from now is too late."""
        self._last = time.perf_counter()
        self._end = self._last + seconds
        self._stages: list[str] = []

    def lap(self, stage: str) -> None:
        """Note that a stage is done.

        Raises: DeadlineExceeded.
        """
        now = time.perf_counter()
        self._stages.append(f"{stage};dur={1000 * (now - self._last):.2f}")
        self._last = now
        self.check()

    def check(self) -> None:
        """Go on only if there is time left.

        Raises: DeadlineExceeded.
        """
        if time.perf_counter() > self._end:
            raise DeadlineExceeded("the time for this request ran out")

    def header(self) -> dict[str, str]:
        """Return the stages as a Server-Timing header, in milliseconds."""
        return {"Server-Timing": ", ".join(self._stages)}


class Answerer:
    """Turn requests into the bodies of replies. Runs in threads."""

    def __init__(self, predictor: Predictor) -> None:
        """Answer with this predictor."""
        self.predictor = predictor
        manifest = predictor.bundle.manifest
        self.model = ModelId(manifest.name, manifest.sha256)

    def predict(self, sample: Mapping[str, Payload], options: forms.Options, watch: Stopwatch) -> bytes:
        """Classify one sample."""
        rule = self._rule(options)
        logits, present = self.predictor.logits([self._decode(sample, watch)], watch.lap)
        prediction = self.predictor.conclude(logits, present, rule, options.top_k)[0]
        watch.lap("fuse")
        return orjson.dumps({**vars(prediction), "model": self.model})

    def embed(self, sample: Mapping[str, Payload], watch: Stopwatch) -> bytes:
        """Encode one sample."""
        features = {}
        for name, array in self._decode(sample, watch).items():
            features[name] = self.predictor.encode(name, [array])[0].tolist()
            watch.lap(f"encode-{name}")
        return orjson.dumps({"features": features, "model": self.model})

    def predict_batch(self, body: bytes, max_items: int, watch: Stopwatch) -> bytes:
        """Classify many samples in one run of the graphs; a sample that cannot be used gets its problem instead."""
        items, options = forms.parse_batch(body, max_items)
        rule = self._rule(options)
        decoded = [self._decode_item(item, watch) for item in items]
        watch.lap("decode")
        good = [arrays for arrays in decoded if not isinstance(arrays, Problem)]
        predictions: Iterator[Prediction] = iter(())
        if good:
            logits, present = self.predictor.logits(good, watch.lap)
            predictions = iter(self.predictor.conclude(logits, present, rule, options.top_k))
        results = [
            {"problem": result.to_dict()} if isinstance(result, Problem) else next(predictions) for result in decoded
        ]
        watch.lap("fuse")
        return orjson.dumps({"results": results, "model": self.model})

    def _rule(self, options: forms.Options) -> str:
        rule = options.fusion or DEFAULT_RULE
        self.predictor.check_options(rule, options.top_k)
        return rule

    def _decode(self, sample: Mapping[str, Payload], watch: Stopwatch) -> dict[str, Array]:
        self.predictor.check_names(sample)
        arrays = {}
        for name, payload in sample.items():
            arrays[name] = self.predictor.decode_one(name, payload)
            watch.lap(f"decode-{name}")
        return arrays

    def _decode_item(self, item: object, watch: Stopwatch) -> dict[str, Array] | Problem:
        watch.check()
        try:
            return self.predictor.decode(forms.sample_from_json(item, self.predictor.bundle.inputs))
        except Exception as error:  # even a bug in a decoder shall not cost the neighbours their answers
            return to_problem(error)


class Routes:
    """The handlers: read the request, answer in a thread, send the reply."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        """Serve one predictor."""
        self.answerer = Answerer(predictor)
        self.settings = settings
        self.inputs = predictor.bundle.inputs
        self.description = orjson.dumps(describe.model_description(predictor.bundle, settings, predictor.providers))
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="answer")
        self._known = (*self.inputs, *forms.OPTIONS)

    async def predict(self, request: Request) -> Response:
        """Classify one sample from any non-empty subset of its modalities."""
        parts = await forms.read_form(request, self._known, describe.curl(self.inputs))
        sample = forms.sample_from_form(parts, self.inputs)
        options = forms.options_from_form(parts)
        return await self._reply(functools.partial(self.answerer.predict, sample, options))

    async def embed(self, request: Request) -> Response:
        """Return the encoder's features of each modality that was sent."""
        parts = await forms.read_form(request, tuple(self.inputs), describe.curl(self.inputs, "/embed"))
        sample = forms.sample_from_form(parts, self.inputs)
        return await self._reply(functools.partial(self.answerer.embed, sample))

    async def predict_batch(self, request: Request) -> Response:
        """Classify a list of samples; files are base64. One that cannot be used gets a problem in its place."""
        forms.check_json(request)
        body = await request.body()
        return await self._reply(functools.partial(self.answerer.predict_batch, body, self.settings.max_batch_items))

    async def model(self) -> Response:
        """Describe the model: classes, modalities and how to send them, limits, metrics, hashes."""
        return Response(self.description, media_type=describe.JSON)

    async def _reply(self, answer: Callable[[Stopwatch], bytes]) -> Response:
        watch = Stopwatch(self.settings.request_timeout_s)
        body = await asyncio.get_running_loop().run_in_executor(self._pool, answer, watch)
        return Response(body, headers=watch.header(), media_type=describe.JSON)


def create_app(predictor: Predictor, settings: Settings) -> FastAPI:
    """Build the application that serves a predictor.

    Raises: ConfigError when a modality bears the name of an option.
    """
    if clash := set(predictor.names) & set(forms.OPTIONS):
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
    app.add_middleware(Deadline, seconds=settings.request_timeout_s)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, by_path={BATCH_PATH: settings.max_batch_body_bytes})
    _add_api(app, Routes(predictor, settings))
    _add_pages(app)
    return app


def _add_api(app: FastAPI, routes: Routes) -> None:
    """Add what programs call, with the OpenAPI of this model's fields."""
    form_problems = describe.problem_responses(400, 413, 415, 422, 500, 504)
    app.add_api_route(
        "/predict",
        routes.predict,
        methods=["POST"],
        response_model=Answer,
        responses=form_problems,
        openapi_extra=describe.form_schema(routes.inputs, with_options=True),
    )
    app.add_api_route(
        BATCH_PATH,
        routes.predict_batch,
        methods=["POST"],
        response_model=BatchAnswer,
        responses=form_problems,
        openapi_extra=describe.batch_schema(routes.inputs, routes.settings.max_batch_items),
    )
    app.add_api_route(
        "/embed",
        routes.embed,
        methods=["POST"],
        response_model=Embedding,
        responses=form_problems,
        openapi_extra=describe.form_schema(routes.inputs, with_options=False),
    )
    app.add_api_route("/model", routes.model, methods=["GET"], response_model=dict[str, Any])


def _add_pages(app: FastAPI) -> None:
    """Add what people look at. Nothing is loaded from elsewhere when BentoML's copy of Swagger UI is there."""
    index = INDEX.read_text(encoding="utf-8")
    assets = _swagger_assets()
    urls: dict[str, Any] = {f"swagger_{kind}_url": f"docs/{path.name}" for kind, path in assets.items()}
    docs = get_swagger_ui_html(openapi_url="openapi.json", title=app.title, swagger_favicon_url="data:,", **urls)

    async def show_index(_: Request) -> Response:
        return HTMLResponse(index)

    async def show_docs(_: Request) -> Response:
        return docs

    app.add_route("/", show_index, include_in_schema=False)
    app.add_route("/docs", show_docs, include_in_schema=False)
    for path in assets.values():
        app.add_route(f"/docs/{path.name}", functools.partial(_send_file, path), include_in_schema=False)


async def _send_file(path: Path, _: Request) -> Response:
    return FileResponse(path, headers={"Cache-Control": "max-age=86400"})


def _swagger_assets() -> dict[str, Path]:
    """Find the copy of Swagger UI that BentoML carries, without importing BentoML; empty when there is none."""
    spec = importlib.util.find_spec("bentoml")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = {
        kind: Path(folder, "_internal", "server", "static_content", name)
        for folder in folders
        for kind, name in SWAGGER.items()
    }
    return files if all(path.is_file() for path in files.values()) else {}
