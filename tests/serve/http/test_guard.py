"""Keys, origins and headers."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.responses import Response
from starlette.testclient import TestClient

from mla_serve.errors import ConfigError
from mla_serve.serve.api import create_app
from mla_serve.serve.http.guard import Guard, Keys, KeysFile, parse_origins
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings

KEYS = ("first-key-of-some-length", "second-key-of-some-length")
TEXT = [("text", (None, b"abc"))]


def serve(tiny_bundle: Path, **settings: object) -> TestClient:
    chosen = Settings(model=tiny_bundle, device="cpu", **settings)  # type: ignore[arg-type]
    keys = KeysFile(chosen.api_keys_file) if chosen.api_keys_file else None
    return TestClient(create_app(open_predictor(chosen), chosen, keys))


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"# who: the playground\n{KEYS[0]}\n\n  {KEYS[1]}\n")
    return path


@pytest.fixture(scope="module")
def guarded(tiny_bundle: Path, keys_file: Path) -> Iterator[TestClient]:
    with serve(tiny_bundle, api_keys_file=keys_file) as client:
        yield client


@pytest.mark.parametrize("key", KEYS)
def test_each_key_opens(guarded: TestClient, key: str) -> None:
    for scheme in ("Bearer", "bearer"):
        assert guarded.post("/predict", files=TEXT, headers={"Authorization": f"{scheme} {key}"}).status_code == 200


@pytest.mark.parametrize("sent", [None, "", "Bearer", "Bearer ", f"Basic {KEYS[0]}", f"Bearer {KEYS[0]}x", "Bearer é"])
@pytest.mark.parametrize(
    "path",
    [
        "/predict",
        "/predict/batch",
        "/embed",
        "/model",
        "/openapi.json",
        "/samples",
        "/about.json",
        "/report.html",
        "/no",
    ],
)
def test_nothing_else_opens(guarded: TestClient, path: str, sent: str | None) -> None:
    headers = {} if sent is None else {"Authorization": sent.encode("latin-1")}
    reply = guarded.request("GET" if path in ("/model", "/openapi.json") else "POST", path, headers=headers)  # type: ignore[arg-type]
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.json()["type"] == "/problems/unauthorised"


def test_the_pages_are_open_and_everything_is_without_keys(guarded: TestClient, tiny_bundle: Path) -> None:
    assert guarded.get("/").status_code == 200
    assert guarded.get("/docs").status_code == 200
    assert guarded.get("/report").status_code == 200
    assert guarded.get("/card").status_code == 200
    with serve(tiny_bundle) as client:
        assert client.get("/model").status_code == 200


def test_the_page_at_model_is_open_and_its_json_is_not(guarded: TestClient) -> None:
    page = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    assert guarded.get("/model", headers=page).headers["content-type"].startswith("text/html")
    assert guarded.head("/model", headers=page).status_code == 200
    assert guarded.get("/model", headers={"Accept": "text/html;q=0.1, application/json"}).status_code == 401
    assert guarded.post("/model", headers=page).status_code == 401
    assert guarded.get("/model/", headers=page).status_code == 401
    assert guarded.get("/predict", headers=page).status_code == 401


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    assert Keys(KEYS).accepts(KEYS[0].encode())
    assert len(compared) == len(KEYS)  # all of them, though the first fits
    assert all(len(a) == len(b) == 32 for a, b in compared)


def test_keys_change_while_the_service_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text(KEYS[0])
    keys = KeysFile(path)
    assert keys.accepts(KEYS[0].encode())
    path.write_text(f"{KEYS[1]}\n")
    with caplog.at_level(logging.INFO):
        keys.reload()
    assert not keys.accepts(KEYS[0].encode())
    assert keys.accepts(KEYS[1].encode())
    assert "there are 1" in caplog.text
    assert KEYS[1] not in caplog.text


def test_a_change_is_seen_by_the_next_request(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mla_serve.serve.http.guard.RELOAD_S", -1.0)
    path = tmp_path / "keys"
    path.write_text(KEYS[0])
    with serve(tiny_bundle, api_keys_file=path) as client:
        path.write_text(f"{KEYS[1]}\n")
        statuses = [client.get("/model", headers={"Authorization": f"Bearer {key}"}).status_code for key in KEYS]
    assert statuses == [401, 200]


def spoil(path: Path, content: bytes | None) -> None:
    """Put something in the place of a file, or nothing."""
    path.unlink()
    if content == b"a folder":
        path.mkdir()
    elif content == b"a pipe":
        os.mkfifo(path)
    elif content is not None:
        path.write_bytes(content)


SPOILT = [b"", b"# a comment\n", b"short", KEYS[0].encode() + b"\nshort", b"\xff" * 20, b"a folder", b"a pipe", None]


@pytest.mark.parametrize("content", SPOILT)
def test_while_the_file_of_keys_cannot_be_used_no_key_is_valid(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text("\n".join(KEYS))
    keys = KeysFile(path)
    closed = REGISTRY.get_sample_value("mla_keys_closed_total") or 0.0
    spoil(path, content)
    keys.reload()
    keys.reload()
    assert not any(keys.accepts(key) for key in (KEYS[0].encode(), KEYS[1].encode(), content or b""))
    assert not keys.usable
    assert caplog.text.count("no key is valid until") == 1
    assert KEYS[0] not in caplog.text
    assert REGISTRY.get_sample_value("mla_keys_closed_total") == closed + 1
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    path.write_text(KEYS[1])
    keys.reload()
    assert keys.usable
    assert (keys.accepts(KEYS[0].encode()), keys.accepts(KEYS[1].encode())) == (False, True)


def test_the_same_file_again_opens_again(tmp_path: Path) -> None:
    """Half-written for a moment, it locks out until the next look and no longer."""
    path = tmp_path / "keys"
    path.write_text(KEYS[0])
    keys = KeysFile(path)
    path.write_text("")
    keys.reload()
    path.write_text(KEYS[0])
    keys.reload()
    assert keys.accepts(KEYS[0].encode())


def test_without_usable_keys_every_request_gets_503_with_retry_after(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mla_serve.serve.http.guard.RELOAD_S", -1.0)
    path = tmp_path / "keys"
    path.write_text(KEYS[0])
    with serve(tiny_bundle, api_keys_file=path) as client:
        path.write_text("")
        for sent in ({"Authorization": f"Bearer {KEYS[0]}"}, {}):
            reply = client.get("/model", headers=sent)
            assert reply.status_code == 503
            assert reply.json()["type"] == "/problems/unavailable"
            assert reply.headers["retry-after"] == "1"
        assert client.get("/").status_code == 200
        path.write_text(KEYS[0])
        assert client.get("/model", headers={"Authorization": f"Bearer {KEYS[0]}"}).status_code == 200


def test_a_worker_may_begin_without_keys(tmp_path: Path) -> None:
    """One that takes a dead one's place does not die of it; it lets nobody in until there are keys."""
    keys = KeysFile(tmp_path / "keys", must_be_usable=False)
    assert not keys.usable
    (tmp_path / "keys").write_text(KEYS[0])
    keys.reload()
    assert keys.accepts(KEYS[0].encode())


