"""The coverage of prediction sets and intervals by simulation: many re-splits of exchangeable rows, for every task.

Each fault that was found in earlier versions has its simulation here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import betabinom, norm

from mla_serve.fusion.formula import Array, Fusion, pattern_name
from mla_serve.fusion.intervals import Intervals, Thresholds
from mla_serve.fusion.rules import fuse, rules_for
from mla_serve.tasks import TASKS, Classes, Labels, Number, Task
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.formula import fit
from mla_serve.train.fit.intervals import LEAST_ROWS, MOST_ROWS, cross_fitted_intervals, patterns_of

NAMES = tuple("abcdefgh")
OPTIONS: dict[str, Task] = {
    "classes": Classes(tuple(f"class {number}" for number in range(10))),
    "labels": Labels(tuple(f"label {number}" for number in range(8))),
    "number": Number("price", "EUR"),
}
COVERAGES = (0.8, 0.9, 0.98)
every_task = pytest.mark.parametrize("name", TASKS)


def draw_classes(task: Task, qualities: Array, generator: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Draw logits that point to the class, some rows more clearly than others; too sure by half."""
    targets = generator.integers(0, task.outputs, count)
    clarity = np.exp(generator.normal(0, 0.5, (len(qualities), count, 1))) * qualities[:, None, None]
    noise = generator.normal(size=(len(qualities), count, task.outputs))
    return 1.5 * clarity * np.eye(task.outputs)[targets] + noise, targets


