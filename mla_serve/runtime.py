"""The one place that touches onnxruntime: which wheel is installed, which device is used, how a graph is opened."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Sequence
from typing import Any

from mla_serve.errors import ConfigError
from mla_serve.graphs import check_self_contained
from mla_serve.inputs import Array

log = logging.getLogger("mla_serve")
WHEELS = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu"}
PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}  # the golden samples are compared with fp32
DEVICES = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}


class Session:
    """One ONNX graph with one input and one output. Thread-safe."""

    def __init__(self, session: Any) -> None:
        """Wrap an onnxruntime.InferenceSession."""
        self._session = session
        self._input = session.get_inputs()[0].name
        self.providers: list[str] = session.get_providers()

    def run(self, batch: Array) -> Array:
        """Run the graph on (B, ...) and return its output (B, ...)."""
        output: Array = self._session.run(None, {self._input: batch})[0]
        return output


def check_runtime() -> None:
    """Refuse to go on unless exactly one of the two onnxruntime wheels is installed.

    With both, CUDA silently disappears and removing one breaks the other.
    """
    found = [wheel for wheel in WHEELS if _installed(wheel)]
    if len(found) == 1:
        return
    given = "both onnxruntime and onnxruntime-gpu are" if found else "neither onnxruntime nor onnxruntime-gpu is"
    undo = "pip uninstall -y onnxruntime onnxruntime-gpu, then " if found else ""
    raise ConfigError(
        f"{given} installed, exactly one is needed: {undo}"
        "pip install 'mla_serve[cpu]' on a machine without CUDA, or pip install 'mla_serve[gpu]' on one with it"
    )


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def open_session(graph: bytes, providers: Sequence[str], threads: int) -> Session:
    """Open a graph from memory; CPU threads do not spin between runs (TRAPS.md, onnxruntime).

    Raises: BundleError for a graph that refers to other files; what onnxruntime raises for one that it cannot load,
    which includes operators of domains that it does not have.
    """
    import onnxruntime

    check_self_contained(graph)

    if "CUDAExecutionProvider" in providers and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    offered = onnxruntime.get_available_providers()
    chosen = [(name, PROVIDER_OPTIONS.get(name, {})) for name in providers if name in offered]
    return Session(onnxruntime.InferenceSession(graph, options, providers=chosen))


def warn_of_fallback(asked: Sequence[str], used: Sequence[str]) -> None:
    """Say loudly when a device was asked for and another is used: the gpu wheel lists CUDA even where there is none."""
    if missing := [name for name in asked if name not in used]:
        log.warning(
            "ASKED FOR %s BUT RUNNING ON %s: install mla_serve[gpu], on a machine with an NVIDIA driver",
            ", ".join(missing),
            ", ".join(used),
        )
