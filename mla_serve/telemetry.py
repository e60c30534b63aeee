"""Usage reports of the libraries: switched off in every process, before any of these libraries is imported."""

from __future__ import annotations

from collections.abc import MutableMapping

SWITCHES = {
    # Read once, while onnxruntime is imported: from 1.29 on it writes ~/.cache/Microsoft and calls a collector of events.
    # Its disable_telemetry_events() stops neither.
    "ORT_DISABLE_TELEMETRY": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Environment variable -> the value with which a library reports nothing."""


def switch_off(environment: MutableMapping[str, str]) -> None:
    """Switch off the reports that the operator has not decided on. Processes started from here inherit that."""
    for name, value in SWITCHES.items():
        if not environment.get(name):  # Docker Compose and shell scripts pass unset variables on as empty ones
            environment[name] = value
