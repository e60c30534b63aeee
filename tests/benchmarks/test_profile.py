"""Every stage of the profile answers every case; the table says what each adds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from benchmarks.serving.profile import STAGES, Layers, ProfileConfig, markdown, parts, stage_runs

DIGITS = Path(__file__).parents[2] / "models" / "digits"


@pytest.fixture(scope="module")
def layers() -> Layers:
    return Layers(ProfileConfig(DIGITS))


def test_every_stage_answers_what_it_is_given(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    concluded = []
    answer_from = layers.predictor.answer_from
    monkeypatch.setattr(layers.predictor, "conclude", lambda *given: concluded.append(0) or answer_from(*given))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runs = stage_runs(layers, 3, runner)
        assert [*runs, "service"] == list(STAGES)
        for run in runs.values():
            concluded.clear()
            run(iter(layers.cases[:14]))
            assert len(concluded) == 14


def test_the_parts_are_those_of_the_modalities_that_were_sent(layers: Layers) -> None:
    texts = [case for case in layers.cases if case.subset == "text"]
    found = parts(layers.predictor, texts)
    assert set(found) == {"decode text", "graph text", "heads and familiarity", "fuse, explain, name"}
    assert all(us > 0 for us in found.values())


def test_the_table_says_what_each_stage_adds() -> None:
    found = {name: [float(at), float(at)] for at, name in zip(range(100, 1000, 100), STAGES, strict=False)}
    text = markdown(ProfileConfig(), found, {"graph text": [40.0, 40.0]})
    assert "| predictor | the predictor, as the ceiling of serve.md runs it | 100 | 12 % | 100 | 100, 100 |" in text
    assert "| hop | to a thread and back | 100 | 12 % | 300 | 300, 300 |" in text
    assert "| graph text | 40 | 5 % |" in text
