"""The run folder: the settings of a run, its checkpoints and metrics, and what export needs.

Every file is written to a temporary name and renamed, so that none is ever half written.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mla_serve.errors import ConfigError
from mla_serve.fusion.formula import Fusion
from mla_serve.inputs import INPUTS, Payload, list_fields
from mla_serve.inputs.columns import to_json_cells
from mla_serve.output.targets import write_errors
from mla_serve.tasks import task_from_dict
from mla_serve.train.golden_samples import Truth
from mla_serve.train.pretrained.settings import Pretrained
from mla_serve.train.recipe import Recipe
from mla_serve.train.strategies import Options, Strategy

RUN, LAST, BEST, METRICS, SAMPLES = "run.json", "last.pt", "best.pt", "metrics.jsonl", "samples"
REFERENCES, INTERVALS, LAUNCH = "unfamiliar.npz", "intervals.npz", "launch"
PROBE = 1_000_000  # bytes, more than a failed checkpoint may have left free
FULL_ADVICE = "make room there; what was written before is kept, and the same command with --resume goes on"


def _save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint. Raises: OSError, also on a full disk, where torch raises RuntimeError("unexpected pos")."""
    try:
        torch.save(state, path)
    except RuntimeError as error:
        with path.open("ab") as file:  # fails with the reason that torch hides
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
        raise OSError(errno.EIO, str(error).partition("\n")[0]) from error


def backbone_file(name: str) -> str:
    """Name the file of a frozen backbone's weights, which the checkpoints leave out."""
    return f"{name}.backbone.pt"


class RunFolder:
    """Read and write runs/NAME."""

    def __init__(self, path: Path) -> None:
        """Use a folder that exists or will be made."""
        self.path = path

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one JSON file whole."""
        self.write_bytes(name, json.dumps(content, indent=1, ensure_ascii=False, default=str).encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write one file whole: to a temporary name, then renamed. Raises: ConfigError when it cannot be written."""
        self._write_whole(name, lambda temporary: temporary.write_bytes(content))

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write one checkpoint whole. Raises: ConfigError when it cannot be written."""
        self._write_whole(name, lambda temporary: _save(dict(state), temporary))

    def append_line(self, name: str, line: str) -> None:
        """Add one line to a file. Raises: ConfigError."""
        with write_errors(self.path / name, FULL_ADVICE), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _write_whole(self, name: str, write: Callable[[Path], object]) -> None:
        """Write beside the file, then rename. If that fails, the old file is kept. Raises: ConfigError."""
        target = self.path / name
        temporary = target.with_name(f".{target.name}.tmp")
        with write_errors(target, FULL_ADVICE):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(temporary)
                temporary.replace(target)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

    def load(self, name: str, device: str | torch.device = "cpu") -> dict[str, Any]:
        """Read one checkpoint; tensors and plain types only."""
        try:
            state: dict[str, Any] = torch.load(self.path / name, map_location=device, weights_only=True)
        except FileNotFoundError:
            raise ConfigError(f"{self.path / name}: no such file; is {self.path} the folder of a run?") from None
        return state

    def read_json(self, name: str = RUN) -> dict[str, Any]:
        """Read one JSON file.

        Raises: ConfigError when it is not there or damaged.
        """
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path / name}: cannot be read ({error}); is {self.path} a finished run?") from None
        return content

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the records of all epochs."""
        return [json.loads(line) for line in (self.path / METRICS).read_text(encoding="utf-8").splitlines()]

    def begun_settings(self) -> dict[str, Any]:
        """Return the settings that the run was begun with; empty if none was."""
        return self.read_json("config.json") if (self.path / "config.json").exists() else {}

    def read_launch(self) -> str | None:
        """Return the call of torchrun that began the run; None if it was begun without torchrun."""
        path = self.path / LAUNCH
        return path.read_text() if path.exists() else None

    def write_recipe(self, recipe: Recipe) -> dict[str, Any]:
        """Store the files of the inputs, such as tokenizers, and return the recipe as JSON fields."""
        listed, files = list_fields(recipe.inputs)
        inputs = {name: {"kind": recipe.inputs[name].kind, "fields": fields} for name, fields in listed.items()}
        for filename, content in files.items():
            self.write_bytes(filename, content)
        fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
        pretrained = {name: dataclasses.asdict(settings) for name, settings in recipe.pretrained.items()}
        return fields | {
            "task": recipe.task.to_dict(),
            "inputs": inputs,
            "options": dataclasses.asdict(recipe.options),
            "pretrained": pretrained,
        }

    def read_recipe(self) -> Recipe:
        """Rebuild the recipe of a finished run."""
        fields = self.read_json()["recipe"]
        read = lambda name: (self.path / name).read_bytes()  # noqa: E731
        inputs = {n: INPUTS[i["kind"]].from_fields(i["fields"], read) for n, i in fields["inputs"].items()}
        pretrained = {name: Pretrained(**settings) for name, settings in fields.get("pretrained", {}).items()}
        built = {"inputs": inputs, "options": Options(**fields["options"]), "pretrained": pretrained}
        before = {"name": "classes", "classes": fields.pop("classes", [])}  # in runs of older versions
        return Recipe(**(fields | {"task": task_from_dict(fields.get("task", before))} | built))

    def restore(self, strategy: Strategy) -> Strategy:
        """Load the best weights into a freshly built strategy, and turn its encoders into those that are exported."""
        strategy.load_state_dict(self.load(BEST)["weights"])
        for name, encoder in strategy.encoders.items():
            strategy.encoders[name] = encoder.finished(functools.partial(self.load, backbone_file(name)))
        strategy.shift_heads(self.read_json().get("head_shift", []))
        return strategy.eval()

    def read_fusion(self) -> Fusion:
        """Return the fitted fusion of a finished run."""
        return Fusion(**self.read_json()["fusion"], task=self.read_recipe().task)

    def write_golden_samples(self, samples: list[dict[str, Payload]], truths: Sequence[Truth]) -> None:
        """Store the payloads of the golden samples: bytes in files, the rest in samples.json.

        Args: truths, the label of each; none of generated samples.
        """
        index: list[dict[str, Any]] = []
        for number, sample in enumerate(samples):
            entry: dict[str, Any] = {}
            for name, value in sample.items():
                entry[name] = value
                if isinstance(value, bytes):
                    entry[name] = {"file": f"{SAMPLES}/{number}.{name}"}
                    self.write_bytes(entry[name]["file"], value)
                elif isinstance(value, Mapping):
                    entry[name] = {"cells": to_json_cells(value)}
            index.append(entry)
        self.write_json("samples.json", {"samples": index, "truths": list(truths)})

    def read_golden_samples(self) -> list[dict[str, Payload]]:
        """Return what `write_golden_samples` stored."""
        return [
            {name: self._read_golden_payload(value) for name, value in entry.items()}
            for entry in self.read_json("samples.json")["samples"]
        ]

    def read_golden_truths(self) -> list[Truth | None]:
        """Return the label of each golden sample; None of generated samples, and in runs of older versions."""
        stored = self.read_json("samples.json")
        return stored.get("truths") or [None] * len(stored["samples"])

    def _read_golden_payload(self, value: Any) -> Payload:
        if not isinstance(value, dict):
            return value  # text or numbers, as they were written
        return (self.path / value["file"]).read_bytes() if "file" in value else value["cells"]
