"""Requests that schemathesis makes from the OpenAPI: valid, nearly valid, and not at all. `make hostile`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient

from mla_serve.serve.api import create_app
from mla_serve.serve.model import open_predictor
from mla_serve.serve.settings import Settings

CASES = int(os.environ.get("SCHEMA_CASES", "5000"))
ALLOWED = {200, 400, 404, 405, 413, 415, 422}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Iterator[Any]:
    folder = make_bundle(tmp_path_factory.mktemp("models") / "tiny")
    chosen = Settings(model=folder, device="cpu")
    app = create_app(open_predictor(chosen), chosen)
    with TestClient(app):
        yield app


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/embed"])
def test_no_generated_request_is_a_failure_of_ours(app: Any, path: str, mode: str) -> None:
    import schemathesis

    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operation = schema[path]["POST"]
    tried: dict[int, int] = {}

    @settings(
        max_examples=CASES // 6 + 1,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=getattr(schemathesis.GenerationMode, mode)))
    def send(case: Any) -> None:
        reply = case.call()
        assert reply.status_code in ALLOWED, (reply.status_code, reply.text)
        if reply.status_code >= 400:
            assert reply.headers["content-type"] == ["application/problem+json"]
        tried[reply.status_code] = tried.get(reply.status_code, 0) + 1

    send()
    print(f"\nschemathesis {path} {mode.lower()}: {sum(tried.values()):,} cases, {dict(sorted(tried.items()))}")
