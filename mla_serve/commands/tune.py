"""`mla-serve tune`: try settings on this machine, and say which are best."""

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

ABOUT = "read with MLA_ENV_FILE="  # in the first line of what is written


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """Find the fastest settings for a model on this machine, by serving it under each; takes a minute or two."""

    model: Path = Path("models/digits")
    """Folder of the bundle."""
    connections: int = 8
    """Connections that press the service at once; as many as are to be expected."""
    seconds: float = 1.0
    """Length of a round."""
    rounds: int = 5
    """Rounds of each trial, in turn with as many of the best so far; a choice must win them all."""
    write: Path | None = None
    """File for the best settings, as MLA_ENV_FILE reads them. One that tune wrote before is kept as FILE.old."""


def run(config: TuneConfig) -> None:
    """Try what is worth trying, print the results and the best settings."""
    _check(config)
    asked, gpu = requests(config.model), cuda_is_there()
    best = start(cores(), gpu=gpu)
    table = Table("setting", "requests/s", "against", "ratio", "least", "most", "", box=None)
    with _stoppable(), console.status("the default") as status, contextlib.ExitStack() as running:
        champion = running.enter_context(serving(config.model, best))
        for words, change in steps(cores(), gpu=gpu):
            status.update(words)
            challenger = running.enter_context(serving(config.model, {**best, **change}))
            duel = _duel(config, champion, challenger, asked)
            table.add_row(words, *_figures(duel), "taken" if duel.wins else "")
            if duel.wins:
                champion, challenger, best = challenger, champion, {**best, **change}
            challenger.stop()
    console.print(table, "")
    lines = [f"MLA_{name}={value}" for name, value in best.items()]
    console.print("\n".join(lines), highlight=False)
    if config.write is not None:
        _write(config, lines)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C, so that no service is left behind."""
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


def _no_settings(path: Path) -> str | None:
    """Say why a file is not one that tune wrote."""
    start = path.read_bytes()[:1000].decode(errors="replace")
    return None if start.startswith("# ") and ABOUT in start.partition("\n")[0] else "is a file that tune did not write"


SETTINGS = Replaceable("a file of settings that tune wrote", _no_settings)


def _duel(config: TuneConfig, champion: Service, challenger: Service, asked: Sequence[bytes]) -> Duel:
    """Press two services in turn: whatever else the machine does then hits both alike."""
    rates: dict[Service, list[float]] = {champion: [], challenger: []}
    for service in rates:
        service.rate(asked, config.seconds, config.connections)
    for number in range(config.rounds):
        for service in list(rates)[:: 1 if number % 2 else -1]:
            rates[service].append(service.rate(asked, config.seconds, config.connections))
    return Duel(rates[challenger], rates[champion])


def _figures(duel: Duel) -> list[str]:
    rates = [f"{statistics.median(each):.0f}" for each in (duel.rates, duel.against)]
    return [*rates, *(f"{ratio:.2f}" for ratio in (duel.ratio, duel.ratios[0], duel.ratios[-1]))]


def _write(config: TuneConfig, lines: Sequence[str]) -> None:
    assert config.write is not None
    about = f"# {config.model.name} on {cores()} cores, {config.connections} connections; {ABOUT}{config.write}"
    with (
        write_errors(f"--write {config.write}"),
        tempfile.TemporaryDirectory(dir=config.write.resolve().parent) as folder,
    ):
        new = Path(folder) / config.write.name
        new.write_text("\n".join([about, *lines, ""]), encoding="utf-8")
        replace("--write", new, absolute(config.write), SETTINGS)
    serve = command_line("serve", "--model", str(config.model))
    used = f"MLA_ENV_FILE={shlex.quote(str(config.write))} {serve} uses them"
    console.print(f"\nwritten to {config.write}; {used}", soft_wrap=True)
