"""Frozen results that the predictor returns, the service sends and the client reads. Standard library only.

What an answer holds depends on the task. PREDICTIONS lists one class for each.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from mla_serve.bundle.drawing import (
    Bar,
    Cell,
    Drawing,
    Rows,
    axis_rows,
    format_number,
    in_unit,
    opinion_rows,
    to_html,
    to_rich,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")
SHOWN_LABELS = 5  # in a drawing
DEFAULT_TOP_K = 20  # labels that an answer lists by default


class FromDict:
    """A dataclass that can be restored from the result of `dataclasses.asdict`."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Build from plain dicts and lists. Entries that this version does not know are ignored.

        Raises: KeyError, TypeError or AttributeError when the content does not fit.
        """
        return _build(cls, content)


@dataclasses.dataclass(frozen=True)
class ModelId(FromDict):
    """Which model answered: its name and the hash of its manifest."""

    name: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class LabelProbability(FromDict):
    """A label and its probability, 0 to 1."""

    label: str
    probability: float


@dataclasses.dataclass(frozen=True)
class LabelDecision(LabelProbability):
    """A label, its probability, the threshold from which it is answered, and whether it is."""

    threshold: float
    answered: bool


@dataclasses.dataclass(frozen=True)
class PredictionSet(FromDict):
    """Labels that contain the true ones, the most probable first.

    coverage: how often, as requested: how often the true class is in it; for a model of labels, the share of a row's true
    labels that are in it, on average.
    rows: validation rows that the set rests on. pooled: whether they include rows with other modalities than this sample has.
    """

    labels: list[str]
    coverage: float
    rows: int
    pooled: bool


@dataclasses.dataclass(frozen=True)
class Interval(FromDict):
    """A range that contains the true number, in the user's unit; None for an end that is not known.

    coverage, rows, pooled: as of a PredictionSet.
    """

    low: float | None
    high: float | None
    coverage: float
    rows: int
    pooled: bool


class Opinion(FromDict):
    """The part of one modality in an answer, and the answer that it would give by itself.

    weight: its weight in the fusion.
    influence: how much the answer depends on it: the log-probability of what is answered, minus that without this modality, in
    nats; for a number, by how much this modality raises the value, in its unit.
    entropy: of the answer of this modality by itself, in nats.
    unfamiliarity: share of validation inputs that were more like the training data than this one, 0 to 1; 0.5 is typical.
    None when the bundle has no reference for this modality.
    """

    weight: float
    influence: float
    entropy: float
    unfamiliarity: float | None


@dataclasses.dataclass(frozen=True)
class ClassOpinion(Opinion):
    """An opinion, with the most probable class of this modality by itself."""

    weight: float
    influence: float
    entropy: float
    label: str
    probability: float
    unfamiliarity: float | None = None


@dataclasses.dataclass(frozen=True)
class LabelsOpinion(Opinion):
    """An opinion, with the labels that this modality would answer by itself, the most probable first.

    probabilities: of every label that the answer lists, in the same order, by this modality alone.
    without: the labels that would be answered without this modality, the most probable first; None if no other was given.
    """

    weight: float
    influence: float
    entropy: float
    labels: list[LabelProbability]
    probabilities: list[LabelProbability] = dataclasses.field(default_factory=list)  # empty from older services
    without: list[str] | None = None
    unfamiliarity: float | None = None


@dataclasses.dataclass(frozen=True)
class NumberOpinion(Opinion):
    """An opinion, with the value of this modality by itself and its standard deviation, in the user's unit."""

    weight: float
    influence: float
    entropy: float
    value: float
    deviation: float
    unfamiliarity: float | None = None


