"""The service's own Prometheus metrics, beside those of BentoML. No label holds anything that a client sent.

A request only leaves what it has to say in a `Tally`; once a second it is counted, many values in one step. Counting
each where it arises would cost a request with three modalities some 40 us, in files that all workers share.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import itertools
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mla_serve.bundle.results import Opinion

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

log = logging.getLogger("mla_serve")
COUNT_S = 1.0
MOST_NAMED = 10  # modalities; with more, patterns are counted by how many are there
MOST_FROM_THE_START = 31  # patterns that are there, as zero, before they occur
SHARES = (0.02, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 1.0)
PERCENTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 1.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
Laps = Sequence[tuple[str, float]]
K = TypeVar("K")
T = TypeVar("T")


class Meters:
    """Counters of one worker; BentoML's /metrics adds the workers up."""

    def __init__(self) -> None:
        """Register them: once per process."""
        # Only a worker may import it, and late: BentoML tells it by a variable where the workers' numbers meet.
        from prometheus_client import Counter, Gauge, Histogram

        def histogram(name: str, says: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
            return Histogram(name, says, labels, buckets=buckets)

        self.refused: Counter = Counter("mla_refused", "Requests answered with 503, by what was full.", ["full"])
        self.dropped: Counter = Counter("mla_dropped", "Requests whose client left before the answer.")
        self.keys_closed: Counter = Counter(
            "mla_keys_closed", "Times that the file of keys could no longer be used; until it can, no key is valid."
        )
        self.updates: Counter = Counter("mla_model_updates", "New bundles that were found, by result.", ["result"])
        self.update_refused: Gauge = Gauge(
            "mla_model_update_refused",
            "1 while MLA_MODEL holds a bundle that cannot be used and the one before it is served.",
            multiprocess_mode="mostrecent",
        )
        self.samples: Counter = Counter("mla_samples", "Samples that were answered, by what they had.", ["available"])
        self.problems: Counter = Counter(
            "mla_problems",
            "Problems that were answered, by the last part of their type and the modality at fault, if one was.",
            ["problem", "modality"],
        )
        self.queue: Gauge = Gauge(
            "mla_queue_depth", "Requests that wait for their turn, once a second.", multiprocess_mode="livesum"
        )
        by = ["modality"]
        self.weight = histogram("mla_weight", "A modality's share in the fusion, where it was there.", by, SHARES)
        self.entropy = histogram(
            "mla_entropy", "Entropy of what a modality said alone; 1 is the most there can be.", by, SHARES
        )
        self.unfamiliarity = histogram(
            "mla_unfamiliarity", "Share of validation inputs that were more familiar than this one.", by, PERCENTILES
        )
        self.batch = histogram("mla_batch_size", "Samples in one run of a modality's graph.", by, SIZES)
        self.request = histogram(
            "mla_request_seconds",
            "Seconds from the head of a request to the end of its answer; status 0: the client left before.",
            ["endpoint", "status"],
            SECONDS,
        )
        self.stage = histogram("mla_stage_seconds", "Seconds that a stage of a request took.", ["stage"], SECONDS)
        self.modalities: set[str] = set()

    def expect(self, names: Sequence[str]) -> None:
        """Show the series of a model's modalities from the start: a rate needs a zero to begin with."""
        self.modalities.update(names)
        for full in ("queue", "bytes"):
            self.refused.labels(full)
        self.problems.labels("internal-error", "")
        for name in names:
            for each in (self.weight, self.entropy, self.unfamiliarity, self.batch):
                each.labels(name)
            self.problems.labels("invalid-input", name)
        if 2 ** len(names) - 1 <= MOST_FROM_THE_START:
            for size in range(1, len(names) + 1):
                for present in itertools.combinations(names, size):
                    self.samples.labels(pattern(present, len(names)))

    def problem(self, slug: str, field: str | None) -> None:
        """Count a problem under the modality at fault; any other field is nobody's label."""
        self.problems.labels(slug, field if field in self.modalities else "").inc()


@functools.cache
def meters() -> Meters:
    """Return this process's meters."""
    return Meters()


class Tally:
    """What requests leave behind, to be counted. Any thread may add to it."""

    def __init__(self) -> None:
        """Start empty."""
        self._answers: collections.deque[tuple[Mapping[str, Opinion], int, int]] = collections.deque()
        self._laps: collections.deque[Laps] = collections.deque()
        self._sizes: collections.deque[tuple[str, float]] = collections.deque()
        self._ends: collections.deque[tuple[tuple[str, int], float]] = collections.deque()

    def ended(self, endpoint: str, status: int, seconds: float) -> None:
        """Leave how a request to a path that exists, or to one name for all others, ended."""
        self._ends.append(((endpoint, status), seconds))

    def answered(self, opinions: Mapping[str, Opinion], missing: int, classes: int) -> None:
        """Leave what the modalities of one sample said; how many were missing; among how many classes they chose."""
        self._answers.append((opinions, missing, classes))

    def timed(self, laps: Laps) -> None:
        """Leave the stages of one request: name, seconds."""
        self._laps.append(laps)

    def ran(self, name: str, size: int) -> None:
        """Leave the number of samples of one run of a modality's graph."""
        self._sizes.append((name, size))

    def count(self) -> None:
        """Count what was left."""
        self._count_answers(_take(self._answers))
        for (endpoint, status), values in _grouped(_take(self._ends)).items():
            observe(meters().request.labels(endpoint, str(status)), values)
        for name, values in _grouped([lap for laps in _take(self._laps) for lap in laps]).items():
            observe(meters().stage.labels(name), values)
        for name, values in _grouped(_take(self._sizes)).items():
            observe(meters().batch.labels(name), values)

    def _count_answers(self, answers: Sequence[tuple[Mapping[str, Opinion], int, int]]) -> None:
        patterns = collections.Counter((tuple(opinions), missing) for opinions, missing, _ in answers)
        for (present, missing), count in patterns.items():
            meters().samples.labels(pattern(present, len(present) + missing)).inc(count)
        said: dict[str, list[tuple[Opinion, int]]] = collections.defaultdict(list)
        for opinions, _, classes in answers:
            for name, opinion in opinions.items():
                said[name].append((opinion, classes))
        for name, each in said.items():
            observe(meters().weight.labels(name), [opinion.weight for opinion, _ in each])
            most = [(opinion.entropy, math.log(max(classes, 2))) for opinion, classes in each]
            observe(meters().entropy.labels(name), [entropy / largest for entropy, largest in most])
            known = [opinion.unfamiliarity for opinion, _ in each if opinion.unfamiliarity is not None]
            observe(meters().unfamiliarity.labels(name), known)


@functools.cache
def tally() -> Tally:
    """Return this process's tally."""
    return Tally()


async def count_forever(waiting: Callable[[], int]) -> None:
    """Count once a second what requests have left, and who waits; never returns.

    Counting goes on after a bug, or what requests leave would stay in memory for good.
    """
    while True:
        await asyncio.sleep(COUNT_S)
        try:
            meters().queue.set(waiting())
            await asyncio.to_thread(tally().count)
        except Exception as error:
            log.error("requests of a second are not counted: %s", type(error).__name__)


def pattern(present: Sequence[str], total: int) -> str:
    """Name what a sample has: its modalities, or of a model with many of them how many."""
    return "+".join(present) if total <= MOST_NAMED else f"{len(present)} of {total}"


def observe(histogram: Histogram, values: Sequence[float]) -> None:
    """Observe many values at once, which prometheus_client has no function for; NaN counts nowhere."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return
    places = np.searchsorted(histogram._upper_bounds, finite)
    for place, count in zip(*np.unique(places, return_counts=True), strict=True):
        histogram._buckets[place].inc(int(count))
    histogram._sum.inc(float(finite.sum()))


def forget_dead_workers() -> None:
    """Take the gauges of workers that were killed off /metrics; they would count as waiting for good."""
    from prometheus_client.multiprocess import mark_process_dead

    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not is_alive(int(pid)):
            mark_process_dead(int(pid), folder)  # type: ignore[no-untyped-call]


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _grouped(pairs: Sequence[tuple[K, float]]) -> dict[K, list[float]]:
    """Collect the values of each key."""
    groups: dict[K, list[float]] = collections.defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def _take(values: collections.deque[T]) -> list[T]:
    """Take out what is there now; others may add meanwhile."""
    taken = []
    with contextlib.suppress(IndexError):
        for _ in range(len(values)):
            taken.append(values.popleft())
    return taken
