"""What a service shows of itself: two real workers, their numbers, their log, their spans."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.demo.prometheus import faster
from mla_serve.inputs import Payload
from mla_serve.serve.tracing import check
from tests.load.service import Service, serving

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "mla_serve.json").read_text(encoding="utf-8"))
NAME = re.compile(r"\b(?:mla_\w+|bentoml_\w+)(?![\w:])")
RECORDED = re.compile(r"\bmla:[\w:]+")
MARKER = "zebra-crossing-at-midnight"
REQUEST_ID = "an-id-of-mine.1"


@pytest.fixture(scope="module")
def service(tiny_bundle: Path, collector: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with serving(tiny_bundle, LOG_FORMAT="json", ACCESS_LOG="true") as service:
            yield service


@pytest.fixture(scope="module")
def client(service: Service, sample: dict[str, Payload]) -> Iterator[httpx.Client]:
    """Ask for everything once, good and bad."""
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=30) as client:
        parts = [
            (name, (name, each) if isinstance(each, bytes) else (None, str(each))) for name, each in sample.items()
        ]
        headers = {"X-Request-ID": REQUEST_ID}
        assert client.post("/predict", files=parts, headers=headers).status_code == 200  # type: ignore[arg-type]
        assert client.post("/predict", files={"text": (None, MARKER)}, headers={"X-Marker": MARKER}).status_code == 200
        bad = {"audio": ("a.wav", MARKER.encode()), MARKER: (None, MARKER)}
        assert client.post(f"/predict?{MARKER}={MARKER}", files=bad).status_code == 400
        assert client.post("/predict", files={"audio": (f"{MARKER}.wav", MARKER.encode())}).status_code == 415
        assert client.post("/predict/batch", json={"samples": [{"text": MARKER}, {"text": 3}]}).status_code == 200
        assert client.get(f"/{MARKER}").status_code == 404
        assert client.post("/predict", content=MARKER).status_code in (400, 415)
        yield client


def eventually(get: Callable[[], Any]) -> Any:
    """Wait for something that comes within seconds."""
    for _ in range(300):
        if found := get():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come within 30 s")


def metrics(client: httpx.Client) -> str:
    """Read /metrics once everything that was asked has been counted."""

    def counted() -> str:
        text = client.get("/metrics").text
        wanted = 'mla_samples_total{available="text"} 2.0', 'mla_stage_seconds_count{stage="fuse"} 3.0'
        return text if all(each in text for each in wanted) else ""

    return str(eventually(counted))


def expressions() -> list[str]:
    """List every PromQL expression of the dashboard and the rules."""
    rules = (DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    blocks = re.findall(r"expr: (?:>-\n)?(.*?)(?=\n\s+(?:for|labels|- record):|\n\n|\Z)", rules, re.DOTALL)
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert len(blocks) == rules.count("expr:")
    return [re.sub(r'"[^"]*"', '""', each) for each in (*blocks, *panels, *variables)]


def test_every_name_that_the_dashboard_and_the_rules_use_is_there(client: httpx.Client) -> None:
    shown = set(re.findall(r"^(\w+)(?=[{ ])", metrics(client), re.MULTILINE))
    shown |= {f"mla_{name}_total" for name in ("refused", "dropped")}  # nothing was: see tests/serve/test_metrics.py
    shown.add("mla_value_bucket")  # of models of a number: see tests/serve/test_metrics.py
    used = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(used) > 10
    assert used - shown == set()
    recorded = set(re.findall(r"record: (\S+)", (DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8")))
    assert {name for expression in expressions() for name in RECORDED.findall(expression)} <= recorded


def test_no_request_makes_a_label(client: httpx.Client) -> None:
    assert MARKER not in metrics(client)
    assert REQUEST_ID not in metrics(client)


def test_the_log_is_json_under_request_ids_and_holds_nothing_that_was_sent(
    service: Service, client: httpx.Client
) -> None:
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line]
    requests = [line for line in lines if line["logger"] == "mla_serve.access"]
    assert {line["status"] for line in requests} >= {200, 400, 404, 415}
    assert all(line["request_id"] for line in requests)
    (mine,) = [line for line in requests if line["request_id"] == REQUEST_ID]
    assert (mine["path"], mine["method"], mine["status"]) == ("/predict", "POST", 200)
    assert MARKER not in service.log.read_text()


def test_an_answer_and_a_problem_name_their_request(client: httpx.Client) -> None:
    reply = client.post("/predict", headers={"X-Request-ID": REQUEST_ID + "2"})
    assert reply.headers["x-request-id"] == REQUEST_ID + "2"
    assert reply.json()["request_id"] == REQUEST_ID + "2"


def test_spans_reach_the_collector_one_per_request_with_its_stages(client: httpx.Client, collector: Any) -> None:
    spans = eventually(lambda: collector.spans if any(span.name == "fuse" for span in collector.spans) else None)
    time.sleep(1)
    servers = {span.span_id: span for span in spans if span.kind == span.SPAN_KIND_SERVER}
    stages = [span for span in spans if span.kind != span.SPAN_KIND_SERVER]
    assert {"queue", "fuse"} <= {span.name for span in stages}
    assert all(span.parent_span_id in servers for span in stages)
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in stages)
    assert not [span for span in servers.values() if "metrics" in span.name or "readyz" in span.name]
    assert not [span for span in stages if "receive" in span.name or "send" in span.name]
    assert collector.services == {"mla_serve"}


def test_a_collector_that_cannot_be_reached_as_asked_is_an_error_at_start() -> None:
    from mla_serve.errors import ConfigError

    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    check({})
    check(endpoint)
    check({**endpoint, "OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    with pytest.raises(ConfigError, match="http/protobuf"):
        check({**endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_rules_fire_when_they_should_and_only_then() -> None:
    if not shutil.which("promtool"):
        pytest.skip("there is no promtool (Debian, Ubuntu: apt install prometheus)")
    folder = DEPLOY / "prometheus"
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    folder = DEPLOY / "prometheus"
    alerts = set(re.findall(r"- alert: (\w+)", (folder / "alerts.yml").read_text(encoding="utf-8")))
    cases = set(re.findall(r"alertname: (\w+)", (folder / "alerts_test.yml").read_text(encoding="utf-8")))
    assert alerts == cases


def test_a_faster_clock_changes_durations_and_no_names() -> None:
    rules = "record: a:rate5m\nexpr: rate(x[5m]) + quantile_over_time(0.5, y[1d]) > 5\nfor: 10m\n"
    expected = "record: a:rate5m\nexpr: rate(x[15s]) + quantile_over_time(0.5, y[4320s]) > 5\nfor: 30s\n"
    assert faster(rules, 20) == expected


def test_the_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
