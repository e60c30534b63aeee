"""The BentoML service: processes, workers, health and metrics. `bentoml serve mla_serve.serve.bento.service:MlaServe`.

The process that is started checks the whole bundle before any worker exists, so that a bundle or a setting that cannot
work ends it at once with one line. Each worker then checks for itself before it takes its first request.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Coroutine
from typing import Any

import bentoml
from _bentoml_sdk import Service  # type: ignore[import-untyped]
from starlette.types import ASGIApp

from mla_serve.bundle.runtime import DEVICES
from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.serve import tracing
from mla_serve.serve.bento import connection, logs, reserved, supervisor
from mla_serve.serve.bento.drain import Drain, Drained
from mla_serve.serve.http.body_limits import check_held
from mla_serve.serve.http.guard import Guard, KeysFile, parse_origins
from mla_serve.serve.metrics import count_forever, forget_dead_workers, meters, tally
from mla_serve.serve.models.current_model import BENTOML_PATHS, Mounted, PastBentoML
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.models.watch import ModelWatch
from mla_serve.serve.request_id import RequestIdMiddleware
from mla_serve.serve.settings import Settings, load_settings, warn_of_unknown
from mla_serve.serve.workers.batching import parse_batch_sizes
from mla_serve.serve.workers.threads import exit_despite_stuck_threads

log = logging.getLogger("mla_serve")
REPLACED = "TimeoutMiddleware"
TRACED = "OpenTelemetryMiddleware"


class _Service(Service["MlaServe"]):  # type: ignore[misc]
    """A BentoML service with known paths only, and without what ours replaces or nobody reads.

    Its timeout answers no problem+json and keeps a timer for every request long after the answer; its tracing makes
    spans even when nothing exports them, which is a quarter of the cost of a request, so it stays only where something
    does.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Build the application of one worker: before uvicorn chooses its protocol, and before there are metrics."""
        drain.crowd = connection.install(settings)
        reserved.install()
        provider = tracing.provider()
        app = super().to_asgi(is_main)
        unwanted = (REPLACED,) if provider else (REPLACED, TRACED)
        app.user_middleware = [each for each in app.user_middleware if each.cls.__name__ not in unwanted]
        if provider:
            tracing.tracing.start(provider)
            traced = next(each for each in app.user_middleware if each.cls.__name__ == TRACED)
            traced.kwargs.update(tracing.middleware_options())
        inner: ASGIApp = PastBentoML(app, mounted, traced=provider is not None)
        if mounted.keys is not None:
            # of BentoML; the application's own has a guard behind CORS, so that a browser may ask before it has a key
            inner = Guard(inner, mounted.keys, BENTOML_PATHS)
        return Drained(RequestIdMiddleware(inner, mounted.name, settings.access_log), drain)


def _settings() -> Settings:
    try:
        return load_settings()
    except ConfigError as error:
        raise supervisor.CannotServe(str(error)) from None


supervisor.ask_again_whether_to_report()
supervisor.keep_metrics_apart()
settings = _settings()
logs.install(settings.log_format)
mounted = Mounted(settings)
drain = Drain(settings)


@bentoml.asgi_app(mounted, path="/")
@bentoml.service(
    service_class=_Service,
    workers=settings.processes,
    logging={"access": {"enabled": False}},  # RequestIdMiddleware writes it, with the request's id
)
class MlaServe:
    """Classify from whichever of a model's modalities are sent."""

    def __init__(self) -> None:
        """Bring one worker up, or end it with one line in the log."""
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a warning for every form that cannot be parsed
        try:
            mounted.open()
        except (MlaServeError, OSError) as error:
            log.critical("this worker cannot serve: %s", error)
            logging.shutdown()
            os._exit(1)  # an exception would print BentoML's, starlette's and uvicorn's tracebacks
        if mounted.failure is None:
            log.info("%s is verified and served on %s", settings.model, mounted.providers[0])
        self._tasks = [asyncio.ensure_future(each) for each in self._duties()]
        gc.collect()
        gc.freeze()

    def _duties(self) -> list[Coroutine[Any, Any, None]]:
        """Return what a worker does beside answering; nothing without an event loop (BentoML's own tests of a service)."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return []
        meters().update_refused.set(0)
        forget_dead_workers()
        drain.install()
        duties = [drain.watch(mounted.longest), count_forever(mounted.waiting)]
        watch = ModelWatch(settings, mounted, mounted.kept, mounted.seen, mounted.failure)
        if settings.model_poll_s is not None:
            duties.append(watch.watch(settings.model_poll_s))
        return duties

    def __is_ready__(self) -> bool:
        """Answer /readyz: the model has been verified, and the worker stays."""
        return mounted.is_open and not drain.on

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def say_goodbye(self) -> None:
        """Say in the log that nothing was lost: runs after the last answer."""
        tally().count()
        exit_despite_stuck_threads()
        log.info("drained: accepted %d, answered %d requests", drain.accepted, drain.answered)

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Refuse to start with what cannot work: runs once, before the workers, on the CPU."""
        warn_of_unknown(os.environ)
        supervisor.look_after_workers(settings.drain_s)
        supervisor.clear_metrics()
        try:
            tracing.check(os.environ)
            parse_origins(settings.cors_origins)
            check_held(settings.max_held_bytes, max(settings.max_body_bytes, settings.max_batch_body_bytes))
            if settings.api_keys_file is not None:
                KeysFile(settings.api_keys_file)
            parse_batch_sizes(settings.batch, open_predictor(settings, DEVICES["cpu"]).names, gpu=settings.uses_gpu)
        except MlaServeError as error:
            raise supervisor.CannotServe(str(error)) from None
