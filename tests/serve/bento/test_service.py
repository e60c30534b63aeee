"""The real thing: `bentoml serve` in processes of its own, on a free port of this machine, with a torch that raises."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from mla_serve.bundle.predictor import Predictor
from mla_serve.inputs import Payload
from mla_serve.serve.bento import patches
from tests.serve.bento.server import BENTOML, MLA_SERVE, PATIENCE_S, free_port, started, wait_until_ready


class Server:
    """A service that is running: a client of it, its main process, its log, its folder, its bundle."""

    def __init__(self, client: httpx.Client, process: subprocess.Popen[bytes], log: Path, model: str) -> None:
        self.client = client
        self.process = process
        self.log = log
        self.home = log.parent / "bentoml"
        self.model = model


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    with (
        started(folder, port, MLA_MODEL=str(tiny_bundle), MLA_MAX_BODY_BYTES="1000000", MLA_HEADER_TIMEOUT_S="2") as (
            process,
            log,
        ),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        wait_until_ready(process, log, client)
        yield Server(client, process, log, str(tiny_bundle))


def form(sample: Mapping[str, Payload]) -> list[tuple[str, Any]]:
    return [
        (
            name,
            (name, payload)
            if isinstance(payload, bytes)
            else (None, payload if isinstance(payload, str) else json.dumps(payload)),
        )
        for name, payload in sample.items()
    ]


def test_every_subset_is_answered_as_without_a_server(
    server: Server, predictor: Predictor, sample: dict[str, Payload], all_subsets: Any
) -> None:
    for names in all_subsets(list(sample)):
        part = {name: sample[name] for name in names}
        reply = server.client.post("/predict", files=form(part))
        assert reply.status_code == 200, reply.text
        expected = predictor.predict([part])[0]
        given = {each["label"]: each["probability"] for each in reply.json()["probabilities"]}
        assert given == pytest.approx(expected.by_label(), abs=1e-6)
        assert sum(each["weight"] for each in reply.json()["modalities"].values()) == pytest.approx(1.0)


def test_every_route_is_there(server: Server) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/model", "/", "/docs", "/openapi.json"):
        assert server.client.get(path).status_code == 200, path
    assert "bentoml" not in server.client.get("/").text.lower()
    assert server.client.post("/predict/batch", json={"samples": [{"text": "a"}]}).status_code == 200
    assert server.client.post("/embed", files=[("text", (None, "a"))]).status_code == 200


def test_every_patch_is_in_force(server: Server) -> None:
    """A version of BentoML, uvicorn or prometheus_client that no longer has what is changed is found here."""
    metrics = server.client.get("/metrics").text
    for name in patches.WITHOUT:
        assert f'mla_patch_active{{patch="{name}"}} 1.0' in metrics
    assert "does not fit this version" not in server.log.read_text()


CLIENT = """
import json, sys, bentoml
url, sample, *others = json.loads(sys.argv[1])
with bentoml.SyncHTTPClient(url) as client:
    print(json.dumps([client.predict(**sample, top_k=1)["label"], list(client.embed(**sample)["features"])]))
    for text in others:
        try:
            print(client.predict(image=text))
        except bentoml.exceptions.BentoMLException as error:
            print(error)
"""


def test_bentomls_client_finds_the_routes_and_is_answered(
    server: Server, predictor: Predictor, sample: dict[str, Payload]
) -> None:
    """Files are base64 in it: no string is a path on the server or a URL."""
    secret, url = server.log.parent / "secret.png", str(server.client.base_url)
    secret.write_bytes(next(value for value in sample.values() if isinstance(value, bytes)))
    content = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in sample.items()
    }
    wrong = [str(secret), secret.as_uri(), f"{url}/samples/0/image"]
    command = [sys.executable, "-c", CLIENT, json.dumps([url, content, *wrong])]
    answers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert json.loads(answers[0]) == [predictor.predict([sample])[0].label, list(sample)]
    assert len(answers) == 1 + len(wrong)
    assert all('"field":"image"' in answer for answer in answers[1:])


CLIENT_OF_COLUMNS = """
import bentoml, sys
with bentoml.SyncHTTPClient(sys.argv[1]) as client:
    print(client.predict(columns={"price": 12.5, "colour": None})["label"])
    try:
        print(client.predict(columns={"pricee": 12.5}))
    except bentoml.exceptions.BentoMLException as error:
        print(error)
