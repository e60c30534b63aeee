"""Changes to BentoML and uvicorn: where one no longer fits, the log and a metric say so, and the service answers."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY

from mla_serve.serve.bento import patches, usage_reports
from tests.serve.bento.server import free_port, started, wait_until_ready

# What a test puts into sitecustomize.py, as a later version of BentoML, uvicorn or prometheus_client might be.
LATER_VERSIONS = {
    "arbiter": (
        "import types, bentoml._internal.utils.circus as circus\n"
        "make = circus.create_standalone_arbiter\n"
        "circus.create_standalone_arbiter = types.FunctionType(\n"
        "    make.__code__, dict(make.__globals__), make.__name__, make.__defaults__\n"
        ")\n"
        "circus.create_standalone_arbiter.__kwdefaults__ = make.__kwdefaults__\n"
        "del circus.Arbiter\n"
    ),
    "usage_reports": (
        "from bentoml._internal.utils.analytics import usage_stats\nusage_stats.do_not_track = lambda: True\n"
    ),
    "histograms": (
        "import sys, prometheus_client\n"
        "def get(self):\n"
        "    ours = sys._getframe(1).f_globals['__name__'] == 'mla_serve.serve.bento.histograms'\n"
        "    return None if ours else self.__dict__['_total']\n"
        "prometheus_client.Histogram._sum = property(get, lambda self, value: self.__dict__.update(_total=value))\n"
    ),
    "connection": "import uvicorn.protocols.http.httptools_impl as impl\ndel impl.HttpToolsProtocol\n",
    "uvicorn_config": (
        "import types, uvicorn\n"
        "class Fixed(types.ModuleType):\n"
        "    def __setattr__(self, name, value):\n"
        "        if name != 'Config':\n"
        "            super().__setattr__(name, value)\n"
        "uvicorn.__class__ = Fixed\n"
    ),
}


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(patches.VARIABLE, "{}")


def active(name: str) -> float | None:
    return REGISTRY.get_sample_value("mla_patch_active", {"patch": name})


def test_a_patch_that_nobody_reports_is_not_in_force(caplog: pytest.LogCaptureFixture) -> None:
    patches.report("connection", active=True)
    patches.report("usage_reports", active=False)
    with caplog.at_level(logging.WARNING):
        patches.publish()
    assert [active(name) for name in ("connection", "usage_reports", "arbiter")] == [1, 0, 0]
    assert caplog.text.count("\n") == len(patches.WITHOUT) - 1
    assert "the patch usage_reports does not fit" in caplog.text


def test_a_worker_learns_what_the_main_process_found() -> None:
    patches.report("arbiter", active=True)
    environment: dict[str, str] = {}
    patches.hand_on(environment)
    assert json.loads(environment[patches.VARIABLE]) == {"arbiter": True}


def test_the_check_of_usage_reports_compares_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from bentoml._internal.utils.analytics import usage_stats

    for value in ("True", "False"):
        monkeypatch.setenv("BENTOML_DO_NOT_TRACK", value)
        usage_reports.apply()
        assert usage_stats.do_not_track() == (value == "True")
        assert json.loads(os.environ[patches.VARIABLE])["usage_reports"]


@pytest.mark.parametrize(
    "missing",
    [("arbiter", "connection", "usage_reports", "accept_evenly"), ("uvicorn_config", "accept_evenly", "histograms")],
)
def test_the_service_answers_without_a_patch_and_says_so(
    missing: tuple[str, ...], tmp_path: Path, tiny_bundle: Path
) -> None:
    """accept_evenly depends on what uvicorn_config and connection give it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "sitecustomize.py").write_text("".join(LATER_VERSIONS.get(name, "") for name in missing))
    port = free_port()
    with (
        started(tmp_path / "run", port, MLA_MODEL=str(tiny_bundle)) as (process, log),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        wait_until_ready(process, log, client)
        assert client.post("/predict", files=[("text", (None, "a"))]).status_code == 200
        metrics = client.get("/metrics").text
    for each in patches.WITHOUT:
        assert f'mla_patch_active{{patch="{each}"}} {float(each not in missing)}' in metrics
    text = log.read_text()
    assert text.count("does not fit this version") == len(missing)
    assert all(f"the patch {name} does not fit" in text for name in missing)
    assert "Traceback" not in text
