"""What is fitted after training: settings chosen by evidence, folds that keep groups apart, sets cross-fitted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mla_serve.fusion.formula import Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.table import Row
from mla_serve.tasks import Classes
from mla_serve.train.data.folds import make_folds, shared_groups
from mla_serve.train.fit.after_training import fit_shift
from mla_serve.train.fit.cross_validate import RIDGES, choose_setting, mix_rows
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.features import any_corruption
from mla_serve.train.fit.formula import fit, fit_discounts
from tests.conftest import INPUTS

NAMES = ("a", "b")


def evidence(rows: int = 400, sharpen: float = 4.0, noise: float = 0.0, seed: int = 0) -> Evidence:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, rows)
    logits = 1.5 * (generator.normal(size=(2, rows, 4)) + 1.5 * np.eye(4)[labels])
    logits[1] = (1 - noise) * logits[1] + noise * 8 * generator.normal(size=(rows, 4))
    excess = np.full((2, rows), 0.0)
    excess[1] = 4 * noise
    return Evidence.of(logits * sharpen, np.ones((2, rows), dtype=bool), labels, excess)


def row(number: int, **groups: str) -> Row:
    values: Mapping[str, str] = dict.fromkeys(("a", "b"), "x")
    return Row(str(number), "0", values, {}, groups)


def test_where_calibration_helps_it_is_chosen() -> None:
    setting, note = choose_setting(evidence(), NAMES, np.arange(400) % 5)
    assert setting.ridge < max(RIDGES)
    assert "held-out NLL" in note


def test_logits_that_are_far_too_sure_are_corrected_on_rows_of_the_same_source() -> None:
    """Nothing holds the fit back because validation looks like training: here that is right."""
    clean, fresh = evidence(rows=4000, sharpen=8.0), evidence(rows=4000, sharpen=8.0, seed=1)
    setting, _ = choose_setting(clean, NAMES, np.arange(4000) % 5)
    assert setting.ridge < max(RIDGES)

    def measure(fusion: Fusion) -> dict[str, float]:
        return Classes().score(fuse(fresh.opinions, fresh.present, fusion).answers, fresh.targets)

    chosen, held_back = measure(setting.fit(clean, clean, NAMES)), measure(fit(clean, NAMES, max(RIDGES)))
    assert chosen["ece"] < 0.02
    assert chosen["nll"] < held_back["nll"]


def test_where_it_does_not_help_the_papers_rule_stays() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 60)
    likelihood = 2.0 * (generator.normal(size=(1, 60, 4)) + 2.0 * np.eye(4)[labels])  # log-posteriors as they should be
    clean = Evidence.of(likelihood, np.ones((1, 60), dtype=bool), labels)
    setting, note = choose_setting(clean, ("a",), np.arange(60) % 5)
    assert np.isinf(setting.ridge)
    assert "the paper's rule" in note
    assert setting.fit(clean, clean, ("a",)).temperatures == {"a": 1.0}


@pytest.mark.parametrize("rows", [10, 20, 40])
def test_few_rows_that_are_all_answered_rightly_do_not_make_the_answers_certain(rows: int) -> None:
    """Whatever is chosen, one wrong answer later must not cost many times what it costs by the paper's rule."""
    labels = np.arange(rows) % 2
    logits = np.where(np.eye(2)[labels] > 0, 1.5, -1.5)
    given = Evidence.of(np.array([logits, logits]), np.ones((2, rows), dtype=bool), labels)
    setting, _ = choose_setting(given, NAMES, np.arange(rows) % 5)
    fitted = setting.formula(given, NAMES)
    wrong = [
        fuse(np.array([[[1.5, -1.5]]] * 2), np.ones((2, 1), dtype=bool), rule).answers[0, 1]
        for rule in (fitted, Fusion.paper(NAMES))
    ]
    assert wrong[0] > 4 * wrong[1]


