"""Operations over the processes that torchrun starts: sums, means and broadcasts.

Every process takes its rows of every batch, and gradients are summed over the processes. The result equals that of one
process because each loss is a mean over the rows of ALL processes: a process divides the sum over its rows by the number
of rows of all, so that the sum of the processes' losses, and of their gradients, is the loss of the whole batch. The same
holds for every other mean that training uses (`row_mean`): sums and counts are added up, never means.

The gradients are summed in one explicit all-reduce instead of by DistributedDataParallel. A turn trains one encoder and
one head out of many, a process may hold no row of a modality, and some strategies change gradients between backward and
step. DDP averages the processes as if they had equally many rows, and it hooks one forward pass of one module.

In one process no function here changes a bit.
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
from mla_serve.train.distributed.local_rows import LocalRows, use_row_dropout
from mla_serve.train.distributed.rendezvous import name_attempt, name_call

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=6)  # others wait while rank 0 reads and checks the data; torchrun notices dead ones
SETTLE_S = 0.5  # gloo's threads release their last tensors meanwhile; if Python ended first, they would abort it
GRACE_S = 30.0  # torchrun ends the remaining processes within this time after one has died


# ---- which process is this


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def is_main() -> bool:
    """Whether this is rank 0, the process that reads, writes and prints."""
    return not launched() or os.environ["RANK"] == "0"


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def default_threads() -> int:
    """Return the cores of this machine divided by its processes, one at least."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1") if launched() else 1))


def local_device(device: torch.device) -> torch.device:
    """Return the device of this process: under torchrun each process has a GPU of its own.

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


# ---- joining and failing together


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[str | None]:
    """Join the other processes that torchrun started, until the end of the block.

    Yields: the name of this call of torchrun, the same after its restarts; None without torchrun.
    """
    if not launched():
        yield None
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _waiting_for_torchrun():
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
        time.sleep(SETTLE_S)
        dist.destroy_process_group()


@contextlib.contextmanager
def _waiting_for_torchrun() -> Iterator[None]:
    """Wait for torchrun's signal where another process has died: torchrun, or that process, prints the reason."""
    try:
        yield
    except RuntimeError as error:
        time.sleep(GRACE_S)
        raise ConfigError(f"another process of this run cannot be reached ({error}); start the run again") from None


def from_main(make: Callable[[], T]) -> T:
    """Make something on rank 0 while the others wait, and send it to all. An error there ends all; rank 0 reports it."""
    if world_size() == 1:
        return make()
    box: list[T | None] = [None, None]  # what was made, and whether it was made
    try:
        if is_main():
            box = [make(), True]  # type: ignore[list-item]
    except Exception:
        _broadcast_objects(box)
        raise
    _broadcast_objects(box)
    if not box[1]:
        sys.exit(USAGE)
    return box[0]  # type: ignore[return-value]


def main_first(make: Callable[[], T]) -> T:
    """Make something on rank 0 first, then on the others, which then find on disk what rank 0 has stored there."""
    made: list[T] = []
    from_main(lambda: made.append(make()))
    return made[0] if made else make()


def _broadcast_objects(box: list[T | None]) -> None:
    with _waiting_for_torchrun():
        dist.broadcast_object_list(box)


def reported_once(error: Exception) -> BaseException:
    """Return what to raise for an error that every process meets: the error on rank 0, a silent exit on the others."""
    return error if is_main() else SystemExit(USAGE)


# ---- rows of a batch


def local_part(rows: Tensor) -> Tensor:
    """Return the rows of a batch that belong to this process."""
    return rows[rank() :: world_size()]


def local_rows(counted: Tensor) -> LocalRows:
    """Return which of the rows that count belong to this process.

    Args: counted (B,) bool on the CPU, which rows of the whole batch count, such as those that have a modality.
    """
    fewest = min(int(counted[of :: world_size()].sum()) for of in range(world_size()))
    return LocalRows(local_part(counted.cumsum(0) - 1)[local_part(counted)], int(counted.sum()), fewest)


def row_mean(values: Tensor) -> Tensor:
    """Return the mean over the rows of all processes: (rows, ...) -> (...)."""
    if world_size() == 1:
        return values.mean(0)
    total = values.sum(0)
    flat = _all_reduced(torch.cat([total.reshape(-1), total.new_tensor([len(values)])]))
    return (flat[:-1] / flat[-1]).view_as(total)


def gather_rows(values: Tensor, local: LocalRows) -> Tensor:
    """Return a value for each row of the whole batch: (rows,) -> (total,). Those of other processes have no gradient."""
    if world_size() == 1:
        return values
    mine = values.new_zeros(local.total).index_copy(0, local.positions.to(values.device), values)
    everyones = _all_reduced(mine.detach().clone())
    return mine + (everyones - mine.detach())


# ---- sums and copies


@torch.no_grad()
def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their sums over the processes, all in one message."""
    if world_size() == 1 or not tensors:
        return
    flat = _all_reduced(torch.cat([tensor.reshape(-1) for tensor in tensors]))
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def sum_values(values: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of numbers over the processes. All processes have the same keys."""
    sums = torch.tensor(list(values.values()), dtype=torch.float64)
    all_reduce([sums])
    return dict(zip(values, sums.tolist(), strict=True))


def _all_reduced(flat: Tensor) -> Tensor:
    with _waiting_for_torchrun():
        dist.all_reduce(flat)
    return flat


@torch.no_grad()
def broadcast(state: Mapping[str, Tensor]) -> None:
    """Replace the tensors by those of rank 0."""
    for tensor in state.values() if world_size() > 1 else ():
        with _waiting_for_torchrun():
            dist.broadcast(tensor, 0)


def sync_random_state() -> None:
    """Set torch's generator to the state of rank 0, before something is drawn that must be the same for all."""
    if world_size() > 1:
        state = torch.get_rng_state()
        with _waiting_for_torchrun():
            dist.broadcast(state, 0)
        torch.set_rng_state(state)


def convert_layers(module: nn.Module, device: torch.device, batch_normalised: Sequence[str]) -> nn.Module:
    """Replace the layers that depend on all rows of a batch by forms that work across processes.

    Args: batch_normalised, the modalities whose encoders use batch normalisation.
    Raises: ConfigError for batch normalisation on the CPU, where torch cannot synchronise it.
    """
    if world_size() == 1:
        return module
    use_row_dropout(module)
    if batch_normalised and device.type != "cuda":
        raise reported_once(
            ConfigError(
                f"{batch_normalised[0]}: batch normalisation would differ between the processes, and on the CPU torch "
                "cannot synchronise it; use --norm group (of a pretrained encoder --tune frozen), CUDA, one process, or "
                "an encoder without it"
            )
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(module)
