"""`make check-gpu`: run every graph of a bundle on CUDA and on the CPU, and compare the outputs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from rich.table import Table as RichTable

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.runtime import DEVICES
from mla_serve.console import console, main
from mla_serve.errors import BundleError, ConfigError
from mla_serve.inputs import Array

TOLERANCE = 1e-3  # absolute plus relative, fp32 without TF32: convolutions sum in another order
SAMPLES = 7


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """Compare the outputs of a bundle's graphs on CUDA with those on the CPU."""

    model: Path = Path("models/digits")
    """Folder of the bundle."""


def differences(bundle: Bundle, on_cpu: Predictor, on_gpu: Predictor) -> dict[str, float]:
    """Return the largest |gpu - cpu| / (1 + |cpu|) of each modality's logits, on generated samples."""
    generator = np.random.default_rng(0)
    found = {}
    for name, spec in bundle.inputs.items():
        arrays = [spec.decode(spec.generate(generator), name) for _ in range(SAMPLES)]
        expected, given = (_logits(predictor, name, arrays) for predictor in (on_cpu, on_gpu))
        found[name] = float((np.abs(given - expected) / (1 + np.abs(expected))).max())
    return found


def _logits(predictor: Predictor, name: str, arrays: list[Array]) -> Array:
    return predictor.head(name, predictor.encode(name, arrays))


def run(config: CheckConfig) -> None:
    """Compare and print. Raises: ConfigError without CUDA; BundleError when the outputs differ."""
    bundle = Bundle.load(config.model)
    on_cpu, on_gpu = Predictor(bundle), Predictor(bundle, DEVICES["cuda"])
    if on_gpu.providers[0] != DEVICES["cuda"][0]:
        raise ConfigError("no CUDA device could be used; install mla_serve[gpu] on a machine with an NVIDIA driver")
    found = differences(bundle, on_cpu, on_gpu)
    table = RichTable("modality", "largest difference", title=f"CUDA against CPU, allowed {TOLERANCE:g}")
    for name, difference in found.items():
        table.add_row(name, f"{difference:.2g}")
    console.print(table)
    console.print(f"golden samples on CUDA differ from torch by {on_gpu.verify():.2g}")
    if max(found.values()) > TOLERANCE:
        raise BundleError(f"{config.model}: CUDA and CPU differ by more than {TOLERANCE:g}")


if __name__ == "__main__":
    main(run, CheckConfig)
