"""The settings that rebuild a pretrained encoder without the folder it came from. The recipe of a run holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from mla_serve.train.pretrained import PREFIX


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """One encoder, in plain values that JSON can hold.

    source: without local paths. tune: one of TUNES. rank: of the LoRA matrices. config: of the transformers model. front:
    the settings of a front in fronts.py. pooling: how its output becomes one vector. size: of that vector. weights: the
    sha256 of the loaded weights.
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
        """Describe the encoder in one line."""
        tune = f"{self.tune} of rank {self.rank}" if self.tune == "lora" else self.tune
        return f"{PREFIX}{self.source}, {tune}, {self.size} features by {self.pooling}, weights {self.weights[:12]}"


def shown(source: str) -> str:
    """Return a source without local paths: owner/name as it is, of a folder its last name."""
    path = PurePath(source)
    is_name = len(path.parts) <= 2 and not source.startswith((".", "~", "/"))
    return source if is_name else path.name