"""


def test_bentomls_client_sends_columns_with_every_member(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle, port = make_bundle(tmp_path / "shop", {"columns": "columns"}), free_port()
    with started(tmp_path / "server", port, MLA_MODEL=str(bundle)) as (process, log):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_ready(process, log, client)
        command = [sys.executable, "-c", CLIENT_OF_COLUMNS, f"http://127.0.0.1:{port}"]
        answers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert answers[0] in ("red", "green", "blue")
    assert '"field":"columns.pricee"' in answers[1]


def test_an_unknown_path_is_a_problem_and_no_label_of_a_metric(server: Server) -> None:
    for path in ("/secret-1", "/secret-2", "/predict/secret-3", "/secret%0a4"):
        reply = server.client.get(path)
        assert reply.status_code == 404
        assert reply.headers["content-type"] == "application/problem+json"
    server.client.post("/predict", files=[("text", (None, "a"))])
    counted = (
        'mla_request_seconds_count{endpoint="/404",status="404"}',
        'mla_request_seconds_count{endpoint="/predict"',
    )
    for _ in range(100):  # counted once a second
        metrics = server.client.get("/metrics").text
        if all(series in metrics for series in counted):
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"not counted: {counted}")
    assert "secret" not in metrics


def test_a_body_that_is_too_long_is_refused_while_it_is_sent(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for _ in range(300):
            yield b"x" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=b"}
    chunked = server.client.post("/predict", content=endless(), headers=headers)
    assert "transfer-encoding" in chunked.request.headers
    declared = server.client.post("/predict", content=b"".join(endless()), headers=headers)
    for reply in (chunked, declared):
        assert reply.status_code == 413
        assert reply.json()["field"] == "body"
        assert reply.headers["connection"] == "close"
    assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        (b"GET /model HTTP/1.1\r\nX: " + b"a" * 50_000 + b"\r\n\r\n", 431, "head-too-large"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 414, "url-too-long"),
        (b"GET /model HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431, "head-too-large"),
        (
            b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "malformed-request",
        ),
        (b"\x16\x03\x01 not HTTP\r\n\r\n", 400, "malformed-request"),
        (b"GET /model HTTP/1.1\r\nX-Slow: ", 408, "head-too-slow"),
        (
            b"POST /predict HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Type: text/csv\r\n"
            b"Content-Length: 3\r\n\r\na,b",
            415,
            "unsupported-format",
        ),
    ],
)
def test_the_limits_of_connections_hold_in_a_worker(server: Server, sent: bytes, status: int, slug: str) -> None:
    with socket.create_connection(("127.0.0.1", server.client.base_url.port or 0), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert f"/problems/{slug}".encode() in answer


def test_serving_imports_no_torch_and_stays_small(server: Server) -> None:
    workers = psutil.Process(server.process.pid).children(recursive=True)
    assert workers
    assert max(worker.memory_info().rss for worker in workers) < 250 * 2**20
    assert not (server.log.parent / "torch-was-imported").exists()
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "is verified and served on CPUExecutionProvider" in log


def refusal(folder: Path, port: int | None = None, start: Sequence[str] = BENTOML, **settings: str) -> str:
    """Start what must refuse to start, as every command does: exit code 2 and one line. Returns the line."""
    with started(folder, port or free_port(), start, **settings) as (process, log):
        code = process.wait(PATIENCE_S)
        lines = log.read_text().strip().splitlines()
    assert code == 2, (code, lines)
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("start", [BENTOML, MLA_SERVE], ids=["bentoml", "mla-serve"])
def test_a_port_that_is_taken_is_named(start: Sequence[str], server: Server, tmp_path: Path) -> None:
    port = server.client.base_url.port
    before = metrics_of(server.client)
    line = refusal(tmp_path / "run", port, start, MLA_MODEL=server.model, BENTOML_HOME=str(server.home))
    assert f"cannot listen on 127.0.0.1:{port}: something listens there already; stop it, or choose" in line
    assert metrics_of(server.client) >= before > 0


@pytest.mark.parametrize("start", [BENTOML, MLA_SERVE], ids=["bentoml", "mla-serve"])
def test_a_bundle_that_is_missing_is_named(start: Sequence[str], tmp_path: Path) -> None:
    assert "no/such/manifest.json: no such file" in refusal(tmp_path / "run", None, start, MLA_MODEL="no/such")


def metrics_of(client: httpx.Client) -> float:
    """Send a text, wait for it to be counted; returns how many texts were."""
    client.post("/predict", files=[("text", (None, "a"))]).raise_for_status()
    time.sleep(1.5)
    line = next(line for line in client.get("/metrics").text.splitlines() if 'samples_total{available="text"}' in line)
    return float(line.split()[-1])


def test_services_that_run_side_by_side_count_their_own(server: Server, tmp_path: Path) -> None:
    before, port = metrics_of(server.client), free_port()
    (server.home / "metrics" / "999999999").mkdir()  # of a service that was killed
    settings = {"MLA_MODEL": server.model, "BENTOML_HOME": str(server.home)}
    with (
        started(tmp_path / "run", port, **settings) as (process, log),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        wait_until_ready(process, log, client)
        assert metrics_of(client) == 1
        assert metrics_of(server.client) == before + 1
        folders = {path.name for path in (server.home / "metrics").iterdir()}
        assert folders == {str(process.pid), str(server.process.pid)}
    assert [path.name for path in (server.home / "metrics").iterdir()] == [str(server.process.pid)]


def test_a_damaged_bundle_is_refused_at_start(tmp_path: Path, bundle_copy: Path) -> None:
    content = bytearray((bundle_copy / "audio.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_copy / "audio.onnx").write_bytes(content)
    line = refusal(tmp_path / "run", MLA_MODEL=str(bundle_copy))
    assert str(bundle_copy / "audio.onnx") in line
    assert "sha256" in line


def test_a_bundle_that_answers_otherwise_here_is_refused_at_start(
    tmp_path: Path, bundle_copy: Path, change_manifest: Callable[..., None]
) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["golden"][1]["answer"] = [0.0, 0.0, 1.0]

    change_manifest(bundle_copy, edit)
    assert "golden samples differ" in refusal(tmp_path / "run", MLA_MODEL=str(bundle_copy))


def test_a_setting_that_cannot_be_used_is_refused_at_start(tmp_path: Path) -> None:
    assert "MLA_THREADS='many'" in refusal(tmp_path / "run", MLA_THREADS="many")


def test_with_keys_nothing_but_the_open_pages_answers_a_stranger(tmp_path: Path, tiny_bundle: Path) -> None:
    keys, port = tmp_path / "keys", free_port()
    keys.write_text("a-key-of-some-length\n")
    settings = {"MLA_MODEL": str(tiny_bundle), "MLA_API_KEYS_FILE": str(keys)}
    with (
        started(tmp_path / "run", port, **settings) as (process, log),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        wait_until_ready(process, log, client)
        for path in ("/predict", "/predict/", "/predict/batch", "/embed", "/metrics", "/schema.json", "/nothing"):
            for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT"):
                reply = client.request(method, path, headers={"authorization": "Bearer another-key"})
                assert reply.status_code == 401, (method, path, reply.status_code)
        headers = {"authorization": "Bearer a-key-of-some-length"}
        assert client.post("/predict", files=[("text", (None, "a"))], headers=headers).status_code == 200
        assert client.get("/metrics", headers=headers).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_while_it_ends_the_service_answers_that_it_does(tmp_path: Path, tiny_bundle: Path) -> None:
    """Until the last worker has gone; then nobody listens any more, and nobody waits in vain.

    For a moment the worker still accepts and the main process already refuses, so a 200 may follow the first 503.
    """
    port = free_port()
    answers: list[int] = []
    reset = 0
    with (
        started(tmp_path / "run", port, MLA_MODEL=str(tiny_bundle), MLA_DRAIN_S="0.5") as (process, log),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        wait_until_ready(process, log, client)
        process.send_signal(signal.SIGTERM)
        while True:
            try:
                reply = httpx.get(f"http://127.0.0.1:{port}/model", timeout=30)
            except httpx.ConnectError:
                break
            except (httpx.ReadError, httpx.RemoteProtocolError):  # between the last accept and the end of the socket
                reset += 1
                assert reset < 10
                continue
            assert not reset
            answers.append(reply.status_code)
            if reply.status_code == 503:
                assert reply.json()["type"] == "/problems/unavailable"
                assert reply.headers["retry-after"] == "1"
                assert reply.headers["connection"] == "close"
        assert process.wait(PATIENCE_S) == 0
    assert set(answers) == {200, 503}
    assert answers[-1] == 503
    assert "Traceback" not in log.read_text()


def test_a_worker_that_dies_while_the_bundle_is_broken_comes_back(tmp_path: Path, bundle_copy: Path) -> None:
    """It serves the copy of what was verified, says so, and takes up the bundle once it is whole."""
    port, graph = free_port(), bundle_copy / "audio.onnx"
    content = graph.read_bytes()
    settings = {"MLA_MODEL": str(bundle_copy), "MLA_MODEL_POLL_S": "0.5"}
    with (
        started(tmp_path / "run", port, **settings) as (process, log),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        wait_until_ready(process, log, client)
        before = client.get("/model").json()["sha256"]
        graph.write_bytes(content[:-100])
        for worker in psutil.Process(process.pid).children(recursive=True):
            worker.kill()
        client.close()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as again:
            wait_until_ready(process, log, again)
            model = again.get("/model").json()
            assert model["sha256"] == before
            assert "audio.onnx" in model["update_refused"]["reason"]
            assert again.post("/predict", files=[("text", (None, "a"))]).status_code == 200
            graph.write_bytes(content)
            for _ in range(10 * PATIENCE_S):
                if again.get("/model").json()["update_refused"] is None:
                    break
                time.sleep(0.1)
            assert again.get("/model").json()["update_refused"] is None
    assert "cannot serve" not in log.read_text()
