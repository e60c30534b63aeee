"""fp32 graphs to int8 or fp16. Inputs and outputs keep their types, and fixed preprocessing keeps its precision.

Scales are static: measured once on training windows and written into the graph. A dynamic scale would span the batch,
and a sample's neighbours would change its answer.

Weights have 7 bits and activations 8: the sum of two products then fits 16 bits, in which processors without VNNI add
them, so the answers do not depend on the processor (onnxruntime's own advice, quantize_static).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from mla_serve.bundle.runtime import load_onnxruntime
from mla_serve.export.graphs import forget_origin
from mla_serve.inputs import Array

quantization = load_onnxruntime("quantization")
CalibrationDataReader: Any = quantization.CalibrationDataReader
float16 = load_onnxruntime("transformers.float16")
onnx_model = load_onnxruntime("transformers.onnx_model")
LINEAR = ("MatMul", "Gemm")
CONVOLUTIONS = (*LINEAR, "Conv", "Relu", "MaxPool", "Add")  # what stands between two convolutions stays int8 with them
KINDS = {"linear": LINEAR, "convolutions": CONVOLUTIONS}
WEIGHTED = ("MatMul", "Gemm", "Conv")
CALIBRATION_BATCH = 64


def to_int8(graph: bytes, fixed: Collection[str], windows: Array, layers: str) -> bytes:
    """Quantise the layers of some kinds, per output channel, with scales measured on windows.

    Args: fixed, names of the weights that nobody trained, see `behind_training`; windows (N, ...), training samples;
    layers, a key of KINDS.
    """
    model = onnx.load_from_string(graph)
    chosen = [node.name for node in behind_training(model, fixed) if node.op_type in KINDS[layers]]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            model,
            target,
            _Windows(model.graph.input[0].name, windows),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(KINDS[layers]),
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return _bytes(onnx.load(target))


def to_fp16(graph: bytes, fixed: Collection[str]) -> bytes:
    """Compute what was trained in half precision; what comes before, such as a log-mel spectrum, has no room in it."""
    model = onnx.load_from_string(graph)
    trained = {node.name for node in behind_training(model, fixed)}
    kept = [node.name for node in model.graph.node if node.name not in trained]
    with _quiet():
        half = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
        _drop_detours(half)
        onnx_model.OnnxModel(half).prune_graph()
        onnx_model.OnnxModel(half).topological_sort()
    return _bytes(half)


def _drop_detours(model: Any) -> None:
    """Join nodes that stay fp32: the converter leads what they hand on through fp16 and back."""
    to: dict[int, dict[str, str]] = {TensorProto.FLOAT16: {}, TensorProto.FLOAT: {}}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.attribute[0].i in to:
            to[node.attribute[0].i][node.output[0]] = node.input[0]
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            half = to[TensorProto.FLOAT].get(name, "")
            node.input[at] = to[TensorProto.FLOAT16].get(half, name)


def kinds_of(graph: bytes, fixed: Collection[str]) -> list[str]:
    """List the kinds of layers that quantising the graph could mean, of KINDS."""
    model = onnx.load_from_string(graph)
    found = {node.op_type for node in behind_training(model, fixed) if node.op_type in WEIGHTED}
    return [kind for kind, there in (("linear", found & set(LINEAR)), ("convolutions", "Conv" in found)) if there]


def behind_training(model: Any, fixed: Collection[str]) -> list[Any]:
    """Return the nodes that hold a trained weight or come after one that does, in the graph's order.

    Args: fixed, the names of the module's buffers: a DFT kernel, a mel matrix, means and spreads.
    """
    sizes = {one.name: len(one.dims) for one in model.graph.initializer if one.name not in fixed}
    trained = {name for name, rank in sizes.items() if rank > 1}
    found = []
    for node in model.graph.node:
        if not trained.isdisjoint(node.input):
            trained.update(node.output)
            found.append(node)
    return found


class _Windows(CalibrationDataReader):
    """Hand out windows in batches, as the calibration asks for them."""

    def __init__(self, name: str, windows: Array) -> None:
        starts = range(0, len(windows), CALIBRATION_BATCH)
        self._batches = iter([{name: windows[at : at + CALIBRATION_BATCH]} for at in starts])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def _bytes(model: Any) -> bytes:
    forget_origin(model)
    content: bytes = model.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the advice that the converters log to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
