"""What rebuilds a pretrained encoder without the folder that it came from; kept in the recipe of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from mla_serve.train.pretrained import PREFIX


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """One encoder: plain values only, so that it can stand in JSON.

    source, as it may be shown; tune, one of TUNES; rank of the LoRA matrices; config, that of the transformers model;
    front, the numbers of its preprocessing, by which fronts.py computes; pooling, how one vector is made of its output;
    size of that vector; weights, the sha256 of what was loaded.
    """

    source: str
    tune: str
    rank: int
    config: Mapping[str, Any]
    front: Mapping[str, Any]
    pooling: str
    size: int
    weights: str

    @property
    def note(self) -> str:
        """Say what it is in a line."""
        tune = f"{self.tune} of rank {self.rank}" if self.tune == "lora" else self.tune
        return f"{PREFIX}{self.source}, {tune}, {self.size} features by {self.pooling}, weights {self.weights[:12]}"


def shown(source: str) -> str:
    """Name a source without the path of this machine: an owner/name as it is, of a folder its own name."""
    path = PurePath(source)
    is_name = len(path.parts) <= 2 and not source.startswith((".", "~", "/"))
    return source if is_name else path.name
