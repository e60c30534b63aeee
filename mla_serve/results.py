"""What is answered: frozen results that the predictor makes, the service sends and the client reads. Standard library alone."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")
DEFAULT_TOP_K = 20  # labels that an answer lists where the caller does not say how many


class FromDict:
    """A dataclass that is read back from what `dataclasses.asdict` makes of it."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Build from plain dicts and lists; entries that this version does not know are left out.

        Raises: KeyError, TypeError or AttributeError when the content is something else.
        """
        return _build(cls, content)


@dataclasses.dataclass(frozen=True)
class Opinion(FromDict):
    """What one modality said: its share of the fusion, what the answer owes to it (nats), its own answer.

    unfamiliarity: share of validation inputs that were more like the training data than this one, 0 to 1; None where
    the bundle cannot tell.
    """

    weight: float
    influence: float
    entropy: float
    label: str
    probability: float
    unfamiliarity: float | None = None


@dataclasses.dataclass(frozen=True)
class LabelProbability(FromDict):
    """A label and its probability, 0 to 1."""

    label: str
    probability: float


@dataclasses.dataclass(frozen=True, repr=False)
class Prediction(FromDict):
    """One answer: label, probabilities, entropy in nats, each modality's opinion, what was missing.

    probabilities: the most probable label first; `top_k` of them, or DEFAULT_TOP_K. A list, since JSON objects have no
    order: JavaScript sorts keys such as "14" by number.
    prediction_set: labels that hold the true one as often as the caller's coverage says; None where none was asked for.
    """

    label: str
    probability: float
    probabilities: list[LabelProbability]
    entropy: float
    fusion: str
    modalities: dict[str, Opinion]
    missing: list[str]
    prediction_set: list[str] | None = None

    def by_label(self) -> dict[str, float]:
        """Return the listed probabilities as {label: probability}."""
        return {each.label: each.probability for each in self.probabilities}

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists, as the service sends them."""
        return dataclasses.asdict(self)

    def __repr__(self) -> str:
        """Write label, probability and weights in one line."""
        weights = ", ".join(f"{name} {opinion.weight:.2f}" for name, opinion in self.modalities.items())
        missing = f", missing: {', '.join(self.missing)}" if self.missing else ""
        return f"<{type(self).__name__} {self.label!r} {self.probability:.1%}, weights: {weights}{missing}>"

    def __rich__(self) -> RenderableType:
        """Draw label, weights and probabilities, for `rich.print`."""
        from mla_serve.show import prediction

        return prediction(self)


@dataclasses.dataclass(frozen=True)
class ModelId(FromDict):
    """Which model answered: its name and the hash of its manifest."""

    name: str
    sha256: str


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)  # bases may have defaults
class Answer(Prediction):
    """The reply of /predict."""

    model: ModelId


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
    """Bring a JSON value to a field's type where that is, or holds, one of the classes here."""
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
