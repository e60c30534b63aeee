"""A graph is its module and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mla_serve.errors import BundleError
from mla_serve.export.graphs import export_graph, largest_difference
from mla_serve.inputs import VectorInput
from mla_serve.train.encoders import ENCODERS
from mla_serve.train.encoders.log_mel import LogMel

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


def quiet_clips(samples: int) -> np.ndarray:
    """Make clips in which there is little or nothing to hear: (12, samples) float32."""
    generator, time = np.random.default_rng(0), np.arange(samples)
    click = (time == samples // 2).astype(float)
    lowest_bit = np.where(time % 2, 1, -1) / 32768
    clips = [0 * time, 0 * time + 1e-6, 0 * time + 0.5, 0 * time - 1.0, click, click / 32768, lowest_bit]
    clips += [generator.standard_normal(samples) * level for level in (1e-9, 1e-7, 1e-5)]
    clips += [np.sin(0.3 * time) * 1e-4, np.round(generator.standard_normal(samples) * 0.3) / 32768]
    return np.stack(clips).astype(np.float32)


@pytest.mark.parametrize(("rate", "seconds", "bands"), [(1000, 0.5, 48), (8000, 1, 64), (16_000, 10, 48)])
def test_silence_is_heard_alike_by_torch_and_the_graph(tmp_path: Path, rate: int, seconds: float, bands: int) -> None:
    """Also a constant offset, of which the bands hear the rounding alone, and clips of a single bit."""
    front = LogMel(rate, bands).eval()
    clips = quiet_clips(round(rate * seconds))
    export_graph(front, torch.from_numpy(clips[:2]), "waveform", "features", tmp_path / "mel.onnx")
    assert largest_difference(front, tmp_path / "mel.onnx", clips, 1e-4) < 1e-4
    assert not front(torch.zeros(1, clips.shape[1])).any()
