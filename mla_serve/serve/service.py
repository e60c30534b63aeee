"""The BentoML service: processes, workers, health and metrics. `bentoml serve mla_serve.serve.service:MlaServe`.

The process that is started checks the whole bundle before any worker exists, so that a bundle or a setting that cannot
work ends it at once with one line. Each worker then checks for itself before it takes its first request.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os

import bentoml
from _bentoml_sdk import Service  # type: ignore[import-untyped]
from bentoml.exceptions import BentoMLConfigException
from starlette.types import ASGIApp, Receive, Scope, Send

from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.runtime import DEVICES
from mla_serve.serve.api import create_app
from mla_serve.serve.model import open_predictor
from mla_serve.serve.settings import Settings, load_settings, warn_of_unknown

log = logging.getLogger("mla_serve")
BENTOML_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/metrics", "/schema.json"})
ANY_OTHER_PATH = "/404"
REPLACED = ("TimeoutMiddleware", "OpenTelemetryMiddleware")


class Mounted:
    """What BentoML mounts at /: nothing until a worker has verified its model, then the application."""

    def __init__(self) -> None:
        """Start empty."""
        self.app: ASGIApp | None = None
        self.paths: frozenset[str] = frozenset()
        self.providers: list[str] = []

    def open(self, settings: Settings) -> None:
        """Load and verify the model and build the application.

        Raises: MlaServeError.
        """
        predictor = open_predictor(settings)
        app = create_app(predictor, settings)
        self.paths = frozenset(getattr(route, "path", "") for route in app.routes)
        self.providers = predictor.providers
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        assert self.app is not None, "BentoML takes no request before the service has been initialised"
        await self.app(scope, receive, send)


class KnownPaths:
    """Give every path that does not exist one name: BentoML's metrics and access log would keep each as a label."""

    def __init__(self, app: ASGIApp, mounted: Mounted) -> None:
        """Wrap the whole of BentoML's application."""
        self.app = app
        self.mounted = mounted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, renamed if need be."""
        path = scope.get("path")
        if path is not None and path not in self.mounted.paths and path not in BENTOML_PATHS:
            scope = {**scope, "path": ANY_OTHER_PATH, "raw_path": ANY_OTHER_PATH.encode()}
        await self.app(scope, receive, send)


class _Service(Service["MlaServe"]):  # type: ignore[misc]
    """A BentoML service with known paths only, and without what ours replaces or nobody reads.

    Its timeout answers no problem+json and keeps a timer for every request long after the answer; its tracing makes
    spans even when nothing exports them (TRAPS.md: a quarter of the cost of a request).
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Build the application of one worker."""
        app = super().to_asgi(is_main)
        app.user_middleware = [each for each in app.user_middleware if each.cls.__name__ not in REPLACED]
        return KnownPaths(app, mounted)


def _settings() -> Settings:
    try:
        return load_settings()
    except ConfigError as error:
        raise BentoMLConfigException(str(error)) from None


def _send_no_usage_reports() -> None:
    """Turn BentoML's usage reports off, unless the operator has decided; its command line has asked already."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    with contextlib.suppress(ImportError, AttributeError):
        from bentoml._internal.utils.analytics import usage_stats

        usage_stats.do_not_track.cache_clear()


_send_no_usage_reports()
settings = _settings()
mounted = Mounted()


@bentoml.asgi_app(mounted, path="/")
@bentoml.service(
    service_class=_Service,
    workers=settings.workers or (1 if settings.uses_gpu else "cpu_count"),
    logging={"access": {"enabled": settings.access_log}},
)
class MlaServe:
    """Classify from whichever of a model's modalities are sent."""

    def __init__(self) -> None:
        """Bring one worker up, or end it with one line in the log."""
        try:
            mounted.open(settings)
        except MlaServeError as error:
            log.critical("this worker cannot serve: %s", error)
            logging.shutdown()
            os._exit(1)  # an exception would print BentoML's, starlette's and uvicorn's tracebacks
        log.setLevel(logging.INFO)
        log.info("%s is verified and served on %s", settings.model, mounted.providers[0])
        gc.collect()
        gc.freeze()

    def __is_ready__(self) -> bool:
        """Answer /readyz: the model has been verified."""
        return mounted.app is not None

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Refuse to start with what cannot work: runs once, before the workers, on the CPU."""
        warn_of_unknown(os.environ)
        try:
            open_predictor(settings, DEVICES["cpu"])
        except MlaServeError as error:
            raise BentoMLConfigException(str(error)) from None
