"""The training loop: epochs, validation, the best checkpoint, resuming."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mla_serve.errors import ConfigError
from mla_serve.evaluation.scores import evaluate
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.train.data.batches import batches_per_epoch, training_batches
from mla_serve.train.data.samples import Column, Samples
from mla_serve.train.distributed import collectives
from mla_serve.train.run_folder import BEST, LAST, METRICS, RunFolder
from mla_serve.train.strategies import Strategy

EVALUATION_BATCH = 256
MEASURED = 10_000  # windows by which the encoders' normalisation is measured
Report = Callable[[dict[str, Any]], None]


@torch.no_grad()
def modality_logits(strategy: Strategy, samples: Samples, device: torch.device) -> tuple[Array, Array]:
    """Return the logits of every modality for decoded rows, averaged over windows.

    Returns: logits (M, N, C) float32, 0 where absent; present (M, N) bool.
    """
    strategy.eval()
    logits = [_column_logits(strategy, name, samples.columns[name], device) for name in strategy.encoders]
    present = [samples.columns[name].present.numpy() for name in strategy.encoders]
    return torch.stack(logits).numpy(), np.stack(present)


def _column_logits(strategy: Strategy, name: str, column: Column, device: torch.device) -> Tensor:
    parts = column.windows.split(EVALUATION_BATCH)
    return column.mean_by_row(torch.cat([strategy.logits(name, part.to(device)).cpu() for part in parts]))


class Diverged(ConfigError):
    """The loss is no longer finite."""


class Trainer:
    """Train a strategy on decoded rows, epoch by epoch. All random numbers follow from the seed and the epoch."""

    def __init__(
        self,
        strategy: Strategy,
        samples: Mapping[str, Samples],
        folder: RunFolder,
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        augment: bool,
        device: torch.device,
    ) -> None:
        """Take freshly built modules and the splits train and val; val on rank 0 only."""
        batch_normalised = [n for n, encoder in strategy.encoders.items() if encoder.normalises_over_batch]
        strategy = strategy.to(device, memory_format=torch.channels_last)
        self.strategy = collectives.convert_layers(strategy, device, batch_normalised)
        self.samples, self.folder = samples, folder
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed
        self.augment, self.device = augment, device
        self.epoch = 0
        self.best: dict[str, float] = {"epoch": 0, "accuracy": -1.0, "nll": math.inf}
        rows = len(samples["train"])
        strategy.prepare(epochs * batches_per_epoch(rows, batch_size), rows)

    def measure(self) -> None:
        """Set the normalisation of each encoder from training rows, before the first step."""
        for name, encoder in self.strategy.encoders.items():
            encoder.measure(self.samples["train"].columns[name].windows[:MEASURED].to(self.device))
        collectives.broadcast(self.strategy.state_dict())

    def resume(self) -> None:
        """Continue from the last checkpoint."""
        state = collectives.from_main(lambda: self.folder.load(LAST))
        self.strategy.load_state_dict(state["weights"])
        self.strategy.load_training_state(state["training"])
        self.epoch, self.best = state["epoch"], state["best"]
        if collectives.is_main():
            lines = (self.folder.path / METRICS).read_text().splitlines()[: self.epoch]
            self.folder.write_bytes(METRICS, "".join(line + "\n" for line in lines).encode())

    def run(self, report: Report, step: Callable[[], None] = lambda: None) -> None:
        """Train to the last epoch. `report` is called with the record of each epoch, `step` after each batch.

        Rank 0 validates, writes and reports. It ends with the best weights, the other processes with the last ones.
        """
        while self.epoch < self.epochs:
            record = {"epoch": self.epoch + 1, **self._train_epoch(step)}
            self.epoch += 1
            if collectives.is_main():
                record |= self._validate()
                self._save_checkpoints(record)
                report(record)
        if collectives.is_main():
            self.strategy.load_state_dict(self.folder.load(BEST, self.device)["weights"])

    def _train_epoch(self, step: Callable[[], None]) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self._seed("data"))
        logged: defaultdict[str, list[float]] = defaultdict(list)
        with torch.random.fork_rng():
            torch.manual_seed(self._seed("layers"))
            self.strategy.train()
            self.strategy.start_epoch()
            batches = training_batches(self.samples["train"], self.batch_size, generator, self.device, self.augment)
            for batch in batches:
                for key, value in self.strategy.step(batch).items():
                    logged[key].append(value)
                step()
        means = {key: float(np.mean(values)) for key, values in logged.items()}
        if not all(map(math.isfinite, means.values())):
            raise collectives.reported_once(
                Diverged(
                    f"the loss is no longer finite in epoch {self.epoch + 1}; lower --lr, resume from the last one"
                )
            )
        return means

    def _seed(self, stream: str) -> int:
        """Derive the seed of one stream of random numbers for this epoch."""
        entropy = [self.seed, self.epoch, *stream.encode()]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def _validate(self) -> dict[str, Any]:
        logits, present = modality_logits(self.strategy, self.samples["val"], self.device)
        fusion = Fusion.paper(tuple(self.strategy.encoders))
        fusion = dataclasses.replace(fusion, native=self.strategy.native, bias=self.strategy.native_bias())
        results = evaluate(logits, present, self.samples["val"].labels.numpy(), fusion, ["native"])
        accuracy = {
            name: rules["native"]["accuracy"] for name, rules in results.items() if not name.startswith("missing")
        }
        nll = [rules["native"]["nll"] for rules in results.values()]
        return {"val": accuracy, "accuracy": float(np.mean(list(accuracy.values()))), "nll": float(np.mean(nll))}

    def _save_checkpoints(self, record: dict[str, Any]) -> None:
        """Save this epoch, also as the best one if its accuracy over patterns is highest, or equal with a lower NLL."""
        weights = self.strategy.state_dict()
        better = (record["accuracy"], -record["nll"]) > (self.best["accuracy"], -self.best["nll"])
        record["best"] = better
        if better:
            self.best = {key: record[key] for key in ("epoch", "accuracy", "nll")}
            self.folder.save(BEST, {"weights": weights, "epoch": self.epoch})
        self.folder.append_line(METRICS, json.dumps(record))
        training = self.strategy.training_state()
        self.folder.save(LAST, {"weights": weights, "training": training, "epoch": self.epoch, "best": self.best})
