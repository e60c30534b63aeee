"""A stacked classifier as it is written with scikit-learn: the peer of bench-table.

Each modality gets the models that are usual for it: logistic regression on TF-IDF and on frozen features for texts, on
frozen features for pictures and recordings, gradient boosting on columns. A logistic regression is stacked on their
out-of-fold log-probabilities (Wolpert, 1992). An imputer fills in those of a missing modality. There are two forms:

imputed   the second stage sees training rows as they are
dropped   it also sees each row with modalities dropped at random, which a careful practitioner would add
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from mla_serve.evaluation.scores import MISSING_RATES, drop
from mla_serve.fusion.formula import Array

FOLDS = 5
COPIES = 4  # of each row, with modalities dropped
MOST_CATEGORIES = 254  # that gradient boosting takes
LEAST = 1e-6  # probability


@dataclasses.dataclass(frozen=True)
class Part:
    """One modality of N rows.

    present (N,) bool; features (N, D) of a frozen encoder, texts, or cells (a pandas DataFrame), where it has them. Rows
    without the modality hold anything.
    """

    present: Array
    features: Array | None = None
    texts: Sequence[str] | None = None
    cells: Any = None

    def views(self) -> dict[str, Any]:
        """Return what the models of this modality take: {view: rows}."""
        given = {"features": self.features, "texts": np.array(self.texts, dtype=object) if self.texts else None}
        found = {view: rows for view, rows in given.items() if rows is not None}
        return found if self.cells is None else {"cells": self.cells}


class Stacked:
    """Models of every modality, and a logistic regression on their answers."""

    def __init__(self, seed: int, dropped: bool) -> None:
        """Choose the form."""
        self.seed, self.dropped = seed, dropped
        self.models: dict[tuple[str, str], Any] = {}

    def fit(self, parts: Mapping[str, Part], labels: Array) -> Stacked:
        """Fit on rows (N,), labels 0 to C - 1."""
        self.classes = int(labels.max()) + 1
        answers: dict[tuple[str, str], Array] = {}
        for name, part in parts.items():
            for view, rows in part.views().items():
                model, there = self._model(view, rows), part.present
                answers[name, view] = np.full((len(labels), self.classes), np.nan)
                folds = StratifiedKFold(FOLDS, shuffle=True, random_state=self.seed)
                given = cross_val_predict(model, _take(rows, there), labels[there], cv=folds, method="predict_proba")
                answers[name, view][there] = _log(given)
                self.models[name, view] = model.fit(_take(rows, there), labels[there])
        present = {name: part.present for name, part in parts.items()}
        stacked, targets = [self._join(answers, present)], [labels]
        if self.dropped:
            generator = np.random.default_rng(self.seed)
            there = np.array(list(present.values()))
            for rate in MISSING_RATES:
                for _ in range(COPIES):
                    kept = dict(zip(present, drop(there, rate / 100, generator), strict=True))
                    stacked.append(self._join(answers, kept))
                    targets.append(labels)
        self.last = make_pipeline(
            SimpleImputer(add_indicator=True, keep_empty_features=True),
            StandardScaler(),
            LogisticRegression(C=0.1, max_iter=2000),
        ).fit(np.concatenate(stacked), np.concatenate(targets))
        return self

    def answers(self, parts: Mapping[str, Part]) -> dict[tuple[str, str], Array]:
        """Return the log-probabilities of every model (N, C), NaN where its modality is missing."""
        found = {}
        for (name, view), model in self.models.items():
            part = parts[name]
            found[name, view] = np.full((len(part.present), self.classes), np.nan)
            if part.present.any():
                given = model.predict_proba(_take(part.views()[view], part.present))
                found[name, view][part.present] = _log(given)
        return found

    def predict(self, answers: Mapping[tuple[str, str], Array], present: Mapping[str, Array]) -> Array:
        """Return log-probabilities (N, C) from `answers`, using the modalities that are `present`."""
        return _log(self.last.predict_proba(self._join(answers, present)))

    def _join(self, answers: Mapping[tuple[str, str], Array], present: Mapping[str, Array]) -> Array:
        return np.hstack([np.where(present[name][:, None], given, np.nan) for (name, _), given in answers.items()])

    def _model(self, view: str, rows: Any) -> Any:
        if view == "texts":
            words = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2))
            letters = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(2, 4), analyzer="char_wb")
            return make_pipeline(make_union(words, letters), LogisticRegression(C=10, max_iter=2000))
        if view == "features":
            return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        categories = [name for name in rows if rows[name].dtype == object]
        encoder = OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan,
            max_categories=MOST_CATEGORIES,
        )  # fmt: skip
        return make_pipeline(
            make_column_transformer((encoder, categories), remainder="passthrough"),
            HistGradientBoostingClassifier(
                categorical_features=list(range(len(categories))), early_stopping=False, max_iter=100,
                learning_rate=0.05, random_state=self.seed,
            ),
        )  # fmt: skip


def _take(rows: Any, there: Array) -> Any:
    return rows[there] if isinstance(rows, np.ndarray) else rows.loc[there]


def _log(probabilities: Array) -> Array:
    return np.log(np.maximum(probabilities, LEAST))
