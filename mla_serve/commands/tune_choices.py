"""The settings that tune tries on a machine, and when one choice is better than another."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence

Choice = Mapping[str, str]
"""Settings by their names without MLA_: {"WORKERS": "2"}."""
LEAST_GAIN = 1.03  # a smaller gain does not justify another setting


@dataclasses.dataclass(frozen=True)
class Duel:
    """A choice against the best so far: requests per second of both, by round."""

    rates: Sequence[float]
    against: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Speed of the choice relative to the best so far, in each round, the lowest first."""
        return sorted(mine / other for mine, other in zip(self.rates, self.against, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def wins(self) -> bool:
        """Whether the choice is faster by more than noise: by LEAST_GAIN in the median, and in every single round."""
        return self.ratio >= LEAST_GAIN and self.ratios[0] > 1


def start(cores: int, *, gpu: bool) -> dict[str, str]:
    """Return the default settings of the service."""
    workers = 1 if gpu else cores
    return {"WORKERS": str(workers), "THREADS": str(max(1, cores // workers)), "SPIN": "false", "BATCH": "auto"}


def steps(cores: int, *, gpu: bool) -> Iterator[tuple[str, Choice]]:
    """Yield what to try as (description, change), each to be added to the best settings so far."""
    if gpu:
        yield "two workers share the GPU", {"WORKERS": "2"}
        yield "no batches", {"BATCH": "off"}
        yield "larger batches", {"BATCH": "128"}
        return
    if cores > 1:
        yield "half the workers, two threads each", {"WORKERS": str(cores // 2), "THREADS": "2"}
        yield "the same, spinning", {"WORKERS": str(cores // 2), "THREADS": "2", "SPIN": "true"}
    if cores > 2:
        yield "one worker, all cores", {"WORKERS": "1", "THREADS": str(cores)}
    yield "a worker more than cores", {"WORKERS": str(cores + 1), "THREADS": "1"}
    yield "batches of up to 8", {"BATCH": "8"}
