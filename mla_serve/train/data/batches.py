"""The batches that training takes from decoded rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from mla_serve.train.data.order import epoch_order, split_batches
from mla_serve.train.data.samples import Column, Samples
from mla_serve.train.distributed import collectives
from mla_serve.train.encoders import Encoder, default_encoder


class TrainingBatch:
    """The rows of a batch that belong to this process, with one random window of each recording."""

    def __init__(
        self,
        samples: Samples,
        rows: Tensor,
        generator: torch.Generator,
        device: torch.device,
        augment: Mapping[str, str],
    ) -> None:
        """Take the numbers of all rows of the batch. Args: augment, how by modality; those left out are not augmented."""
        self._samples, self._rows, self._generator = samples, rows, generator
        self._device, self._augment = device, augment
        self.rows = collectives.local_part(rows)
        self.targets = samples.targets[self.rows].to(device)
        self.present_everywhere: Mapping[str, Tensor] = {
            name: column.present[rows] for name, column in samples.columns.items()
        }
        self.present: Mapping[str, Tensor] = {
            name: collectives.local_part(there).to(device) for name, there in self.present_everywhere.items()
        }

    def inputs(self, name: str) -> Tensor:
        """Return augmented windows of the rows that have `name`: (rows, *shape). See strategies.base.Batch."""
        column, there = self._samples.columns[name], self.present_everywhere[name]
        everyones = self._rows[there]
        own = collectives.local_rows(there).encoded
        rows = everyones[own]
        encoder = default_encoder(column.spec.kind)
        augment = None if column.precomputed else self._augment.get(name)
        if augment and encoder.augments_text:
            return self._decode_edited(column, rows, name, encoder).to(self._device)
        offset = (torch.rand(len(everyones), generator=self._generator)[own] * column.count[rows]).long()
        windows = column.windows[column.start[rows] + offset]
        if augment:
            windows = encoder.augment_windows(windows, self._generator, augment)
        return windows.to(self._device)

    def _decode_edited(self, column: Column, rows: Tensor, name: str, encoder: type[Encoder]) -> Tensor:
        """Augment the payloads, such as texts with typing errors, and decode them."""
        seed = int(torch.randint(2**62, (1,), generator=self._generator))
        generator = np.random.default_rng(seed)
        texts = [encoder.augment_text(column.payloads[row] or "", generator) for row in rows.tolist()]
        return torch.from_numpy(np.concatenate([column.spec.decode(text, name) for text in texts]))


def training_batches(
    samples: Samples,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device,
    augment: Mapping[str, str],
    *,
    balanced: bool = False,
) -> Iterator[TrainingBatch]:
    """Yield batches of all rows in random order; balanced, of equally many rows of each class. A table of one row has none.

    Which rows form a batch does not depend on the number of processes; the random augmentation does.
    """
    order = epoch_order(samples.targets, generator, balanced=balanced)
    if augment and collectives.rank():
        generator.manual_seed(generator.initial_seed() + collectives.rank())
    present = [column.present for column in samples.columns.values()]
    for rows in split_batches(order, present, batch_size):
        if len(rows) > 1:
            yield TrainingBatch(samples, rows, generator, device, augment)


def batches_per_epoch(rows: int, batch_size: int) -> int:
    """Count the batches of `training_batches`."""
    return rows // batch_size + (rows % batch_size > 1)
