"""One service in processes of its own, and the load that measures it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mla_serve.bundle.manifest import Bundle
from mla_serve.commands.tune_choices import Choice
from mla_serve.commands.tune_load import Connection, form_request, keep_busy
from mla_serve.errors import ConfigError

SAMPLES = 6
MOST_SUBSETS = 31
PATIENCE_S = 120.0
OWN = {"API_KEYS_FILE": "null", "LOG_FORMAT": "text"}  # goes before what MLA_ENV_FILE says: it asks without a key
READY = "is verified and served on"  # what each worker logs


def requests(model: Path) -> list[bytes]:
    """Make requests of every subset of the modalities, from the bundle's own samples and generated ones."""
    bundle = Bundle.load(model)
    golden = bundle.golden_samples()
    names = list(bundle.inputs)
    sizes = range(1, len(names) + 1)
    subsets = list(itertools.chain.from_iterable(itertools.combinations(names, size) for size in sizes))
    found = []
    for seed in range(SAMPLES):
        generator = np.random.default_rng(seed)
        sample = {name: reader.generate(generator) for name, reader in bundle.inputs.items()}
        sample |= golden[seed % len(golden)] if golden else {}
        chosen = subsets if len(subsets) <= MOST_SUBSETS else random.Random(seed).sample(subsets, MOST_SUBSETS)
        found += [form_request({name: sample[name] for name in subset}) for subset in chosen]
    return found


class Service:
    """A service on a free port of this machine."""

    def __init__(self, model: Path, choice: Choice, folder: Path) -> None:
        """Start it; what it logs goes to a file in `folder`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._workers = int(choice["WORKERS"])
        self._stopped = False
        self._log = folder / f"{self.port}.log"
        settings = {f"MLA_{name}": value for name, value in {**OWN, **choice}.items()}
        environment = dict(os.environ) | settings | {"BENTOML_HOME": str(folder)}
        command = [sys.executable, "-m", "mla_serve", "serve", "--model", str(model), "--port", str(self.port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self) -> None:
        """Wait until every worker answers.

        Raises: ConfigError with what the service said last, when it ends or takes too long.
        """
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self._process.poll() is None:
            if self._log.read_text(errors="replace").count(READY) >= self._workers:
                time.sleep(0.5)  # from then to its first answer
                return
            time.sleep(0.1)
        said = self._log.read_text(errors="replace").strip().splitlines()
        raise ConfigError(f"the service did not start: {said[-1] if said else 'it said nothing'}")

    def stop(self) -> None:
        """End it and its workers, if it has not been ended."""
        if self._stopped:
            return
        self._stopped = True
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def rate(self, asked: Sequence[bytes], seconds: float, connections: int) -> float:
        """Press it; returns requests answered a second.

        Raises: ConfigError when an answer is no 200.
        """
        return asyncio.run(_rate(self.port, asked, seconds, connections))


@contextlib.contextmanager
def serving(model: Path, choice: Choice) -> Iterator[Service]:
    """Serve a bundle under a choice of settings until the block ends."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        service = Service(model, choice, Path(folder))
        try:
            service.wait()
            yield service
        finally:
            service.stop()


async def _rate(port: int, asked: Sequence[bytes], seconds: float, connections: int) -> float:
    order, count = random.Random(0), 0

    async def ask_one(connection: Connection) -> None:
        nonlocal count
        answer = await connection.ask(order.choice(asked))
        if answer.status != 200:
            body = answer.body[:300].decode(errors="replace")
            raise ConfigError(f"the service answered {body}; tune with fewer connections")
        count += 1

    took = await keep_busy(port, ask_one, connections, seconds)
    return count / took
