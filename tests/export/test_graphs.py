"""A graph is its module and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.graphs import export_graph, largest_difference
from mla_serve.errors import BundleError
from mla_serve.inputs import VectorInput
from mla_serve.train.encoders import ENCODERS
from mla_serve.train.encoders.audio import LogMel

FEATURES = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)


@pytest.fixture
def graph(tmp_path: Path) -> tuple[torch.nn.Module, Path]:
    encoder = ENCODERS["vector"]["small"](VectorInput(6), 8)
    export_graph(encoder, torch.from_numpy(FEATURES[:2]), "values", "features", tmp_path / "g.onnx")
    return encoder, tmp_path / "g.onnx"


def test_a_graph_equals_its_module_at_every_batch_size(graph: tuple[torch.nn.Module, Path]) -> None:
    assert largest_difference(*graph, FEATURES, 1e-4) < 1e-5


def test_a_graph_says_nothing_of_the_machine_that_made_it(graph: tuple[torch.nn.Module, Path]) -> None:
    model = onnx.load(graph[1])
    onnx.checker.check_model(model)
    root = str(Path(__file__).parent.parent.parent).encode()
    content = graph[1].read_bytes()
    assert root not in content
    assert b"site-packages" not in content
    assert b"stack_trace" not in content


def test_a_graph_of_another_module_is_told(graph: tuple[torch.nn.Module, Path]) -> None:
    other = ENCODERS["vector"]["small"](VectorInput(6), 8)
    with pytest.raises(BundleError, match="differs from torch"):
        largest_difference(other, graph[1], FEATURES, 1e-4)


def test_silence_stays_finite_in_the_graph(tmp_path: Path) -> None:
    front = LogMel(1000).eval()
    generator = np.random.default_rng(0)
    waveforms = generator.standard_normal((3, 500)).astype(np.float32) * np.array([[1], [1e-6], [0]], dtype=np.float32)
    export_graph(front, torch.from_numpy(waveforms[:2]), "waveform", "features", tmp_path / "mel.onnx")
    assert largest_difference(front, tmp_path / "mel.onnx", waveforms, 1e-2) < 1e-2  # NaN is not less
