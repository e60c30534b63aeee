"""`mla-serve serve`: BentoML's server with this package's service and a bundle."""

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
    """Become the server: this process is replaced by BentoML's."""
    if not 0 < config.port < 2**16:
        raise ConfigError(f"--port {config.port}: expected 1 to {2**16 - 1}")
    host = _address(config.host)
    environment = {**_home(), **os.environ}
    if config.model is not None:
        environment["MLA_MODEL"] = str(config.model)
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(config.port)]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


def _address(host: str) -> str:
    """Return the IP address of a name, the only thing that BentoML takes. Raises: ConfigError."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])
    except OSError as error:
        raise ConfigError(
            f"--host {host}: {error.strerror}; expected an address, such as 127.0.0.1 or 0.0.0.0"
        ) from None


def _home() -> dict[str, str]:
    """Give BentoML a folder for a time where it cannot make one in the home folder, without which it does not start."""
    with contextlib.suppress(RuntimeError):
        if os.access(Path.home(), os.W_OK) or "BENTOML_HOME" in os.environ:
            return {}
    return {"BENTOML_HOME": tempfile.mkdtemp(prefix="bentoml-")}
