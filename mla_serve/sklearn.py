"""Estimators for scikit-learn: they train and ask a bundle, so that cross-validation and pipelines can use it.

from mla_serve.sklearn import MultimodalClassifier, MultimodalRegressor

cross_val_score(MultimodalClassifier(epochs=10), frame.drop(columns="category"), frame["category"])
cross_val_score(MultimodalRegressor(epochs=10), frame.drop(columns="price"), frame["price"])
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from mla_serve.inputs import Array
from mla_serve.payloads import is_missing
from mla_serve.python.fit import fit
from mla_serve.python.given import is_frame
from mla_serve.table import cells
from mla_serve.table.declaration import STANDARD_KINDS
from mla_serve.table.label_forms import name_of_class
from mla_serve.tasks import Labels

LARGEST_SEED = 2**31 - 1
ROLE_NAMES = ("split", "id", "present")
"""Columns of a table that `mla_serve.fit` takes for something else than a feature, by their name alone."""


class _Multimodal(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """What the estimators share: `_train` trains the bundle, `_answers` asks it."""

    def __init__(
        self,
        *,
        epochs: int | None = None,
        kinds: Mapping[str, str] | None = None,
        folder: str | Path | None = None,
        out: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.epochs = epochs
        self.kinds = kinds
        self.folder = folder
        self.out = out
        self.settings = settings
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags

    def _train(self, X: Any, rows: Mapping[str, list[Any]], labels: Sequence[Any], task: str) -> None:
        """Train on rows as `_checked` returns them, and their labels. Args: X, as it was given; task, a key of TASKS."""
        self._renamed = _rename_roles(rows)
        rows = self._rename(rows)
        label = _unused("label", rows)
        with tempfile.TemporaryDirectory() as scratch:
            own = {"epochs": self.epochs, "seed": _seed(self.random_state), "runs": Path(scratch, "runs"), "task": task}
            self.model_ = fit(
                {"train": _records(rows | {label: labels})},
                label,
                self.out or Path(scratch, "model"),
                kinds={**self._number_kinds(X, rows), **self._rename(self.kinds or {})},
                folder=self.folder,
                verbose=self.verbose,
                **(own | self._renamed_settings()),
            )

    def _answers(self, X: Any, ask: Callable[[Any], Array]) -> Array:
        """Ask the model about each row. Args: ask, frame or list of samples -> (rows, K). NaN for a row without any input."""
        check_is_fitted(self)
        columns, _ = self._checked(X)
        if is_frame(X):
            return ask(X.rename(columns=self._renamed))
        rows = _records(columns)
        known = np.array([not all(map(is_missing, row.values())) for row in rows])
        if not known.any():
            raise ValueError(f"none of the {len(rows)} rows has a value; fill one")
        asked = ask([row for row, there in zip(rows, known, strict=True) if there])
        found = np.full((len(rows), asked.shape[1]), np.nan)
        found[known] = asked
        return found

    def _checked(self, X: Any, y: Any = None) -> tuple[dict[str, list[Any]], Any]:
        """Check the shapes as scikit-learn asks; return the columns by name, and y. In `fit`, where y is given, they are new.

        Args: y, which is checked already.
        """
        if is_frame(X):
            validate_data(self, X, reset=y is not None, skip_check_array=True)
            columns = {str(name): X[name].tolist() for name in X.columns}
        else:
            X = validate_data(self, X, reset=y is not None, ensure_all_finite="allow-nan", dtype="numeric")
            columns = {f"x{number}": X[:, number].tolist() for number in range(X.shape[1])}
        if y is None:
            return columns, None
        check_consistent_length(X, y)
        return columns, y

    def _rename(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Call the columns as in the bundle."""
        return {self._renamed.get(name, name): value for name, value in columns.items()}

    def _renamed_settings(self) -> dict[str, Any]:
        settings = dict(self.settings or {})
        group = settings.get("group")
        return settings | ({"group": self._renamed.get(group, group)} if group else {})

    def _number_kinds(self, X: Any, columns: Mapping[str, Sequence[Any]]) -> dict[str, str]:
        """Say that the columns of an array are numbers, so that none is taken for an id or a category."""
        return {} if is_frame(X) else dict.fromkeys(columns, "number")


