"""A classifier for scikit-learn: it trains and asks a bundle, so that cross-validation and pipelines can use it.

from mla_serve.sklearn import MultimodalClassifier

cross_val_score(MultimodalClassifier(epochs=10), frame.drop(columns="category"), frame["category"])
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from mla_serve.inputs import Array
from mla_serve.payloads import is_missing
from mla_serve.python.fit import fit
from mla_serve.python.given import is_frame
from mla_serve.table import cells
from mla_serve.table.declaration import STANDARD_KINDS
from mla_serve.table.label_forms import name_of_class

LARGEST_SEED = 2**31 - 1
ROLE_NAMES = ("split", "id", "present")
"""Columns of a table that `mla_serve.fit` takes for something else than a feature, by their name alone."""


class MultimodalClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Classify the rows of a table of pictures, recordings, texts, numbers, categories and dates.

    X is a pandas DataFrame, whose cells may be paths, PIL images, arrays and so on, or an array of numbers (rows, columns),
    whose columns are called x0, x1, ... NaN, None and blank cells are missing. A fifth of the rows of `fit` is held out to
    choose the best epoch and to calibrate.

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

    Attributes: classes_, the labels, sorted; model_, the mla_serve.Predictor; n_features_in_; feature_names_in_.
    """

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

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows X with labels y. Raises: ValueError for what scikit-learn refuses; DataError, ConfigError."""
        rows, y = self._checked(X, y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y has only one class, {self.classes_[0]!r}; expected at least two; add rows of another")
        names = _names_of(self.classes_)
        by_class = dict(zip(self.classes_.tolist(), names, strict=True))
        self._renamed = _rename_roles(rows)
        rows = self._rename(rows)
        label = _unused("label", rows)
        labelled = rows | {label: [by_class[value] for value in y.tolist()]}
        with tempfile.TemporaryDirectory() as scratch:
            own = {
                "task": "classes",
                "epochs": self.epochs,
                "seed": _seed(self.random_state),
                "runs": Path(scratch, "runs"),
            }
            self.model_ = fit(
                {"train": _records(labelled)},
                label,
                self.out or Path(scratch, "classifier"),
                kinds={**self._number_kinds(X, rows), **self._rename(self.kinds or {})},
                folder=self.folder,
                verbose=self.verbose,
                **(own | self._renamed_settings()),
            )
        self._order = [self.model_.classes.index(name) for name in names]
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, (rows, classes), in the order of classes_. NaN for a row without any input."""
        check_is_fitted(self)
        columns, _ = self._checked(X)
        if is_frame(X):
            return self._ask(X.rename(columns=self._renamed))[:, self._order]
        rows = _records(columns)
        known = np.array([not all(map(is_missing, row.values())) for row in rows])
        found = np.full((len(rows), len(self.classes_)), np.nan)
        if known.any():
            found[known] = self._ask([row for row, there in zip(rows, known, strict=True) if there])[:, self._order]
        return found

    def _ask(self, data: Any) -> Array:
        return np.asarray(self.model_.predict_proba(data, folder=self.folder, verbose=self.verbose), dtype=np.float64)

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each row. Raises: ValueError for a row without any input."""
        probabilities = self.predict_proba(X)
        if len(empty := np.flatnonzero(np.isnan(probabilities).any(axis=1))):
            raise ValueError(
                f"row {empty[0]} has no value that can be read; fill one, or leave out {len(empty)} such rows"
            )
        labels: Array = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags

    def _checked(self, X: Any, y: Any = None) -> tuple[dict[str, list[Any]], Any]:
        """Check the shapes as scikit-learn asks; return the columns by name, and y. In `fit`, where y is given, they are new."""
        if is_frame(X):
            validate_data(self, X, reset=y is not None, skip_check_array=True)
            columns = {str(name): X[name].tolist() for name in X.columns}
        else:
            X = validate_data(self, X, reset=y is not None, ensure_all_finite="allow-nan", dtype="numeric")
            columns = {f"x{number}": X[:, number].tolist() for number in range(X.shape[1])}
        if y is None:
            return columns, None
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
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
