"""OpenTelemetry spans, where OTEL_EXPORTER_OTLP_ENDPOINT names a collector: spans cost a quarter of a request."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from mla_serve.console import install_command
from mla_serve.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
EXPORTER = "opentelemetry.exporter.otlp.proto.http"


class StageSpans:
    """The spans of the stages of requests."""

    def __init__(self) -> None:
        """Make none until `start` is called."""
        self._tracer: Tracer | None = None

    def start(self, provider: TracerProvider) -> None:
        """Make spans from now on."""
        self._tracer = provider.get_tracer("mla_serve")

    def add(self, stages: Sequence[tuple[str, float]]) -> None:
        """Make a span of each stage (name, seconds) of the current request. The last stage has just ended."""
        if self._tracer is None:
            return
        at = time.time_ns() - int(1e9 * sum(seconds for _, seconds in stages))
        for name, seconds in stages:
            span = self._tracer.start_span(name, start_time=at)
            at += int(1e9 * seconds)
            span.end(at)


stage_spans = StageSpans()


def check(environment: Mapping[str, str]) -> None:
    """Check that spans can be sent where the environment asks for them.

    Raises: ConfigError.
    """
    if not asked_for(environment):
        return
    protocol = next((environment[name] for name in reversed(PROTOCOLS) if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r}: spans are sent by http/protobuf; set that")
    try:
        found = importlib.util.find_spec(EXPORTER)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the package that sends spans is not installed; "
            f"{install_command('otel')}, or unset it"
        )


def asked_for(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a collector of spans."""
    off = (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not off and any(environment.get(name) for name in ENDPOINTS)


def traced(app: ASGIApp) -> ASGIApp:
    """Wrap an application so that each request makes one span, with one below it for each stage.

    Returns: the application as it is when nobody collects spans.
    """
    if not asked_for(os.environ):
        return app
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    provider = _otlp_provider()
    stage_spans.start(provider)
    return OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["receive", "send"])


def _otlp_provider() -> TracerProvider:
    """Make spans and send them. OpenTelemetry reads its variables itself: endpoint, headers, sampler, service name."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    made = TracerProvider(resource=Resource.create({} if named else {"service.name": "mla_serve"}))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made
