"""Serve, scrape, send; silence the microphone, then pull it out; see which alerts fire, and draw the dashboard.

    python -m deploy.demo.microphone --out docs/images/microphone.png

Prometheus (Debian's package, or any on the PATH) evaluates deploy/prometheus/alerts.yml with every duration divided by
`faster`, so that minutes become seconds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from deploy.demo.prometheus import Prometheus, watching
from deploy.demo.traffic import Sample, absent, mixed, muted, samples_of, send
from mla_serve.console import main
from mla_serve.errors import ConfigError
from tests.load.service import free_port, serving


@dataclasses.dataclass(frozen=True)
class Config:
    """What dies, and how long each phase takes."""

    model: Path = Path("models/digits")
    """The bundle to serve."""
    data: Path | None = None
    """A data set, whose test split is sent; the bundle's golden samples when left out."""
    modality: str = "audio"
    """What dies."""
    seconds: float = 90.0
    """Of each phase: all well, muted, pulled out."""
    rate: float = 20.0
    """Samples a second."""
    faster: float = 20.0
    """What durations of the rules are divided by."""
    out: Path = Path("microphone.png")
    """The picture."""


class Watch(threading.Thread):
    """Note when alerts begin and cease to fire."""

    def __init__(self, prometheus: Prometheus) -> None:
        super().__init__(daemon=True)
        self.prometheus = prometheus
        self.start_s = time.time()
        self.seen: list[tuple[float, str]] = []
        self.going = True

    def run(self) -> None:
        """Look twice a second."""
        known: set[str] = set()
        while self.going:
            firing = self.prometheus.firing()
            for name in sorted(firing ^ known):
                self.note(f"{name} {'fires' if name in firing else 'ceases'}")
            known = firing
            time.sleep(0.5)

    def note(self, what: str) -> None:
        """Write a line with the time."""
        self.seen.append((time.time() - self.start_s, what))
        print(f"{self.seen[-1][0]:6.1f} s  {what}", flush=True)


def phases(name: str) -> dict[str, Callable[[Sample], Sample]]:
    """What happens to each sample, by phase."""
    return {
        "all well": dict,
        f"{name} is muted": functools.partial(muted, name=name),
        f"{name} is pulled out": functools.partial(absent, name=name),
    }


def run(config: Config) -> list[tuple[float, str]]:
    """Play it; returns what happened when."""
    samples = mixed(samples_of(config.model, config.data))
    if not shutil.which("prometheus"):
        raise ConfigError("there is no prometheus here; install it (Debian, Ubuntu: apt install prometheus)")
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(config.model) as service,
        watching(Path(folder), service.port, free_port(), config.faster) as prometheus,
    ):
        watch, marks = Watch(prometheus), {}
        watch.start()
        for title, change in phases(config.modality).items():
            watch.note(f"--- {title}")
            marks[title] = time.time()
            good = asyncio.run(send(service.port, samples, change, config.rate, config.seconds))
            watch.note(f"{good} answers")
        watch.going = False
        from deploy.demo import render  # draws with matplotlib, which the service does without

        render.draw(prometheus, marks, time.time(), config.modality, config.out, 300 / config.faster)
    return watch.seen


if __name__ == "__main__":
    main(run, Config)
