"""What an evaluation measures beside the conditions, on the tiny bundle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.evaluation import analysis
from mla_serve.evaluation.details import DETAILS
from mla_serve.evaluation.draw import worst_groups
from mla_serve.inputs import Payload
from mla_serve.tasks import Classes

RULES = ("calibrated", "paper")
Case = tuple[list[dict[str, Payload]], GraphOutputs, np.ndarray]


@pytest.fixture(scope="module")
def case(predictor: Predictor, make_sample: Callable[[int], dict[str, Payload]]) -> Case:
    samples = [dict(make_sample(seed)) for seed in range(12)]
    del samples[3]["text"], samples[5]["image"]
    samples[5]["text"] = "a few words here"
    return samples, predictor.run_graphs([predictor.decode(sample) for sample in samples]), np.arange(12) % 3


def test_missing_rates_are_scored_on_the_same_masks_for_every_rule(predictor: Predictor, case: Case) -> None:
    _, outputs, labels = case
    curves = analysis.missing_curve(predictor, outputs, labels, RULES, draws=3)
    assert set(curves) == set(RULES)
    assert list(curves["paper"]) == ["10", "20", "30", "40", "50", "60", "70", "80"]
    assert curves == analysis.missing_curve(predictor, outputs, labels, RULES, draws=3)


def test_leaving_one_out_gives_the_accuracy_lost_without_it(predictor: Predictor, case: Case) -> None:
    _, outputs, labels = case
    found = analysis.leave_one_out(predictor, outputs, labels, RULES)
    assert set(found) == set(predictor.names)
    rest = outputs.present.copy()
    rest[1] = False
    expected = analysis.fused_answers(predictor, outputs, "paper", rest).argmax(axis=1) == labels
    assert found["audio"]["paper"]["accuracy"] == pytest.approx(expected.mean())


def test_intervals_contain_the_measured_score(predictor: Predictor, case: Case) -> None:
    _, outputs, labels = case
    found = analysis.intervals(predictor, outputs, labels, RULES, {"full": outputs.present})
    right = analysis.fused_answers(predictor, outputs, "paper", outputs.present).argmax(axis=1) == labels
    low, high = found["full"]["paper"]["accuracy"]
    assert low <= right.mean() <= high


def test_an_accuracy_of_one_is_not_sure_to_stay_one(predictor: Predictor, case: Case) -> None:
    _, outputs, _ = case
    right = analysis.fused_answers(predictor, outputs, "paper", outputs.present).argmax(axis=1)
    found = analysis.intervals(predictor, outputs, right, ["paper"], {"full": outputs.present})["full"]["paper"]
    assert found["accuracy"] == pytest.approx([0.025 ** (1 / 12), 1.0])
    assert found["macro_f1"] == [1.0, 1.0]


def test_reliability_and_confusion_count_every_row(predictor: Predictor, case: Case) -> None:
    _, outputs, labels = case
    log_p = analysis.fused_answers(predictor, outputs, "paper", outputs.present)
    details = DETAILS["classes"]
    assert sum(one["rows"] for one in details.reliability(predictor.task, log_p, labels)) == 12
    table = np.array(details.table(predictor.task, log_p, labels))
    assert table.sum(axis=1).tolist() == [4, 4, 4]
    assert np.trace(table) == np.sum(log_p.argmax(axis=1) == labels)


def test_each_group_is_scored_and_the_worst_of_those_with_enough_rows_is_named() -> None:
    task, labels = Classes(("no", "yes")), np.array([0, 1] * 8)
    answers = np.array([0, 1] * 5 + [1, 1, 0, 0, 1, 0])
    log_p = np.log(np.eye(2)[answers] * 0.8 + 0.1)
    speakers = ["ann"] * 10 + ["bob"] * 5 + ["eve"]
    groups = [{"audio": speaker, "image": speaker, "text": "one"} for speaker in speakers]
    found = analysis.by_group(task, log_p, labels, groups)
    assert found == {
        "audio+image": {
            "accuracy": {"ann": 1.0, "bob": pytest.approx(0.4), "eve": 0.0},
            "rows": {"ann": 10, "bob": 5, "eve": 1},
            "worst": "bob",
        }
    }
    assert worst_groups(found, task) == ["worst of 3 groups of audio+image: bob, accuracy 0.400 over 5 rows"]
    assert analysis.by_group(task, log_p, labels, [{}] * 16) == {}


def test_corrupting_one_modality_keeps_the_outputs_of_the_others(predictor: Predictor, case: Case) -> None:
    samples, outputs, labels = case
    before = outputs.opinions.copy()
    curves = analysis.corruption_curves(predictor, samples, outputs, labels, RULES, severities=(1, 5))
    np.testing.assert_array_equal(outputs.opinions, before)
    assert curves["text"].keys() == predictor.bundle.inputs["text"].corruptions.keys()
    assert set(curves["image"]["blur"]) == {"0", "1", "5"}
    assert set(curves["image"]["blur"]["5"]) == {"alone", *RULES}
    assert curves == analysis.corruption_curves(predictor, samples, outputs, labels, RULES, severities=(1, 5))
