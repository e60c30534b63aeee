"""Which onnxruntime is installed, and what happens when it is none, or two, or not the one asked for."""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.runtime import DEVICES, WHEELS, check_runtime, cores, open_session, providers_of, warn_of_fallback
from mla_serve.errors import BundleError, ConfigError


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to put the names of installed wheels into."""
    wheels: list[str] = []

    def version(name: str) -> str:
        if name not in wheels:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    return wheels


@pytest.mark.parametrize("wheel", WHEELS)
def test_either_wheel_alone_will_do(install: list[str], wheel: str) -> None:
    install.append(wheel)
    check_runtime()


def test_a_missing_wheel_names_both_extras(install: list[str]) -> None:
    with pytest.raises(ConfigError, match="neither onnxruntime nor onnxruntime-gpu") as caught:
        check_runtime()
    assert "mla_serve[cpu]" in str(caught.value)
    assert "mla_serve[gpu]" in str(caught.value)
    assert "uninstall" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_doubled_wheel_names_both_extras_and_how_to_undo_it(install: list[str]) -> None:
    install.extend(["onnxruntime", "onnxruntime-gpu"])
    with pytest.raises(ConfigError, match="onnxruntime and onnxruntime-gpu are both installed") as caught:
        check_runtime()
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in str(caught.value)
    assert "mla_serve[cpu]" in str(caught.value)
    assert "mla_serve[gpu]" in str(caught.value)


def test_a_graph_runs_on_the_device_that_was_asked_for(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = open_session(Bundle.load(tiny_bundle).read("vector.onnx"), DEVICES["cpu"], 1)
    assert session.providers == ["CPUExecutionProvider"]
    assert session.run(np.ones((5, 4), np.float32)).shape == (5, 8)
    assert not caplog.records


@pytest.mark.parametrize(
    ("used", "warned"),
    [(["CUDAExecutionProvider", "CPUExecutionProvider"], False), (["CPUExecutionProvider"], True)],
)
def test_asking_for_cuda_and_getting_the_cpu_is_a_loud_warning(
    used: list[str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_fallback(DEVICES["cuda"], used)
    assert ("ASKED FOR CUDAExecutionProvider BUT RUNNING ON" in caplog.text) == warned


@pytest.mark.parametrize(("content", "most"), [("50000 100000\n", 1), ("150000 100000\n", 2), ("10000 100000\n", 1)])
def test_a_container_has_the_cores_that_it_is_given(tmp_path: Path, content: str, most: int) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert 1 <= cores(tmp_path / "cpu.max") <= most


@pytest.mark.parametrize("content", ["max 100000\n", "", "x y"])
def test_without_a_quota_all_cores_count(tmp_path: Path, content: str) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cores(tmp_path / "cpu.max") == cores(tmp_path / "none") >= 1


def test_any_provider_is_passed_through_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    offered = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    for name in ("openvino", "OpenVINO", "OpenVINOExecutionProvider"):
        assert providers_of(name) == tuple(offered)
    assert providers_of("CPUExecutionProvider") == ("CPUExecutionProvider",)
    assert providers_of("cuda") == DEVICES["cuda"]
    with pytest.raises(ConfigError, match=r"choose one of auto, cpu, cuda, openvino$"):
        providers_of("nothing")


@pytest.mark.parametrize("name", ["openvino", "OpenVINOExecutionProvider"])
def test_a_provider_that_is_not_installed_names_its_package(install: list[str], name: str) -> None:
    install.append("onnxruntime")
    swap = "pip uninstall -y onnxruntime && pip install onnxruntime-openvino"
    with pytest.raises(
        ConfigError, match=f"the installed onnxruntime has no such provider.*{swap}; choose one of auto,"
    ):
        providers_of(name)


def test_a_fallback_from_another_provider_does_not_speak_of_nvidia(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_fallback(("OpenVINOExecutionProvider", "CPUExecutionProvider"), ["CPUExecutionProvider"])
    assert "ASKED FOR OpenVINOExecutionProvider BUT RUNNING ON CPUExecutionProvider: its libraries" in caplog.text
    assert "NVIDIA" not in caplog.text


def test_a_graph_that_returns_too_few_rows_is_told() -> None:
    with pytest.raises(BundleError, match=r"returned \(1, 4\) for 3 rows; expected a row for each"):
        open_session(first_row_only(), DEVICES["cpu"], 1).run(np.ones((3, 4), np.float32))


def first_row_only() -> bytes:
    """Make a graph that answers (B, 4) with its first row."""
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, 4]) for name, size in (("x", "B"), ("y", 1))]
    bounds = [numpy_helper.from_array(np.array([number]), name) for name, number in (("from", 0), ("to", 1))]
    node = helper.make_node("Slice", ["x", "from", "to"], ["y"])
    graph = helper.make_graph([node], "first", rows[:1], rows[1:], bounds)
    opsets = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


@pytest.mark.parametrize("spin", [False, True])
def test_spinning_changes_no_answer(tiny_bundle: Path, spin: bool) -> None:
    session = open_session(Bundle.load(tiny_bundle).read("vector.onnx"), DEVICES["cpu"], 2, spin=spin)
    np.testing.assert_array_equal(session.run(np.ones((1, 4), np.float32)), session.run(np.ones((1, 4), np.float32)))
