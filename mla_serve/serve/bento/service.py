"""The BentoML service: `bentoml serve mla_serve.serve.bento.service:MlaServe`.

The process that is started checks the settings and the whole bundle before there is any worker, so that a mistake ends it at
once with one line. Each worker verifies the bundle again before it takes its first request.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
from collections.abc import Coroutine
from typing import Any

import bentoml
from starlette.types import ASGIApp

from mla_serve.bundle.runtime import DEVICES
from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.serve import tracing
from mla_serve.serve.bento import (
    accept_evenly,
    arbiter,
    histograms,
    logs,
    patches,
    run_folder,
    usage_reports,
    uvicorn_config,
)
from mla_serve.serve.bento.accept_evenly import ConnectionCounts
from mla_serve.serve.bento.cannot_serve import CannotServe
from mla_serve.serve.bento.client_schema import client_routes
from mla_serve.serve.bento.drain import Drain, Drained
from mla_serve.serve.bento.router import Router
from mla_serve.serve.http.body_limits import check_held
from mla_serve.serve.http.guard import Guard, KeysFile, parse_origins
from mla_serve.serve.metrics import flush_forever, forget_dead_workers, meters, metrics_buffer
from mla_serve.serve.models.current_model import BENTOML_PATHS, CurrentModel
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.models.watch import ModelWatch
from mla_serve.serve.request_id import RequestIdMiddleware
from mla_serve.serve.settings import Settings, load_settings, warn_of_unknown
from mla_serve.serve.workers.batching import parse_batch_sizes

log = logging.getLogger("mla_serve")
OTHER_FILES = 200  # that a worker has open beside its connections


class _Service(bentoml.Service["MlaServe"]):  # type: ignore[misc]  # bentoml loads it lazily, without a type
    """A BentoML service with our application beside BentoML's own paths, and a schema for BentoML's clients."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Build the application of one worker. uvicorn chooses its protocol after that.

        A request passes drain.py, request_id.py and router.py, which gives it to BentoML or, through tracing.py, to the model.
        """
        if folder := run_folder.run_folder():
            accept_evenly.counts = ConnectionCounts(folder / "connections", os.getpid())
        uvicorn_config.apply(**_uvicorn_options(settings))
        bentoml_app: ASGIApp = super().to_asgi(is_main)
        if model.keys is not None:
            # Our application has a guard of its own behind CORS, so that a browser may ask before it has a key.
            bentoml_app = Guard(bentoml_app, model.keys, BENTOML_PATHS)
        router = Router(bentoml_app, tracing.traced(model), model)
        return Drained(RequestIdMiddleware(router, model.name, settings.access_log), drain)

    def schema(self) -> dict[str, Any]:
        """Return what /schema.json answers."""
        routes = client_routes(model.routes.inputs, model.routes.fusion) if model.routes else []
        return {**super().schema(), "routes": routes}


def _load_settings() -> Settings:
    try:
        return load_settings()
    except ConfigError as error:
        raise CannotServe(str(error)) from None


def _uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Return the options for uvicorn.Config: our protocol, or h11 where uvicorn has changed too much for it."""
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        from mla_serve.serve.bento.connection import protocol
    except (ImportError, AttributeError):
        patches.report("connection", active=False)
        return {"http": "h11", "h11_max_incomplete_event_size": settings.max_header_bytes}
    patches.report("connection", active=True)
    most = max(1, min(settings.max_connections, files - OTHER_FILES))
    return {
        "http": protocol(settings, most, accept_evenly.counts),
        "loop": "mla_serve.serve.bento.accept_evenly:new_loop",
    }


usage_reports.apply()
run_folder.choose_folders()
settings = _load_settings()
logs.set_log_format(settings.log_format)
model = CurrentModel(settings, run_folder.run_folder())
drain = Drain(settings, before=accept_evenly.leave)


@bentoml.asgi_app(model, path="/")
@bentoml.service(
    service_class=_Service,
    workers=settings.processes,
    logging={"access": {"enabled": False}},  # RequestIdMiddleware writes it, with the request's id
)
class MlaServe:
    """Answer from whichever of a model's modalities are sent."""

    def __init__(self) -> None:
        """Start one worker, or end it with one line in the log."""
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every form that it cannot parse
        try:
            model.open()
        except (MlaServeError, OSError) as error:
            log.critical("this worker cannot serve: %s", error)
            logging.shutdown()
            os._exit(1)  # an exception would print BentoML's, starlette's and uvicorn's tracebacks
        if model.failure is None:
            log.info("%s is verified and served on %s", settings.model, model.providers[0])
        self._tasks = [asyncio.ensure_future(each) for each in self._start_duties()]
        # What is there now stays for good. Frozen, it is not looked at by each full garbage collection, which would hold up
        # requests for milliseconds.
        gc.collect()
        gc.freeze()

    def _start_duties(self) -> list[Coroutine[Any, Any, None]]:
        """Return what a worker does beside answering; nothing without an event loop, as in BentoML's tests of a service."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return []
        meters().update_refused.set(0)
        forget_dead_workers()
        histograms.apply()
        patches.publish()
        drain.install()
        duties = [drain.watch_threads(model.longest), flush_forever(model.waiting)]
        watch = ModelWatch(settings, model, model.kept, model.seen, model.failure)
        if settings.model_poll_s is not None:
            duties.append(watch.watch(settings.model_poll_s))
        return duties

    def __is_ready__(self) -> bool:
        """Answer /readyz: the model is verified, and the worker is not ending."""
        return model.is_open and not drain.on

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def log_drained(self) -> None:
        """Write to the log how many requests were accepted and answered. BentoML calls it after the last answer."""
        metrics_buffer().flush()
        log.info("drained: accepted %d, answered %d requests", drain.accepted, drain.answered)

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Refuse to start with what cannot work. BentoML calls it once, before the workers; graphs run on the CPU here."""
        warn_of_unknown(os.environ)
        arbiter.apply(settings.drain_s)
        run_folder.make_folders()
        try:
            tracing.check(os.environ)
            parse_origins(settings.cors_origins)
            check_held(settings.max_held_bytes, max(settings.max_body_bytes, settings.max_batch_body_bytes))
            if settings.api_keys_file is not None:
                KeysFile(settings.api_keys_file)
            parse_batch_sizes(settings.batch, open_predictor(settings, DEVICES["cpu"]).names, gpu=settings.uses_gpu)
        except MlaServeError as error:
            raise CannotServe(str(error)) from None
