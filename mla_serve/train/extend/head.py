"""The head of a bundle, read from its graph, and the strategy that trains encoders against this fixed head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.runtime import DEVICES, open_session
from mla_serve.errors import BundleError, ConfigError
from mla_serve.fusion.formula import Array
from mla_serve.tasks import Task
from mla_serve.train.encoders import Encoder
from mla_serve.train.recipe import Recipe
from mla_serve.train.strategies import Options, Strategy
from mla_serve.train.strategies.base import Batch, Schedule

FIXED_HEAD = "fixed_head"
"""The strategy in the recipe of an extension; runs of older versions have "late"."""
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Head:
    """The head that all modalities of a bundle share: name, weight (C, D) and bias (C,), float32."""

    name: str
    weight: Array
    bias: Array


def read_head(bundle: Bundle) -> Head:
    """Read the one head of a bundle.

    Raises: ConfigError when it has several; BundleError when its graph is more than a linear layer.
    """
    heads = bundle.manifest.heads
    if len(heads) > 1:
        raise ConfigError(
            f"--extend {bundle.folder}: the bundle has {len(heads)} heads, {', '.join(heads)}, each for the features of one "
            "modality; an encoder can be added only where all share one head: train with --strategy mla, --heads shared"
        )
    name, path = next(iter(heads.items()))
    graph = bundle.read(path)
    weight, bias = _linear(onnx.load_model_from_string(graph).graph, path)
    if len(weight) != bundle.task.outputs:
        raise BundleError(f"{path}: gives {len(weight)} outputs, expected {bundle.task.outputs}")
    _compare(graph, weight, bias, path)
    return Head(name, weight, bias)


def _linear(graph: onnx.GraphProto, path: str) -> tuple[Array, Array]:
    """Return the weight (C, D) and bias (C,) of a graph that is Gemm, or MatMul and Add, or MatMul alone."""
    numbers = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    given, nodes = graph.input[0].name, list(graph.node)
    kinds = [node.op_type for node in nodes]
    try:
        if kinds == ["Gemm"] and nodes[0].input[0] == given:
            return _gemm(nodes[0], numbers)
        if kinds in (["MatMul"], ["MatMul", "Add"]) and nodes[0].input[0] == given:
            weight = numbers[nodes[0].input[1]].T
            added = [numbers[one] for one in nodes[-1].input if one in numbers] if len(nodes) > 1 else []
            return _shaped(weight, added[0] if added else np.zeros(len(weight)))
    except (KeyError, IndexError, ValueError):
        pass
    raise BundleError(
        f"{path}: holds {', '.join(kinds)}; expected a linear layer with its weights inside, Gemm or MatMul and Add"
    )


def _gemm(node: onnx.NodeProto, numbers: Mapping[str, Array]) -> tuple[Array, Array]:
    settings = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if settings.get("transA", 0):
        raise ValueError("its input is transposed")
    weight = numbers[node.input[1]] if settings.get("transB", 0) else numbers[node.input[1]].T
    bias = numbers[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight))
    return _shaped(weight * settings.get("alpha", 1.0), bias * settings.get("beta", 1.0))


def _shaped(weight: Array, bias: Array) -> tuple[Array, Array]:
    return np.ascontiguousarray(weight, np.float32), np.broadcast_to(bias, len(weight)).astype(np.float32)


def _compare(graph: bytes, weight: Array, bias: Array, path: str) -> None:
    """Check that the graph computes what was read from it. Raises: BundleError."""
    features = np.random.default_rng(0).standard_normal((4, weight.shape[1])).astype(np.float32)
    given = open_session(graph, DEVICES["cpu"], threads=1).run(features)
    expected = features @ weight.T + bias
    if given.shape != expected.shape or not np.allclose(given, expected, TOLERANCE, TOLERANCE):
        raise BundleError(
            f"{path}: does not compute features @ weight + bias; expected a linear layer; export the bundle again"
        )


class FixedHead(Strategy):
    """Each encoder by itself, with a head that does not learn."""

    def __init__(self, encoders: Mapping[str, Encoder], head: Head, task: Task, options: Options) -> None:
        """Take freshly built encoders with the width of the head."""
        linear = nn.Linear(head.weight.shape[1], len(head.weight))
        linear.load_state_dict({"weight": torch.tensor(head.weight), "bias": torch.tensor(head.bias)})
        super().__init__(
            encoders, {head.name: linear.requires_grad_(False)}, dict.fromkeys(encoders, head.name), task, options
        )

    def prepare(self, total_steps: int, rows: int) -> None:  # noqa: ARG002
        """Give each encoder an optimiser, and the head none."""
        self.schedules = {name: Schedule(encoder, self.options, total_steps) for name, encoder in self.encoders.items()}

    def step(self, batch: Batch) -> dict[str, float]:
        """Train every modality in turn. One with too few rows in this batch is skipped."""
        logged: dict[str, Any] = {}
        for name in self.usable(batch):
            part = self.part(batch, name)
            outputs = self.heads[self.head_of[name]](self.encode(name, part))
            loss = self.mean_loss(outputs, part.targets, part.local.total)
            logged[f"loss/{name}"] = self.set_gradients(loss, self.encoders[name])
            self.schedules[name].step()
        for schedule in self.schedules.values():
            schedule.advance()
        return logged


def build_fixed_head(recipe: Recipe, head: Head, seed: int = 0) -> FixedHead:
    """Make the added encoders, freshly initialised, and the head of the bundle."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FixedHead(recipe.make_encoders(), head, recipe.task, recipe.options)
