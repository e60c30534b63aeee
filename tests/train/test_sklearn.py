"""The estimators for scikit-learn: what its own checks ask, cross-validation, pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from mla_serve.inputs import Array
from mla_serve.sklearn import MultimodalClassifier, MultimodalRegressor, _names_of

SETTINGS = {"width": 16, "threads": 1}


def points(rows: int = 60) -> tuple[Array, Array]:
    """Three clouds of points, some of whose numbers are missing."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    numbers = generator.normal(0, 0.3, (rows, 3)) + np.eye(3)[labels] * 3
    numbers[generator.random(numbers.shape) < 0.1] = np.nan
    numbers[np.isnan(numbers).all(axis=1), 0] = 0.0
    return numbers, labels


@pytest.fixture(scope="module")
def fitted() -> MultimodalClassifier:
    X, y = points()
    frame = pd.DataFrame(X, columns=["length", "width", "height"])
    return MultimodalClassifier(epochs=6, settings=SETTINGS).fit(frame, np.array(["c", "a", "b"])[y])


def test_a_frame_with_missing_cells_is_learned(fitted: MultimodalClassifier) -> None:
    X, y = points()
    frame = pd.DataFrame(X, columns=["length", "width", "height"])
    assert fitted.classes_.tolist() == ["a", "b", "c"]
    assert fitted.score(frame, np.array(["c", "a", "b"])[y]) > 0.9
    probabilities = fitted.predict_proba(frame)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(frame)).all()
    assert fitted.model_.predict(columns={"length": 3.0, "width": 0.0}).label in fitted.classes_
    assert fitted.feature_names_in_.tolist() == ["length", "width", "height"]


def test_a_row_without_any_value_has_no_answer(fitted: MultimodalClassifier) -> None:
    frame = pd.DataFrame({"length": [3.0, None], "width": [0.0, None], "height": [0.0, None]})
    assert np.isnan(fitted.predict_proba(frame)).any(axis=1).tolist() == [False, True]
    array = MultimodalClassifier(epochs=1, settings=SETTINGS).fit(*points())
    assert np.isnan(array.predict_proba(frame.to_numpy(float))).any(axis=1).tolist() == [False, True]
    with pytest.raises(ValueError, match="row 1 has no value that can be read"):
        fitted.predict(frame)


def tagged(rows: int = 80) -> tuple[pd.DataFrame, Array]:
    """Rows with two numbers, and the two labels that say which of them are high; some rows have none."""
    generator = np.random.default_rng(0)
    truth = generator.random((rows, 2)) < 0.5
    numbers = 3.0 * truth + generator.normal(0, 0.3, truth.shape)
    return pd.DataFrame(numbers, columns=["length", "width"]), truth.astype(int)


def test_rows_with_any_number_of_labels_are_learned_from_an_indicator_matrix_or_from_lists() -> None:
    X, y = tagged()
    never = np.column_stack([y, np.zeros(len(y), int)])
    by_matrix = MultimodalClassifier(epochs=8, settings=SETTINGS).fit(X, never)
    assert by_matrix.classes_.tolist() == [0, 1, 2]
    assert (by_matrix.predict(X)[:, 2] == 0).all()
    assert by_matrix.predict_proba(X).shape == (len(X), 3)
    assert by_matrix.score(X, never) > 0.8
    names = [[name for name, there in zip(("wide", "long"), row, strict=True) if there] for row in y[:, ::-1]]
    by_lists = MultimodalClassifier(epochs=8, settings=SETTINGS).fit(X, names)
    assert by_lists.classes_.tolist() == ["long", "wide"]
    np.testing.assert_array_equal(by_lists.predict(X), by_matrix.predict(X)[:, :2])
    assert by_lists.score(X, names) == by_matrix.score(X, never)
    with pytest.raises(ValueError, match="y has the label 'tall'; expected some of long, wide"):
        by_lists.score(X, [["tall"]] * len(X))


