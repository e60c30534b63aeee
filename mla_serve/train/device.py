"""What a run computes on: the device, the precision of training, and the normalisation that this allows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from mla_serve.errors import ConfigError
from mla_serve.train.config import TrainConfig
from mla_serve.train.distributed import collectives


def pick_device(name: str) -> torch.device:
    """Return the device of a --device flag.

    Raises: ConfigError for CUDA where there is none.
    """
    if name == "auto":
        return collectives.local_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"--device {name}: torch finds no CUDA device here; use --device cpu, or install torch with CUDA"
        )
    try:
        return collectives.local_device(torch.device(name))
    except RuntimeError:
        raise ConfigError(f"--device {name}: expected cpu, cuda or auto") from None


def set_threads(threads: int | None) -> None:
    """Let torch use so many threads; None: the processor cores, divided among the processes of this machine."""
    torch.set_num_threads(threads or collectives.default_threads())


@contextlib.contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads in the block, as `set_threads`; afterwards as many as before."""
    before = torch.get_num_threads()
    set_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_precision(name: str, device: torch.device) -> str:
    """Return fp32 or bf16 for a --precision flag: auto is bf16 where the device multiplies bf16 faster than fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    features = torch.cpu.get_capabilities()
    return "bf16" if features.get("avx512_bf16") or features.get("amx_bf16") else "fp32"


def pick_norm(config: TrainConfig) -> str:
    """Return batch or group for a --norm flag.

    The default is batch. Where several processes share a batch on the CPU it is group: torch synchronises batch
    statistics between processes on CUDA only.
    """
    several_on_cpu = collectives.launched() and pick_device(config.device).type == "cpu"
    return config.norm or ("group" if several_on_cpu else "batch")
