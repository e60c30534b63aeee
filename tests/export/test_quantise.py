"""Smaller graphs: no sample sees its neighbours, preprocessing is left alone, and the answers stay close."""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mla_serve.bundle.runtime import DEVICES, Session, open_session
from mla_serve.export.quantise import operator_groups, to_fp16, to_int8, trained_nodes
from mla_serve.inputs import Array

FIXED = {"front.kernel"}
LENGTH = 64


def listening_graph() -> bytes:
    """Make a small audio encoder: a fixed filter bank and its logarithm, a trained convolution, a trained layer."""
    generator = np.random.default_rng(1)
    weights = {
        "front.kernel": generator.standard_normal((6, 1, 8)),
        "tiny": np.array(1e-6),
        "body.weight": generator.standard_normal((5, 6, 3)),
        "body.bias": generator.standard_normal(5),
        "end.weight": generator.standard_normal((4, 5)),
        "end.bias": generator.standard_normal(4),
        "axes": np.array([1]),
        "last": np.array([2]),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["waveform", "axes"], ["channel"], "lift"),
        helper.make_node("Conv", ["channel", "front.kernel"], ["filtered"], "bank", strides=[4]),
        helper.make_node("Mul", ["filtered", "filtered"], ["power"], "square"),
        helper.make_node("Add", ["power", "tiny"], ["floored"], "floor"),
        helper.make_node("Log", ["floored"], ["levels"], "log"),
        helper.make_node("Conv", ["levels", "body.weight", "body.bias"], ["maps"], "conv"),
        helper.make_node("Relu", ["maps"], ["bent"], "relu"),
        helper.make_node("ReduceMean", ["bent", "last"], ["pooled"], "pool", keepdims=0),
        helper.make_node("Gemm", ["pooled", "end.weight", "end.bias"], ["features"], "linear", transB=1),
    ]
    whole = ("axes", "last")
    constants = [
        numpy_helper.from_array(np.asarray(value, np.int64 if name in whole else np.float32), name)
        for name, value in weights.items()
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("waveform", LENGTH), ("features", 4))
    ]
    graph = helper.make_graph(nodes, "listening", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


GRAPH = listening_graph()
WINDOWS = np.random.default_rng(2).standard_normal((64, LENGTH)).astype(np.float32)
LOWERED = {
    "int8 convolutions": to_int8(GRAPH, FIXED, WINDOWS, "convolutions"),
    "int8 linear": to_int8(GRAPH, FIXED, WINDOWS, "linear"),
    "fp16": to_fp16(GRAPH, FIXED),
}
each = pytest.mark.parametrize("label", LOWERED)


def opened(graph: bytes) -> Session:
    return open_session(graph, DEVICES["cpu"], 1)


SESSIONS = {label: opened(graph) for label, graph in LOWERED.items()}


def parts(label: str) -> tuple[dict[str, Array], list[Any]]:
    model = onnx.load_from_string(LOWERED[label])
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}, list(model.graph.node)


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 9), loudness=st.sampled_from([0.0, 1.0, 1e4]))
@settings(max_examples=40, deadline=None)
@each
def test_a_sample_does_not_see_its_neighbours(label: str, seed: int, size: int, loudness: float) -> None:
    generator = np.random.default_rng(seed)
    batch = generator.standard_normal((size, LENGTH)).astype(np.float32)
    batch[1:] *= np.float32(loudness)
    np.testing.assert_allclose(SESSIONS[label].run(batch)[:1], SESSIONS[label].run(batch[:1]), rtol=1e-6, atol=1e-6)


@each
def test_the_answers_stay_close_to_those_in_fp32(label: str) -> None:
    expected = opened(GRAPH).run(WINDOWS)
    difference = np.linalg.norm(SESSIONS[label].run(WINDOWS) - expected) / np.linalg.norm(expected)
    assert 0 < difference < 0.05


@each
def test_inputs_and_outputs_are_those_of_the_fp32_graph(label: str) -> None:
    before, after = (onnx.load_from_string(graph).graph for graph in (GRAPH, LOWERED[label]))
    for old, new in zip([*before.input, *before.output], [*after.input, *after.output], strict=True):
        assert (old.name, old.type.tensor_type.elem_type) == (new.name, new.type.tensor_type.elem_type)


@each
def test_preprocessing_keeps_its_precision_and_its_constants(label: str) -> None:
    constants, nodes = parts(label)
    kernel = next(
        numpy_helper.to_array(one)
        for one in onnx.load_from_string(GRAPH).graph.initializer
        if one.name == "front.kernel"
    )
    assert constants["front.kernel"].dtype == np.float32
    np.testing.assert_array_equal(constants["front.kernel"], kernel)
    by_name = {node.name: node for node in nodes}
    for before, after in (("lift", "bank"), ("bank", "square"), ("square", "floor"), ("floor", "log")):
        assert by_name[after].input[0] == by_name[before].output[0]  # nothing is rounded in between


@each
def test_silence_stays_finite(label: str) -> None:
    assert np.isfinite(SESSIONS[label].run(np.zeros((2, LENGTH), np.float32))).all()


def test_scales_are_static_and_weights_small_enough_for_any_processor() -> None:
    constants, nodes = parts("int8 convolutions")
    assert not {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"} & {node.op_type for node in nodes}
    weights = [value for value in constants.values() if value.dtype == np.int8 and value.ndim > 1]
    assert len(weights) == 2
    # 255 x 64 x 2 fits 16 bits
    assert max(np.abs(value.astype(int)).max() for value in weights) <= 64


def test_convolutions_are_left_alone_where_only_linear_layers_are_asked_for() -> None:
    constants, _ = parts("int8 linear")
    assert constants["body.weight"].dtype == np.float32
    assert [value.shape for value in constants.values() if value.dtype == np.int8 and value.ndim > 1] == [(4, 5)]


def test_what_comes_after_a_trained_weight_is_told_from_what_comes_before() -> None:
    model = onnx.load_from_string(GRAPH)
    assert [node.name for node in trained_nodes(model, FIXED)] == ["conv", "relu", "pool", "linear"]
    assert len(trained_nodes(model, set())) == 8
    assert operator_groups(GRAPH, FIXED) == ["linear", "convolutions"]
    assert operator_groups(GRAPH, FIXED | {"body.weight"}) == ["linear"]


@each
def test_a_smaller_graph_says_nothing_of_the_machine_that_made_it(label: str) -> None:
    model = onnx.load_from_string(LOWERED[label])
    onnx.checker.check_model(model)
    assert tempfile.gettempdir().encode() + b"/" not in LOWERED[label]
    assert not model.metadata_props


def test_quantising_says_nothing_and_leaves_logging_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.root.manager.disable
    to_int8(GRAPH, FIXED, WINDOWS[:4], "linear")
    assert not caplog.records
    assert logging.root.manager.disable == before
