"""Use onnxruntime: which wheel is installed, which device to use, how to open a graph. Nothing else imports it."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mla_serve.bundle.graphs import check_self_contained
from mla_serve.errors import BundleError, ConfigError
from mla_serve.inputs import Array

log = logging.getLogger("mla_serve")
WHEELS = {
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "cuda",
    "onnxruntime-openvino": "openvino",
    "onnxruntime-directml": "dml",
    "onnxruntime-qnn": "qnn",
    "onnxruntime-rocm": "rocm",
    "onnxruntime-migraphx": "migraphx",
    "onnxruntime-cann": "cann",
}
"""Packages that contain the module onnxruntime -> the device that each of them is built for."""
PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}  # the golden samples are compared with fp32
DEVICES = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}
SUFFIX = "ExecutionProvider"
NVIDIA_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The CPU limit of a container: microseconds of processor time per period in microseconds, "150000 100000", or "max 100000"."""


class Session:
    """One ONNX graph with one input and one output. Thread-safe."""

    def __init__(self, session: Any) -> None:
        """Wrap an onnxruntime.InferenceSession."""
        self._session = session
        self._input = session.get_inputs()[0].name
        self.providers: list[str] = session.get_providers()

    def run(self, batch: Array) -> Array:
        """Run the graph on (B, ...) and return its output (B, ...).

        Raises: BundleError when it returns another number of rows: answers would go to the wrong samples.
        """
        output: Array = self._session.run(None, {self._input: batch})[0]
        if output.shape[:1] != batch.shape[:1]:
            raise BundleError(
                f"the graph of {self._input} returned {output.shape} for {len(batch)} rows; expected a row for each; "
                "export it with a dynamic first dimension"
            )
        return output


def check_runtime() -> None:
    """Check that exactly one of the wheels that contain onnxruntime is installed.

    Two of them own the same files: CUDA silently disappears, and removing one breaks the other.
    Raises: ConfigError.
    """
    found = _installed_wheels()
    if len(found) == 1:
        return
    given = f"{' and '.join(found)} are both" if found else "neither onnxruntime nor onnxruntime-gpu is"
    undo = f"pip uninstall -y {' '.join(found)}, then " if found else ""
    raise ConfigError(
        f"{given} installed, exactly one is needed: {undo}"
        "pip install 'mla_serve[cpu]' on a machine without CUDA, or pip install 'mla_serve[gpu]' on one with it"
    )


def _installed_wheels() -> list[str]:
    return [wheel for wheel in WHEELS if _installed(wheel)]


def load_onnxruntime(module: str = "") -> Any:
    """Import onnxruntime, or a module of it such as "quantization", after telemetry.switch_off. All code imports it here."""
    return importlib.import_module(f"onnxruntime.{module}" if module else "onnxruntime")


def runtime_version() -> str:
    """Return the version of the onnxruntime that is installed."""
    return str(load_onnxruntime().__version__)


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def cores(quota: Path = QUOTA) -> int:
    """Return how many processor cores this process may use: its CPU affinity, or less by the limit of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        given, period = map(int, quota.read_text().split())
    except (OSError, ValueError):
        return allowed
    return max(1, min(allowed, math.ceil(given / period)))


def cuda_is_there() -> bool:
    """Return whether the gpu wheel is installed and the machine has an NVIDIA device, without loading CUDA."""
    return _installed("onnxruntime-gpu") and any(Path(path).exists() for path in NVIDIA_DEVICES)


def providers_of(device: str) -> Sequence[str]:
    """Return onnxruntime's names for a device, in order of preference.

    Args: device, a key of DEVICES, or a provider of the installed onnxruntime, with or without "ExecutionProvider".
    Raises: ConfigError.
    """
    if device in DEVICES:
        return DEVICES[device]
    offered = load_onnxruntime().get_available_providers()
    found = [name for name in offered if device.lower() in (name.lower(), name.removesuffix(SUFFIX).lower())]
    if not found:
        names = (name.removesuffix(SUFFIX).lower() for name in offered)
        known = ", ".join(dict.fromkeys(("auto", *DEVICES, *names)))
        raise ConfigError(f"{device!r}: {_provider_hint(device)}; choose one of {known}")
    return tuple(dict.fromkeys((*found, "CPUExecutionProvider")))


def _provider_hint(device: str) -> str:
    """Describe that the installed wheel has no such provider, and which wheel has it."""
    found = _installed_wheels()
    fault = f"the installed {' and '.join(found) or 'onnxruntime'} has no such provider"
    needed = next((wheel for wheel, name in WHEELS.items() if name == device.removesuffix(SUFFIX).lower()), None)
    swap = f"pip uninstall -y {' '.join(found)} && pip install {needed}"
    return f"{fault}, {needed} has: {swap}" if needed else fault


def open_session(graph: bytes, providers: Sequence[str], threads: int, *, spin: bool = False) -> Session:
    """Open a graph from memory.

    Args: threads, of one run; spin, whether the threads busy-wait for the next run instead of sleeping, which lowers
    latency a little when cores are idle and costs much when they are not.
    Raises: BundleError for a graph that refers to other files; exceptions of onnxruntime for a graph that it cannot load,
    for example with operators that it does not know.
    """
    onnxruntime = load_onnxruntime()
    check_self_contained(graph)
    if "CUDAExecutionProvider" in providers and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.log_severity_level = 3
    offered = onnxruntime.get_available_providers()
    chosen = [(name, PROVIDER_OPTIONS.get(name, {})) for name in providers if name in offered]
    return Session(onnxruntime.InferenceSession(graph, options, providers=chosen))


def warn_of_fallback(requested: Sequence[str], used: Sequence[str]) -> None:
    """Log a warning when another device is used than requested. The gpu wheel lists CUDA even on machines without it."""
    if missing := [name for name in requested if name not in used]:
        log.warning(
            "ASKED FOR %s BUT RUNNING ON %s: %s",
            ", ".join(missing),
            ", ".join(used),
            "install mla_serve[gpu], on a machine with an NVIDIA driver"
            if DEVICES["cuda"][0] in missing
            else "its libraries or its device are not on this machine",
        )
