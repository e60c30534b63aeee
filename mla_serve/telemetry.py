"""Switch off the usage reports of libraries, in every process, before any of these libraries is imported."""

from __future__ import annotations

from collections.abc import MutableMapping

SWITCHES = {
    # From 1.29 on, onnxruntime writes ~/.cache/Microsoft and sends events to a server. It reads this variable once, when it
    # is imported. Its function disable_telemetry_events() stops neither.
    "ORT_DISABLE_TELEMETRY": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Environment variable -> the value that switches the reports of a library off."""


def switch_off(environment: MutableMapping[str, str]) -> None:
    """Set the variables that the operator has not set. Processes started from here inherit them."""
    for name, value in SWITCHES.items():
        if not environment.get(name):  # Docker Compose and shell scripts pass unset variables as empty ones
            environment[name] = value