class Prediction(FromDict):
    """One answer. Which class it has depends on what the model predicts, see PREDICTIONS.

    entropy: of the answer, in nats. fusion: the rule. modalities: what each modality contributed. missing: modalities that
    were not given. model: which one answered; None from Python.
    """

    entropy: float
    fusion: str
    modalities: Mapping[str, Opinion]
    missing: list[str]
    model: ModelId | None

    answer: ClassVar[str]
    """The field that holds the answer; no two classes have the same."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Build the class that the content is of.

        Raises: KeyError, TypeError or AttributeError when the content does not fit.
        """
        if cls is not Prediction:
            return super().from_dict(content)
        kind = next((kind for kind in PREDICTIONS.values() if kind.answer in content), None)
        if kind is None:
            raise KeyError(" or ".join(kind.answer for kind in PREDICTIONS.values()))
        return typing.cast(Self, kind.from_dict(content))

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists, as the service sends them."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return] # every subclass is a dataclass

    def by_label(self) -> dict[str, float]:
        """Return the listed probabilities as {label: probability}; none for a number."""
        return {}

    def summary(self) -> str:
        """Write the answer in a few words."""
        raise NotImplementedError

    def drawing(self) -> Drawing:
        """Return what is shown of the answer."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Write the answer and the weights in one line."""
        weights = ", ".join(f"{name} {opinion.weight:.2f}" for name, opinion in self.modalities.items())
        missing = f", missing: {', '.join(self.missing)}" if self.missing else ""
        return f"<{type(self).__name__} {self.summary()}, weights: {weights}{missing}>"

    def __rich__(self) -> RenderableType:
        """Draw answer, weights and probabilities, for `rich.print`."""
        return to_rich(self.drawing())

    def _repr_html_(self) -> str:
        """Draw the same for a notebook."""
        return to_html(self.drawing())


@dataclasses.dataclass(frozen=True, repr=False)
class ClassPrediction(Prediction):
    """One of several classes: label, probability, and those of other classes.

    probabilities: `top_k` labels, or DEFAULT_TOP_K, the most probable first. A list, because JSON objects have no order:
    JavaScript sorts keys such as "14" by number.
    prediction_set: labels that contain the true one at the requested coverage; None when no coverage was requested.
    """

    label: str
    probability: float
    probabilities: list[LabelProbability]
    entropy: float
    fusion: str
    modalities: dict[str, ClassOpinion]
    missing: list[str]
    prediction_set: PredictionSet | None = None
    model: ModelId | None = None

    answer = "label"

    def by_label(self) -> dict[str, float]:
        """Return the listed probabilities as {label: probability}."""
        return {each.label: each.probability for each in self.probabilities}

    def summary(self) -> str:
        """Write label and probability."""
        return f"{self.label!r} {self.probability:.1%}"

    def drawing(self) -> Drawing:
        """Show the label, what each modality says by itself, and the most probable classes."""
        said = {name: (each.label, f"{each.probability:.1%}") for name, each in self.modalities.items()}
        classes: list[tuple[Cell, ...]] = [
            (each.label, f"{each.probability:.1%}", Bar(each.probability)) for each in self.probabilities[:SHOWN_LABELS]
        ]
        return Drawing(
            self.label,
            f"{self.probability:.1%}",
            self.entropy,
            opinion_rows(self.modalities, ("by itself", "probability"), said),
            _notes(self.missing, self.prediction_set),
            Rows(("class", "probability", ""), classes),
        )


@dataclasses.dataclass(frozen=True, repr=False)
class LabelsPrediction(Prediction):
    """Any number of labels: those that are answered, and how probable each one is.

    labels: those whose probability reaches their threshold, the most probable first; there may be none.
    probabilities: `top_k` labels, or DEFAULT_TOP_K, answered or not, the most probable first.
    prediction_set: labels that contain the requested share of the true ones; None when no coverage was requested.
    """

    labels: list[str]
    probabilities: list[LabelDecision]
    entropy: float
    fusion: str
    modalities: dict[str, LabelsOpinion]
    missing: list[str]
    prediction_set: PredictionSet | None = None
    model: ModelId | None = None

    answer = "labels"

    def by_label(self) -> dict[str, float]:
        """Return the listed probabilities as {label: probability}."""
        return {each.label: each.probability for each in self.probabilities}

    def summary(self) -> str:
        """Write the answered labels."""
        return f"{self.labels!r}"

    def drawing(self) -> Drawing:
        """Show the answered labels, what each modality says by itself, and how probable each label is beside its threshold."""
        said = {name: (_listed(each.labels),) for name, each in self.modalities.items()}
        labels: list[tuple[Cell, ...]] = [
            (each.label, f"{each.probability:.1%}", Bar(each.probability), f"{each.threshold:.1%}", "✓" * each.answered)
            for each in self.probabilities[: max(SHOWN_LABELS, len(self.labels))]
        ]
        return Drawing(
            ", ".join(self.labels) or "no label",
            "",
            self.entropy,
            opinion_rows(self.modalities, ("by itself",), said),
            _notes(self.missing, self.prediction_set),
            Rows(("label", "probability", "", "threshold", "answered"), labels),
        )


