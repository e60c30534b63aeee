"""`mla-serve serve` until it becomes BentoML's server: what it hands over, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mla_serve.commands.serve import ServeConfig, run
from mla_serve.errors import ConfigError


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that the command line of BentoML's server will be in."""
    words: list[str] = []
    monkeypatch.setattr(
        os, "execve", lambda _, command, environment: words.extend([*command, environment["MLA_MODEL"]])
    )
    return words


@pytest.mark.parametrize(("host", "address"), [("localhost", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::1", "::1")])
def test_a_host_may_be_a_name(host: str, address: str, handed_over: list[str]) -> None:
    run(ServeConfig(Path("here"), host, 8080))
    assert handed_over[-5:] == ["--host", address, "--port", "8080", "here"]


@pytest.mark.parametrize("port", [-1, 0, 65536, 99999])
def test_a_port_that_is_none_is_refused(port: int, handed_over: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"--port {port}: expected 1 to 65535"):
        run(ServeConfig(port=port))
    assert handed_over == []


def test_a_host_that_is_not_there_is_refused(handed_over: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--host no\.such\.host\.invalid: .*; expected an address"):
        run(ServeConfig(host="no.such.host.invalid"))
    assert handed_over == []