@pytest.mark.parametrize("content", ["", "# only a comment\n", "short\n", "schlüssel-mit-umlaut-drin\n"])
def test_a_file_without_usable_keys_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"MLA_API_KEYS_FILE.*openssl rand") as caught:
        KeysFile(path)
    assert "short" not in str(caught.value).split(": ", 1)[1].split("expected")[0]
    with pytest.raises(ConfigError, match="cannot be read"):
        KeysFile(tmp_path / "none")


def test_no_key_is_ever_logged(guarded: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        guarded.get("/model", headers={"Authorization": f"Bearer {KEYS[0]}"})
        guarded.get("/model", headers={"Authorization": "Bearer a-wrong-key-of-some-length"})
    assert not [record for record in caplog.records if "key-of-some-length" in record.getMessage()]


def test_other_origins_may_not_call_unless_allowed(tiny_bundle: Path) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with serve(tiny_bundle) as client:
        assert "access-control-allow-origin" not in client.get("/model", headers=asked).headers
        assert client.options("/predict", headers=asked).status_code == 405
    with serve(tiny_bundle, cors_origins="https://a.example, https://b.example") as client:
        assert client.options("/predict", headers=asked).headers["access-control-allow-origin"] == "https://a.example"
        other = client.get("/model", headers={"Origin": "https://c.example"})
        assert "access-control-allow-origin" not in other.headers


def test_a_browser_may_ask_before_it_has_a_key(tiny_bundle: Path, keys_file: Path) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with serve(tiny_bundle, api_keys_file=keys_file, cors_origins="https://a.example") as client:
        assert client.options("/predict", headers=asked).status_code == 200
        refused = client.get("/model", headers={"Origin": "https://a.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://a.example"


@pytest.mark.parametrize(("path", "status"), [("/metrics", 401), ("/predict", 204), ("/livez", 204)])
def test_a_guard_of_some_paths_leaves_the_others_to_the_next(path: str, status: int) -> None:
    """In a worker it stands before BentoML; a browser's question before a request is answered behind it."""

    async def next_one(scope: Any, receive: Any, send: Any) -> None:
        await Response(status_code=204)(scope, receive, send)

    client = TestClient(Guard(next_one, Keys(KEYS), {"/metrics"}))
    assert client.options(path).status_code == status


@pytest.mark.parametrize("text", ["a.example", "https://a.example/path", "https://*.example", "null", "https://a b"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="MLA_CORS_ORIGINS"):
        parse_origins(text)


@pytest.mark.parametrize("path", ["/", "/docs", "/model", "/nothing", "/openapi.json"])
def test_every_answer_carries_the_security_headers(guarded: TestClient, path: str) -> None:
    headers = guarded.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "microphone=(self)" in headers["permissions-policy"]
    assert "server" not in headers


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_may_load_only_what_comes_from_here(guarded: TestClient, path: str) -> None:
    policies = guarded.get(path).headers.get_list("content-security-policy")
    assert len(policies) == 1
    directives = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    assert directives["default-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"
    assert "unsafe" not in policies[0]
    assert not re.search(r"https?:|\*", policies[0])


def test_no_page_may_run_a_script_that_stands_in_it(tiny_bundle: Path) -> None:
    with serve(tiny_bundle) as client:
        page = {"Accept": "text/html"}
        for path in ("/", "/docs", "/model", "/card", "/problems/too-large"):
            policy = client.get(path, headers=page).headers["content-security-policy"]
            assert "script-src 'self'; style-src 'self';" in policy
            assert "unsafe" not in policy
            assert "sha256" not in policy
        assert "content-security-policy" not in client.get("/model").headers


def test_the_page_of_the_report_allows_its_styles_but_no_script_of_it(tiny_bundle: Path) -> None:
    with serve(tiny_bundle) as client:
        policies = client.get("/report").headers.get_list("content-security-policy")
    assert len(policies) == 1
    directives = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    assert directives["script-src"] == "'self'"
    assert directives["style-src"] == "'self' 'unsafe-inline'"
    assert directives["frame-src"] == "blob:"
    assert not re.search(r"https?:|\*|unsafe-eval", policies[0])
