"""The folders of one running service."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mla_serve.serve.bento import run_folder
from mla_serve.serve.bento.run_folder import METRICS, RUN_FOLDER, RUN_METRICS


@pytest.fixture(autouse=True)
def main_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    for name in (RUN_FOLDER, RUN_METRICS, METRICS):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("atexit.register", lambda *_, **named: None)


def test_the_main_process_chooses_and_its_workers_use_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder.choose_folders()
    assert run_folder.run_folder() is None
    run_folder.make_folders()
    own = tmp_path / "home" / "metrics" / str(os.getpid())
    assert run_folder.run_folder() == own
    monkeypatch.setattr(os, "getppid", os.getpid)  # be a worker of this process, for which BentoML chose another folder
    monkeypatch.setenv(METRICS, "/somewhere/else")
    run_folder.choose_folders()
    assert run_folder.run_folder() == own
    assert os.environ[METRICS] == str(own)


def test_metrics_lie_where_the_operator_wants_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METRICS, str(tmp_path / "memory"))
    run_folder.choose_folders()
    run_folder.make_folders()
    assert os.environ[RUN_METRICS] == str(tmp_path / "memory" / str(os.getpid()))
    assert Path(os.environ[RUN_METRICS]).is_dir()
    assert run_folder.run_folder() == tmp_path / "home" / "metrics" / str(os.getpid())


def test_what_an_earlier_process_of_the_same_number_left_is_removed(tmp_path: Path) -> None:
    """In a container every main process has the number 1."""
    run_folder.choose_folders()
    left = Path(os.environ[RUN_FOLDER]) / "counter_7.db"
    left.parent.mkdir(parents=True)
    left.touch()
    run_folder.make_folders()
    assert not left.exists()
    assert left.parent.is_dir()
