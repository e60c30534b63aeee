"""Convert fp32 graphs to int8 or fp16. Inputs and outputs keep their types; untrained preprocessing keeps its precision.

The int8 scales are static: measured once on training windows and written into the graph. A dynamic scale would depend on
the whole batch, so that the other samples of a batch would change an answer.

Weights have 7 bits and activations 8. The sum of two products then fits into 16 bits, in which processors without VNNI
add, so that answers do not depend on the processor (advice of onnxruntime's quantize_static, `reduce_range`).
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
CONVOLUTIONS = (*LINEAR, "Conv", "Relu", "MaxPool", "Add")  # operators between two convolutions are int8 too
OPERATOR_GROUPS = {"linear": LINEAR, "convolutions": CONVOLUTIONS}
WEIGHTED = ("MatMul", "Gemm", "Conv")
SCALE_BATCH = 64  # windows that are run together to measure scales


def to_int8(graph: bytes, fixed: Collection[str], windows: Array, group: str) -> bytes:
    """Quantise the trained operators of one group, per output channel, with scales measured on windows.

    Args: fixed, names of the untrained constants, see `trained_nodes`; windows (N, ...), training samples; group, a key
    of OPERATOR_GROUPS.
    """
    model = onnx.load_from_string(graph)
    chosen = [node.name for node in trained_nodes(model, fixed) if node.op_type in OPERATOR_GROUPS[group]]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            model,
            target,
            _Windows(model.graph.input[0].name, windows),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATOR_GROUPS[group]),
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return _bytes(onnx.load(target))


def to_fp16(graph: bytes, fixed: Collection[str]) -> bytes:
    """Compute the trained part in half precision. Preprocessing stays fp32: fp16 has too little range for log-mel."""
    model = onnx.load_from_string(graph)
    trained = {node.name for node in trained_nodes(model, fixed)}
    kept = [node.name for node in model.graph.node if node.name not in trained]
    with _quiet():
        half = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
        _drop_double_casts(half)
        onnx_model.OnnxModel(half).prune_graph()
        onnx_model.OnnxModel(half).topological_sort()
    return _bytes(half)


def _drop_double_casts(model: Any) -> None:
    """Connect fp32 nodes directly. The converter casts the values between them to fp16 and back."""
    to: dict[int, dict[str, str]] = {TensorProto.FLOAT16: {}, TensorProto.FLOAT: {}}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.attribute[0].i in to:
            to[node.attribute[0].i][node.output[0]] = node.input[0]
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            half = to[TensorProto.FLOAT].get(name, "")
            node.input[at] = to[TensorProto.FLOAT16].get(half, name)


def operator_groups(graph: bytes, fixed: Collection[str]) -> list[str]:
    """List the keys of OPERATOR_GROUPS for which the graph has trained operators."""
    model = onnx.load_from_string(graph)
    found = {node.op_type for node in trained_nodes(model, fixed) if node.op_type in WEIGHTED}
    return [group for group, there in (("linear", found & set(LINEAR)), ("convolutions", "Conv" in found)) if there]


def trained_nodes(model: Any, fixed: Collection[str]) -> list[Any]:
    """Return the nodes that hold a trained weight or follow one that does, in the order of the graph.

    Args: fixed, the names of the module's buffers, such as a DFT kernel, a mel matrix, means and deviations.
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
    """Give windows in batches, as onnxruntime reads them to measure scales."""

    def __init__(self, name: str, windows: Array) -> None:
        starts = range(0, len(windows), SCALE_BATCH)
        self._batches = iter([{name: windows[at : at + SCALE_BATCH]} for at in starts])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def _bytes(model: Any) -> bytes:
    forget_origin(model)
    content: bytes = model.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings that the converters log to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
