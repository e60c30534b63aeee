"""Features and opinions of rows, computed by the graphs of a bundle: what is fitted after training, without checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import NotFinite
from mla_serve.evaluation.splits import decode_row
from mla_serve.inputs import Array
from mla_serve.progress import Progress
from mla_serve.table import Row
from mla_serve.table.dataset import leave_out
from mla_serve.table.faults import Faults, Place
from mla_serve.train.fit.after_training import corruption_seed
from mla_serve.train.fit.features import CHUNK, Encoded, any_corruption, corrupt_row


def encode_rows(
    predictor: Predictor, rows: Sequence[Row], faults: Faults, most: int | None = None
) -> tuple[tuple[Row, ...], dict[str, Encoded]]:
    """Run rows through the graphs.

    Args: rows, with modalities of the model only; faults: values that cannot be used are added, and left out if its policy
    says so; most, rows that are encoded of each modality, drawn at random. Default: all.
    Returns: the rows that were not left out, and each modality of theirs.
    Raises: DataError with all faults that are not left out.
    """
    found = {name: _encode_modality(predictor, name, _some(rows, name, most), faults) for name in predictor.names}
    faults.raise_if_any()
    kept = leave_out(rows, faults)
    return kept, {name: one.of(kept, name) for name, one in found.items()}


def encode_corrupted(predictor: Predictor, rows: Sequence[Row], seed: int) -> dict[str, Encoded]:
    """Encode copies of rows with every modality corrupted, as `encode_corrupted_rows` does after training."""
    found = {}
    for position, (name, spec) in enumerate(predictor.bundle.inputs.items()):
        own, choose = corruption_seed(seed, position), any_corruption(spec)
        numbered = [(number, row) for number, row in enumerate(rows) if name in row.values]
        parts = _Parts(predictor, name)
        with Progress(f"corrupted {name}", len(numbered)) as progress:
            for at in range(0, len(numbered), CHUNK):
                chunk = numbered[at : at + CHUNK]
                parts.add(
                    [row.place for _, row in chunk],
                    [corrupt_row(row, name, spec, choose, [own, number]) for number, row in chunk],
                )
                progress.advance(len(chunk))
        found[name] = parts.of(rows, name)
    return found


def _some(rows: Sequence[Row], name: str, most: int | None) -> list[Row]:
    """Choose rows that have a modality."""
    having = [row for row in rows if name in row.values]
    if most is None or len(having) <= most:
        return having
    return [having[number] for number in np.sort(np.random.default_rng(0).permutation(len(having))[:most])]


def _encode_modality(predictor: Predictor, name: str, rows: Sequence[Row], faults: Faults) -> _Parts:
    """Encode one modality of rows that have it. Once a fault is refused, only look for further ones."""
    parts = _Parts(predictor, name)
    with Progress(f"encoding {name}", len(rows)) as progress:
        for chunk in _chunks(rows):
            alone = [dataclasses.replace(row, values={name: row.values[name]}) for row in chunk]
            decoded = [(row.place, decode_row(predictor, row, faults).get(name)) for row in alone]
            usable = [] if faults.refuses else [(place, array) for place, array in decoded if array is not None]
            while usable:
                places, arrays = zip(*usable, strict=True)
                try:
                    parts.add(places, arrays)
                    break
                except NotFinite as error:
                    for index in error.rows:
                        faults.add(places[index], error.message, error.field)
                    usable = [one for index, one in enumerate(usable) if index not in error.rows]
            progress.advance(len(chunk))
    return parts


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK))


class _Parts:
    """What the graphs of one modality gave, by the places of the rows."""

    def __init__(self, predictor: Predictor, name: str) -> None:
        self._predictor, self._name = predictor, name
        self._at: dict[Place, int] = {}
        self._features: list[Array] = [np.empty((0, 1), np.float32)]
        self._opinions: list[Array] = [np.empty((0, predictor.task.outputs), np.float32)]

    def add(self, places: Sequence[Place], arrays: Sequence[Array]) -> None:
        """Encode decoded values. Raises: NotFinite; then nothing is added."""
        features = self._predictor.encode(self._name, arrays)
        opinions = self._predictor.head(self._name, features)
        if not self._at:
            self._features, self._opinions = [], []
        self._at |= {place: len(self._at) + index for index, place in enumerate(places)}
        self._features.append(features)
        self._opinions.append(opinions)

    def of(self, rows: Sequence[Row], name: str) -> Encoded:
        """Arrange them in the order of rows; a row that was not encoded counts as one without the modality."""
        present = np.array([name in row.values and row.place in self._at for row in rows], dtype=bool)
        chosen = [self._at[row.place] for row, there in zip(rows, present, strict=True) if there]
        features, opinions = np.concatenate(self._features), np.concatenate(self._opinions)
        return Encoded(present, features[chosen], opinions[chosen])
