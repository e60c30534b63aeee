"""The formula that the fit differentiates is the formula that answers: for every task, with everything in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.tasks import TASKS, Classes, Labels, Number, Task
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.families import FAMILIES, family_of
from mla_serve.train.fit.formula import Objective

NAMES = ("a", "b", "c")
MADE: dict[str, Task] = {
    "classes": Classes(tuple("wxyz")),
    "labels": Labels(("drama", "crime", "war")),
    "number": Number(),
}


def evidence(task: Task, rows: int = 30, count: int = 3, seed: int = 0) -> Evidence:
    """Random opinions, some missing; of the labels, some are not known."""
    generator = np.random.default_rng(seed)
    opinions = 2 * generator.normal(size=(count, rows, task.outputs))
    present = generator.random((count, rows)) < 0.7
    present[generator.integers(0, count, rows), np.arange(rows)] = True
    return Evidence.of(opinions, present, targets(task, rows, generator), 2 * generator.random((count, rows)), task)


def targets(task: Task, rows: int, generator: np.random.Generator) -> Array:
    if isinstance(task, Classes):
        return generator.integers(0, task.outputs, rows)
    if isinstance(task, Labels):
        drawn = (generator.random((rows, task.outputs)) < 0.3).astype(np.float32)
        drawn[generator.random(drawn.shape) < 0.2] = np.nan
        return drawn
    return generator.normal(size=rows).astype(np.float32)


def test_every_task_has_distributions_in_torch() -> None:
    assert FAMILIES.keys() == TASKS.keys() == MADE.keys()


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_natural_parameters_entropy_and_prior_are_those_of_the_task(task: Task) -> None:
    family, given = family_of(task), evidence(task)
    eta = task.natural(given.opinions)
    prior = task.prior_parameters(task.prior_of(given.targets))
    torch.testing.assert_close(family.natural(torch.from_numpy(given.opinions)), torch.from_numpy(eta))
    torch.testing.assert_close(family.entropy(torch.from_numpy(eta)), torch.from_numpy(task.entropy(eta)))
    without = family.without_prior(torch.from_numpy(eta), torch.from_numpy(prior))
    torch.testing.assert_close(without, torch.from_numpy(task.without_prior(eta, prior)))
    fitted = family.nll(torch.from_numpy(eta), torch.from_numpy(given.targets)).numpy()
    expected = [task.nll(task.answers(one), given.targets) for one in eta]
    np.testing.assert_allclose(fitted, expected, rtol=1e-9)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_the_loss_that_is_fitted_is_that_of_the_fused_answers(task: Task, once: bool) -> None:
    given = evidence(task)
    fusion = Fusion(
        {"a": 1.5, "b": 0.7, "c": 1.0},
        1.3,
        {"a": 0.8, "b": 1.1, "a+b": 1.6, "2": 0.9, "a+b+c": 1.2},
        {"a": 0.4, "c": 1.1},
        prior=task.prior_of(given.targets),
        prior_once=once,
        task=task,
    )
    objective = Objective(given, fusion)
    found = objective.losses(fusion)
    assert len(objective.rows) == len(given.targets)
    for losses, pattern, usable in zip(found, objective.patterns, objective.usable, strict=True):
        part = given.rows(usable)
        mask = np.repeat(pattern[:, None], len(part.targets), axis=1)
        expected = task.nll(fuse(part.opinions, mask, fusion, excess=part.excess).answers, part.targets)
        np.testing.assert_allclose(losses[usable], expected, rtol=1e-9)