class MultimodalClassifier(ClassifierMixin, _Multimodal):  # type: ignore[misc] # scikit-learn has no types
    """Classify the rows of a table of pictures, recordings, texts, numbers, categories and dates.

    X is a pandas DataFrame, whose cells may be paths, PIL images, arrays and so on, or an array of numbers (rows, columns),
    whose columns are called x0, x1, ... NaN, None and blank cells are missing. A fifth of the rows of `fit` is held out to
    choose the best epoch and to calibrate.

    y is one class for each row; or, where a row may have any number of labels, an indicator matrix (rows, labels) of 0 and 1, or
    a list of lists of texts. Then `predict` returns an indicator matrix.

    Every column is a feature. One that `mla_serve.fit` would read by its name alone, such as `split` or `id`, is called
    `split_` or `id_` in the bundle.

    Args:
        epochs: passes over the training rows; None: the default of `mla-serve train`.
        kinds: what columns hold, where the inferred kind is wrong, such as {"zip": "category"}.
        folder: relative paths in X are relative to it; None: the working directory.
        out: folder that the bundle is written to, to be served; None: the model is kept in memory only.
        settings: other settings of `mla_serve.fit`, such as {"strategy": "ensemble", "width": 64}.
        random_state: a seed, or a RandomState that one is drawn from. The same seed gives the same model.
        verbose: print lines and a progress bar.

    Attributes: classes_, the classes or labels, sorted, or the numbers of the columns of an indicator matrix; model_, the
    mla_serve.Predictor; n_features_in_; feature_names_in_.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows X with labels y. Raises: ValueError for what scikit-learn refuses; DataError, ConfigError."""
        several = _names_of_sets(y)
        rows, target = self._checked(X, _one_class(y) if several is None else _indicator(y, several))
        self.classes_ = np.unique(target) if several is None else several
        if not len(self.classes_):
            raise ValueError("no row of y has a label; expected at least two different ones; add rows with labels")
        if len(self.classes_) < 2:
            raise ValueError(f"y has only one class, {self.classes_[0]!r}; expected at least two; add rows of another")
        names = _names_of(self.classes_)
        if several is None:
            by_class = dict(zip(self.classes_.tolist(), names, strict=True))
            self._train(X, rows, [by_class[value] for value in target.tolist()], "classes")
        else:
            self._train(X, rows, [[names[c] for c in np.flatnonzero(row)] for row in target], "labels")
        self.multilabel_ = several is not None
        known = self.model_.classes  # a label that no row has is not among them
        self._places = [known.index(name) if name in known else None for name in names]
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class or label, (rows, classes), in the order of classes_. NaN for a row without any
        input.
        """
        found = self._answers(X, self._ask)
        columns = [np.zeros(len(found)) if place is None else found[:, place] for place in self._places]
        return np.stack(columns, axis=1)

    def _ask(self, data: Any) -> Array:
        return np.asarray(self.model_.predict_proba(data, folder=self.folder, verbose=self.verbose), dtype=np.float64)

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each row, or an indicator matrix of the labels that reach their thresholds.

        Raises: ValueError for a row without any input.
        """
        probabilities = self.predict_proba(X)
        _refuse_empty(probabilities)
        if not self.multilabel_:
            labels: Array = self.classes_[probabilities.argmax(axis=1)]
            return labels
        task = self.model_.task
        assert isinstance(task, Labels)
        thresholds = task.threshold_of_each()
        least = [np.inf if place is None else thresholds[place] for place in self._places]
        return (probabilities >= np.array(least)).astype(int)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy; of labels, the share of rows whose labels are all right."""
        given = y if _names_of_sets(y) is None else _indicator(y, self.classes_)
        return float(accuracy_score(given, self.predict(X), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MultimodalRegressor(RegressorMixin, _Multimodal):  # type: ignore[misc] # scikit-learn has no types
    """Estimate a number for the rows of a table of pictures, recordings, texts, numbers, categories and dates.

    X and all arguments are as of MultimodalClassifier. y is one finite number for each row.

    Attributes: model_, the mla_serve.Predictor, which gives deviations and intervals too; n_features_in_; feature_names_in_.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows X with numbers y. Raises: ValueError for what scikit-learn refuses; DataError, ConfigError."""
        if y is None:
            raise ValueError(
                "MultimodalRegressor requires y to be passed, but the target y is None; give a number for each row"
            )
        numbers = check_array(y, ensure_2d=False, dtype="numeric", input_name="y")
        rows, target = self._checked(X, column_or_1d(numbers, warn=True).astype(float))
        if len(np.unique(target)) < 2:
            raise ValueError(
                f"y has only the number {target[0]:g}, n_samples={len(target)}; expected different numbers"
            )
        self._train(X, rows, target.tolist(), "number")
        return self

    def predict(self, X: Any) -> Array:
        """Return the value of each row. Raises: ValueError for a row without any input."""
        values = self._answers(X, self._ask)
        _refuse_empty(values)
        return values[:, 0]

    def _ask(self, data: Any) -> Array:
        found = self.model_.predict(data, folder=self.folder, verbose=self.verbose)
        values = found["value"] if is_frame(data) else [each.value for each in found]
        return np.asarray(values, dtype=np.float64)[:, None]


def _refuse_empty(answers: Array) -> None:
    """Refuse rows (rows, K) without an answer. Raises: ValueError."""
    if len(empty := np.flatnonzero(np.isnan(answers).any(axis=1))):
        raise ValueError(f"row {empty[0]} has no value that can be read; fill one, or leave out {len(empty)} such rows")


def _one_class(y: Any) -> Array:
    """Check y as one class for each row. Raises: ValueError."""
    column = column_or_1d(y, warn=True)
    check_classification_targets(column)
    return np.asarray(column)


def _names_of_sets(y: Any) -> Array | None:
    """Return what the columns of `_indicator` stand for where rows have any number of labels; None where they have one."""
    if (sets := _label_sets(y)) is not None:
        return np.array(sorted({label for own in sets for label in own}))
    if getattr(y, "ndim", 2) == 2 and type_of_target(y) == "multilabel-indicator":
        return np.arange(np.shape(y)[1])
    return None


def _indicator(y: Any, names: Array) -> Array:
    """Return which labels each row has: (rows, labels) of 0 and 1. Raises: ValueError for a label that is none of the names."""
    sets = _label_sets(y)
    if sets is None:
        return np.asarray(y.toarray() if hasattr(y, "toarray") else y).astype(int)
    index = {name: at for at, name in enumerate(names.tolist())}
    if unknown := sorted({label for own in sets for label in own} - index.keys()):
        raise ValueError(f"y has the label {unknown[0]!r}; expected some of {', '.join(index)}")
    return np.array([[int(name in own) for name in index] for own in sets])


def _label_sets(y: Any) -> list[Any] | None:
    """Return the labels of each row where y is a list of lists, tuples or sets of texts; else None."""
    rows = y.tolist() if getattr(y, "ndim", 0) == 1 else y
    if not isinstance(rows, list) or not all(isinstance(own, list | tuple | set | frozenset) for own in rows):
        return None
    return rows if all(isinstance(label, str) for own in rows for label in own) else None


def _seed(random_state: Any) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(LARGEST_SEED))


def _records(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Turn columns into rows."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _names_of(classes: Array) -> list[str]:
    """Name the classes of a bundle: texts and whole numbers as they are, where they stay apart as names; else by number."""
    names = [str(value).strip() for value in classes.tolist()]
    plain = all(isinstance(value, str | int) and not isinstance(value, bool) for value in classes.tolist())
    kept = all(not cells.is_missing(name) and name_of_class(name) == name for name in names)
    return names if plain and kept and len({*names}) == len(names) else [f"class {n}" for n in range(len(names))]


def _rename_roles(columns: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Return new names of the columns that a table would not take for features, or for another kind than their cells are."""
    numbers = [name for name in STANDARD_KINDS if name in columns and all(map(_is_number, columns[name]))]
    taken = [name for name in columns if name in (*ROLE_NAMES, *numbers) or name.startswith("meta.")]
    return {name: _unused(f"{name.replace('.', '_')}_", columns) for name in taken}


def _is_number(cell: object) -> bool:
    return isinstance(cell, bool | int | float | np.number | np.bool_) or is_missing(cell)


def _unused(name: str, columns: Mapping[str, object]) -> str:
    """Return a column name that no feature has."""
    while name in columns:
        name += "_"
    return name
