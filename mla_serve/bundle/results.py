"""Frozen results that the predictor returns, the service sends and the client reads. Standard library only."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

T = TypeVar("T")
BAR_WIDTH = 24  # characters
SHOWN_CLASSES = 5
NUMERIC_COLUMNS = ("weight", "probability", "influence", "unfamiliar")
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
class Opinion(FromDict):
    """The part of one modality in an answer, and the answer that it would give by itself.

    weight: its weight in the fusion.
    influence: the log-probability of the answer, minus that without this modality, in nats.
    entropy, label, probability: of the answer of this modality by itself; entropy in nats.
    unfamiliarity: share of validation inputs that were more like the training data than this one, 0 to 1; 0.5 is typical.
    None when the bundle has no reference for this modality.
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
    """One answer: label, probability, entropy in nats, fusion rule, opinions by modality, missing modalities.

    probabilities: `top_k` labels, or DEFAULT_TOP_K, the most probable first. A list, because JSON objects have no order:
    JavaScript sorts keys such as "14" by number.
    prediction_set: labels that contain the true one at the requested coverage; None when no coverage was requested.
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
        return _draw(self)

    def _repr_html_(self) -> str:
        """Draw the same for a notebook."""
        return _draw_html(self)


def bar(share: float, width: int = BAR_WIDTH) -> str:
    """Draw a share of 1 as a bar, to an eighth of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def _draw(answer: Prediction) -> RenderableType:
    """Draw the answer, the opinion and weight of each modality, and the most probable classes."""
    from rich.console import Group  # here, because most users of results never draw them
    from rich.text import Text

    headline = Text.assemble(
        (answer.label, "bold green"), f"  {answer.probability:.1%}", (f"   entropy {answer.entropy:.3f} nats", "dim")
    )
    known = any(opinion.unfamiliarity is not None for opinion in answer.modalities.values())
    last = ["unfamiliar"] if known else []
    opinions = _grid("modality", "weight", "", "by itself", "probability", "influence", *last)
    for name, opinion in answer.modalities.items():
        shown = "" if opinion.unfamiliarity is None else f"{opinion.unfamiliarity:.0%}"
        opinions.add_row(
            Text(name),
            f"{opinion.weight:.2f}",
            Text(bar(opinion.weight), "cyan"),
            Text(opinion.label),
            f"{opinion.probability:.1%}",
            f"{opinion.influence:+.3f}",
            *([shown] if known else []),
        )
    classes = _grid("class", "probability", "")
    for each in answer.probabilities[:SHOWN_CLASSES]:
        classes.add_row(Text(each.label), f"{each.probability:.1%}", Text(bar(each.probability), "green"))
    notes = [Text(f"missing: {', '.join(answer.missing)}", "dim")] if answer.missing else []
    if answer.prediction_set is not None:
        notes.append(Text(f"prediction set: {', '.join(answer.prediction_set)}"))
    return Group(headline, Text(), opinions, *notes, Text(), classes)


def _draw_html(answer: Prediction) -> str:
    """Draw what `_draw` draws as HTML."""
    from html import escape  # here, because most users of results never draw them

    from mla_serve.bundle.html import FRAME, bar_cell, table

    headline = f"<b>{escape(answer.label)}</b> {answer.probability:.1%}"
    opinions = [
        [
            escape(name),
            f"{opinion.weight:.2f}",
            bar_cell(opinion.weight),
            escape(opinion.label),
            f"{opinion.probability:.1%}",
            f"{opinion.influence:+.3f}",
            "" if opinion.unfamiliarity is None else f"{opinion.unfamiliarity:.0%}",
        ]
        for name, opinion in answer.modalities.items()
    ]
    classes = [
        [escape(each.label), f"{each.probability:.1%}", bar_cell(each.probability)]
        for each in answer.probabilities[:SHOWN_CLASSES]
    ]
    notes = [f"missing: {', '.join(answer.missing)}"] if answer.missing else []
    if answer.prediction_set is not None:
        notes.append(f"prediction set: {', '.join(answer.prediction_set)}")
    parts = (
        f'<div>{headline} <span style="opacity:.7">entropy {answer.entropy:.3f} nats</span></div>',
        table(("modality", "weight", "", "by itself", "probability", "influence", "unfamiliar"), opinions),
        *(f'<div style="opacity:.7">{escape(note)}</div>' for note in notes),
        table(("class", "probability", ""), classes),
    )
    return FRAME.format("".join(parts))


def _grid(*titles: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in titles:
        table.add_column(title, justify="right" if title in NUMERIC_COLUMNS else "left")
    return table


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
