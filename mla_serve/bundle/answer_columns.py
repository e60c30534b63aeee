"""The columns of answers in a table: which there are for each task, and the cell of an answer in each.

Data frames (mla_serve/python/answers.py) and files (mla_serve/bulk/score.py) have the same. A new task adds its line to ANSWER
and to BOUNDS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Literal

Kind = Literal["label", "labels", "number", "yes_no", "text", "texts"]


@dataclasses.dataclass(frozen=True)
class Column:
    """One column: its name, what its cells are, and the cell of a prediction in it."""

    name: str
    kind: Kind
    cell: Callable[[Any], Any]


ENTROPY = Column("entropy", "number", attrgetter("entropy"))
MISSING = Column("missing", "texts", attrgetter("missing"))
ANSWER: Mapping[str, tuple[Column, ...]] = {
    "classes": (
        Column("label", "label", attrgetter("label")),
        Column("probability", "number", attrgetter("probability")),
        ENTROPY,
    ),
    "labels": (Column("labels", "labels", attrgetter("labels")), ENTROPY),
    "number": (
        Column("value", "number", attrgetter("value")),
        Column("deviation", "number", attrgetter("deviation")),
        ENTROPY,
    ),
}
"""The columns of the answer itself, by the name of the task."""
SET = (
    Column("prediction_set", "labels", attrgetter("prediction_set.labels")),
    Column("pooled", "yes_no", attrgetter("prediction_set.pooled")),
)
INTERVAL = (
    Column("interval_low", "number", attrgetter("interval.low")),
    Column("interval_high", "number", attrgetter("interval.high")),
    Column("pooled", "yes_no", attrgetter("interval.pooled")),
)
BOUNDS: Mapping[str, tuple[Column, ...]] = {"classes": SET, "labels": SET, "number": INTERVAL}
"""The columns that a requested coverage adds, by the name of the task."""
OPINION = ("weight", "influence", "unfamiliarity")
"""What a table holds of each modality."""
