"""A Prometheus of one's own for some minutes: the rules of deploy/prometheus, their clock faster."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parents[1]
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=for: )(\d+)([smhd])")
PATIENCE_S = 60


class Prometheus:
    """The HTTP API of one server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: object) -> Any:
        """Call the API; returns `data`."""
        with urllib.request.urlopen(
            f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30
        ) as reply:
            return json.load(reply)["data"]

    def range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Evaluate an expression over time."""
        return list(self.ask("query_range", query=expression, start=start, end=end, step=step)["result"])

    def firing(self) -> set[str]:
        """Name the alerts that fire, with their modality."""
        alerts = [alert["labels"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {f"{each['alertname']} {each.get('modality', '')}".strip() for each in alerts}


def faster(rules: str, factor: float) -> str:
    """Divide every duration of a file of rules."""

    def divide(found: re.Match[str]) -> str:
        count, unit = found[1] or found[3], found[2] or found[4]
        return f"{max(1, round(int(count) * UNITS[unit] / factor))}s"

    return DURATION.sub(divide, rules)


@contextlib.contextmanager
def watching(folder: Path, service: int, port: int, factor: float) -> Iterator[Prometheus]:
    """Let a Prometheus scrape the service once a second until the block ends."""
    rules = faster((DEPLOY / "prometheus" / "alerts.yml").read_text(), factor)
    (folder / "alerts.yml").write_text(rules)
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    (folder / "prometheus.yml").write_text(config.replace(": 15s", ": 1s").replace(":3000", f":{service}"))
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *options], cwd=folder, stdout=log, stderr=log)
    try:
        server = Prometheus(port)
        for _ in range(10 * PATIENCE_S):
            if process.poll() is not None:
                raise SystemExit(f"Prometheus ended:\n{(folder / 'prometheus.log').read_text()[-2000:]}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                server.ask("status/buildinfo")
                break
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()