def draw_labels(task: Task, qualities: Array, generator: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Draw log-odds that point to the labels of a row; some rows have none."""
    targets = (generator.random((count, task.outputs)) < 0.25).astype(np.float32)
    noise = generator.normal(size=(len(qualities), count, task.outputs))
    return qualities[:, None, None] * (2 * targets - 1) + noise - 0.5, targets


def draw_number(task: Task, qualities: Array, generator: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Draw means with errors of the stated deviation, but for a factor that differs by row."""
    targets = generator.normal(size=count)
    log_variance = -2 * np.log(qualities)[:, None] + generator.normal(0, 0.5, (len(qualities), count))
    errors = np.exp(log_variance / 2) * generator.standard_t(4, (len(qualities), count))
    return np.stack([targets + errors, log_variance], axis=-1), targets


DRAW: dict[str, Callable[[Task, Array, np.random.Generator, int], tuple[Array, Array]]] = {
    "classes": draw_classes,
    "labels": draw_labels,
    "number": draw_number,
}


def draw(
    task: Task, generator: np.random.Generator, count: int, qualities: Any = (3.0, 2.0, 1.0), missing: Any = 0.3
) -> Evidence:
    """Draw exchangeable rows whose modalities are missing at random. Args: missing, the rate, or one by modality."""
    opinions, targets = DRAW[task.name](task, np.array(qualities), generator, count)
    rates = np.broadcast_to(missing, len(qualities))[:, None]
    present = generator.random((len(qualities), count)) >= rates
    present[generator.integers(0, len(qualities), count), np.arange(count)] |= ~present.any(axis=0)
    return Evidence.of(opinions, present, targets, task=task)


def intervals_of(rows: Evidence, task: Task, rules: tuple[str, ...] = ("paper",), folds: int = 5) -> Intervals:
    """Compute thresholds under a fusion that is fixed."""
    fusion = Fusion.paper(NAMES[: len(rows.opinions)], task)
    return cross_fitted_intervals(rows, fusion, np.arange(len(rows.targets)) % folds, lambda kept: fusion, 0, rules)


def covered_by_pattern(
    found: Intervals, fresh: Evidence, fusion: Fusion, coverage: float, rule: str = "paper"
) -> dict[str, tuple[Array, Array, Array]]:
    """Return, by pattern, the share of each fresh row's truth inside, the same without the answer added, and the sizes."""
    names, result = tuple(fusion.temperatures), {}
    for pattern in patterns_of(fresh.present):
        usable = fresh.present[pattern].all(axis=0)
        if not usable.any():
            continue
        rows, mask = fresh.rows(usable), np.repeat(pattern[:, None], usable.sum(), axis=1)
        answers = fuse(rows.opinions, mask, fusion, rule).answers
        bounds = found.choose(answers, mask, names, rule, coverage)
        chosen = [name for name, there in zip(names, pattern, strict=True) if there]
        scores, weights = found.nonconformity(answers, rows.targets)
        exact = ((scores <= found.threshold(rule, chosen, coverage)[0]) * weights).sum(axis=1)
        share = found.task.covered(bounds, rows.targets)
        exact = np.where(np.isnan(share), np.nan, exact)
        result[pattern_name(chosen)] = share, exact, found.task.size(bounds)
    return result


def simulate(
    task: Task, splits: int, count: int, fresh: int, **more: Any
) -> dict[tuple[str, float], list[tuple[float, float, int, int]]]:
    """Draw and split rows again and again: {(pattern, coverage): [(exact share, share, fresh rows, own rows)]}."""
    found: dict[tuple[str, float], list[tuple[float, float, int, int]]] = {}
    for seed in range(splits):
        generator = np.random.default_rng(seed)
        rows = draw(task, generator, count + fresh, **more)
        own, new = rows.rows(np.arange(count)), rows.rows(np.arange(count, count + fresh))
        intervals, fusion = intervals_of(own, task), Fusion.paper(NAMES[: len(rows.opinions)], task)
        for coverage in COVERAGES:
            for pattern, (share, exact, _) in covered_by_pattern(intervals, new, fusion, coverage).items():
                known = ~np.isnan(share)
                entry = (
                    exact[known].mean(),
                    share[known].mean(),
                    known.sum(),
                    intervals.thresholds["paper"][pattern].rows,
                )
                found.setdefault((pattern, coverage), []).append(entry)  # type: ignore[arg-type]
    return found


def check_law(name: str, found: dict[tuple[str, float], list[tuple[float, float, int, int]]]) -> None:
    """Check the coverage of every pattern against its law, beta-binomial, at 99 % for all patterns and coverages together."""
    assert len({pattern for pattern, _ in found}) == 7
    for (pattern, coverage), entries in found.items():
        means, variances, lowest = [], [], 0
        for exact, share, fresh, own in entries:
            rank = int(np.ceil(round((own + 1) * coverage, 9)))
            assert rank <= own, "these rows are too few for the law"
            law = betabinom(fresh, rank, own + 1 - rank)
            means.append(law.mean() / fresh)
            variances.append(law.var() / fresh**2)
            lowest += exact * fresh < law.ppf(0.005)
            assert share >= exact - 1e-9
        reach = norm.ppf(1 - 0.005 / len(found)) * np.sqrt(np.mean(variances) / len(entries))
        average = np.mean([exact for exact, *_ in entries])
        # Of labels, only the mean is known, and from above: rows with several labels vary less than one draw.
        upper = (2 / np.mean([own for *_, own in entries])) if name == "labels" else 0
        assert coverage - reach <= average <= np.mean(means) + reach + upper, (pattern, coverage, average)
        assert lowest <= 1 + 0.02 * len(entries), (pattern, coverage, lowest)


@every_task
def test_every_pattern_covers_what_was_asked(name: str) -> None:
    check_law(name, simulate(OPTIONS[name], splits=25, count=250, fresh=250))


@pytest.mark.slow
@every_task
def test_every_pattern_covers_what_was_asked_over_200_splits(name: str) -> None:
    check_law(name, simulate(OPTIONS[name], splits=200, count=400, fresh=400))


@pytest.mark.slow
@every_task
def test_a_fusion_that_is_fitted_anew_in_each_split_covers_too(name: str) -> None:
    """The formula is fitted on the rows that the scores come from, fold by fold."""
    task, shares = OPTIONS[name], []
    for seed in range(60):
        rows = draw(task, np.random.default_rng(seed), 400)
        own, new = rows.rows(np.arange(200)), rows.rows(np.arange(200, 400))

        def refit(kept: Array, own: Evidence = own) -> Fusion:
            return fit(own.rows(kept), NAMES[:3])

        fusion = fit(own, NAMES[:3])
        found = cross_fitted_intervals(own, fusion, np.arange(200) % 5, refit, 0, ("calibrated",))
        covered = covered_by_pattern(found, new, fusion, 0.9, "calibrated")
        shares.append({pattern: np.nanmean(share) for pattern, (share, _, _) in covered.items()})
    for pattern in shares[0]:
        assert np.mean([each[pattern] for each in shares]) > 0.9 - 0.01, pattern


@every_task
def test_a_weak_modality_with_few_rows_of_its_own_is_covered(name: str) -> None:
    """Pooled with the rows of stronger modalities, it was covered in .72 of the rows instead of .9, at worst in .40."""
    task, shares = OPTIONS[name], []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        own = draw(task, generator, 300, (4.0, 4.0, 0.5), (0.1, 0.1, 0.9))
        found, new = intervals_of(own, task), draw(task, generator, 300, (4.0, 4.0, 0.5), 0.0)
        assert not found.threshold("paper", ("c",), 0.9)[2]
        shares.append(np.nanmean(covered_by_pattern(found, new, Fusion.paper(NAMES[:3], task), 0.9)["c"][0]))
    assert np.mean(shares) > 0.9 - 2.576 * np.std(shares) / np.sqrt(len(shares))


@every_task
def test_a_weak_modality_of_eight_is_covered_alone(name: str) -> None:
    """With more than six modalities the patterns of one size were pooled: a weak one alone was covered in .43 of the rows."""
    task, generator = OPTIONS[name], np.random.default_rng(0)
    qualities = (4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 0.5)
    found = intervals_of(draw(task, generator, 800, qualities), task)
    new = draw(task, generator, 2_000, qualities, 0.0)
    covered = covered_by_pattern(found, new, Fusion.paper(NAMES, task), 0.9)
    assert np.nanmean(covered["h"][0]) > 0.87
    assert found.threshold("paper", ("h",), 0.9)[1:] == (found.thresholds["paper"]["h"].rows, False)


def test_of_many_patterns_those_of_one_and_of_all_modalities_and_the_frequent_ones_have_their_own() -> None:
    generator = np.random.default_rng(0)
    present = np.ones((8, 500), dtype=bool)
    present[2:7, :100] = False
    present[:, 100] = generator.random(8) < 0.5
    listed = {tuple(pattern) for pattern in patterns_of(present).tolist()}
    assert {tuple(row) for row in np.eye(8, dtype=bool).tolist()} < listed
    assert tuple(present[:, 0].tolist()) in listed
    assert tuple(present[:, 200].tolist()) in listed
    assert {sum(pattern) for pattern in listed} == set(range(1, 9))
    assert len(listed) <= 100
    assert len(patterns_of(present[:6])) == 63


@every_task
def test_a_pattern_that_validation_never_shows_is_answered_with_caution(name: str) -> None:
    """Modalities 0 and 2 never come together. Their set is as cautious as the most cautious one of two modalities."""
    task, generator = OPTIONS[name], np.random.default_rng(1)
    own = draw(task, generator, 600, (2.0, 2.0, 2.0), 0.0)
    own.present[np.where(np.arange(600) % 2, 0, 2), np.arange(600)] = False
    found, new = intervals_of(own, task), draw(task, generator, 2_000, (2.0, 2.0, 2.0), 0.0)
    threshold, rows, pooled = found.threshold("paper", ("a", "c"), 0.9)
    assert pooled
    assert rows > 250
    assert threshold == max(found.threshold("paper", pair, 0.9)[0] for pair in (("a", "b"), ("b", "c")))
    assert np.nanmean(covered_by_pattern(found, new, Fusion.paper(NAMES[:3], task), 0.9)["a+c"][0]) > 0.87


@every_task
def test_a_rare_pattern_says_that_its_set_rests_on_other_rows(name: str) -> None:
    """With 5 rows of its own a pattern cannot give .9; it covers nonetheless, and the most that 5 rows can give is its own."""
    task, shares = OPTIONS[name], []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        own = draw(task, generator, 300, (2.0, 2.0, 2.0), 0.0)
        own.present[2, 5:] = False
        found, new = intervals_of(own, task), draw(task, generator, 200, (2.0, 2.0, 2.0), 0.0)
        assert found.threshold("paper", ("c",), 0.9)[2]
        assert name == "labels" or found.threshold("paper", ("c",), 0.8)[1:] == (5, False)
        shares.append(np.nanmean(covered_by_pattern(found, new, Fusion.paper(NAMES[:3], task), 0.9)["c"][0]))
    assert np.mean(shares) > 0.9 - 2.576 * np.std(shares) / np.sqrt(len(shares))


def test_unsure_answers_of_an_accurate_model_get_larger_sets() -> None:
    """Of a model that is right in 90 % of the rows, every 90 % set held one class, and covered .5 of the unsure rows."""
    task, generator = Classes(), np.random.default_rng(0)
    targets = generator.integers(0, 10, 4_000)
    clear = np.where(generator.random(4_000) < 0.85, 5.0, 0.8)[:, None]
    logits = clear * (
        clear * np.eye(10)[targets] + generator.normal(size=(4_000, 10))
    )  # the logs of the true probabilities
    rows = Evidence.of(logits[None], np.ones((1, 4_000), bool), targets)
    own, new = rows.rows(np.arange(2_000)), rows.rows(np.arange(2_000, 4_000))
    fusion = Fusion.paper(("a",))
    answers = fuse(new.opinions, new.present, fusion).answers
    unsure = np.exp(answers.max(axis=1)) < 0.5

    def in_bands(empty: Intervals) -> tuple[float, float, float]:
        found = cross_fitted_intervals(
            own, fusion, np.arange(2_000) % 5, lambda kept: fusion, 0, ("paper",), empty=empty
        )
        bounds = found.choose(answers, new.present, ("a",), "paper", 0.9)
        covered, size = task.covered(bounds, new.targets), task.size(bounds)
        return covered[unsure].mean(), size[unsure].mean(), size[~unsure].mean()

    covered, large, small = in_bands(Intervals(task))
    assert covered > 0.85
    assert large > 4
    assert small < 1.2
    assert in_bands(Intervals(task, probability=True))[0] < 0.6  # format 1


@every_task
def test_sets_grow_with_what_is_missing(name: str) -> None:
    task, generator = OPTIONS[name], np.random.default_rng(3)
    found = intervals_of(draw(task, generator, 1_000, (1.0, 1.0, 1.0)), task)
    new = draw(task, generator, 1_000, (1.0, 1.0, 1.0), 0.0)
    fusion = Fusion.paper(NAMES[:3], task)
    sizes = {pattern: size.mean() for pattern, (_, _, size) in covered_by_pattern(found, new, fusion, 0.9).items()}
    assert sizes["a+b+c"] < sizes["a+b"] < sizes["a"]


@every_task
def test_few_rows_cover_on_average_over_draws(name: str) -> None:
    """With 40 rows; what has too few of its own says that it is pooled."""
    shares: dict[str, list[float]] = {}
    for seed in range(40):
        generator = np.random.default_rng(seed)
        own, new = (draw(OPTIONS[name], generator, count) for count in (40, 200))
        found = intervals_of(own, OPTIONS[name])
        covered = covered_by_pattern(found, new, Fusion.paper(NAMES[:3], OPTIONS[name]), 0.9)
        for pattern, (share, _, _) in covered.items():
            if not found.threshold("paper", pattern.split("+"), 0.9)[2]:
                shares.setdefault(pattern, []).append(float(np.nanmean(share)))
    for pattern, each in shares.items():
        assert np.mean(each) > 0.9 - 2.576 * np.std(each) / np.sqrt(len(each)), pattern


def test_models_of_few_rows_that_answer_rows_they_have_not_seen_give_intervals_that_cover() -> None:
    """Cross-conformal: each of five models is asked about its own fold of 80 rows, and a sixth, of all rows, about new ones."""
    task, shares = OPTIONS["number"], []
    for seed in range(100):
        generator = np.random.default_rng(seed)
        features = generator.normal(size=(280, 10))
        targets = features @ np.linspace(-0.5, 0.5, 10) + generator.normal(size=280)
        fold = np.arange(80) % 5

        def learn(kept: Array, x: Array = features, y: Array = targets) -> Array:
            return np.linalg.solve(x[:80][kept].T @ x[:80][kept] + np.eye(10), x[:80][kept].T @ y[:80][kept])

        unseen = np.concatenate([features[:80][fold == k] @ learn(fold != k) for k in range(5)])
        order = np.concatenate([np.flatnonzero(fold == k) for k in range(5)])
        own, new = (
            Evidence.of(
                np.stack([mean, np.zeros(len(mean))], axis=1)[None], np.ones((1, len(mean)), bool), truth, task=task
            )
            for mean, truth in (
                (unseen, targets[:80][order]),
                (features[80:] @ learn(np.ones(80, dtype=bool)), targets[80:]),
            )
        )
        covered = covered_by_pattern(intervals_of(own, task), new, Fusion.paper(("a",), task), 0.9)["a"][0]
        shares.append(covered.mean())
    assert 0.9 - 2.576 * np.std(shares) / 10 < np.mean(shares) < 0.94


@every_task
def test_all_rules_of_a_task_get_thresholds_and_each_row_counts_once(name: str) -> None:
    task = OPTIONS[name]
    own = draw(task, np.random.default_rng(0), 100)
    fusion = Fusion.paper(NAMES[:3], task)
    found = cross_fitted_intervals(own, fusion, np.arange(100) % 5, lambda kept: fusion, 0)
    assert found.rules == rules_for(fusion)
    some = own.targets.any(axis=1) if name == "labels" else np.ones(100, dtype=bool)
    for patterns in found.thresholds.values():
        for pattern, each in patterns.items():
            chosen = [NAMES.index(one) for one in pattern.split("+")]
            assert each.rows == (own.present[chosen].all(axis=0) & some).sum()


def test_each_row_is_scored_by_the_fusion_that_was_fitted_without_it() -> None:
    task, generator = OPTIONS["number"], np.random.default_rng(0)
    own = draw(task, generator, 60, (2.0,), 0.0)
    fold, seen = np.arange(60) % 3, []

    def refit(kept: Array) -> Fusion:
        seen.append(kept)
        return Fusion({"a": float(10 ** fold[~kept][0])}, task=task)

    fusion = Fusion({"a": 1.0}, task=task)
    found = cross_fitted_intervals(own, fusion, fold, refit, 0, ("calibrated",))
    assert [sorted(set(fold[~kept])) for kept in seen] == [[0], [1], [2]]
    answers = task.answers(task.natural(own.opinions[0]))
    scores = task.nonconformity(answers, own.targets)[0][:, 0] / np.sqrt(10.0**fold)
    np.testing.assert_allclose(found.thresholds["calibrated"]["a"].values, Thresholds.of(scores).values, rtol=1e-5)


def test_the_work_is_bounded_for_many_classes_and_modalities(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = []

    def count(self: Intervals, answers: Array, targets: Array) -> tuple[Array, Array]:
        fused.append(answers.size)
        return np.zeros((len(targets), 1)), np.ones((len(targets), 1))

    monkeypatch.setattr(Intervals, "nonconformity", count)
    generator = np.random.default_rng(0)
    task = Classes()
    own = Evidence.of(
        generator.normal(size=(3, 6_000, 50)), np.ones((3, 6_000), bool), generator.integers(0, 50, 6_000)
    )
    assert intervals_of(own, task).thresholds["paper"]["a"].rows == MOST_ROWS
    monkeypatch.setattr("mla_serve.train.fit.intervals.MOST_NUMBERS", 1e5)
    fused.clear()
    assert intervals_of(own, task).thresholds["paper"]["a"].rows == LEAST_ROWS
    assert sum(fused) == 7 * LEAST_ROWS * 50
