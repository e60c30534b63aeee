"""Training by several processes that torchrun starts: each takes its part of every batch, gradients are summed over all.

Summed in one explicit all-reduce, not by DistributedDataParallel: a turn is one encoder and one head out of many, a
process may hold no row of a modality, means over rows weigh a process by its rows, and some strategies change gradients
between backward and step. DDP averages processes as if they had equally many rows, hooks one forward of one module, and
has to be told each time what took no part. In one process nothing here changes a bit.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mla_serve.console import INTERRUPTED, USAGE
from mla_serve.errors import ConfigError
from mla_serve.train.distributed.batch_share import Share, row_dropout
from mla_serve.train.distributed.rendezvous import name_attempt, name_call
from mla_serve.train.encoders.base import Encoder

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=6)  # others wait while rank 0 reads and checks the data; torchrun notices the dead
SETTLE = 0.5  # seconds in which gloo's threads let go of their last tensors: where Python ends meanwhile, they abort it
GRACE = 30.0  # seconds in which torchrun ends those who have lost a process


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def is_main() -> bool:
    """Whether this is the process that reads, writes and speaks."""
    return not launched() or os.environ["RANK"] == "0"


def threads() -> int:
    """Return this process's share of the cores."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1") if launched() else 1))


def own_device(device: torch.device) -> torch.device:
    """Return the device of this process: under torchrun each has a GPU of its own.

    Raises: ConfigError.
    """
    if device.type != "cuda" or not launched():
        return device
    here, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if device.index is not None or here > there:
        raise ConfigError(
            f"--device {device}: torchrun gives each of its {here} processes here a GPU of its own, out of {there}; "
            f"use --device cuda and torchrun --nproc-per-node={there} or fewer, or --device cpu"
        )
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


@contextlib.contextmanager
def group(device: torch.device) -> Iterator[str | None]:
    """Be one of the processes that torchrun started, until the end of the block.

    Yields: the name of this call of torchrun, the same after its restarts; None without torchrun.
    """
    if not launched():
        yield None
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _others():
        store, rank, world = next(dist.rendezvous("env://", timeout=PATIENCE))
        own = dist.PrefixStore(name_attempt(store, rank, world), store)
        dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield name_call(store)
    except KeyboardInterrupt:
        if is_main():
            raise
        sys.exit(INTERRUPTED)
    finally:
        time.sleep(SETTLE)
        dist.destroy_process_group()


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them."""
    return dist.get_rank() if dist.is_initialized() else 0


def from_main(make: Callable[[], T]) -> T:
    """Make something on rank 0 while the others wait, and give it to all. An error there ends all; it alone is told."""
    if world() == 1:
        return make()
    box: list[T | None] = [None, None]  # the second says whether there is a first
    try:
        if is_main():
            box = [make(), True]  # type: ignore[list-item]
    except Exception:
        _hand_out(box)
        raise
    _hand_out(box)
    if not box[1]:
        sys.exit(USAGE)
    return box[0]  # type: ignore[return-value]


def main_first(make: Callable[[], T]) -> T:
    """Make something on rank 0, then on the others, who find on disk what it left there."""
    made: list[T] = []
    from_main(lambda: made.append(make()))
    return made[0] if made else make()


def _hand_out(box: list[T | None]) -> None:
    with _others():
        dist.broadcast_object_list(box)


def told_once(error: Exception) -> BaseException:
    """Return what to raise for an error that all processes meet alike: rank 0 tells it, the others end in silence."""
    return error if is_main() else SystemExit(USAGE)


@contextlib.contextmanager
def _others() -> Iterator[None]:
    """Wait for torchrun's signal where another process has gone: torchrun, or that process, says why it went."""
    try:
        yield
    except RuntimeError as error:
        time.sleep(GRACE)
        raise ConfigError(f"another process of this run cannot be reached ({error}); start the run again") from None


def own(rows: Tensor) -> Tensor:
    """Return this process's part of a batch's rows."""
    return rows[rank() :: world()]


def share(there: Tensor) -> Share:
    """Say which of a batch's rows that count are this process's.

    Args: there (B,) bool on the CPU, the whole batch's rows that count.
    """
    return Share(own(there.cumsum(0) - 1)[own(there)], int(there.sum()))


def agree_on_random() -> None:
    """Bring torch's generator to where rank 0's is, before something is drawn that must be the same for all."""
    if world() > 1:
        state = torch.get_rng_state()
        with _others():
            dist.broadcast(state, 0)
        torch.set_rng_state(state)


@torch.no_grad()
def agree_on(state: Mapping[str, Tensor]) -> None:
    """Replace the tensors by those of rank 0."""
    for tensor in state.values() if world() > 1 else ():
        with _others():
            dist.broadcast(tensor, 0)


@torch.no_grad()
def sum_(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their sums over the processes, all in one message."""
    if world() == 1 or not tensors:
        return
    flat = _all_reduced(torch.cat([tensor.reshape(-1) for tensor in tensors]))
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def sum_values(values: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of numbers over the processes, which all have the same keys."""
    sums = torch.tensor(list(values.values()), dtype=torch.float64)
    sum_([sums])
    return dict(zip(values, sums.tolist(), strict=True))


def row_mean(values: Tensor) -> Tensor:
    """Return the mean over all processes' rows: (rows, ...) -> (...)."""
    if world() == 1:
        return values.mean(0)
    total = values.sum(0)
    flat = _all_reduced(torch.cat([total.reshape(-1), total.new_tensor([len(values)])]))
    return (flat[:-1] / flat[-1]).view_as(total)


def lined_up(values: Tensor, share: Share) -> Tensor:
    """Return a value for each row of the whole batch, those of other processes as constants: (rows,) -> (total,)."""
    if world() == 1:
        return values
    mine = values.new_zeros(share.total).index_copy(0, share.at.to(values.device), values)
    everyones = _all_reduced(mine.detach().clone())
    return mine + (everyones - mine.detach())


def _all_reduced(flat: Tensor) -> Tensor:
    with _others():
        dist.all_reduce(flat)
    return flat


def convert(module: nn.Module, device: torch.device) -> nn.Module:
    """Let layers that look at, or draw for, all rows of a batch do so across processes.

    Raises: ConfigError for batch normalisation on the CPU, which has no such form.
    """
    if world() == 1:
        return module
    row_dropout(module)
    encoders = {name: part for name, part in module.named_modules() if isinstance(part, Encoder)}
    normalising = [name for name, encoder in encoders.items() if encoder.normalises_over_batch]
    if normalising and device.type != "cuda":
        raise told_once(
            ConfigError(
                f"{normalising[0]}: batch normalisation would differ from process to process, and on the CPU torch has no "
                "other; use --norm group (of a pretrained encoder --tune frozen), CUDA, one process, or an encoder without it"
            )
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(module)
