"""Write the parts of a bundle that a new one and an extension share: encoders, inputs, payloads, facts on the training."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mla_serve
from mla_serve.bundle.manifest import Golden, Modality, StoredPayload
from mla_serve.export.graphs import export_graph, largest_difference
from mla_serve.inputs import Array, Input, Payload, list_fields
from mla_serve.inputs.columns import to_json_cells
from mla_serve.table import Schema
from mla_serve.train.golden_samples import Truth
from mla_serve.train.pretrained import PREFIX
from mla_serve.train.pretrained.settings import shown
from mla_serve.train.strategies import Strategy

TOLERANCE = 1e-4  # fp32 on CPU, absolute plus relative
RANDOM_SAMPLES = 8
MOST_NUMBERS = 16  # of a payload, that stand in manifest.json, which should stay small
PATH_SETTINGS = ("data", "out", "runs", "about", "extend", "extends", "cache", "start_from")


def list_inputs(strategy: Strategy, inputs: Mapping[str, Input]) -> tuple[dict[str, Modality], dict[str, bytes]]:
    """Return the manifest's entries of the modalities, and the files of their inputs, such as tokenizers."""
    listed, files = list_fields(inputs)
    modalities = {
        name: Modality(kind=spec.kind, input=listed[name], encoder=f"{name}.onnx", head=strategy.head_of[name])
        for name, spec in inputs.items()
    }
    return modalities, files


def write_encoder(strategy: Strategy, name: str, spec: Input, windows: Array, staging: Path) -> float:
    """Export an encoder; returns its largest difference from torch. Raises: BundleError when that is too large."""
    path = staging / f"{name}.onnx"
    export_graph(strategy.encoders[name], torch.from_numpy(windows[:2]), spec.tensor, "features", path)
    return largest_difference(strategy.encoders[name], path, windows, TOLERANCE)


def example_windows(name: str, spec: Input, samples: list[dict[str, Payload]], generator: np.random.Generator) -> Array:
    """Decode the samples of the run and some generated ones: (N, *shape)."""
    payloads = [sample[name] for sample in samples if name in sample]
    payloads += [spec.generate(generator) for _ in range(RANDOM_SAMPLES)]
    return np.concatenate([spec.decode(payload, name) for payload in payloads])


def store_payload(payload: Payload, name: str, staging: Path) -> StoredPayload:
    """Return a payload as the manifest holds it: bytes and many numbers are written to a file, whose name is returned."""
    if isinstance(payload, Sequence) and not isinstance(payload, str | bytes) and len(payload) > MOST_NUMBERS:
        payload = json.dumps(list(payload)).encode()
    if isinstance(payload, bytes):
        (staging / name).parent.mkdir(exist_ok=True)
        (staging / name).write_bytes(payload)
        return name
    if isinstance(payload, Mapping):
        return to_json_cells(payload)
    return payload if isinstance(payload, str) else list(payload)


def with_truths(golden: Iterable[Golden], truths: Iterable[Truth | None]) -> list[Golden]:
    """Return golden samples with the labels of their rows."""
    return [one.model_copy(update={"truth": truth}) for one, truth in zip(golden, truths, strict=True)]


def table_facts(
    facts: Mapping[str, Any], modalities: Collection[str], before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what the columns are that the modalities are read from; empty for a run of an older version.

    Args: before, the same of the bundle that is extended.
    """
    if not facts.get("table"):
        return dict(before or {})
    schema = Schema.from_dict(facts["table"])
    joined = schema.join(Schema.from_dict(before)) if before else schema
    return joined.keep(modalities).to_dict()


def training_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return how the model was trained, without paths of the training machine, and without what quotes its table."""
    config = {key: value for key, value in facts["config"].items() if key not in PATH_SETTINGS}
    config["encoders"] = [_without_path(item) for item in config.get("encoders", [])]
    config["kinds"] = [item for item in config.get("kinds", []) if not item.endswith("=ignore")]
    kept = {key: facts[key] for key in ("best", "versions", "machine")}
    return (
        {"config": config, "notes": facts.get("exported_notes", [])}
        | kept
        | {key: facts[key] for key in ("counts", "rows") if key in facts}
    )


def _without_path(item: str) -> str:
    """Return NAME=hf:FOLDER without the path of the folder."""
    name, mark, source = item.partition(f"={PREFIX}")
    return f"{name}{mark}{shown(source)}" if mark else item


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that wrote the graphs."""
    packages = ("torch", "onnx", "numpy")
    return {"mla_serve": mla_serve.__version__, "python": platform.python_version()} | {p: version(p) for p in packages}
