"""Choose each modality's input from the training data: size, rate, window, tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import overload

from mla_serve.errors import ConfigError
from mla_serve.inputs import INPUTS, Input, Payload
from mla_serve.table import Row, read_payload
from mla_serve.table.cells import Value
from mla_serve.train.config import TrainConfig
from mla_serve.train.encoders import default_encoder

MAX_FILES = 500  # opened to choose a size or rate


def choose_inputs(rows: Sequence[Row], kinds: Mapping[str, str], config: TrainConfig) -> dict[str, Input]:
    """Choose an input for every modality from the training rows: {name: kind} -> {name: input}."""
    for name in kinds:
        if not any(name in row.values for row in rows):
            raise ConfigError(f"modality {name}: no training row has it; leave it out with --modalities")
    return {name: _choose_input(rows, name, kinds, config) for name in kinds}


def _choose_input(rows: Sequence[Row], name: str, kinds: Mapping[str, str], config: TrainConfig) -> Input:
    encoder, kind = default_encoder(kinds[name]), kinds[name]
    names = [other for other in kinds if kinds[other] == kind] if encoder.chooses_one_input else [name]
    values = (row.values[name] for row in rows for name in names if name in row.values)
    return encoder.choose_input(
        _Payloads(list(islice(values, MAX_FILES if INPUTS[kind].sent_as == "file" else None))), config
    )


class _Payloads(Sequence[Payload]):
    """The payloads of values; a file is read when it is asked for, so that one is in memory at a time."""

    def __init__(self, values: Sequence[Value]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, at: int) -> Payload: ...

    @overload
    def __getitem__(self, at: slice) -> _Payloads: ...

    def __getitem__(self, at: int | slice) -> Payload | _Payloads:
        return _Payloads(self._values[at]) if isinstance(at, slice) else read_payload(self._values[at])
