"""Every stage of the profile answers every case; the table says what each adds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.serving.profile import STAGES, Application, ProfileConfig, markdown, parts

DIGITS = Path(__file__).parents[2] / "models" / "digits"


@pytest.fixture(scope="module")
def application() -> Application:
    return Application(ProfileConfig(DIGITS))


def test_the_application_answers_every_case(application: Application) -> None:
    async def statuses() -> list[int]:
        return [(await application.answer(case))[0]["status"] for case in application.cases[:14]]

    assert asyncio.run(statuses()) == [200] * 14
    left = iter(application.cases[:14])
    asyncio.run(application.answer_all(left, at_once=3))
    assert next(left, None) is None


def test_the_parts_are_those_of_the_modalities_that_were_sent(application: Application) -> None:
    texts = [case for case in application.cases if case.subset == "text"]
    times = parts(application.predictor, texts)
    assert set(times) == {"decode text", "graph text", "heads and familiarity", "fuse, explain, name"}
    assert all(us > 0 for us in times.values())


def test_the_table_says_what_each_stage_adds() -> None:
    times = {name: [float(at), float(at)] for at, name in zip((100, 300, 400), STAGES, strict=True)}
    page = markdown(ProfileConfig(), times, {"graph text": [40.0, 40.0]})
    assert "| predictor | the predictor, as the ceiling of serve.md runs it | 100 | 25 % | 100 | 100, 100 |" in page
    assert (
        "| application | options, the form, a thread and back, limits, JSON, headers | 200 | 50 % | 300 | 300, 300 |"
        in page
    )
    assert "| graph text | 40 | 10 % |" in page
