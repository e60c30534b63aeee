"""While one server is measured the others are paused, even one that busy-waits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.serving.processes import ProcessTree, serving
from benchmarks.serving.serve import ServeBenchConfig, _command
from benchmarks.serving.systems import ECHO
from mla_serve.commands.tune_load import get

DIGITS = Path(__file__).parents[2] / "models" / "digits"
PATIENCE_S = 20


def test_a_busy_process_takes_no_processor_time_while_it_is_paused() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            tree = ProcessTree([process.pid])
            tree.signal(signal.SIGSTOP)
            time.sleep(0.05)
            before = tree.cpu_s()
            time.sleep(0.3)
            assert tree.cpu_s() == before
            tree.signal(signal.SIGCONT)
            end = time.monotonic() + PATIENCE_S
            while tree.cpu_s() == before:
                assert time.monotonic() < end, "it does not go on"
        finally:
            process.kill()


def test_a_paused_server_answers_when_it_is_resumed_and_ends() -> None:
    with serving(ECHO.command, ECHO.environment(DIGITS, {}), ECHO.ready_path) as server:
        server.pause()
        with pytest.raises(TimeoutError):
            get(server.port, ECHO.ready_path, 0.5)
        with server.resumed():
            assert get(server.port, ECHO.ready_path)[0] == 200
    assert server.process.returncode is not None


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (ServeBenchConfig(), "make bench-serve"),
        (ServeBenchConfig(only=("digits",)), 'make bench-serve ARGS="--only digits"'),
        (ServeBenchConfig(quick=True, only=("resnet18",)), 'make bench-serve ARGS="--quick --only resnet18"'),
    ],
)
def test_the_report_names_the_command_that_was_given(config: ServeBenchConfig, command: str) -> None:
    assert _command(config) == command
