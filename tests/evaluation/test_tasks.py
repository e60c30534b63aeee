"""What an evaluation gives, for every task."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import DataError
from mla_serve.evaluation import analysis
from mla_serve.evaluation.details import DETAILS
from mla_serve.evaluation.draw import measured, worst_groups
from mla_serve.evaluation.results import Evaluation
from mla_serve.evaluation.splits import SplitRun, measure_more, run_rows, score_split
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.table.faults import Faults
from mla_serve.tasks import TASKS, Classes, Labels, Number
from tests.bundle.test_results import drawn
from tests.evaluation.rows import SPEAKERS, run_generated_rows

RULES = ("calibrated", "paper")


@pytest.fixture(scope="module")
def task_run(task_predictor: Predictor) -> SplitRun:
    return run_generated_rows(task_predictor)


def test_every_task_has_its_details() -> None:
    assert DETAILS.keys() == TASKS.keys()


def test_an_evaluation_can_be_written_as_json(task_predictor: Predictor, task_run: SplitRun) -> None:
    results = score_split(task_predictor, task_run, 1, RULES) | measure_more(task_predictor, task_run, 1, RULES)
    again = json.loads(json.dumps(results, allow_nan=False))
    assert again == results
    for found in (again["conditions"], again["leave_one_out"]):
        assert set(task_predictor.task.main_scores) <= found["audio"]["paper"].keys()
    assert again["resampled"] == "groups of audio"


def test_intervals_contain_the_main_scores(task_predictor: Predictor, task_run: SplitRun) -> None:
    outputs, task = task_run.outputs, task_predictor.task
    found = analysis.intervals(task_predictor, outputs, task_run.targets, RULES, {"full": outputs.present})
    answers = analysis.fused_answers(task_predictor, outputs, "paper", outputs.present)
    scores = task.score(answers, task_run.targets)
    assert found["full"]["paper"].keys() == {*task.main_scores, "nll"}
    for score, (low, high) in found["full"]["paper"].items():
        assert low <= scores[score] <= high
        assert low < high


def test_what_is_lost_is_in_the_main_score(task_predictor: Predictor, task_run: SplitRun) -> None:
    main, outputs = task_predictor.task.main_scores[0], task_run.outputs
    found = analysis.leave_one_out(task_predictor, outputs, task_run.targets, RULES)["text"]["paper"]
    rest = outputs.present.copy()
    rest[task_predictor.names.index("text")] = False
    rows = np.flatnonzero(outputs.present[task_predictor.names.index("text")] & rest.any(axis=0))
    whole, without = (
        analysis.fused_answers(task_predictor, analysis.take(outputs, rows), "paper", mask[:, rows])
        for mask in (outputs.present, rest)
    )
    scores = [task_predictor.task.score(answers, task_run.targets[rows])[main] for answers in (whole, without)]
    assert found["lost"] == pytest.approx(scores[0] - scores[1])


def test_groups_are_resampled_as_a_whole() -> None:
    groups = np.arange(40) % SPEAKERS
    counts = analysis.resample(np.random.default_rng(0), 40, Classes(("a", "b")), groups)
    assert (counts.sum(axis=1) == 40).all()
    for group in range(SPEAKERS):
        assert (counts[:, groups == group] == counts[:, [group]]).all()


@pytest.mark.parametrize(("speakers", "modality"), [(4, None), (5, "audio"), (40, None)])
def test_only_groups_that_are_many_enough_are_resampled(speakers: int, modality: str | None) -> None:
    rows = [{"audio": str(number % speakers), "text": str(number % 30)} for number in range(40)]
    expected = modality or "text"
    assert analysis.resampled_groups(rows)[0] == expected
    assert analysis.resampled_groups([{"audio": row["audio"]} for row in rows])[0] == modality
    assert analysis.resampled_groups([{}] * 40) == (None, None)


def test_corruptions_are_measured_in_the_scores_of_the_task(task_predictor: Predictor, task_run: SplitRun) -> None:
    samples = [dict(row.values) for row in task_run.rows]
    given = (task_predictor, samples, task_run.outputs, task_run.targets, RULES)  # type: ignore[var-annotated]
    curves = analysis.corruption_curves(*given, severities=(5,))
    for rule in ("alone", *RULES):
        assert set(task_predictor.task.main_scores) <= curves["text"]["typos"]["5"][rule].keys()


def test_results_are_drawn_with_the_scores_of_the_task(task_predictor: Predictor, task_run: SplitRun) -> None:
    task = task_predictor.task
    results = score_split(task_predictor, task_run, 1, RULES)
    more = measure_more(task_predictor, task_run, 1, RULES)
    found = Evaluation(40, task, 1, results["conditions"], more)
    shown, page = drawn(measured(results, RULES, task)), found._repr_html_()
    for score in task.shown_scores:
        assert task.title(score) in shown
        assert task.title(score) in repr(found)
        assert task.title(score) in page
        text = task.shown(score, results["conditions"]["full"][DEFAULT_RULE][score])
        assert text in shown
        assert text in page
    assert len(worst_groups(more["groups"], task)) == 1
    assert task.title(task.row_score) in worst_groups(more["groups"], task)[0]
    assert json.loads(json.dumps(found.to_dict()))["task"] == task.to_dict()


def test_only_classes_have_an_accuracy(task_predictor: Predictor, task_run: SplitRun) -> None:
    found = score_split(task_predictor, task_run, 1, RULES)["conditions"]
    more = measure_more(task_predictor, task_run, 1, RULES)
    evaluation = Evaluation(40, task_predictor.task, 1, found, more)
    if task_predictor.task.name == "classes":
        assert evaluation.accuracy == found["full"]["calibrated"]["accuracy"]
        assert sum(map(sum, evaluation.confusion)) == 40
    else:
        for name in ("accuracy", "confusion"):
            with pytest.raises(AttributeError, match=f"there is no {name}; .scores has .*nll"):
                getattr(evaluation, name)


def test_reliability_counts_everything(task_predictor: Predictor, task_run: SplitRun) -> None:
    answers = analysis.fused_answers(task_predictor, task_run.outputs, "calibrated", task_run.outputs.present)
    points = DETAILS[task_predictor.task.name].reliability(task_predictor.task, answers, task_run.targets)
    counted = 40 * len(task_predictor.task.names) if task_predictor.task.name == "labels" else 40
    assert sum(point["rows"] for point in points) == counted


def test_the_table_of_labels_counts_hits() -> None:
    task = Labels(("x", "y"), (0.5, 0.9))
    answers = np.array([[2.0, 2.0], [2.0, -2.0], [-2.0, 3.0], [2.0, 0.0]])
    targets = np.array([[1, 1], [0, 0], [1, 1], [np.nan, 0]])
    assert DETAILS["labels"].table(task, answers, targets) == {
        "x": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "threshold": 0.5, "rows": 2},
        "y": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "threshold": 0.9, "rows": 2},
    }
    surprise = DETAILS["labels"].surprise(task, answers, targets)
    assert surprise.tolist() == pytest.approx([1 - 0.8807971, 0.8807971, 0.8807971, 0])
    wrong = DETAILS["labels"].describe(task, answers[2], targets[2])
    assert dataclasses.astuple(wrong) == ("x", "got a probability of 11.9 %", "x, y")


def test_errors_of_numbers_are_compared_with_their_deviations() -> None:
    """Errors that are drawn with the predicted deviation are as large as it, in every fifth of the rows."""
    generator, task = np.random.default_rng(0), Number("price", "EUR", mean=100.0, deviation=10.0)
    variance = generator.uniform(0.1, 2, 20_000)
    answers = np.stack([generator.normal(size=20_000), variance], axis=1)
    found = DETAILS["number"].table(task, answers, answers[:, 0] + np.sqrt(variance) * generator.normal(size=20_000))
    deviations = [one["deviation"] for one in found["quintiles"]]
    assert deviations == sorted(deviations)
    for one in found["quintiles"]:
        assert one["rmse"] == pytest.approx(one["deviation"], rel=0.05)
        assert one["coverage"] == pytest.approx(0.9, abs=0.02)
        assert one["rows"] == 4000
    assert len(found["points"]) == 500
    assert all(point["low"] < point["value"] < point["high"] for point in found["points"])


def test_only_the_intervals_of_the_bundle_are_scored_as_sets(task_predictor: Predictor, task_run: SplitRun) -> None:
    """`coverage` and `width` have one meaning: nothing else is called so where the bundle has no intervals."""
    task, rule = task_predictor.task, (DEFAULT_RULE,)
    sets = {"classes": {"coverage", "set_size"}, "labels": {"set_fnr", "set_size"}, "number": {"coverage", "width"}}
    own = score_split(task_predictor, task_run, 1, rule, coverage=0.5)["conditions"]
    assert sets[task.name] <= own["full"][DEFAULT_RULE].keys()
    more = measure_more(task_predictor, task_run, 1, rule)
    without = score_split(task_predictor, task_run, 1, RULES)["conditions"]  # it has none for the other rules
    for scores in (more["missing_rates"][DEFAULT_RULE]["50"], more["leave_one_out"]["text"][DEFAULT_RULE]):
        assert not sets[task.name] & scores.keys()
    assert not sets[task.name] & without["full"][DEFAULT_RULE].keys()
    for conditions in (own, without):
        evaluation = Evaluation(40, task, 1, conditions, more)
        results = {"split": "x", "rows": 40, "draws": 1, "conditions": conditions}
        for shown in (drawn(measured(results, rule, task)), evaluation._repr_html_(), repr(evaluation)):
            assert ("coverage" in shown) == (task.name == "number" and conditions is own)


def test_a_label_that_the_model_cannot_have_is_refused(task_predictor: Predictor, task_run: SplitRun) -> None:
    cases = {
        "classes": ("alien", "'alien' is no class of the model, which has red, green, blue"),
        "labels": (frozenset({"red", "alien"}), "'alien' is no label of the model, which has red, green, blue"),
        "number": (-1.0, "'-1.0' is no positive number, whose logarithm the model predicts; correct it"),
    }
    label, message = cases[task_predictor.task.name]
    rows = [dataclasses.replace(task_run.rows[0], label=label), *task_run.rows[1:3]]
    with pytest.raises(DataError, match=message):
        run_rows(task_predictor, rows, "test", "", Faults())
