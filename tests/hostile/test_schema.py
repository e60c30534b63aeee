"""Requests that schemathesis makes from the OpenAPI: valid, nearly valid, and not at all; to a real service. `make hostile`.

No 5xx, no answer slower than 2 s, no memory that grows.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from mla_serve.fusion.formula import Fusion
from mla_serve.fusion.intervals import Intervals, Thresholds
from mla_serve.fusion.rules import rules_for
from mla_serve.inputs import INPUTS
from mla_serve.tasks import Task
from tests.conftest import TASKS
from tests.load.service import Service, serving

CASES = int(os.environ.get("SCHEMA_CASES", "5400"))
WARM_UP = CASES // 10
GROWTH = 1.1
SLOWEST_S = 2.0
ALLOWED = {200, 400, 404, 405, 413, 415, 422}
OPERATIONS = [(path, mode) for path in ("/predict", "/predict/batch", "/embed") for mode in ("POSITIVE", "NEGATIVE")]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def service(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = make_bundle(tmp_path_factory.mktemp("schema") / "tiny", {kind: kind for kind in INPUTS})
    with serving(folder, workers=1) as service:
        yield service


def send(
    schema: Any, path: str, mode: str, count: int, check: Callable[[Any], None] = lambda _: None
) -> tuple[collections.Counter[int], float]:
    """Send so many requests of a kind; returns the statuses, and the seconds that the slowest answer took."""
    import requests
    import schemathesis

    statuses: collections.Counter[int] = collections.Counter()
    slowest = 0.0
    session = requests.Session()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,  # hypothesis would send the same requests again and again where CI is set
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path]["POST"].as_strategy(generation_mode=getattr(schemathesis.GenerationMode, mode)))
    def send_one(case: Any) -> None:
        nonlocal slowest
        reply = case.call(session=session)
        assert reply.status_code in ALLOWED, (reply.status_code, reply.text)
        if reply.status_code >= 400:
            assert reply.headers["content-type"] == ["application/problem+json"]
        check(reply)
        statuses[reply.status_code] += 1
        slowest = max(slowest, reply.elapsed)

    send_one()
    session.close()
    return statuses, slowest


def test_no_generated_request_is_a_failure_of_ours(service: Service) -> None:
    import schemathesis

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
    for path, mode in OPERATIONS:
        send(schema, path, mode, WARM_UP // len(OPERATIONS))
    memory, slowest, total = service.memory(), 0.0, 0
    print()
    for path, mode in OPERATIONS:
        statuses, took = send(schema, path, mode, CASES // len(OPERATIONS))
        slowest, total = max(slowest, took), total + statuses.total()
        print(f"schemathesis {path} {mode.lower()}: {statuses.total():,} cases, {dict(sorted(statuses.items()))}")
    growth = service.memory() / memory
    print(f"schemathesis: {total:,} cases, slowest {1000 * slowest:.0f} ms, memory {100 * (growth - 1):+.1f} %")
    log = service.log.read_text()
    assert slowest < SLOWEST_S
    assert growth < GROWTH
    assert "Traceback" not in log
    assert "internal error" not in log


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_the_schema_allows_is_accepted(make_bundle: Callable[..., Path], tmp_path: Path, task: Task) -> None:
    """Of a model that reads texts and columns; no schema can say which bytes are a picture.

    Nor can it say, for the generators of clients, that one modality at least is needed, and that an option stands in the
    URL or in the body.
    """
    import schemathesis

    scores = Thresholds.of(np.linspace(0, 1, 100))
    intervals = Intervals(task, {rule: {"words": scores} for rule in rules_for(Fusion.paper(("words", "facts"), task))})
    folder = make_bundle(tmp_path / "words", {"words": "text", "facts": "columns"}, task=task, intervals=intervals)

    def check(reply: Any) -> None:
        if reply.status_code != 200:
            problem = reply.json()
            missing = problem["type"] == "/problems/missing-input"
            assert missing or "in the URL and in the body" in problem["detail"], (reply.request.body, problem)

    with serving(folder, workers=1) as service:
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
        for path in ("/predict", "/predict/batch", "/embed"):
            statuses, _ = send(schema, path, "POSITIVE", CASES // 60, check)
            assert statuses[200] > 0
            print(f"schemathesis {path} allowed: {statuses.total():,} cases, {dict(sorted(statuses.items()))}")
