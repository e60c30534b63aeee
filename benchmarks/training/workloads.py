"""What bench-scaling trains: small vectors, of which there can be many, and images through ResNet-18."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Workload:
    """One sort of modality, and how a training step over several of it is measured."""

    shape: tuple[int, ...]
    """Of a vector (size,) or of an image (channels, height, width)."""
    encoder: str
    modalities: tuple[int, ...]
    """Numbers of modalities that are measured."""
    variants: tuple[str, ...]
    """Names of training strategies: keys of scaling.VARIANTS."""
    batch: int
    steps: int
    threads: int


WORKLOADS = {
    "vector": Workload(
        (64,), "small", (2, 4, 8, 16, 24, 32), ("mla", "mla_hgm_epoch", "joint_concat"), batch=256, steps=20, threads=1
    ),
    "resnet18": Workload(
        (3, 224, 224), "resnet18", (1, 2, 3, 4), ("mla", "mla_up_front", "joint_concat"), batch=32, steps=1, threads=2
    ),
}
