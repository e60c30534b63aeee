"""The service's own Prometheus metrics, beside those of BentoML. No label holds anything that a client sent.

A request only appends its values to a `MetricsBuffer`. Once a second a thread writes them to prometheus_client, so that no
request waits for the files that prometheus_client maps into memory.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mla_serve.bundle.results import ClassPrediction, LabelsPrediction, NumberPrediction, Opinion, Prediction
from mla_serve.tasks import Number, Task

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

log = logging.getLogger("mla_serve")
FLUSH_S = 1.0
MOST_NAMED = 10  # modalities; with more, a pattern is named by how many of them a sample has
MOST_ANSWERS = 100  # classes or labels that are counted by name; the others count together
NO_LABEL, OTHER_LABEL = "(none)", "(other)"
MOST_FROM_THE_START = 31  # patterns; up to so many are exported as zero before they occur
SHARES = (0.02, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 1.0)
PERCENTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 1.0)
DEVIATIONS = (-4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
Stages = Sequence[tuple[str, float]]
T = TypeVar("T")
ANSWERED: dict[type[Prediction], Callable[[Any], Sequence[str]]] = {
    ClassPrediction: lambda prediction: (prediction.label,),
    LabelsPrediction: lambda prediction: prediction.labels or (NO_LABEL,),
    NumberPrediction: lambda _: (),
}
"""By the class of a reply: the names that it counts under in mla_answers_total."""


class Meters:
    """The metrics of one worker; BentoML's /metrics adds up those of all workers."""

    def __init__(self) -> None:
        """Register them. Call it once per process."""
        # prometheus_client reads PROMETHEUS_MULTIPROC_DIR while it is imported; serve/bento/run_folder.py sets it before.
        from prometheus_client import Counter, Gauge, Histogram

        def histogram(name: str, description: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
            return Histogram(name, description, labels, buckets=buckets)

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
            "mla_queue_depth", "Requests that wait for a thread, measured once a second.", multiprocess_mode="livesum"
        )
        by = ["modality"]
        self.patch: Gauge = Gauge(
            "mla_patch_active",
            "1 where a change to BentoML, uvicorn or prometheus_client took hold, 0 where this version no longer has what is changed.",
            ["patch"],
            multiprocess_mode="livemin",
        )
        self.weight = histogram(
            "mla_weight", "Weight of a modality in the fusion, for samples that have it.", by, SHARES
        )
        self.entropy = histogram(
            "mla_entropy",
            "Entropy of a modality's own answer, divided by the largest possible; of a number, its deviation, divided by that of the training targets.",
            by,
            SHARES,
        )
        self.unfamiliarity = histogram(
            "mla_unfamiliarity", "Share of validation inputs that are more familiar than this one.", by, PERCENTILES
        )
        self.answer_entropy = histogram("mla_answer_entropy", "As mla_entropy, of the fused answer.", [], SHARES)
        self.answers: Counter = Counter(
            "mla_answers",
            f"Samples by the class or labels that were answered; {MOST_ANSWERS} are counted by name.",
            ["answer"],
        )
        self.value = histogram(
            "mla_value",
            "Predicted numbers, in deviations of the training targets from their mean.",
            ["column"],
            DEVIATIONS,
        )
        self.batch = histogram("mla_batch_size", "Samples in one run of a modality's graph.", by, SIZES)
        self.request = histogram(
            "mla_request_seconds",
            "Seconds from the head of a request to the end of its answer; status 0: the client left before the answer.",
            ["endpoint", "status"],
            SECONDS,
        )
        self.stage = histogram("mla_stage_seconds", "Seconds that a stage of a request took.", ["stage"], SECONDS)
        self.modalities: set[str] = set()

    def expect(self, names: Sequence[str], task: Task) -> None:
        """Export the series of a model's modalities and answers as zero from the start: a rate needs a first value."""
        self.modalities.update(names)
        for answer in named_answers(task):
            self.answers.labels(answer)
        if isinstance(task, Number):
            self.value.labels(task.column)
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
        """Count a problem under the modality at fault, also of one of its columns; any other field under no modality."""
        modality = field.partition(".")[0] if field else ""
        self.problems.labels(slug, modality if modality in self.modalities else "").inc()


@functools.cache
def meters() -> Meters:
    """Return the metrics of this process."""
    return Meters()


