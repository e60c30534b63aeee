"""A step of every strategy on a device that is not the CPU: none of its operations mixes tensors of two devices.

The device `meta` stands for a GPU. Its tensors have no values, so what would be copied to the CPU is replaced by numbers from 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.fx.experimental._config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mla_serve.train.data.samples import Samples
from mla_serve.train.strategies import STRATEGIES, Options, Strategy
from mla_serve.train.strategies.base import Schedule

DEVICE = torch.device("meta")
LEARNED = [(name, task) for name, strategy in sorted(STRATEGIES.items()) for task in strategy.tasks]
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}  # between devices, by their purpose
INDEXED = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}  # a GPU takes indices of the CPU too


class OneDevice(TorchDispatchMode):
    """Refuse operations on tensors of both devices, as a GPU does, but for single numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func is aten._local_scalar_dense.default and tensors[0].device == DEVICE:
            return 1.0
        if func is aten._to_copy.default and kwargs.get("device") == torch.device("cpu"):
            numbers = 1 + torch.arange(tensors[0].numel()).view(tensors[0].shape) / 7
            return numbers.to(kwargs.get("dtype") or tensors[0].dtype)
        devices = {tensor.device.type for tensor in tensors if tensor.dim()}
        if func not in COPIES | INDEXED and len(devices) > 1:
            raise RuntimeError(f"{func}: tensors on {' and '.join(sorted(devices))}")
        return func(*args, **kwargs)


class BatchElsewhere:
    """A batch whose targets, masks and windows are on the device. Each row has all modalities: sizes depend on nothing."""

    def __init__(self, batch: Any) -> None:
        self._batch, self.rows = batch, batch.rows
        self.targets = batch.targets.to(DEVICE)
        self.present = {name: there.to(DEVICE) for name, there in batch.present.items()}
        self.present_everywhere = batch.present_everywhere

    def inputs(self, name: str) -> torch.Tensor:
        windows: torch.Tensor = self._batch.inputs(name).to(DEVICE)
        return windows


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a mask without values choose all rows, and do without autocast, which the device does not have."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    with torch.fx.experimental._config.patch(meta_nonzero_assume_all_nonzero=True):
        yield


@pytest.mark.parametrize(("name", "task"), LEARNED)
def test_a_step_mixes_no_tensors_of_two_devices(
    name: str,
    task: str,
    make_strategy: Callable[..., Strategy],
    make_samples: Callable[..., Samples],
    fixed_batch: Callable[..., Any],
) -> None:
    samples = make_samples(task=task)
    strategy = make_strategy(name, task=task, clip=1.0).to(DEVICE)
    if task == "classes":
        strategy.weight_classes([1.0, 2.0, 0.5])
    batch = BatchElsewhere(fixed_batch(samples, torch.arange(len(samples))))
    strategy.prepare(100, len(samples))
    with OneDevice():
        for _ in range(2):
            strategy.start_epoch()
            assert "loss/a" in strategy.step(batch) | strategy.step(batch)
    assert {parameter.device for parameter in strategy.parameters()} == {DEVICE}
    strategy.begin_at([0.5] * strategy.task.outputs)


def test_the_device_refuses_a_tensor_of_the_cpu() -> None:
    ours, theirs = torch.ones(3, device=DEVICE), torch.ones(3)
    with OneDevice(), pytest.raises(RuntimeError, match=r"cpu and meta|same device"):
        ours + theirs
    with OneDevice(), pytest.raises(RuntimeError, match=r"cpu and meta|same device"):
        torch.ones(2, 3, device=DEVICE) @ torch.ones(3, 2)
    with OneDevice():
        assert (ours * torch.ones(())).device == DEVICE
        assert float(ours.sum()) == 1.0


def test_a_frozen_optimiser_state_is_on_the_device() -> None:
    layer = torch.nn.Linear(2, 2).to(DEVICE)
    schedule = Schedule(layer, Options(), 10)
    layer(torch.ones(3, 2, device=DEVICE)).sum().backward()
    with OneDevice():
        schedule.step()
    moments = [state["exp_avg"].device for state in schedule.optimizer.state.values()]
    assert set(moments) == {DEVICE}
