"""The peers compute what the predictor computes, from the same payloads, and answer over HTTP."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.serving.load import cases_of, measure_load
from benchmarks.serving.peers.common import Model, onnx_model
from benchmarks.serving.peers.torch_eager import function
from benchmarks.serving.peers.torch_weights import computes_the_same, rebuild
from benchmarks.serving.processes import NotServing, serving
from benchmarks.serving.systems import ECHO, EMPTY, SYSTEMS, System
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.inputs import Payload
from mla_serve.train.encoders import ENCODERS

DIGITS = Path(__file__).parents[2] / "models" / "digits"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(DIGITS)


@pytest.fixture
def subsets(bundle: Bundle) -> list[dict[str, Payload]]:
    """Every subset of two samples."""
    return [
        {name: golden[name] for name in names}
        for golden in bundle.golden_samples()[:2]
        for size in range(1, len(golden) + 1)
        for names in itertools.combinations(golden, size)
    ]


@pytest.fixture
def torch_model(bundle: Bundle) -> Iterator[Model]:
    rebuilt = rebuild(bundle)
    assert rebuilt.weights == "bundle"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    modules = [{name: function(m) for name, m in each.items()} for each in (rebuilt.encoders, rebuilt.heads)]
    yield Model(bundle, *modules)
    torch.set_num_threads(before)


def test_both_models_answer_as_the_predictor(
    bundle: Bundle, subsets: list[dict[str, Payload]], torch_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_BUNDLE", str(DIGITS))
    expected = Predictor(bundle).predict(subsets, "undiscounted")
    for model in (onnx_model(), torch_model):
        together, alone = model.answer(subsets), [model.answer([sample])[0] for sample in subsets]
        for given in (together, alone):
            for answer, prediction in zip(given, expected, strict=True):
                assert answer["label"] == prediction.label
                given = {each["label"]: each["probability"] for each in answer["probabilities"]}
                assert given == pytest.approx(prediction.by_label(), abs=1e-4)


def test_several_windows_of_sound_are_averaged(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_BUNDLE", str(DIGITS))
    spec = bundle.inputs["audio"]
    generator = np.random.default_rng(0)
    long = type(spec)(**{**vars(spec), "window": 3 * spec.window}).generate(generator)  # type: ignore[attr-defined]
    short = spec.generate(generator)
    assert len(spec.decode(long, "audio")) > 1
    expected = Predictor(bundle).predict([{"audio": long}, {"audio": short}], "undiscounted")
    for answer, prediction in zip(onnx_model().answer([{"audio": long}, {"audio": short}]), expected, strict=True):
        given = {each["label"]: each["probability"] for each in answer["probabilities"]}
        assert given == pytest.approx(prediction.by_label(), abs=1e-6)


def test_weights_that_are_not_those_of_the_graphs_are_told(bundle: Bundle) -> None:
    rebuilt = rebuild(bundle)
    assert computes_the_same(rebuilt, bundle)
    for name in bundle.manifest.modalities:
        other = ENCODERS[name]["small"](bundle.inputs[name], 128).eval()
        assert not computes_the_same(dataclasses.replace(rebuilt, encoders={**rebuilt.encoders, name: other}), bundle)


def test_cases_cover_the_subsets_and_leave_out_what_hangs_on_a_digit(bundle: Bundle) -> None:
    found = cases_of(bundle)
    assert len({case.subset for case in found}) == 7
    for case in found:
        assert case.label == Predictor(bundle).predict([case.sample])[0].label
        break


@pytest.mark.slow
@pytest.mark.parametrize("system", [*SYSTEMS, ECHO], ids=lambda system: system.name)
def test_every_system_answers_every_setting_rightly(system: System, bundle: Bundle) -> None:
    found = cases_of(bundle)
    for settings in system.variants:
        with serving(system.command, system.environment(DIGITS, settings), system.ready_path) as server:
            server.settle()
            tree = server.tree()
            tree.reset_peak()
            heard = measure_load(server.port, system.questions(found, 0), connections=4, seconds=2, warm_up=0.5)
            assert heard.answers > 0
            assert tree.cpu_s() > 0
            assert tree.peak_mb() > 10
            pids = [process.pid for process in tree.processes]
        assert not any(_alive(pid) for pid in pids)


@pytest.mark.slow
def test_the_empty_service_has_workers_to_weigh() -> None:
    with serving(EMPTY.command, EMPTY.environment(DIGITS, {}), EMPTY.ready_path) as server:
        server.settle()
        assert server.tree().workers_mb() > 10


def test_the_empty_service_brings_nothing_of_ours_with_it() -> None:
    module = EMPTY.command[-5].partition(":")[0]
    code = f"import sys, {module}; print([name for name in sys.modules if name.split('.')[0] == 'mla_serve'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_server_that_does_not_come_up_shows_its_log() -> None:
    with (
        pytest.raises(NotServing, match="no bundle today"),
        serving(["python3", "-c", "raise SystemExit('no bundle today')"], {}, "/"),
    ):
        pass


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