def test_the_prior_is_counted_once_where_classes_are_unbalanced_and_it_pays() -> None:
    generator = np.random.default_rng(0)
    prior = np.array([0.7, 0.2, 0.1])
    labels = generator.choice(3, 600, p=prior)
    seen = generator.normal(size=(2, 600, 3)) + np.eye(3)[labels]
    clean = Evidence.of(np.log(prior) + seen, np.ones((2, 600), dtype=bool), labels)
    setting, note = choose_setting(clean, NAMES, np.arange(600) % 5, prior.tolist())
    assert setting.prior == tuple(prior)
    assert "prior counted once" in note
    assert setting.fit(clean, clean, NAMES).prior_once
    balanced, _ = choose_setting(clean, NAMES, np.arange(600) % 5, [0.35, 0.35, 0.3])
    assert not balanced.prior


def test_discounts_go_to_the_modality_whose_excess_comes_with_errors() -> None:
    both = evidence(sharpen=1.0).and_also(evidence(sharpen=1.0, noise=0.9, seed=1))
    fusion = fit_discounts(both, NAMES, Fusion.paper(NAMES))
    assert fusion.discounts["b"] > 0.2
    assert fusion.discounts["a"] == pytest.approx(0.1, abs=0.1)


def test_mixed_copies_corrupt_about_half_of_the_modalities() -> None:
    clean, corrupted = evidence(), evidence(noise=0.9, seed=1)
    mixture = mix_rows(clean, corrupted, np.random.default_rng(0))
    same = (mixture.opinions == clean.opinions).all(axis=2)
    assert same.mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(mixture.opinions[~same], corrupted.opinions[~same])
    np.testing.assert_array_equal(mixture.excess[~same], corrupted.excess[~same])


def test_folds_keep_groups_together_and_say_so() -> None:
    rows = [row(n, a=f"speaker{n % 12}") for n in range(60)]
    folds = make_folds(rows, 0, Classes())
    assert "no a group in two folds" in folds.note
    by_group = {row.groups["a"]: set() for row in rows}  # type: ignore[var-annotated]
    for each, number in zip(rows, folds.number, strict=True):
        by_group[each.groups["a"]].add(number)
    assert all(len(numbers) == 1 for numbers in by_group.values())
    assert np.bincount(folds.number).tolist() == [15, 15, 10, 10, 10]


def test_where_one_speaker_speaks_all_rows_the_other_groups_are_kept_apart() -> None:
    rows = [row(n, a="theo", b=f"writer{n % 20}") for n in range(60)]
    assert "no b group in two folds" in make_folds(rows, 0, Classes()).note
    assert "at random" in make_folds([row(n, a="theo") for n in range(60)], 0, Classes()).note
    assert "no groups" in make_folds([row(n) for n in range(60)], 0, Classes()).note


def test_groups_that_validation_shares_with_training_are_counted() -> None:
    train = [row(n, a=f"s{n % 3}") for n in range(9)]
    val = [row(n, a=f"s{n % 4}") for n in range(8)]
    assert shared_groups(train, val) == {"a": 0.75}
    assert shared_groups(train, [row(0)]) == {}


def test_the_scale_of_shifted_answers_is_fitted_with_each_class_counting_alike() -> None:
    """Answers that a floor under every class has made too unsure get surer, and stay the same answers."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [190, 10])
    right = np.where(generator.random(200) < 0.95, labels, 1 - labels)
    p = np.where(np.eye(2)[right] > 0, 0.6, 0.4) * np.array([0.95, 0.05])
    evidence = Evidence.of(np.log(p)[None], np.ones((1, 200), bool), labels)
    shift = [float(value) for value in -np.log([0.95, 0.05])]
    fitted = fit_shift(evidence, Fusion.paper(("a",)), shift)
    assert fitted.shift_scale > 2
    assert fitted.prior_shift == shift
    answers = fuse(evidence.opinions, evidence.present, fitted).answers
    assert (answers.argmax(axis=1) == right).all()
    recall = np.mean([(right == labels)[labels == c].mean() for c in (0, 1)])
    assert np.exp(answers.max(axis=1)).mean() == pytest.approx(recall, abs=0.04)  # 0.60 before
    assert fit_shift(evidence, fitted, ()) == fitted


@pytest.mark.parametrize("kind", INPUTS)
def test_fusion_is_fitted_on_every_way_to_corrupt_an_input(kind: str) -> None:
    """With the first way alone, noise in place of a recording, or a tone, was trusted."""
    spec, generator = INPUTS[kind](), np.random.default_rng(0)
    choose = any_corruption(spec)
    assert {choose(generator) for _ in range(300)} == set(spec.corruptions)
