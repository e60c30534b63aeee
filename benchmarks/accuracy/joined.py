"""Models of scikit-learn on the features of all modalities side by side: the peers of bench-table for labels and numbers.

labels   logistic regression, one label against the rest, on frozen features and columns. A missing modality is filled in with
         the mean, and an indicator says so. `by pattern` fits a model of its own for each set of modalities, on the training
         rows that have all of them: the most that can be done for missing modalities with this model.
number   gradient boosting, which takes missing values as they are, on the columns alone (`facts`) and on the columns with the
         frozen features (`facts and features`). Its deviation is that of its out-of-fold errors, the same for every row.

Texts without a frozen encoder are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from benchmarks.accuracy.stacked import FOLDS, LEAST, Part
from mla_serve.fusion.formula import Array

RARE = 5  # rows of a category that has a column of its own
REGULARISED = 0.01  # C of the logistic regressions, as in the stacked recipe
Present = Mapping[str, Array]
Answer = Callable[[Mapping[str, Part], Present], Array]
"""Answers rows from what is present of them, (N, A) as a task of mla_serve does."""


def one_against_the_rest(parts: Mapping[str, Part], targets: Array, seed: int) -> Answer:
    """Fit one model to all rows. Args: targets (N, C) of 0, 1 and NaN."""
    return _fit_labels(parts, targets, seed, list(parts))


def by_pattern(parts: Mapping[str, Part], targets: Array, seed: int) -> Answer:
    """Fit a model for each set of modalities that is asked for, on the rows that have all of them."""
    models: dict[tuple[str, ...], Answer] = {}

    def answer(given: Mapping[str, Part], present: Present) -> Array:
        patterns = np.array([present[name] for name in parts])
        answers = np.zeros((patterns.shape[1], targets.shape[1]))
        for pattern in np.unique(patterns, axis=1).T:
            names = tuple(name for name, there in zip(parts, pattern, strict=True) if there)
            rows = (patterns == pattern[:, None]).all(axis=0)
            if names:
                if names not in models:
                    models[names] = _fit_labels(_having(parts, names), targets[_all(parts, names)], seed, names)
                answers[rows] = models[names](_rows(given, names, rows), {name: present[name][rows] for name in names})
        return answers

    return answer


def facts(parts: Mapping[str, Part], targets: Array, seed: int) -> Answer:
    """Fit gradient boosting to the columns alone. Args: targets (N,), standardised."""
    return _fit_number({name: part for name, part in parts.items() if part.cells is not None}, targets, seed)


def facts_and_features(parts: Mapping[str, Part], targets: Array, seed: int) -> Answer:
    """Fit gradient boosting to the columns and the frozen features."""
    return _fit_number(parts, targets, seed)


PEERS: dict[str, dict[str, Callable[[Mapping[str, Part], Array, int], Answer]]] = {
    "labels": {"one against the rest": one_against_the_rest, "one against the rest, by pattern": by_pattern},
    "number": {"facts": facts, "facts and features": facts_and_features},
}
"""Task -> name of a peer -> what fits it."""


def _all(parts: Mapping[str, Part], names: Sequence[str]) -> Array:
    there: Array = np.all([parts[name].present for name in names], axis=0)
    return there


def _having(parts: Mapping[str, Part], names: Sequence[str]) -> dict[str, Part]:
    return _rows(parts, names, _all(parts, names))


def _rows(parts: Mapping[str, Part], names: Sequence[str], rows: Array) -> dict[str, Part]:
    found = {}
    for name in names:
        part = parts[name]
        features = None if part.features is None else part.features[rows]
        cells = None if part.cells is None else part.cells.loc[rows].reset_index(drop=True)
        found[name] = Part(part.present[rows], features, None, cells)
    return found


def _side_by_side(
    given: Mapping[str, Part], present: Present, names: Sequence[str], encoders: Mapping[str, Any]
) -> list[Array]:
    """Return the numbers of each modality, NaN where it is missing. Args: encoders, of cells, by modality."""
    found = []
    for name in names:
        values = encoders[name].transform(given[name].cells) if name in encoders else given[name].features
        if values is not None:
            found.append(np.where(present[name][:, None], np.asarray(values, dtype=float), np.nan))
    return found


def _fit_labels(parts: Mapping[str, Part], targets: Array, seed: int, names: Sequence[str]) -> Answer:
    encoders = {name: _cell_encoder(parts[name].cells) for name in names if parts[name].cells is not None}
    for name, encoder in encoders.items():
        encoder.fit(parts[name].cells.loc[parts[name].present])
    scaler = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())

    def matrix(given: Mapping[str, Part], present: Present) -> Array:
        indicators = [present[name][:, None].astype(float) for name in names]
        return np.hstack([*_side_by_side(given, present, names, encoders), *indicators])

    x = scaler.fit_transform(matrix(parts, {name: parts[name].present for name in names}))
    models = [_fit_one(x, targets[:, c], seed) for c in range(targets.shape[1])]

    def answer(given: Mapping[str, Part], present: Present) -> Array:
        p = np.array([model(scaler.transform(matrix(given, present))) for model in models]).T.clip(LEAST, 1 - LEAST)
        log_odds: Array = np.log(p) - np.log1p(-p)
        return log_odds

    return answer


def _fit_one(x: Array, y: Array, seed: int) -> Callable[[Array], Array]:
    """Fit one label, on the rows in which it is known; the frequency where it does not vary."""
    known = ~np.isnan(y)
    if not 0 < y[known].sum() < known.sum():
        frequency = (np.nansum(y) + 1) / (known.sum() + 2)
        return lambda rows: np.full(len(rows), frequency)
    model = LogisticRegression(C=REGULARISED, max_iter=2000, random_state=seed).fit(x[known], y[known])
    return lambda rows: model.predict_proba(rows)[:, 1]


def _cell_encoder(cells: Any) -> Any:
    categories = [name for name in cells if cells[name].dtype == object]
    numbers = [name for name in cells if cells[name].dtype != object]
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=RARE, sparse_output=False)
    imputed = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return make_column_transformer((one_hot, categories), (imputed, numbers))


def _fit_number(parts: Mapping[str, Part], targets: Array, seed: int) -> Answer:
    names = list(parts)
    encoders = {name: _ordinal(parts[name].cells) for name in names if parts[name].cells is not None}
    categorical: list[bool] = []

    def matrix(given: Mapping[str, Part], present: Present) -> Array:
        return np.hstack(_side_by_side(given, present, names, encoders))

    for name in names:
        if name in encoders:
            encoders[name].fit(parts[name].cells)
            many = sum(parts[name].cells[column].dtype == object for column in parts[name].cells)
            categorical += [True] * many + [False] * (len(list(parts[name].cells)) - many)
        elif (features := parts[name].features) is not None:
            categorical += [False] * features.shape[1]
    x = matrix(parts, {name: parts[name].present for name in names})
    model = HistGradientBoostingRegressor(
        categorical_features=np.array(categorical), early_stopping=False, max_iter=100, learning_rate=0.05,
        random_state=seed,
    )  # fmt: skip
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    variance = float(np.square(cross_val_predict(model, x, targets, cv=folds) - targets).mean())
    model.fit(x, targets)

    def answer(given: Mapping[str, Part], present: Present) -> Array:
        mean = model.predict(matrix(given, present))
        return np.stack([mean, np.full(len(mean), variance)], axis=1)

    return answer


def _ordinal(cells: Any) -> Any:
    categories = [name for name in cells if cells[name].dtype == object]
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan, max_categories=254
    )
    return make_column_transformer((encoder, categories), remainder="passthrough")
