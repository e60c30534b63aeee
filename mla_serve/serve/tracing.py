"""OpenTelemetry spans: only where somebody collects them, because spans cost a quarter of a request.

Either OpenTelemetry's own variables say where to (OTEL_EXPORTER_OTLP_ENDPOINT), or BentoML's configuration does
(tracing.exporter_type with a sample_rate).
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mla_serve.console import install_command
from mla_serve.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
EXPORTER = "opentelemetry.exporter.otlp.proto.http"
NOT_TRACED = "livez,readyz,healthz,metrics"


class Tracing:
    """Whether spans are made, and making those of a request's stages."""

    def __init__(self) -> None:
        """Make none."""
        self._tracer: Tracer | None = None

    def start(self, provider: TracerProvider) -> None:
        """Make them from now on."""
        self._tracer = provider.get_tracer("mla_serve")

    def stages(self, laps: Sequence[tuple[str, float]]) -> None:
        """Make a span of each stage of the request that is being answered, the last of which has just ended."""
        if self._tracer is None:
            return
        at = time.time_ns() - int(1e9 * sum(seconds for _, seconds in laps))
        for name, seconds in laps:
            span = self._tracer.start_span(name, start_time=at)
            at += int(1e9 * seconds)
            span.end(at)


tracing = Tracing()


def check(environment: Mapping[str, str]) -> None:
    """Refuse what would be asked for in vain.

    Raises: ConfigError when an endpoint is set and spans cannot be sent there.
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
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but what sends spans is not installed; "
            f"{install_command('otel')}, or unset it"
        )


def asked_for(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for spans."""
    off = (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not off and any(environment.get(name) for name in ENDPOINTS)


def provider() -> TracerProvider | None:
    """Return what makes and sends spans, None where nobody collects them."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    if asked_for(os.environ):
        BentoMLContainer.tracer_provider.set(_otlp_provider())
    elif not (BentoMLContainer.tracing.exporter_type.get() and BentoMLContainer.tracing.sample_rate.get()):
        return None
    chosen: TracerProvider = BentoMLContainer.tracer_provider.get()
    return chosen


def middleware_options() -> dict[str, Any]:
    """Return how BentoML's middleware shall trace: one span per request, and none for those who look after the service."""
    from opentelemetry.util.http import parse_excluded_urls

    return {"excluded_urls": parse_excluded_urls(NOT_TRACED), "exclude_spans": ["receive", "send"]}


def _otlp_provider() -> TracerProvider:
    """Send spans as OpenTelemetry's variables say: endpoint, headers, sampler, name of the service."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    made = TracerProvider(resource=Resource.create({} if named else {"service.name": "mla_serve"}))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made
