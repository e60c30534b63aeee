"""Scoring a table on a real Ray: the file is that of one machine's processes, whatever happens on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from pyarrow import parquet

from mla_serve import console
from mla_serve.bulk import LOCAL, on_ray
from mla_serve.bulk import run as bulk
from mla_serve.bulk.on_ray import Actor, Job
from mla_serve.bulk.parts import Parts
from mla_serve.bulk.run import score_table
from mla_serve.bulk.score import Ask
from mla_serve.bulk.slices import Source
from mla_serve.bundle.manifest import Bundle
from mla_serve.commands.predict import PredictConfig
from mla_serve.commands.predict import run as predict
from mla_serve.errors import ConfigError, DataError, MlaServeError
from mla_serve.fusion.rules import DEFAULT_RULE
from tests.bulk.test_run import KINDS, rows_of, write_jsonl
from tests.offline.trace import run_alone


@pytest.fixture
def ask(make_bundle: Callable[..., Path], tmp_path: Path) -> Ask:
    """A bundle of three modalities."""
    return Ask(make_bundle(tmp_path / "model", KINDS), DEFAULT_RULE, None)


@pytest.fixture
def table(tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 7 slices with two rows that cannot be used."""
    monkeypatch.setattr(bulk, "SLICE_ROWS", 4)
    rows = [*rows_of(tmp_path, ask, 24), {"id": "none"}, {"id": "gone", "image": "not-there.bin"}]
    return write_jsonl(tmp_path / "rows.jsonl", rows)


def drives_and_dies(tells: Connection, *given: object) -> None:
    tells.send((0, 4, None))
    os._exit(1)


def drives_and_dies_late(tells: Connection, *given: object) -> None:
    tells.send((0, 4, None))
    tells.send(None)
    os._exit(1)


def drives_and_waits(tells: Connection, *given: object) -> None:
    tells.send((0, 4, None))
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(600)


def test_a_driver_that_dies_is_told_unless_all_was_said(
    tmp_path: Path, ask: Ask, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored() -> Iterator[tuple[int, int, bool]]:
        return on_ray.score_on_ray(Source.of(table), Parts(tmp_path / "out"), ask, "", 4, None, LOCAL)

    monkeypatch.setattr(on_ray, "_drive", drives_and_dies_late)
    assert list(scored()) == [(0, 4, False)]
    monkeypatch.setattr(on_ray, "_drive", drives_and_dies)
    with pytest.raises(DataError, match="drives Ray died; run the same command again to continue"):
        list(scored())
    monkeypatch.setattr(on_ray, "_drive", drives_and_waits)
    stream = scored()
    assert next(stream) == (0, 4, False)
    stream.close()  # as Ctrl-C does
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_the_answers_of_every_task_are_those_of_one_machine(tmp_path: Path, task_bundle: Path) -> None:
    ask = Ask(task_bundle, DEFAULT_RULE, 0.9)
    table = write_jsonl(tmp_path / "rows.jsonl", rows_of(tmp_path, ask, 12))
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    score_table(table, here, ask, workers=1)
    assert score_table(table, there, ask, workers=1, ray=LOCAL).bad == 0
    assert there.read_bytes() == here.read_bytes()


@pytest.mark.slow
def test_an_interrupted_scoring_goes_on_and_gives_the_file_of_one_machine(
    tmp_path: Path, ask: Ask, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    score_table(table, here, ask, workers=1)
    keep = Parts.keep

    def stop(self: Parts, number: int, answers: object) -> None:
        if len(self.finished()) == 3:
            raise KeyboardInterrupt
        keep(self, number, answers)

    monkeypatch.setattr(Parts, "keep", stop)
    with pytest.raises(KeyboardInterrupt):
        score_table(table, there, ask, workers=2, ray=LOCAL)
    assert not there.exists()
    assert len(Parts(there).finished()) == 3
    monkeypatch.setattr(Parts, "keep", keep)
    scored = score_table(table, there, ask, workers=2, ray=LOCAL)
    assert (scored.rows, scored.bad) == (26, 2)
    assert 26 - 3 * 4 <= scored.new <= 26 - 2 * 4 - 2
    assert there.read_bytes() == here.read_bytes()
    errors = parquet.read_table(there)["error"].to_pylist()
    assert [n for n, error in enumerate(errors) if error] == [24, 25]


@pytest.mark.slow
def test_a_table_that_ends_in_a_fault_is_told_as_without_ray(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "rows.csv").write_bytes(b"id,text\n1,red\n2,\xff\n")
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        score_table(tmp_path / "rows.csv", tmp_path / "out.parquet", ask, workers=1, ray=LOCAL)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table_bytes": 1}, "has no such file, or another: .*rows.jsonl; put the table"),
        ({"bundle": "another"}, "has another bundle in .*model; give all machines the same one"),
        ({"ask": Ask(Path("gone"), DEFAULT_RULE, None)}, "gone"),
    ],
)
def test_a_machine_that_sees_something_else_says_so(
    tmp_path: Path, ask: Ask, table: Path, changes: dict[str, object], said: str
) -> None:
    source = Source.of(table)
    job = Job(ask, source, table.stat().st_size, Bundle.load(ask.model).manifest.sha256, 4, frozenset())
    slices = list(on_ray._read(None, job))
    actor = Actor(job)
    assert actor(slices[0])["fault"].null_count == 1
    wrong = Actor(dataclasses.replace(job, **changes))(slices[0])
    error = pickle.loads(wrong["fault"][0].as_py())
    assert isinstance(error, MlaServeError)
    with pytest.raises(MlaServeError, match=said):
        raise error


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "cannot be reached"),
        ("nowhere.invalid:6379", "cannot be reached"),
        ("ray://127.0.0.1:10001", "Ray Data cannot be reached by ray://"),
        ("nonsense", "expected auto or HOST:PORT"),
    ],
)
def test_an_address_without_ray_is_refused_at_once(
    tmp_path: Path, ask: Ask, table: Path, address: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"--ray {address}: .*{said}"):
        score_table(table, tmp_path / "out.parquet", ask, ray=address)


def test_the_flag_goes_with_and_without_an_address() -> None:
    given = [console.parse(PredictConfig, flags, "predict").ray for flags in ([], ["--ray"], ["--ray", "head:6379"])]
    assert given == [None, LOCAL, "head:6379"]
    assert console.parse(PredictConfig, ["--ray", "--table", "t.csv"], "predict") == PredictConfig(
        ray=LOCAL, table=Path("t.csv")
    )
    with pytest.raises(ConfigError, match="--ray: needs --table"):
        predict(PredictConfig(text="x", ray=LOCAL))


def test_ray_that_is_missing_is_named(tmp_path: Path, ask: Ask, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(console.EXTRAS, "ray", ("ray_that_is_missing",))
    with pytest.raises(ConfigError, match=r"ray_that_is_missing not installed; .*\[cpu,ray\]"):
        predict(PredictConfig(model=ask.model, table=table, out=tmp_path / "out.parquet", ray=LOCAL))


@pytest.mark.slow
def test_processes_of_ray_leave_only_its_token_in_the_home_folder(table: Path, ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / "answers.parquet"
    start = (sys.executable, "-m", "mla_serve", "predict", "--model", ask.model, "--table", table)
    code, output, files = run_alone((*start, "--out", out, "--ray", LOCAL, "--workers", 2), tmp_path)
    assert (code, files) == (0, [".ray/auth_token"]), output  # Ray's own, which its processes know each other by
    assert out.is_file()
