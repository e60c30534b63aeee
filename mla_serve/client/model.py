"""The reply of GET /model."""

from __future__ import annotations

import dataclasses
from typing import Any

from mla_serve.bundle.drawing import in_unit
from mla_serve.bundle.results import FromDict


@dataclasses.dataclass(frozen=True)
class Column(FromDict):
    """One column, as it was in training: its type; of a category its frequent values; of a number or date its range."""

    name: str
    type: str
    values: list[str]
    value_count: int
    low: float | str | None = None
    middle: float | None = None
    high: float | str | None = None


@dataclasses.dataclass(frozen=True)
class Modality(FromDict):
    """How one modality is sent: its kind; as file, text, numbers or cells; accepted formats; shape of the decoded array."""

    kind: str
    sent_as: str
    formats: list[str]
    shape: list[int]
    input: dict[str, Any]
    columns: list[Column] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class LabelThreshold(FromDict):
    """A label, and the probability from which it is answered."""

    label: str
    threshold: float


@dataclasses.dataclass(frozen=True)
class NumberTarget(FromDict):
    """The number that is answered: its column and unit; whether its logarithm was learned; its range in training."""

    column: str
    unit: str
    log: bool
    decimals: int
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class Model(FromDict):
    """The model of a service: identity, what it answers, modalities, fusion, measured scores, versions and limits.

    task: classes, labels or number; the field of that name describes it, and the two others are empty.
    coverage: the highest coverage that the validation rows allow: {fusion rule: {modalities such as "image+text": coverage}}.
    """

    name: str
    sha256: str
    created: str
    modalities: dict[str, Modality]
    fusion: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, Any]
    limits: dict[str, float | None]
    task: str = "classes"
    classes: list[str] = dataclasses.field(default_factory=list)
    labels: list[LabelThreshold] = dataclasses.field(default_factory=list)
    number: NumberTarget | None = None
    coverage: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def describe_answer(self) -> str:
        """Write what is answered, such as "3 classes"."""
        if self.number is not None:
            return in_unit(f"the number {self.number.column}".rstrip(), self.number.unit and f"in {self.number.unit}")
        return f"any of {len(self.labels)} labels" if self.labels else f"{len(self.classes)} classes"

    def __repr__(self) -> str:
        """Write the name, the modalities and what is answered."""
        reads = ", ".join(f"{name} ({modality.kind})" for name, modality in self.modalities.items())
        return f"<Model {self.name!r} {self.sha256[:12]}, reads {reads}, answers {self.describe_answer()}>"
