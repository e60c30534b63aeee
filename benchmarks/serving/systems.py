"""The systems that are compared: how each is started, how its requests are written, which settings are tried out first."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.serving.load import Case, Question, RequestWriter, json_request, shuffled
from mla_serve.bundle.runtime import cores
from mla_serve.commands.tune_load import form_request

CORES = cores()
PYTHON = (sys.executable, "-m")
AT_PORT = ("--host", "127.0.0.1", "--port", "{port}")
QUIET = {"BENTOML_DO_NOT_TRACK": "True"}
Settings = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class System:
    """One server: its command and environment, and the settings that it may be run with, the first the usual ones."""

    name: str
    about: str
    command: Sequence[str]
    write_request: RequestWriter = form_request
    ready_path: str = "/readyz"
    variants: Sequence[Settings] = ({},)
    checks_labels: bool = True

    def environment(self, bundle: Path, settings: Settings) -> dict[str, str]:
        """Say what the server is to be started with; the service reads MLA_*, the peers read BENCH_*."""
        ours = {"MLA_MODEL": str(bundle)}
        usual = {"BENCH_BUNDLE": str(bundle), "BENCH_PORT": "{port}", "BENCH_WORKERS": str(CORES), "BENCH_THREADS": "1"}
        return QUIET | ours | usual | dict(settings)

    def questions(self, cases: Sequence[Case], seed: int, labels: bool = True) -> Iterator[Question]:
        """Ask the same cases in the same order as every system, written as it reads them."""
        written = {id(case): self._question(case, labels and self.checks_labels) for case in cases}
        return (written[id(case)] for case in shuffled(cases, seed))

    def _question(self, case: Case, label: bool) -> Question:
        return Question(case.subset, self.write_request(case.sample), case.label if label else None)


def _peer(module: str) -> tuple[str, ...]:
    return (*PYTHON, f"benchmarks.serving.peers.{module}")


def _bentoml(service: str) -> tuple[str, ...]:
    return (*PYTHON, "bentoml", "serve", *((service,) if service else ()), *AT_PORT)


def _threads() -> list[Settings]:
    """List how torch may share the cores: workers of one thread, one worker of all, and both."""
    pairs = dict.fromkeys([(CORES, 1), (1, CORES), (CORES, CORES)])
    return [{"BENCH_WORKERS": str(workers), "BENCH_THREADS": str(threads)} for workers, threads in pairs]


SYSTEMS = (
    System("mla_serve", "`make serve`, settings untouched", _bentoml("")),
    System(
        "litserve",
        "LitServe, the same graphs and thread settings",
        _peer("litserve_peer"),
        write_request=json_request,
        ready_path="/health",
        variants=(
            {"BENCH_BATCH": "1", "BENCH_FAST_QUEUE": "0"},
            {"BENCH_BATCH": "1", "BENCH_FAST_QUEUE": "1"},
            {"BENCH_BATCH": "8", "BENCH_FAST_QUEUE": "1"},
        ),
    ),
    System(
        "bentoml_typed",
        "a typed BentoML endpoint, the same graphs and thread settings",
        _bentoml("benchmarks.serving.peers.bentoml_typed:Typed"),
        write_request=json_request,
        variants=({"BENCH_CALLS": "1"}, {"BENCH_CALLS": "4"}),
    ),
    System("torch_eager", "FastAPI and torch in eager mode", _peer("torch_eager"), variants=_threads()),
)
ECHO = System(
    "echo", "bare Starlette that reads the body: the load generator's limit", _peer("echo"), checks_labels=False
)
EMPTY = System(
    "bentoml_empty", "a BentoML service that does nothing", _bentoml("benchmarks.serving.peers.bentoml_empty:Empty")
)


def settings_text(settings: Settings) -> str:
    """Write settings for people: "workers 2, threads 1"."""
    return ", ".join(f"{name.removeprefix('BENCH_').lower()} {value}" for name, value in settings.items()) or "usual"
