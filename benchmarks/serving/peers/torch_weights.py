"""A bundle's graphs as torch modules again: the same architecture, the weights taken from the graphs.

The export folds a batch normalisation into the convolution before it. Here the convolution gets the folded weights and the
normalisation becomes the folded bias, so the module computes the same with every layer that eager mode would run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.runtime import DEVICES, open_session
from mla_serve.inputs import Array
from mla_serve.train.encoders import ENCODERS

TOLERANCE = 1e-3
Normalisation = nn.modules.batchnorm._BatchNorm
Convolution = nn.modules.conv._ConvNd


@dataclasses.dataclass(frozen=True)
class Rebuilt:
    """Modules, and where their weights are from: "other" where the graphs do not hold them by name (quantised, say)."""

    encoders: Mapping[str, nn.Module]
    heads: Mapping[str, nn.Module]
    weights: Literal["bundle", "other"]


def rebuild(bundle: Bundle) -> Rebuilt:
    """Build the bundle's encoders and heads; speed does not depend on whether the weights could be read."""
    manifest = bundle.manifest
    options = manifest.training["config"]
    chosen = dict(item.split("=") for item in options["encoders"])
    encoders: dict[str, nn.Module] = {}
    for name, modality in manifest.modalities.items():
        known = ENCODERS[modality.kind]
        encoders[name] = known[chosen.get(name, next(iter(known)))](bundle.inputs[name], options["width"]).eval()
        fill(encoders[name], initializers(bundle.read(modality.encoder)))
    heads: dict[str, nn.Module] = {}
    for name, path in manifest.heads.items():
        heads[name] = nn.Linear(options["width"], len(manifest.classes)).eval()
        fill(heads[name], initializers(bundle.read(path)))
    rebuilt = Rebuilt(encoders, heads, "bundle")
    return rebuilt if computes_the_same(rebuilt, bundle) else dataclasses.replace(rebuilt, weights="other")


@torch.inference_mode()
def computes_the_same(rebuilt: Rebuilt, bundle: Bundle) -> bool:
    """Compare every module with its graph, on a golden sample of each modality."""
    manifest = bundle.manifest
    for name, modality in manifest.modalities.items():
        payload = next(golden[name] for golden in bundle.golden_samples() if name in golden)
        features: Array = bundle.inputs[name].decode(payload, name)
        pairs = [
            (rebuilt.encoders[name], modality.encoder),
            (rebuilt.heads[modality.head], manifest.heads[modality.head]),
        ]
        for module, path in pairs:
            given = module(torch.from_numpy(features)).numpy()
            features = open_session(bundle.read(path), DEVICES["cpu"], threads=1).run(features)
            if not np.allclose(given, features, atol=TOLERANCE, rtol=TOLERANCE):
                return False
    return True


def initializers(graph: bytes) -> dict[str, Tensor]:
    """Return the constants of a graph by name."""
    found = onnx.load_from_string(graph).graph.initializer
    return {each.name: torch.from_numpy(np.array(numpy_helper.to_array(each))) for each in found}


@torch.no_grad()
def fill(module: nn.Module, constants: Mapping[str, Tensor]) -> None:
    """Copy a graph's constants into the module's parameters and buffers of the same names."""
    folded: Tensor | None = None
    for prefix, layer in module.named_modules():
        path = f"{prefix}." if prefix else ""
        if isinstance(layer, Normalisation) and folded is not None:
            _become_bias(layer, folded)
            folded = None
            continue
        own = dict(layer.named_parameters(recurse=False)) | dict(layer.named_buffers(recurse=False))
        for name, tensor in own.items():
            given = constants.get(path + name)
            if given is not None and given.shape == tensor.shape:
                tensor.copy_(given)
        if isinstance(layer, Convolution):
            folded = constants.get(f"{path}weight_bias")


def _become_bias(layer: nn.Module, bias: Tensor) -> None:
    """Make a batch normalisation add a bias and nothing else."""
    assert isinstance(layer, Normalisation)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.zero_()
    layer.running_var.fill_(1 - layer.eps)
    layer.weight.fill_(1.0)
    layer.bias.copy_(bias)