class MetricsBuffer:
    """Values that requests add and `flush` writes to the metrics. Any thread may add."""

    def __init__(self) -> None:
        """Start empty."""
        self.observe: Callable[[Histogram, Sequence[float]], None] = observe_each
        self._answers: collections.deque[tuple[Prediction, Task]] = collections.deque()
        self._stages: collections.deque[Stages] = collections.deque()
        self._runs: collections.deque[tuple[str, float]] = collections.deque()
        self._requests: collections.deque[tuple[str, int, float]] = collections.deque()

    def add_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Add a finished request. Args: endpoint, a path that exists, or one name for all others."""
        self._requests.append((endpoint, status, seconds))

    def add_answer(self, prediction: Prediction, task: Task) -> None:
        """Add the answer to one sample."""
        self._answers.append((prediction, task))

    def add_stages(self, stages: Stages) -> None:
        """Add the stages of one request: name, seconds."""
        self._stages.append(stages)

    def add_run(self, name: str, size: int) -> None:
        """Add one run of a modality's graph, with its number of samples."""
        self._runs.append((name, size))

    def flush(self) -> None:
        """Write everything that was added to the metrics."""
        self._write_answers(_take_all(self._answers))
        requests = [((endpoint, str(status)), seconds) for endpoint, status, seconds in _take_all(self._requests)]
        self._write(meters().request, requests)
        stages = [((name,), seconds) for stages in _take_all(self._stages) for name, seconds in stages]
        self._write(meters().stage, stages)
        self._write(meters().batch, [((name,), size) for name, size in _take_all(self._runs)])

    def _write_answers(self, answers: Sequence[tuple[Prediction, Task]]) -> None:
        patterns = collections.Counter((tuple(each.modalities), len(each.missing)) for each, _ in answers)
        for (present, missing), count in patterns.items():
            meters().samples.labels(pattern(present, len(present) + missing)).inc(count)
        self._write(meters().answer_entropy, [((), task.uncertainty(each.entropy)) for each, task in answers])
        self._write_opinions([(*item, task) for each, task in answers for item in each.modalities.items()])
        for name, count in collections.Counter(_counted_names(answers)).items():
            meters().answers.labels(name).inc(count)
        values = [
            ((task.column,), float(task.encode([each.value])[0]))
            for each, task in answers
            if isinstance(each, NumberPrediction) and isinstance(task, Number)
        ]
        self._write(meters().value, values)

    def _write_opinions(self, opinions: Sequence[tuple[str, Opinion, Task]]) -> None:
        self._write(meters().weight, [((name,), opinion.weight) for name, opinion, _ in opinions])
        shares = [((name,), task.uncertainty(opinion.entropy)) for name, opinion, task in opinions]
        self._write(meters().entropy, shares)
        known = [((name,), opinion.unfamiliarity) for name, opinion, _ in opinions]
        self._write(meters().unfamiliarity, [(name, share) for name, share in known if share is not None])

    def _write(self, histogram: Histogram, values: Sequence[tuple[tuple[str, ...], float]]) -> None:
        """Write (labels, value) pairs. NaN and infinity belong to no bucket, and would make the sum useless."""
        by_labels: dict[tuple[str, ...], list[float]] = collections.defaultdict(list)
        for labels, value in values:
            if math.isfinite(value):
                by_labels[labels].append(value)
        for labels, group in by_labels.items():
            self.observe(histogram.labels(*labels) if labels else histogram, group)


def observe_each(histogram: Histogram, values: Sequence[float]) -> None:
    """Observe one value after the other."""
    for value in values:
        histogram.observe(value)


@functools.cache
def metrics_buffer() -> MetricsBuffer:
    """Return the buffer of this process."""
    return MetricsBuffer()


async def flush_forever(waiting: Callable[[], int]) -> None:
    """Write the buffer and the length of the queue to the metrics once a second; never returns.

    It goes on after a bug: otherwise the buffer would grow without end.
    """
    while True:
        await asyncio.sleep(FLUSH_S)
        try:
            meters().queue.set(waiting())
            await asyncio.to_thread(metrics_buffer().flush)
        except Exception as error:
            log.error("the metrics of the last second are lost: %s", type(error).__name__)


def _counted_names(answers: Sequence[tuple[Prediction, Task]]) -> Iterator[str]:
    """Yield the names that each answer counts under."""
    named = {key: named_answers(task) for key, task in {id(task): task for _, task in answers}.items()}
    for prediction, task in answers:
        for name in ANSWERED[type(prediction)](prediction):
            yield name if name in named[id(task)] or name == NO_LABEL else OTHER_LABEL


def named_answers(task: Task) -> frozenset[str]:
    """Return the classes or labels of a model that are counted by name."""
    return frozenset(task.names[:MOST_ANSWERS])


def pattern(present: Sequence[str], total: int) -> str:
    """Name the modalities that a sample has; of a model with many of them, say how many it has."""
    return "+".join(present) if total <= MOST_NAMED else f"{len(present)} of {total}"


def forget_dead_workers() -> None:
    """Remove the gauges of workers that were killed from /metrics; their queues would be added for good."""
    from prometheus_client.multiprocess import mark_process_dead

    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not is_alive(int(pid)):
            mark_process_dead(int(pid), folder)  # type: ignore[no-untyped-call]


def is_alive(pid: int) -> bool:
    """Whether a process with this number runs, of any user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _take_all(values: collections.deque[T]) -> list[T]:
    """Remove the values that are there now; other threads may add meanwhile."""
    taken = []
    with contextlib.suppress(IndexError):
        for _ in range(len(values)):
            taken.append(values.popleft())
    return taken
