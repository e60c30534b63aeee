"""`mla-serve serve`: start BentoML's server with the service of this package and a bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
import tempfile
from pathlib import Path

from mla_serve.errors import ConfigError

SERVICE = "mla_serve.serve.bento.service:MlaServe"


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """Answer requests over HTTP. All other settings are MLA_* variables; docs/reference/settings.md of the repository lists them."""

    model: Path | None = None
    """Folder of the bundle. Default: MLA_MODEL, else models/digits."""
    host: str = "127.0.0.1"
    """Address or name to listen on; 0.0.0.0 opens the service to the network."""
    port: int = 3000
    """Port to listen on."""


def run(config: ServeConfig) -> None:
    """Replace this process by BentoML's server, so that signals reach it directly."""
    if not 0 < config.port < 2**16:
        raise ConfigError(f"--port {config.port}: expected 1 to {2**16 - 1}")
    host = _ip_address(config.host)
    environment = {**_bentoml_home(), **os.environ}
    if config.model is not None:
        environment["MLA_MODEL"] = str(config.model)
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(config.port)]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


def _ip_address(host: str) -> str:
    """Look up the IP address of a host, because BentoML accepts no names. Raises: ConfigError."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])
    except OSError as error:
        raise ConfigError(
            f"--host {host}: {error.strerror}; expected an address, such as 127.0.0.1 or 0.0.0.0"
        ) from None


def _bentoml_home() -> dict[str, str]:
    """Return the variable for a temporary BENTOML_HOME when the home folder cannot be written: BentoML needs one to start."""
    with contextlib.suppress(RuntimeError):
        if os.access(Path.home(), os.W_OK) or "BENTOML_HOME" in os.environ:
            return {}
    return {"BENTOML_HOME": tempfile.mkdtemp(prefix="bentoml-")}
