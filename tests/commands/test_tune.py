"""Tuning: which settings are tried, when one is better, and one real service under load."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from mla_serve.bundle.manifest import Bundle
from mla_serve.commands.tune import TuneConfig, run
from mla_serve.commands.tune_choices import LEAST_GAIN, Duel, start, steps
from mla_serve.commands.tune_trial import Service, requests, serving
from mla_serve.errors import ConfigError
from mla_serve.serve.http.fields import FieldNames
from mla_serve.serve.http.forms import read_form, sample_from_form
from mla_serve.serve.settings import Settings, load_settings
from mla_serve.serve.workers.batching import parse_batch_sizes

machines = pytest.mark.parametrize(("cores", "gpu"), list(itertools.product([1, 2, 3, 8, 64], [False, True])))
rates = st.lists(st.floats(1, 1e4), min_size=1, max_size=9)


@machines
def test_the_service_accepts_every_setting_that_is_tried(
    cores: int, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = start(cores, gpu=gpu)
    for change in [{}, *(change for _, change in steps(cores, gpu=gpu))]:
        assert change.keys() <= default.keys()
        for name, value in {**default, **change}.items():
            monkeypatch.setenv(f"MLA_{name}", value)
        settings = load_settings()
        parse_batch_sizes(settings.batch, ["image"], gpu=gpu)
        assert settings.processes >= 1


@machines
def test_tuning_starts_from_the_defaults_of_the_service(cores: int, gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mla_serve.serve.settings.cores", lambda: cores)
    monkeypatch.setattr("mla_serve.serve.settings.cuda_is_there", lambda: gpu)
    settings = Settings()
    assert start(cores, gpu=gpu) == {
        "WORKERS": str(settings.processes),
        "THREADS": str(settings.graph_threads),
        "SPIN": str(settings.spin).lower(),
        "BATCH": settings.batch,
    }


@given(mine=rates, other=st.floats(1, 1e4))
def test_a_choice_must_win_every_round(mine: list[float], other: float) -> None:
    duel = Duel(mine, [other] * len(mine))
    assert duel.ratios[0] <= duel.ratio <= duel.ratios[-1]
    if duel.wins:
        assert min(mine) > other
        assert not Duel([other] * len(mine), mine).wins
    assert Duel([2 * other] * 3, [other] * 3).wins
    assert not Duel([other * (LEAST_GAIN - 0.01)] * 3, [other] * 3).wins


def test_the_requests_hold_every_subset_of_the_modalities(tiny_bundle: Path) -> None:
    inputs = Bundle.load(tiny_bundle).inputs
    seen = set()
    for request in requests(tiny_bundle):
        head, _, body = request.partition(b"\r\n\r\n")
        headers = [(name.lower(), value) for name, value in (line.split(b": ", 1) for line in head.split(b"\r\n")[1:])]

        parts = asyncio.run(read(headers, body, FieldNames(inputs, ())))
        sample = sample_from_form(parts, inputs, 2**20)
        for name, payload in sample.items():
            inputs[name].decode(payload, name)
        seen.add(frozenset(sample))
    assert len(seen) == 2 ** len(inputs) - 1


async def read(headers: list[tuple[bytes, ...]], body: bytes, known: FieldNames) -> list[object]:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    return await read_form(Request({"type": "http", "headers": headers}, receive), known, str, 2**20)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("flags", [{"connections": 0}, {"rounds": 0}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_numbers_out_of_range_are_refused(flags: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="--connections and --rounds"):
        run(TuneConfig(**flags))  # type: ignore[arg-type]


def test_a_folder_that_is_not_there_is_found_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        run(TuneConfig(write=tmp_path / "none" / "best.env"))


def test_a_service_that_does_not_start_is_quoted(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="MLA_BATCH="), serving(tiny_bundle, start(1, gpu=False) | {"BATCH": "x"}):
        raise AssertionError("it may not start")


def test_tuning_needs_no_key_when_the_settings_file_names_keys(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "kept.env").write_text(f"MLA_API_KEYS_FILE={tmp_path / 'keys'}\nMLA_LOG_FORMAT=json\n")
    monkeypatch.setenv("MLA_ENV_FILE", str(tmp_path / "kept.env"))
    with serving(tiny_bundle, start(1, gpu=False)) as service:
        assert service.rate(requests(tiny_bundle), 0.2, 1) > 0


@pytest.mark.slow
def test_the_best_settings_are_written_as_the_service_reads_them(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mla_serve.commands.tune.cores", lambda: 1)
    monkeypatch.setenv("MLA_DEVICE", "cpu")
    file = tmp_path / "best.env"
    started: list[Service] = []
    rate = Service.rate
    monkeypatch.setattr(Service, "rate", lambda self, *args: started.append(self) or rate(self, *args))  # type: ignore[func-returns-value]
    run(TuneConfig(tiny_bundle, connections=2, seconds=0.2, rounds=1, write=file))
    printed = capsys.readouterr().out
    assert "MLA_WORKERS=" in printed
    assert "batches of up to 8" in printed
    monkeypatch.setenv("MLA_ENV_FILE", str(file))
    assert f"MLA_WORKERS={load_settings().workers}" in printed
    assert all(service._process.poll() is not None for service in started)
    assert not list(tmp_path.glob("*.tmp"))