@dataclasses.dataclass(frozen=True, repr=False)
class NumberPrediction(Prediction):
    """A number: its value in the unit of the training table, "" where none is known, and its standard deviation.

    interval: a range that contains the true number at the requested coverage; None when no coverage was requested.
    """

    value: float
    unit: str
    deviation: float
    entropy: float
    fusion: str
    modalities: dict[str, NumberOpinion]
    missing: list[str]
    interval: Interval | None = None
    model: ModelId | None = None

    answer = "value"

    def summary(self) -> str:
        """Write value and deviation."""
        return in_unit(f"{format_number(self.value, self.deviation)} ± {format_number(self.deviation)}", self.unit)

    def drawing(self) -> Drawing:
        """Show the value, what each modality says by itself, and all these values on one axis.

        Each has a range of one deviation to both sides, but the answer has its interval where there is one.
        """
        said = {
            name: (format_number(each.value, each.deviation), format_number(each.deviation))
            for name, each in self.modalities.items()
        }
        given: dict[str, NumberPrediction | NumberOpinion] = {"answer": self, **self.modalities}
        ranges = {name: (n.value - n.deviation, n.value, n.value + n.deviation) for name, n in given.items()}
        if (found := self.interval) is not None:
            low, at, high = ranges["answer"]
            ranges["answer"] = (low if found.low is None else found.low, at, high if found.high is None else found.high)
        return Drawing(
            in_unit(format_number(self.value, self.deviation), self.unit),
            f"± {format_number(self.deviation)}",
            self.entropy,
            opinion_rows(self.modalities, ("by itself", "deviation"), said),
            _notes(self.missing, found, self.unit, self.deviation),
            axis_rows(ranges),
        )


PREDICTIONS: dict[str, type[Prediction]] = {
    "classes": ClassPrediction,
    "labels": LabelsPrediction,
    "number": NumberPrediction,
}
"""The class of an answer, by the name of the task."""


def _notes(
    missing: Sequence[str], found: PredictionSet | Interval | None, unit: str = "", deviation: float = 1.0
) -> list[str]:
    """Write which modalities are missing, and the set or interval, with what it promises and rests on."""
    notes = [f"missing: {', '.join(missing)}"] if missing else []
    if found is None:
        return notes
    basis = f"({found.coverage:.0%}{', from rows with other modalities too' if found.pooled else ''})"
    if isinstance(found, PredictionSet):
        return [*notes, f"prediction set: {', '.join(found.labels)} {basis}"]
    ends = ["?" if end is None else format_number(end, deviation) for end in (found.low, found.high)]
    return [*notes, f"interval: {in_unit(' to '.join(ends), unit)} {basis}"]


def _listed(labels: Sequence[LabelProbability]) -> str:
    shown = ", ".join(f"{each.label} {each.probability:.1%}" for each in labels[:SHOWN_LABELS])
    return shown + (", ..." if len(labels) > SHOWN_LABELS else "")


@dataclasses.dataclass(frozen=True)
class Embedding(FromDict):
    """The reply of /embed: the encoder's features of each modality."""

    features: dict[str, list[float]]
    model: ModelId


def _build(cls: Callable[..., T], content: Mapping[str, Any]) -> T:
    types_of = _field_types(cls)
    return cls(**{name: _convert(types_of[name], value) for name, value in content.items() if name in types_of})


@functools.cache
def _field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _convert(kind: Any, value: Any) -> Any:
    """Convert a JSON value to the type of a field, when the type is or contains a FromDict class."""
    if isinstance(kind, type) and issubclass(kind, FromDict):
        return _build(kind, value)
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is list:
        return [_convert(arguments[0], each) for each in value]
    if origin is dict:
        return {key: _convert(arguments[1], each) for key, each in value.items()}
    if origin in (typing.Union, types.UnionType) and value is not None:
        wanted = next((each for each in arguments if isinstance(each, type) and issubclass(each, FromDict)), None)
        return _convert(wanted, value) if wanted else value
    return value
