"""Everything that is kept by task has every task: a new one is not forgotten anywhere."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from mla_serve.bundle.answer_columns import ANSWER, BOUNDS
from mla_serve.bundle.answers import WORDINGS
from mla_serve.bundle.results import PREDICTIONS
from mla_serve.evaluation.details import DETAILS
from mla_serve.export.sections import SECTIONS
from mla_serve.serve.http.replies import TASK_REPLIES
from mla_serve.serve.metrics import ANSWERED
from mla_serve.table.hints import LEAKS
from mla_serve.table.label_forms import READERS
from mla_serve.table.labels import FORMS
from mla_serve.tasks import TASKS
from mla_serve.train.fit.families import FAMILIES
from mla_serve.train.losses import LOSSES
from mla_serve.train.strategies import STRATEGIES

BY_NAME: dict[str, Collection[str]] = {
    "ANSWER": ANSWER,
    "BOUNDS": BOUNDS,
    "DETAILS": DETAILS,
    "FAMILIES": FAMILIES,
    "FORMS": FORMS,
    "LEAKS": LEAKS,
    "LOSSES": LOSSES,
    "PREDICTIONS": PREDICTIONS,
    "READERS": READERS,
    "SECTIONS": SECTIONS,
    "WORDINGS": WORDINGS,
}


@pytest.mark.parametrize("registry", BY_NAME)
def test_every_task_is_in_what_is_kept_by_name(registry: str) -> None:
    assert set(BY_NAME[registry]) == set(TASKS)


def test_every_task_is_in_what_is_kept_by_class() -> None:
    assert set(TASK_REPLIES) == set(TASKS.values())


def test_the_answers_of_every_task_are_counted() -> None:
    assert set(ANSWERED) == set(PREDICTIONS.values())


def test_every_task_can_be_learned_by_the_default_strategy_and_no_strategy_names_another() -> None:
    assert set(STRATEGIES["mla"].tasks) == set(TASKS)
    assert all(set(strategy.tasks) <= set(TASKS) for strategy in STRATEGIES.values())
