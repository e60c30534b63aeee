"""Export torch modules as ONNX graphs, and compare each graph with its module."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mla_serve.bundle.graphs import LARGEST
from mla_serve.bundle.runtime import DEVICES, open_session
from mla_serve.errors import BundleError
from mla_serve.inputs import Array

OPSET = 20
BATCHES = (1, 2, 7)


def export_graph(module: nn.Module, example: Tensor, input_name: str, output_name: str, path: Path) -> None:
    """Write one graph with a dynamic batch axis and its weights inside.

    Args: example (2 or more, ...): a batch size of 1 would become a constant of the graph.
    """
    module.eval()
    size = sum(value.numel() * value.element_size() for value in (*module.parameters(), *module.buffers()))
    if size > LARGEST:
        raise BundleError(
            f"{path.name}: {size / 1e9:.1f} GB of weights, but one ONNX graph holds {LARGEST / 1e9:.1f} GB"
        )
    batch = torch.export.Dim("batch", min=1, max=65536)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's exporter warns about its own internals
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        torch.onnx.export(
            module,
            (example,),
            path,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    model = onnx.load(path)
    forget_origin(model)
    onnx.save(model, path)


def forget_origin(model: onnx.ModelProto) -> None:
    """Remove the stack traces that the exporter stores with each node, because they contain paths of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@torch.no_grad()
def largest_difference(
    module: nn.Module, path: Path, samples: Array, tolerance: float, providers: Sequence[str] = DEVICES["cpu"]
) -> float:
    """Compare a graph with its module at every batch size of BATCHES.

    Args: samples (N, ...), cycled through; tolerance, absolute plus relative.
    Returns: the largest |graph - module| / (1 + |module|).
    Raises: BundleError when it exceeds the tolerance, naming graph and batch size.
    """
    session = open_session(path.read_bytes(), providers, threads=1)
    module.eval()
    worst = 0.0
    for size in BATCHES:
        for at in range(0, len(samples), size):
            batch = samples[np.arange(at, at + size) % len(samples)]
            expected = module(torch.from_numpy(batch)).numpy()
            given = session.run(batch)
            difference = float((np.abs(given - expected) / (1 + np.abs(expected))).max())
            if given.shape != expected.shape or not difference <= tolerance:
                raise BundleError(
                    f"{path.name}: differs from torch by {difference:.2g} at batch {size}, allowed is {tolerance:.2g}; "
                    "nothing was exported"
                )
            worst = max(worst, difference)
    return worst
