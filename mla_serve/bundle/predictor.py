"""Predict from a bundle: decode -> encode -> head -> fuse, through onnxruntime. No torch, no server."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mla_serve.bundle.answers import Request, predictions
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.results import Prediction
from mla_serve.bundle.runtime import Session, open_session, warn_of_fallback
from mla_serve.errors import BundleError, InputError, MissingInput, NotFinite, UnknownField
from mla_serve.fusion.explain import explain
from mla_serve.fusion.rules import DEFAULT_RULE, fuse, rules_for
from mla_serve.inputs import Array, Payload

ENCODE_BATCH = 8  # windows at a time on a CPU: with 64, texts of 464 tokens take 2.4 GB instead of .6, and no less time
GPU_BATCH = 64


def _ignore(stage: str) -> None:
    """Time nothing."""


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What a predictor calls while it answers, so that a server can time, stop and batch its work.

    stage_ended: called with "decode-NAME", "encode-NAME" or "fuse" when that stage has ended; stops the work by raising.
    decoding: opens a context, given a modality's name, around the decoding of each payload; stops the work by raising.
    encode: called in place of Predictor.encode, for example to run a graph once for several requests.
    """

    stage_ended: Callable[[str], None] = _ignore
    decoding: Callable[[str], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    encode: Callable[[str, Sequence[Array]], Array] | None = None


NO_HOOKS = Hooks()


def _finite(name: str, rows: Array) -> Array:
    """Return the output of a modality's graph (B, ...). Raises: NotFinite, naming the rows that hold infinity or NaN."""
    if not np.isfinite(rows).all():
        raise NotFinite(name, np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)).tolist())
    return rows


@dataclasses.dataclass(frozen=True)
class GraphOutputs:
    """The outputs of the graphs for B samples.

    opinions: (M, B, O), the outputs of the heads, 0 where absent.
    present: (M, B) bool.
    unfamiliarity: (M, B), percentile of the score among the validation scores, 0 to 1; NaN where absent or not known.
    excess: (M, B), how far the score lies above those of validation, see Reference.excess; 0 where absent or not known.
    """

    opinions: Array
    present: Array
    unfamiliarity: Array
    excess: Array


