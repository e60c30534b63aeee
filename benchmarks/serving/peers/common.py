"""What the peers share: the bundle's decoding, its encoders and heads as functions, the paper's fusion, a JSON answer.

They answer less than mla_serve does (no influence, no prediction set, nothing on unfamiliar input), which is in their favour.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.results import DEFAULT_TOP_K
from mla_serve.bundle.runtime import DEVICES, open_session
from mla_serve.fusion.formula import Array
from mla_serve.fusion.rules import fuse
from mla_serve.inputs import Payload

Function = Callable[[Array], Array]


def setting(name: str, default: str = "1") -> str:
    """Read a BENCH_* variable."""
    return os.environ.get(f"BENCH_{name}", default)


def open_bundle() -> Bundle:
    """Load the bundle that is benchmarked."""
    return Bundle.load(Path(setting("BUNDLE", "models/digits")))


@dataclasses.dataclass(frozen=True)
class Model:
    """A bundle and what computes with it: encoders (windows -> features) and heads (features -> logits), by name."""

    bundle: Bundle
    encoders: Mapping[str, Function]
    heads: Mapping[str, Function]

    def answer(self, samples: Sequence[Mapping[str, Payload]]) -> list[dict[str, Any]]:
        """Decode, encode and fuse B samples, each with any non-empty subset of the modalities, in one run of each graph."""
        names = tuple(self.bundle.manifest.modalities)
        classes = self.bundle.manifest.classes
        present = np.array([[name in sample for sample in samples] for name in names])
        logits = np.zeros((*present.shape, len(classes)), np.float32)
        for m, name in enumerate(names):
            if present[m].any():
                logits[m, present[m]] = self._logits(name, [sample[name] for sample in samples if name in sample])
        fused = fuse(logits, present, self.bundle.fusion)
        probabilities = np.exp(fused.answers)
        return [
            {
                "label": classes[int(p.argmax())],
                "probabilities": [
                    {"label": classes[c], "probability": p[c].item()} for c in np.argsort(-p)[:DEFAULT_TOP_K]
                ],
                "weights": {name: float(w) for name, w, there in zip(names, weights, mask, strict=True) if there},
            }
            for p, weights, mask in zip(probabilities, fused.weights.T, present.T, strict=True)
        ]

    def _logits(self, name: str, payloads: Sequence[Payload]) -> Array:
        """Turn one modality's payloads into logits (B, C); the features of a recording's windows are averaged."""
        arrays = [self.bundle.inputs[name].decode(payload, name) for payload in payloads]
        features = self.encoders[name](np.concatenate(arrays))
        if len(features) > len(arrays):
            counts = np.array([len(array) for array in arrays])
            features = np.add.reduceat(features, np.cumsum(counts) - counts) / counts[:, None].astype(features.dtype)
        return self.heads[self.bundle.manifest.modalities[name].head](features)


def onnx_model() -> Model:
    """Open the bundle's graphs with the very session options of mla_serve, and run each once."""
    bundle, threads = open_bundle(), int(setting("THREADS"))
    graph = lambda path: open_session(bundle.read(path), DEVICES["cpu"], threads).run  # noqa: E731
    encoders = {name: graph(modality.encoder) for name, modality in bundle.manifest.modalities.items()}
    model = Model(bundle, encoders, {name: graph(path) for name, path in bundle.manifest.heads.items()})
    model.answer(bundle.golden_samples())
    return model
