"""What a prediction holds, for every task: the answer, what each modality says by itself, sets and intervals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mla_serve.bundle.answers import WORDINGS, Request, predictions
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.results import (
    PREDICTIONS,
    Interval,
    LabelsPrediction,
    ModelId,
    NumberPrediction,
    Prediction,
    PredictionSet,
)
from mla_serve.errors import InputError, UnknownField
from mla_serve.fusion.explain import Explained
from mla_serve.fusion.formula import Array, Fused
from mla_serve.fusion.rules import FOR_CLASSES, RULES, rules_for
from mla_serve.inputs import Payload
from mla_serve.tasks import TASKS, Bounds, Classes, Labels, Number, Task

MakeSample = Callable[[int], dict[str, Payload]]


def answered(task: Task, answers: Array, bounds: Bounds | None = None, coverage: float | None = None) -> Any:
    """Make the predictions of answers (B, A) that one modality gave alone."""
    count = len(answers)
    explained = Explained(Fused(answers, np.ones((1, count))), np.zeros((1, count)), answers[None], answers[None])
    there, unknown = np.ones((1, count), bool), np.full((1, count), np.nan)
    return predictions(task, explained, there, unknown, bounds, Request(("words",), "paper", None, coverage))


def test_every_task_has_a_result_and_a_wording() -> None:
    assert PREDICTIONS.keys() == WORDINGS.keys() == TASKS.keys()


def test_an_answer_comes_back_from_json_as_it_was(task_predictor: Predictor, sample: dict[str, Payload]) -> None:
    prediction = task_predictor.predict([sample])[0]
    assert type(prediction) is PREDICTIONS[task_predictor.task.name]
    assert Prediction.from_dict(json.loads(json.dumps(prediction.to_dict()))) == prediction
    assert prediction.model is None
    content = prediction.to_dict() | {"model": {"name": "tiny", "sha256": "00"}, "of_a_later_version": 1}
    assert Prediction.from_dict(content).model == ModelId("tiny", "00")


def test_content_without_an_answer_is_refused() -> None:
    with pytest.raises(KeyError, match="label or labels or value"):
        Prediction.from_dict({"entropy": 1.0})


def test_every_task_answers_every_subset_by_every_rule(
    task_predictor: Predictor, make_sample: MakeSample, all_subsets: Any
) -> None:
    whole = make_sample(0)
    for rule in rules_for(task_predictor.bundle.fusion):
        for names in all_subsets(task_predictor.names):
            prediction = task_predictor.predict([{name: whole[name] for name in names}], rule)[0]
            assert list(prediction.modalities) == list(names)
            assert prediction.missing == [name for name in task_predictor.names if name not in names]
            assert np.isfinite(prediction.entropy)


def test_a_modality_by_itself_says_what_is_answered_to_it_alone(
    task_predictor: Predictor, make_sample: MakeSample
) -> None:
    """So a sample with one modality has the same probability, or value, in both places."""
    whole, field = make_sample(1), PREDICTIONS[task_predictor.task.name].answer
    for rule in rules_for(task_predictor.bundle.fusion):
        together = task_predictor.predict([whole], rule)[0]
        for name, opinion in together.modalities.items():
            alone = task_predictor.predict([{name: whole[name]}], rule)[0]
            said = getattr(opinion, field)
            labels = [each.label for each in said] if isinstance(said, list) else said
            answer = getattr(alone, field)
            assert labels == (answer if isinstance(answer, list | str) else pytest.approx(answer, rel=1e-5))
            assert opinion.entropy == pytest.approx(alone.entropy, abs=1e-5)
            for number in ("probability", "deviation"):
                assert getattr(opinion, number, 0) == pytest.approx(getattr(alone, number, 0), rel=1e-5)
            assert alone.modalities[name].entropy == pytest.approx(alone.entropy)


def test_a_rule_that_the_task_lacks_is_refused_with_the_choices(
    task_predictor: Predictor, sample: dict[str, Payload]
) -> None:
    for rule in RULES:
        if rule in rules_for(task_predictor.bundle.fusion):
            continue
        assert rule in (*FOR_CLASSES, "sum_logit")
        with pytest.raises(UnknownField, match="choose one of calibrated, undiscounted, paper") as refused:
            task_predictor.predict([sample], rule)
        assert rule not in refused.value.message.partition("choose")[2]


def test_a_number_has_no_labels_to_list(task_predictor: Predictor, sample: dict[str, Payload]) -> None:
    if task_predictor.classes:
        assert len(task_predictor.predict([sample], top_k=2)[0].by_label()) == 2
        return
    with pytest.raises(InputError, match="this model answers a number, which has no labels; leave it out"):
        task_predictor.predict([sample], top_k=2)
    assert task_predictor.predict([sample])[0].by_label() == {}


def test_influence_is_the_difference_that_a_modality_makes(task_predictor: Predictor, make_sample: MakeSample) -> None:
    whole = make_sample(2)
    together = task_predictor.predict([whole])[0]
    for name, opinion in together.modalities.items():
        rest = task_predictor.predict([{other: each for other, each in whole.items() if other != name}])[0]
        if isinstance(together, NumberPrediction):
            assert isinstance(rest, NumberPrediction)
            expected = together.value - rest.value
        elif isinstance(together, LabelsPrediction):
            p, without = together.by_label(), rest.by_label()
            expected = sum(
                np.log(p[label] / without[label])
                if label in together.labels
                else np.log((1 - p[label]) / (1 - without[label]))
                for label in p
            )
        else:
            label = together.to_dict()["label"]
            expected = np.log(together.by_label()[label] / rest.by_label()[label])
        assert opinion.influence == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_labels_come_with_what_each_modality_says_of_them_and_what_would_be_answered_without_it(
    make_bundle: Callable[..., Path], make_sample: MakeSample, tmp_path: Path
) -> None:
    task = Labels(("a", "b", "c", "d"), (0.3, 0.4, 0.5, 0.6))
    predictor = Predictor(Bundle.load(make_bundle(tmp_path / "labels", task=task)))
    for number, top_k in ((1, 3), (2, None)):
        whole = make_sample(number)
        together = predictor.predict([whole], top_k=top_k)[0]
        for name, opinion in together.modalities.items():
            alone = predictor.predict([{name: whole[name]}])[0]
            rest = predictor.predict([{other: each for other, each in whole.items() if other != name}])[0]
            assert isinstance(together, LabelsPrediction)
            assert [each.label for each in opinion.probabilities] == [each.label for each in together.probabilities]
            assert len(opinion.probabilities) == (top_k or 4)
            for each in opinion.probabilities:
                assert each.probability == pytest.approx(alone.by_label()[each.label], rel=1e-5)
            assert opinion.without == rest.labels
            assert alone.modalities[name].without is None


def test_labels_are_answered_from_their_own_thresholds_on() -> None:
    task = Labels(("a", "b", "c"), (0.2, 0.5, 0.9))
    first, none = answered(task, np.log([[0.25 / 0.75, 0.5 / 0.5, 0.8 / 0.2], [0.1 / 0.9, 0.4 / 0.6, 0.1 / 0.9]]))
    assert first.labels == ["b", "a"]
    assert [(each.label, each.threshold, each.answered) for each in first.probabilities] == [
        ("c", 0.9, False),
        ("b", 0.5, True),
        ("a", 0.2, True),
    ]
    assert [each.label for each in first.modalities["words"].labels] == ["b", "a"]
    assert none.labels == none.modalities["words"].labels == []
    assert repr(none).startswith("<LabelsPrediction [], weights: words 1.00")


def test_a_number_is_in_the_unit_of_its_column() -> None:
    task = Number("price", "EUR", log=True, mean=np.log(200), deviation=0.5)
    answer = answered(task, np.array([[1.0, 0.04]]))[0]
    assert answer.unit == "EUR"
    assert answer.value == pytest.approx(200 * np.exp(0.5))
    assert answer.deviation == pytest.approx(200 * np.exp(0.5) * np.sinh(0.1))
    assert answer.modalities["words"].value == answer.value
    assert repr(answer) == "<NumberPrediction 330 ± 33 EUR, weights: words 1.00>"


@pytest.mark.parametrize("task", [Classes(("a", "b", "c")), Labels(("a", "b", "c"))])
def test_a_set_lists_its_labels_by_their_probability_and_says_what_it_rests_on(task: Task) -> None:
    inside = np.array([[True, False, True], [False, False, False]])
    bounds = Bounds(np.array([212, 9]), np.array([False, True]), inside=inside)
    sets = [each.prediction_set for each in answered(task, np.log([[0.1, 0.2, 0.7]] * 2), bounds, 0.9)]
    assert sets == [PredictionSet(["c", "a"], 0.9, 212, pooled=False), PredictionSet([], 0.9, 9, pooled=True)]
    assert answered(task, np.log([[0.1, 0.2, 0.7]]))[0].prediction_set is None


def test_an_interval_is_in_the_unit_of_the_number_and_an_infinite_end_is_not_known() -> None:
    task = Number("price", "EUR", log=True, mean=np.log(200), deviation=0.5)
    bounds = Bounds(
        np.array([212, 3]), np.array([False, True]), low=np.array([-1.0, -np.inf]), high=np.array([1.0, np.inf])
    )
    known, open_ended = (each.interval for each in answered(task, np.array([[0.0, 0.04]] * 2), bounds, 0.9))
    assert (known.low, known.high) == pytest.approx((200 * np.exp(-0.5), 200 * np.exp(0.5)))
    assert (known.coverage, known.rows, known.pooled) == (0.9, 212, False)
    assert open_ended == Interval(None, None, 0.9, 3, pooled=True)
    assert answered(task, np.array([[0.0, 0.04]]))[0].interval is None


def test_a_coverage_gives_a_set_or_an_interval_and_says_what_it_rests_on(
    task_predictor: Predictor, sample: dict[str, Payload]
) -> None:
    for names, pooled in ((["text"], False), (["image"], True)):
        part = {name: sample[name] for name in names}
        content = task_predictor.predict([part], coverage=0.9)[0].to_dict()
        found = content.get("prediction_set") or content["interval"]
        assert {name: found[name] for name in ("coverage", "rows", "pooled")} == {
            "coverage": 0.9,
            "rows": 99,
            "pooled": pooled,
        }
        without = task_predictor.predict([part])[0].to_dict()
        assert without.get("prediction_set", without.get("interval")) is None
    wide, narrow = (task_predictor.predict([sample], coverage=coverage)[0] for coverage in (0.95, 0.5))
    if isinstance(wide, NumberPrediction):
        assert isinstance(narrow, NumberPrediction)
        assert wide.interval.low < narrow.interval.low < wide.value < narrow.interval.high < wide.interval.high
    else:
        assert set(narrow.prediction_set.labels) <= set(wide.prediction_set.labels)
    with pytest.raises(InputError, match="under 'paper'; ask with fusion calibrated, or leave it out"):
        task_predictor.predict([sample], "paper", coverage=0.9)


def test_golden_samples_of_every_task_are_replayed(task_predictor: Predictor) -> None:
    assert task_predictor.verify() < 1e-6
