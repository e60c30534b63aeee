"""The training loop: epochs, validation, the best checkpoint, resuming."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mla_serve.errors import ConfigError
from mla_serve.evaluation.scores import evaluate
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.train.choices import Choices
from mla_serve.train.clock import Clock
from mla_serve.train.data.batches import TrainingBatch, batches_per_epoch, training_batches
from mla_serve.train.data.samples import Column, Samples, Windows, batches_of, mean_by_row
from mla_serve.train.distributed import collectives
from mla_serve.train.run_folder import BEST, LAST, METRICS, RunFolder
from mla_serve.train.strategies import Strategy

MEASURED = 10_000  # windows by which the encoders' normalisation is measured
MEASURED_NUMBERS = 2**23  # in them at most: as 32-bit floats 34 MB, of which the layers hold several copies
Report = Callable[[dict[str, Any]], None]


@torch.no_grad()
def modality_opinions(strategy: Strategy, samples: Samples, device: torch.device) -> tuple[Array, Array]:
    """Return the opinions of every modality on decoded rows, averaged over windows.

    Returns: opinions (M, N, O) float32, 0 where absent; present (M, N) bool.
    """
    strategy.eval()
    opinions = [_column_opinions(strategy, name, samples.columns[name], device) for name in strategy.encoders]
    present = [samples.columns[name].present.numpy() for name in strategy.encoders]
    return torch.stack(opinions).numpy(), np.stack(present)


def _column_opinions(strategy: Strategy, name: str, column: Column, device: torch.device) -> Tensor:
    opinions = [strategy.opinions(name, part.to(device)).cpu() for part in batches_of(column.windows)]
    return mean_by_row(torch.cat(opinions), column.count)


def _some(windows: Windows) -> Tensor:
    """Return all windows, or some that are spread evenly over the rows where all would take too much memory."""
    most = min(MEASURED, MEASURED_NUMBERS // max(1, int(np.prod(windows.shape[1:]))))
    if len(windows) <= most:
        return windows[:]
    return windows[torch.linspace(0, len(windows) - 1, most).long()]


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
        choices: Choices,
        device: torch.device,
        clock: Clock | None = None,
    ) -> None:
        """Take freshly built modules and the splits train and val; val on rank 0 only.

        Args: clock, for a run with a time limit: the learning rate follows the time where that is ahead of the steps.
        """
        batch_normalised = [n for n, encoder in strategy.encoders.items() if encoder.normalises_over_batch]
        strategy = strategy.to(device, memory_format=torch.channels_last)
        self.strategy = collectives.convert_layers(strategy, device, batch_normalised)
        self.samples, self.folder, self.device = samples, folder, device
        self.choices, self.settings, self._clock = choices, choices.settings, clock
        self.epoch, self.steps, self.ended = 0, 0, ""
        self.best: dict[str, float] = {"epoch": 0, "nll": math.inf}
        rows = len(samples["train"])
        self.total = self.settings.known_epochs * batches_per_epoch(rows, self.settings.rows_per_step)
        strategy.weight_classes(choices.balance.class_weights)
        if not choices.balance.head_shift:  # otherwise it is learned as if all classes were equally frequent
            task = strategy.task
            strategy.begin_at(task.prior_outputs(task.prior_of(samples["train"].targets.numpy())).tolist())
        strategy.prepare(self.total, rows)

    def measure(self, known: Collection[str] = ()) -> None:
        """Set the normalisation of each encoder from training rows, before the first step; that of `known` is kept."""
        for name, encoder in self.strategy.encoders.items():
            if name not in known:
                encoder.measure(_some(self.samples["train"].columns[name].windows).to(self.device))
        collectives.broadcast(self.strategy.state_dict())

    def resume(self) -> None:
        """Continue from the last checkpoint."""
        state = collectives.from_main(lambda: self.folder.load(LAST))
        self.strategy.load_state_dict(state["weights"])
        self.strategy.load_training_state(state["training"])
        self.epoch, self.best = state["epoch"], state["best"]
        self.steps, self.ended = state.get("steps", 0), state.get("ended", "")
        if self._clock:
            self._clock.add(state["elapsed"])
        if collectives.is_main():
            lines = (self.folder.path / METRICS).read_text().splitlines()[: self.epoch]
            self.folder.write_bytes(METRICS, "".join(line + "\n" for line in lines).encode())

    def run(self, report: Report, step: Callable[[], None] = lambda: None) -> None:
        """Train to the last epoch, or until the time or the patience is at an end. `report` is called with the record of each epoch, `step` after each batch.

        Rank 0 validates, writes and reports. It ends with the best weights, the other processes with the last ones.
        """
        while self.epoch < self.settings.known_epochs and not self.ended:
            record = {"epoch": self.epoch + 1, **self._train_epoch(step)}
            self.epoch += 1
            self.ended = collectives.from_main(functools.partial(self._end_epoch, record, report))
        if collectives.is_main():
            self.strategy.load_state_dict(self.folder.load(BEST, self.device)["weights"])

    def _train_epoch(self, step: Callable[[], None]) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self._seed("data"))
        logged: defaultdict[str, list[float]] = defaultdict(list)
        with torch.random.fork_rng():
            torch.manual_seed(self._seed("layers"))
            self.strategy.train()
            self.strategy.start_epoch()
            for batch in self._batches(generator):
                for key, value in self.strategy.step(batch).items():
                    logged[key].append(value)
                step()
                if self._out_of_time():
                    break
        means = {key: float(np.mean(values)) for key, values in logged.items()}
        if not all(map(math.isfinite, means.values())):
            raise collectives.reported_once(
                Diverged(
                    f"the loss is no longer finite in epoch {self.epoch + 1}; lower --lr, resume from the last one"
                )
            )
        return means

    def _batches(self, generator: torch.Generator) -> Iterator[TrainingBatch]:
        return training_batches(
            self.samples["train"],
            self.settings.rows_per_step,
            generator,
            self.device,
            self.choices.augment,
            balanced=self.choices.balance.samples_evenly,
        )

    def _out_of_time(self) -> bool:
        """Count a step, and move the learning rate on to where the time is. Returns whether the time is at an end."""
        self.steps += 1
        if self._clock is None:
            return False
        clock = self._clock
        due = collectives.from_main(lambda: clock.step(self.total))
        self.strategy.skip_to(due)
        if due >= self.total and self.steps < self.total:
            done = self.steps / self.total * self.settings.known_epochs
            self.ended = (
                f"--time-limit {self.settings.time_limit:g}: training ended after {done:.1f} of "
                f"{self.settings.known_epochs} epochs, with the learning rate at its lowest"
            )
        return bool(self.ended)

    def _end_epoch(self, record: dict[str, Any], report: Report) -> str:
        """Validate, save and report. Returns: why training ends here, empty if it goes on."""
        begun = self._clock.elapsed if self._clock else 0.0
        record |= self._validate()
        better = self._is_best(record)
        patience = self.settings.patience
        waited = 0 if better else self.epoch - int(self.best["epoch"])
        if patience and waited >= patience and self.epoch < self.settings.known_epochs:
            self.ended = f"--patience {patience}: training ended after epoch {self.epoch}, {waited} after the best one"
        self._save_checkpoints(record, better=better)
        if self._clock:
            self._clock.reserved = self._clock.elapsed - begun
        report(record)
        return self.ended

    def _seed(self, stream: str) -> int:
        """Derive the seed of one stream of random numbers for this epoch."""
        entropy = [self.settings.seed, self.epoch, *stream.encode()]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def _validate(self) -> dict[str, Any]:
        opinions, present = modality_opinions(self.strategy, self.samples["val"], self.device)
        if not np.isfinite(opinions).all():  # the last step of the epoch can be the one that diverges
            raise Diverged(f"answers to validation rows are not finite after epoch {self.epoch}; lower --lr")
        task = self.strategy.task
        fusion = Fusion.paper(tuple(self.strategy.encoders), task)
        fusion = dataclasses.replace(fusion, native=self.strategy.native, bias=self.strategy.native_bias())
        # Validation rows have the class frequencies of training; heads that learned equal ones do not know that yet.
        fusion = dataclasses.replace(fusion, prior_shift=self.choices.balance.head_shift)
        results = evaluate(opinions, present, self.samples["val"].targets.numpy(), fusion, ["native"])
        scores = {name: rules["native"] for name, rules in results.items()}
        patterns = {name: found for name, found in scores.items() if not name.startswith("missing")}
        means = {key: float(np.mean([found[key] for found in patterns.values()])) for key in task.main_scores}
        nll = float(np.mean([found["nll"] for found in scores.values()]))
        return {"val": {name: found[task.main_scores[0]] for name, found in patterns.items()}, **means, "nll": nll}

    def _is_best(self, record: dict[str, Any]) -> bool:
        """Whether the NLL over all conditions is the lowest so far.

        Accuracy was tried, and macro-F1: with few validation rows they are too coarse (benchmarks/accuracy/defaults.md).
        """
        return bool(record["nll"] < self.best["nll"])

    def _save_checkpoints(self, record: dict[str, Any], *, better: bool) -> None:
        """Save this epoch, also as the best one if it is better than those before."""
        weights = self.strategy.state_dict()
        record["best"] = better
        if better:
            self.best = {key: record[key] for key in ("epoch", "nll", *self.strategy.task.main_scores)}
            self.folder.save(BEST, {"weights": weights, "epoch": self.epoch})
        self.folder.append_line(METRICS, json.dumps(record))
        training = self.strategy.training_state()
        state = {"epoch": self.epoch, "best": self.best, "steps": self.steps, "ended": self.ended}
        state["elapsed"] = self._clock.elapsed if self._clock else 0.0
        self.folder.save(LAST, {"weights": weights, "training": training, **state})