class Predictor:
    """The graphs of one bundle, ready to run. Thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 1,
        *,
        spin: bool = False,
    ) -> None:
        """Open one session per graph.

        Args: providers, onnxruntime's names in order of preference; threads, per graph run; spin, see open_session.
        Raises: BundleError when a graph does not load or does not fit the manifest.
        """
        self.bundle = bundle
        self.task = bundle.task
        self.names = tuple(bundle.manifest.modalities)
        modalities = bundle.manifest.modalities
        self._encoders = {
            name: self._open(modality.encoder, providers, threads, spin) for name, modality in modalities.items()
        }
        self._heads = {name: self._open(path, providers, threads, spin) for name, path in bundle.manifest.heads.items()}
        for name in self.names:
            self._check_fit(name)
        warn_of_fallback(providers, self.providers)
        self._batch = ENCODE_BATCH if self.providers[0] == "CPUExecutionProvider" else GPU_BATCH

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes or labels; none for a number."""
        return self.task.names

    @property
    def providers(self) -> list[str]:
        """onnxruntime's names of what the graphs really run on."""
        return next(iter(self._encoders.values())).providers

    def check_names(self, sample: Mapping[str, object]) -> None:
        """Refuse an empty sample, and modalities that the bundle does not have. Raises: MissingInput or UnknownField."""
        for name in sample:
            if name not in self.names:
                raise UnknownField(str(name), f"this model has no such modality; it reads {', '.join(self.names)}")
        if not sample:
            raise MissingInput(self.names[0], f"nothing was sent; send at least one of {', '.join(self.names)}")

    def check_options(self, rule: str, top_k: int | None, coverage: float | None = None) -> None:
        """Refuse a fusion rule that the task lacks, a top_k below 1 or of a number, and a coverage without scores.

        Raises: InputError.
        """
        if rule not in (rules := rules_for(self.bundle.fusion)):
            raise UnknownField("fusion", f"no rule is called {rule[:100]!r}; choose one of {', '.join(rules)}")
        if top_k is not None and not self.classes:
            raise InputError(
                "top_k", f"got {top_k}, but this model answers a number, which has no labels; leave it out"
            )
        if top_k is not None and top_k < 1:
            raise InputError("top_k", f"got {top_k}; send a whole number from 1 to {len(self.classes)}")
        if coverage is not None and not 0 < coverage < 1:
            raise InputError("coverage", f"got {coverage}; send a number between 0 and 1, such as 0.9")
        if coverage is not None and rule not in (known := self.bundle.intervals.rules):
            instead = f"ask with fusion {' or '.join(known)}, or " if known else ""
            raise InputError(
                "coverage", f"this model keeps nothing to choose it by under {rule!r}; {instead}leave it out"
            )

    def decode(self, sample: Mapping[str, Payload], hooks: Hooks = NO_HOOKS) -> dict[str, Array]:
        """Decode every payload of one sample, in the order of the sample: {name: payload} -> {name: (W, *shape)}.

        A modality whose cells are all missing is missing.

        Raises: InputError, naming the modality.
        """
        self.check_names(sample)
        arrays = {}
        for name, payload in sample.items():
            with hooks.decoding(name), contextlib.suppress(MissingInput):
                arrays[name] = self.decode_one(name, payload)
            hooks.stage_ended(f"decode-{name}")
        self.check_names(arrays)
        return arrays

    def decode_one(self, name: str, payload: Payload) -> Array:
        """Decode one payload of one modality into (W, *shape)."""
        return self.bundle.inputs[name].decode(payload, name)

    def encode(self, name: str, arrays: Sequence[Array]) -> Array:
        """Encode many samples of one modality: B arrays of (W, *shape) -> features (B, D), windows averaged.

        Raises: NotFinite.
        """
        windows = np.concatenate(arrays)
        batches = range(0, len(windows), self._batch)
        features = np.concatenate([self._encoders[name].run(windows[at : at + self._batch]) for at in batches])
        counts = np.array([len(array) for array in arrays])
        if len(windows) == len(arrays):
            return _finite(name, features)
        with np.errstate(over="ignore", invalid="ignore"):  # the result is checked below
            sums: Array = np.add.reduceat(features, np.cumsum(counts) - counts, axis=0)
            means: Array = sums / counts[:, None].astype(features.dtype)
        return _finite(name, means)

    def head(self, name: str, features: Array) -> Array:
        """Turn one modality's features (B, D) into its opinions (B, O) by its head.

        Raises: NotFinite.
        """
        return _finite(name, self._heads[self.bundle.manifest.modalities[name].head].run(features))

    def run_graphs(self, samples: Sequence[Mapping[str, Array]], hooks: Hooks = NO_HOOKS) -> GraphOutputs:
        """Run the graphs that the decoded samples need, and no other.

        Raises: NotFinite, naming the modality and the samples. Their other modalities do not answer instead.
        """
        encode = hooks.encode or self.encode
        shape = len(self.names), len(samples)
        outputs = GraphOutputs(
            np.zeros((*shape, self.task.outputs), dtype=np.float32),
            np.array([[name in sample for sample in samples] for name in self.names]),
            np.full(shape, np.nan),
            np.zeros(shape),
        )
        for m, name in enumerate(self.names):
            there = outputs.present[m]
            if there.any():
                arrays = [sample[name] for sample in samples if name in sample]
                try:
                    features = encode(name, arrays)
                    outputs.opinions[m, there] = self.head(name, features)
                except NotFinite as error:
                    raise NotFinite(name, np.flatnonzero(there)[error.rows].tolist()) from None
                if reference := self.bundle.references.by_modality.get(name):
                    with np.errstate(over="ignore", invalid="ignore"):  # an infinite distance is as far as can be
                        scores = reference.score(np.concatenate(arrays) if reference.reads_input else features)
                    outputs.unfamiliarity[m, there] = reference.percentile(scores)
                    outputs.excess[m, there] = reference.excess(scores)
                hooks.stage_ended(f"encode-{name}")
        return outputs

    def run_usable(
        self, samples: Sequence[Mapping[str, Array]], hooks: Hooks = NO_HOOKS
    ) -> tuple[GraphOutputs, dict[int, NotFinite]]:
        """Do as `run_graphs`, but leave out the samples that it refuses.

        Returns: the outputs of the others, in their order, and the error of each that is left out, by its index.
        """
        refused: dict[int, NotFinite] = {}
        while True:
            kept = [at for at in range(len(samples)) if at not in refused]
            try:
                return self.run_graphs([samples[at] for at in kept], hooks), refused
            except NotFinite as error:
                refused |= dict.fromkeys((kept[row] for row in error.rows), error)

    def predict(
        self,
        samples: Sequence[Mapping[str, Payload]],
        rule: str = DEFAULT_RULE,
        top_k: int | None = None,
        coverage: float | None = None,
    ) -> list[Prediction]:
        """Decode, encode and fuse samples, each with any non-empty subset of the modalities.

        Raises: InputError, naming the modality or option at fault.
        """
        return self.answer_from(self.run_graphs([self.decode(sample) for sample in samples]), rule, top_k, coverage)

    def predict_one(
        self,
        sample: Mapping[str, Payload],
        rule: str = DEFAULT_RULE,
        top_k: int | None = None,
        coverage: float | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> Prediction:
        """Decode, encode and fuse one sample; call the hooks on the way.

        Raises: as `predict`, the options before the sample; what the hooks raise.
        """
        self.check_options(rule, top_k, coverage)
        outputs = self.run_graphs([self.decode(sample, hooks)], hooks)
        prediction = self.answer_from(outputs, rule, top_k, coverage)[0]
        hooks.stage_ended("fuse")
        return prediction

    def predict_decoded(
        self,
        samples: Sequence[Mapping[str, Array]],
        rule: str = DEFAULT_RULE,
        top_k: int | None = None,
        coverage: float | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> list[Prediction | NotFinite]:
        """Encode and fuse decoded samples together; a sample that `run_graphs` refuses gets its error in its place."""
        if not samples:
            return []
        outputs, refused = self.run_usable(samples, hooks)
        any_is_usable = len(refused) < len(samples)
        predictions = iter(self.answer_from(outputs, rule, top_k, coverage) if any_is_usable else ())
        return [refused[at] if at in refused else next(predictions) for at in range(len(samples))]

    def embed(self, sample: Mapping[str, Payload], hooks: Hooks = NO_HOOKS) -> dict[str, Array]:
        """Decode and encode one sample: {name: payload} -> {name: features (D,)}.

        Raises: InputError, naming the modality; NotFinite; what the hooks raise.
        """
        encode, features = hooks.encode or self.encode, {}
        for name, arrays in self.decode(sample, hooks).items():
            features[name] = encode(name, [arrays])[0]
            hooks.stage_ended(f"encode-{name}")
        return features

    def answer_from(
        self, outputs: GraphOutputs, rule: str = DEFAULT_RULE, top_k: int | None = None, coverage: float | None = None
    ) -> list[Prediction]:
        """Fuse the outputs of the graphs into predictions with opinions, and prediction sets or intervals.

        Args: coverage, how often the prediction set or interval contains the truth; None for neither.
        Raises: InputError for options that do not fit.
        """
        self.check_options(rule, top_k, coverage)
        explained = explain(outputs.opinions, outputs.present, self.bundle.fusion, rule, outputs.excess)
        answers = explained.fused.answers
        bounds = (
            None
            if coverage is None
            else self.bundle.intervals.choose(answers, outputs.present, self.names, rule, coverage)
        )
        request = Request(self.names, rule, top_k, coverage)
        return predictions(self.task, explained, outputs.present, outputs.unfamiliarity, bounds, request)

    def replay(self) -> Array:
        """Answer the golden samples by the default rule without excess, as the export did: (B, A), see Task.plain.

        Raises: BundleError when a sample cannot be read, or gives no finite opinions.
        """
        folder = self.bundle.folder
        try:
            decoded = [self.decode(sample) for sample in self.bundle.golden_samples()]
            outputs = self.run_graphs(decoded)
            return self.task.plain(fuse(outputs.opinions, outputs.present, self.bundle.fusion).answers)
        except NotFinite as error:
            raise BundleError(f"{folder}: golden samples {error.rows}: {error}; export it again") from None
        except InputError as error:
            raise BundleError(f"{folder}: a golden sample cannot be read ({error}); export it again") from None

    def verify(self) -> float:
        """Replay the golden samples, which also warms up every graph.

        Returns: the largest difference from their probabilities at export.
        Raises: BundleError when it exceeds the manifest's tolerance, or a sample cannot be read.
        """
        if not self.bundle.manifest.golden:
            return 0.0
        difference = float(np.abs(self.replay() - self.bundle.golden_answers()).max())
        if not difference <= self.bundle.manifest.tolerance:
            raise BundleError(
                f"{self.bundle.folder}: the golden samples differ from their probabilities at export by {difference:.2g}, "
                f"allowed is {self.bundle.manifest.tolerance:.2g}; this machine computes other numbers; export the bundle again"
            )
        return difference

    def _open(self, path: str, providers: Sequence[str], threads: int, spin: bool) -> Session:
        try:
            return open_session(self.bundle.read(path), providers, threads, spin=spin)
        except Exception as error:  # onnxruntime raises a dozen exception types of its own
            raise BundleError(f"{self.bundle.folder / path}: onnxruntime cannot load it ({error})") from error

    def _check_fit(self, name: str) -> None:
        """Run one generated payload through a modality. Raises: BundleError when its parts do not fit together."""
        reader = self.bundle.inputs[name]
        try:
            window = reader.decode(reader.generate(np.random.default_rng(0)), name)
            # The graphs alone, without `_finite`: only the shape is checked here, and numbers are checked in every request.
            head = self._heads[self.bundle.manifest.modalities[name].head]
            shape = head.run(self._encoders[name].run(window)).shape
        except Exception as error:  # every library involved raises exception types of its own
            raise BundleError(
                f"{self.bundle.folder}: the input, encoder and head of {name} do not fit together "
                f"({type(error).__name__}: {' '.join(str(error).split())}); export the bundle again"
            ) from error
        if shape != (1, self.task.outputs):
            raise BundleError(
                f"{self.bundle.folder}: the head of {name} gives {shape} for one sample, expected "
                f"{(1, self.task.outputs)}; export the bundle again"
            )
