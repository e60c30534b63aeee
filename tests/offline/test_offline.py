"""docs/how-to/deploy.md: the service asks nobody for anything. Neither does any other command, and none leaves files behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mla_serve.telemetry import SWITCHES, switch_off
from tests.offline.trace import ROOT, run_alone, run_traced

COMMAND = (sys.executable, "-m", "mla_serve")
REPORTS_S = 15  # onnxruntime first calls its collector about ten seconds after the first graph was opened
BENTOML = "bentoml/"  # BENTOML_HOME; BentoML empties it when it ends


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Write a labelled table."""
    (tmp_path / "data").mkdir()
    lines = [json.dumps({"label": label, "text": label}) for label in ("red", "green", "blue")]
    for split in ("train", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


def commands(bundle: Path, rows: Path) -> dict[str, tuple[object, ...]]:
    model = (*COMMAND, "predict", "--model", bundle)
    return {
        "predict": (*model, "--text", "seven"),
        "table": (*model, "--table", rows / "test.jsonl", "--out", rows / "answers.parquet"),
        "evaluate": (*COMMAND, "evaluate", "--model", bundle, "--data", rows),
    }


@pytest.mark.parametrize("name", ["predict", "table", "evaluate"])
def test_a_command_leaves_the_home_folder_empty_and_asks_nobody(
    name: str, tiny_bundle: Path, rows: Path, tmp_path: Path
) -> None:
    done = run_traced(commands(tiny_bundle, rows)[name], tmp_path)
    assert done.code == 0, done.output
    assert (done.files, done.calls) == ([], [])


@pytest.mark.parametrize(
    ("start", "seconds"),
    [
        ("mla-serve", 0),
        ("bentoml", 0),
        pytest.param("mla-serve", REPORTS_S, marks=pytest.mark.slow),
        pytest.param("bentoml", REPORTS_S, marks=pytest.mark.slow),
    ],
)
def test_the_service_leaves_the_home_folder_empty_and_asks_nobody(
    start: str, seconds: int, tiny_bundle: Path, tmp_path: Path, port: int
) -> None:
    serve = (*COMMAND, "serve", "--model", tiny_bundle, "--port", port)
    plain = ("env", f"MLA_MODEL={tiny_bundle}", sys.executable, "-m", "bentoml", "serve", ROOT, "--port", port)
    once = (sys.executable, "-m", "tests.offline.once", port, seconds)
    done = run_traced((*once, *(serve if start == "mla-serve" else plain)), tmp_path)
    assert '"label":' in done.output, done.output
    assert ([name for name in done.files if not name.startswith(BENTOML)], done.calls) == ([], [])


@pytest.mark.parametrize("environment", [{}, {"ORT_DISABLE_TELEMETRY": ""}], ids=["unset", "empty"])
def test_importing_any_module_comes_before_onnxruntime_reports(environment: dict[str, str], tmp_path: Path) -> None:
    code = "import os; from mla_serve.bundle.runtime import load_onnxruntime as l; l(); print(os.environ['HOME'])"
    words = ["env", *(f"{name}={value}" for name, value in environment.items()), sys.executable, "-c", code]
    assert run_alone(words, tmp_path)[::2] == (0, [])


def test_a_library_that_reports_is_found_out(tmp_path: Path) -> None:
    code = (
        "import socket; s = socket.socket(); s.settimeout(1); s.connect_ex(('192.0.2.1', 443)); open('../home/x', 'w')"
    )
    done = run_traced([sys.executable, "-c", code], tmp_path)
    assert done.files == ["x"]
    assert len(done.calls) == 1
    assert "192.0.2.1" in done.calls[0]


def test_a_name_that_is_looked_up_is_found_out(tmp_path: Path) -> None:
    code = "import socket\ntry: socket.getaddrinfo('collector.example', 443)\nexcept OSError: pass"
    assert run_traced([sys.executable, "-c", code], tmp_path).calls


def test_reports_are_switched_off_unless_the_operator_decided() -> None:
    environment = {"BENTOML_DO_NOT_TRACK": "False", "ORT_DISABLE_TELEMETRY": ""}
    switch_off(environment)
    assert environment == {**SWITCHES, "BENTOML_DO_NOT_TRACK": "False"}


def test_importing_the_package_is_enough() -> None:
    code = "import mla_serve, os; print(*(os.environ.get(name) for name in sorted(mla_serve.telemetry.SWITCHES)))"
    clean = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SWITCHES[name] for name in sorted(SWITCHES)]
