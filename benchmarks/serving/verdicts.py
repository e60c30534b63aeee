"""What the benchmark is asked to show, line by line: figures from the rows, compared within each repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]
Results = Mapping[str, Any]
PEERS = ("litserve", "bentoml_typed", "torch_eager")
OURS, CEILING, DIGITS, LARGE = "mla_serve", "ceiling", "digits", "resnet18"
ENOUGH = 5  # repeats


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One line: what was asked, what came out (one value for each repeat), and whether the median keeps to it."""

    asked: str
    values: Sequence[float]
    limit: float
    least: bool
    unit: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        """The figure that is compared."""
        return float(np.median(self.values))

    @property
    def met(self) -> bool:
        """Whether it is at least, or at most, what was asked."""
        return self.median >= self.limit if self.least else self.median <= self.limit

    def found(self) -> str:
        """Write the median and the spread."""
        return f"{self.median:.2f}{self.unit} ({min(self.values):.2f} to {max(self.values):.2f})"


class Table:
    """The rows, looked up by bundle, system and connections."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """Take the rows of one run."""
        self._rows = rows

    def of(self, bundle: str, system: str, connections: int) -> list[Row]:
        """Return a cell's rows in the order of the repeats."""
        wanted = (bundle, system, connections)
        found = [row for row in self._rows if (row["bundle"], row["system"], row["connections"]) == wanted]
        return sorted(found, key=lambda row: row["run"])

    def has(self, bundle: str) -> bool:
        """Whether a bundle was measured."""
        return any(row["bundle"] == bundle for row in self._rows)

    def compared(
        self, one: tuple[str, str, int], other: tuple[str, str, int], figure: Callable[[Row, Row], float]
    ) -> list[float]:
        """Compare two cells repeat by repeat."""
        return [figure(a, b) for a, b in zip(self.of(*one), self.of(*other), strict=True)]


def times(a: Row, b: Row) -> float:
    """Ratio of two throughputs."""
    return float(a["rps"] / b["rps"])


def answered_subsets(rows: Sequence[Row]) -> list[str]:
    """List the subsets that every row has answers of; a cell that is too short may lack one."""
    return [subset for subset in rows[0]["subsets"] if all(subset in row["subsets"] for row in rows)]


def verdicts(results: Results) -> list[Verdict]:
    """Judge every line that the measured bundles allow."""
    table, found = Table(results["rows"]), list[Verdict]()
    if table.has(DIGITS):
        found += [*_throughput(table), _tail(table), _http_overhead(table)]
    if table.has(LARGE):
        found += _large(table)
    found += [_many_connections(table, bundle) for bundle in (DIGITS, LARGE) if table.has(bundle)]
    return found + _starts(results)


def _throughput(table: Table) -> list[Verdict]:
    asked = {"bentoml_typed": 3.0, "litserve": 2.0, "torch_eager": 3.0}
    return [
        Verdict(
            f"digits, 8 connections: throughput at least {limit:g} x {peer}",
            table.compared((DIGITS, OURS, 8), (DIGITS, peer, 8), times),
            limit,
            least=True,
            unit=" x",
        )
        for peer, limit in asked.items()
    ]


def _tail(table: Table) -> Verdict:
    """Take the subset whose median over the repeats is the worst."""
    rows = table.of(DIGITS, OURS, 8)
    ratios = {
        subset: [row["subsets"][subset]["p99_ms"] / row["subsets"][subset]["p50_ms"] for row in rows]
        for subset in answered_subsets(rows)
    }
    worst = max(ratios, key=lambda subset: float(np.median(ratios[subset])))
    asked = "digits, 8 connections: p99 at most 4 x p50 within each subset"
    return Verdict(asked, ratios[worst], 4.0, least=False, unit=" x", note=f"the worst subset, {worst}")


def _http_overhead(table: Table) -> Verdict:
    asked = "digits, 1 connection: HTTP adds at most 2.5 ms to the predictor's p50"
    added = table.compared((DIGITS, OURS, 1), (DIGITS, CEILING, 1), _http_overhead_ms)
    return Verdict(asked, added, 2.5, least=False, unit=" ms", note="mean over the subsets")


def _http_overhead_ms(served: Row, alone: Row) -> float:
    shared = answered_subsets([served, alone])
    return float(np.mean([served["subsets"][name]["p50_ms"] - alone["subsets"][name]["p50_ms"] for name in shared]))


def _large(table: Table) -> list[Verdict]:
    share = [100 * row["rps"] / row["ceiling_rps"] for row in table.of(LARGE, OURS, 8)]
    found = [Verdict("resnet18, 8 connections: at least 90 % of the ceiling", share, 90.0, least=True, unit=" %")]
    for peer in PEERS:
        ratio = table.compared((LARGE, OURS, 8), (LARGE, peer, 8), times)
        found.append(Verdict(f"resnet18, 8 connections: more than {peer}", ratio, 1.0, least=True, unit=" x"))
    return found


def _many_connections(table: Table, bundle: str) -> Verdict:
    share = table.compared((bundle, OURS, 32), (bundle, OURS, 8), lambda a, b: 100 * times(a, b))
    asked = f"{bundle}, 32 connections: no error, and at least 90 % of the throughput over 8"
    return Verdict(asked, share, 90.0, least=True, unit=" %", note="an error would have ended the run")


def _starts(results: Results) -> list[Verdict]:
    by_run = {(start["system"], start["run"]): start for start in results["starts"]}
    runs = sorted({run for _, run in by_run})
    more = lambda key: [by_run[OURS, run][key] - by_run["bentoml_empty", run][key] for run in runs]  # noqa: E731
    return [
        Verdict("digits: ready at most 2 s after an empty BentoML service", more("start_s"), 2.0, False, " s"),
        Verdict("digits: a worker at most 80 MB above an empty one", more("worker_mb"), 80.0, False, " MB"),
    ]


def stray_stages(results: Results) -> dict[str, list[str]]:
    """List the stages, by bundle and subset, that belong to a modality which was not sent, and the subsets without any."""
    stray = {}
    for bundle, by_subset in results["stages"].items():
        names = {name for subset in by_subset for name in subset.split("+")}
        for subset, named in by_subset.items():
            others = names - set(subset.split("+"))
            wrong = [stage for stage in named if any(stage.endswith(f"-{name}") for name in others)]
            unsaid = [f"no stage of {n}" for n in subset.split("+") if not any(s.endswith(f"-{n}") for s in named)]
            if wrong or unsaid:
                stray[f"{bundle} {subset}"] = wrong + unsaid
    return stray
