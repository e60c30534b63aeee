"""`mla-serve tune`: measure settings of the service on this machine and print the fastest."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from mla_serve.bundle.runtime import cores, cuda_is_there
from mla_serve.commands.tune_choices import Duel, start, steps
from mla_serve.commands.tune_trial import Service, requests, serving
from mla_serve.console import command_line, console
from mla_serve.errors import ConfigError
from mla_serve.output.replacing import replace
from mla_serve.output.targets import Replaceable, absolute, check_target, write_errors

MARK = "read with MLA_ENV_FILE="  # in the first line of a file that tune writes


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """Find the fastest settings for a model on this machine by serving it with each. Takes a minute or two."""

    model: Path = Path("models/digits")
    """Folder of the bundle."""
    connections: int = 8
    """Connections that send requests at the same time; as many as the service will have."""
    seconds: float = 1.0
    """Length of one round, in seconds."""
    rounds: int = 5
    """Rounds of each trial, alternating with as many rounds of the best settings so far. A choice must win them all."""
    write: Path | None = None
    """File for the best settings, for MLA_ENV_FILE. An older one that tune wrote is kept as FILE.old."""


def run(config: TuneConfig) -> None:
    """Try the candidates one by one, print the results and the best settings."""
    _check(config)
    samples, gpu = requests(config.model), cuda_is_there()
    best = start(cores(), gpu=gpu)
    table = Table("setting", "requests/s", "against", "ratio", "least", "most", "", box=None)
    with _sigterm_interrupts(), console.status("the default") as status, contextlib.ExitStack() as running:
        champion = running.enter_context(serving(config.model, best))
        for description, change in steps(cores(), gpu=gpu):
            status.update(description)
            challenger = running.enter_context(serving(config.model, {**best, **change}))
            duel = _duel(config, champion, challenger, samples)
            table.add_row(description, *_figures(duel), "taken" if duel.wins else "")
            if duel.wins:
                champion, challenger, best = challenger, champion, {**best, **change}
            challenger.stop()
    console.print(table, "")
    lines = [f"MLA_{name}={value}" for name, value in best.items()]
    console.print("\n".join(lines), highlight=False)
    if config.write is not None:
        _write(config, lines)


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that the services that were started are stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(config: TuneConfig) -> None:
    if config.connections < 1 or config.rounds < 1 or not 0 < config.seconds < 3600:
        raise ConfigError("--connections and --rounds are 1 or more, --seconds more than 0")
    if config.write is None:
        return
    if not config.write.resolve().parent.is_dir():
        raise ConfigError(f"--write {config.write}: there is no folder {config.write.resolve().parent}; make it first")
    check_target("--write", config.write, SETTINGS, {"the folder of the model": config.model})


def _not_settings(path: Path) -> str | None:
    """Return why a file is not one that tune wrote."""
    start = path.read_bytes()[:1000].decode(errors="replace")
    return None if start.startswith("# ") and MARK in start.partition("\n")[0] else "is a file that tune did not write"


SETTINGS = Replaceable("a file of settings that tune wrote", _not_settings)


def _duel(config: TuneConfig, champion: Service, challenger: Service, samples: Sequence[bytes]) -> Duel:
    """Load two services in turn, so that other work of the machine slows both alike."""
    rates: dict[Service, list[float]] = {champion: [], challenger: []}
    for service in rates:
        service.rate(samples, config.seconds, config.connections)
    for number in range(config.rounds):
        for service in list(rates)[:: 1 if number % 2 else -1]:
            rates[service].append(service.rate(samples, config.seconds, config.connections))
    return Duel(rates[challenger], rates[champion])


def _figures(duel: Duel) -> list[str]:
    rates = [f"{statistics.median(each):.0f}" for each in (duel.rates, duel.against)]
    return [*rates, *(f"{ratio:.2f}" for ratio in (duel.ratio, duel.ratios[0], duel.ratios[-1]))]


def _write(config: TuneConfig, lines: Sequence[str]) -> None:
    assert config.write is not None
    first = f"# {config.model.name} on {cores()} cores, {config.connections} connections; {MARK}{config.write}"
    with (
        write_errors(f"--write {config.write}"),
        tempfile.TemporaryDirectory(dir=config.write.resolve().parent) as folder,
    ):
        new = Path(folder) / config.write.name
        new.write_text("\n".join([first, *lines, ""]), encoding="utf-8")
        replace("--write", new, absolute(config.write), SETTINGS)
    serve = command_line("serve", "--model", str(config.model))
    used = f"MLA_ENV_FILE={shlex.quote(str(config.write))} {serve} uses them"
    console.print(f"\nwritten to {config.write}; {used}", soft_wrap=True)
