"""The reply of GET /model."""

from __future__ import annotations

import dataclasses
from typing import Any

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


@dataclasses.dataclass(frozen=True, repr=False)
class Model(FromDict):
    """The model of a service: identity, classes, modalities, fusion, measured scores, versions and limits."""

    name: str
    sha256: str
    created: str
    classes: list[str]
    modalities: dict[str, Modality]
    fusion: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, Any]
    limits: dict[str, float | None]

    def __repr__(self) -> str:
        """Write the name, the modalities and the number of classes."""
        reads = ", ".join(f"{name} ({modality.kind})" for name, modality in self.modalities.items())
        return f"<Model {self.name!r} {self.sha256[:12]}, reads {reads}, {len(self.classes)} classes>"