def test_a_number_is_estimated() -> None:
    X, _ = tagged()
    y = 100 + 20 * X["length"] - 10 * X["width"]
    model = MultimodalRegressor(epochs=30, settings=SETTINGS).fit(X, y)
    assert model.score(X, y) > 0.8
    np.testing.assert_allclose(model.predict(X), model.model_.predict(X)["value"])
    assert (model.model_.predict(X)["deviation"] > 0).all()
    with pytest.raises(ValueError, match="row 1 has no value that can be read"):
        model.predict(pd.DataFrame({"length": [1.0, None], "width": [1.0, None]}))
    for wrong in ([1.0, np.inf] * 40, ["a"] * 80):
        with pytest.raises(ValueError, match=r"infinity|numeric|convert"):
            MultimodalRegressor(settings=SETTINGS).fit(X, wrong)


def test_parameters_are_those_of_the_constructor(fitted: MultimodalClassifier) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert copy.set_params(epochs=2).epochs == 2
    with pytest.raises(NotFittedError):
        copy.predict(np.zeros((1, 3)))


def test_labels_are_named_as_they_are_where_that_is_possible() -> None:
    assert _names_of(np.array([1, 2, 10])) == ["1", "2", "10"]
    assert _names_of(np.array(["a", "b"])) == ["a", "b"]
    for other in (["a", " a"], [False, True], ["1.0", "2.0"], ["[]", "a"], ["", "a"]):
        assert _names_of(np.array(other)) == ["class 0", "class 1"]


def test_every_column_is_a_feature_whatever_its_name() -> None:
    X, y = points()
    numbers = np.nan_to_num(X)
    frame = pd.DataFrame(
        {
            "split": np.array(["train", "test", "val"])[y],
            "id": np.arange(len(y)) // 2,
            "present": numbers[:, 0],
            "text": numbers[:, 1],
            "meta.size": numbers[:, 2],
            "label": numbers[:, 0],
        }
    )
    settings = SETTINGS | {"group": "id"}
    labels = np.array(["1.0", "2.0", "[]"])[y]
    model = MultimodalClassifier(epochs=6, settings=settings, kinds={"split": "category"}).fit(frame, labels)
    read = {role["column"]: role["role"] for role in model.model_._graphs.bundle.manifest.table["columns"]}
    assert read == {
        "split_": "category",
        "id_": "group",
        "present_": "number",
        "text_": "number",
        "meta_size_": "number",
        "label": "number",
        "label_": "label",
    }
    counts = model.model_._graphs.bundle.manifest.training["rows"]
    assert sum(counts[split]["columns"] for split in ("train", "val")) == len(y), (
        "none is left out or held out for test"
    )
    assert model.score(frame, labels) > 0.9


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((4, 2)), [1, 1, 1, 1], "y has only one class"),
        (np.zeros((3, 2)), [[], [], []], "no row of y has a label"),
        (np.zeros((4, 2)), [0.1, 0.2, 0.3, 0.4], "Unknown label type"),
        (np.zeros((4, 2)), [0, 1], "inconsistent numbers of samples"),
        (np.full((4, 2), np.inf), [0, 1, 0, 1], "infinity"),
    ],
)
def test_what_cannot_be_learned_is_a_value_error(X: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultimodalClassifier(settings=SETTINGS).fit(X, y)


@pytest.mark.slow
def test_cross_validation_of_a_pipeline() -> None:
    X, y = points(90)
    pipeline = make_pipeline(StandardScaler(), MultimodalClassifier(epochs=6, settings=SETTINGS))
    assert cross_val_score(pipeline, X, y, cv=2).min() > 0.8


# A check of scikit-learn -> why it is left out. All others hold.
LEFT_OUT = {"check_array_api_input": "for estimators that take arrays of other libraries, where SCIPY_ARRAY_API is set"}
CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{name}-{number}")
    for estimated in (
        MultimodalClassifier(epochs=8, settings=SETTINGS),
        MultimodalRegressor(epochs=30, settings=SETTINGS),
    )
    for number, (estimator, check) in enumerate(estimator_checks_generator(estimated))
    if (name := getattr(check, "func", check).__name__) not in LEFT_OUT
]


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
