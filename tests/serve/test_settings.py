"""The operator's settings: from the environment, from a file, and what the machine decides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mla_serve.bundle.runtime import DEVICES, cores
from mla_serve.errors import ConfigError
from mla_serve.serve.settings import load_settings, warn_of_unknown


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the settings of whoever runs the tests out of the way."""
    for name in os.environ:
        if name.startswith("MLA_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that MLA_ENV_FILE names, to be written."""
    path = tmp_path / "tuned.env"
    monkeypatch.setenv("MLA_ENV_FILE", str(path))
    return path


def test_a_file_is_read_and_the_environment_wins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("# tuned\nMLA_WORKERS=3\nMLA_BATCH=image=8,text=4\nMLA_SPIN=true\n")
    monkeypatch.setenv("MLA_WORKERS", "5")
    settings = load_settings()
    assert (settings.workers, settings.batch, settings.spin) == (5, "image=8,text=4", True)


@pytest.mark.parametrize("line", ["MLA_WORKRES=3", "MLA_WORKERS=0", "MLA_DEVICE=abacus", "OTHER=1"])
def test_a_fault_in_the_file_names_the_variable(file: Path, line: str) -> None:
    file.write_text(line)
    with pytest.raises(ConfigError, match=rf"\b{line.partition('=')[0]}\b"):
        load_settings()


def test_a_file_that_is_not_there_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"MLA_ENV_FILE=.*no such file"):
        load_settings()


def test_the_file_is_no_unknown_setting(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unknown({"MLA_ENV_FILE": "x"})
    assert not caplog.records


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLA_DEVICE", "cpu")
    assert (load_settings().processes, load_settings().graph_threads) == (cores(), 1)
    monkeypatch.setenv("MLA_WORKERS", "1")
    assert load_settings().graph_threads == cores()
    monkeypatch.setenv("MLA_THREADS", "3")
    assert load_settings().graph_threads == 3


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLA_DEVICE", "cuda")
    assert load_settings().providers == DEVICES["cuda"]
    assert load_settings().processes == 1


@pytest.mark.parametrize("name", ["CUDA", "CUDAExecutionProvider"])
def test_one_worker_has_the_gpu_by_whichever_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: list(DEVICES["cuda"]))
    monkeypatch.setattr("mla_serve.serve.settings.cores", lambda: 8)
    monkeypatch.setenv("MLA_DEVICE", name)
    assert load_settings().uses_gpu
    assert load_settings().processes == 1
