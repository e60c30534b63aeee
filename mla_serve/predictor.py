"""Predict from a bundle: decode -> encode -> head -> fuse, through onnxruntime. No torch, no server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mla_serve.bundle import Bundle
from mla_serve.errors import BundleError, InputError, MissingInput, UnknownField
from mla_serve.fusion import DEFAULT_RULE, RULES, entropy, fuse, influence, log_softmax
from mla_serve.inputs import Array, Payload
from mla_serve.results import Opinion, Prediction
from mla_serve.runtime import Session, open_session, warn_of_fallback

ENCODE_BATCH = 64


def _no_lap(stage: str) -> None:
    """Time nothing."""


class Predictor:
    """The graphs of one bundle, ready to run. Thread-safe."""

    def __init__(self, bundle: Bundle, providers: Sequence[str] = ("CPUExecutionProvider",), threads: int = 1) -> None:
        """Open one session per graph.

        Args: providers, onnxruntime's names in order of preference; threads, per graph run.
        Raises: BundleError when a graph does not load or does not fit the manifest.
        """
        self.bundle = bundle
        self.classes = bundle.manifest.classes
        self.names = tuple(bundle.manifest.modalities)
        modalities = bundle.manifest.modalities
        self._encoders = {
            name: self._open(modality.encoder, providers, threads) for name, modality in modalities.items()
        }
        self._heads = {name: self._open(path, providers, threads) for name, path in bundle.manifest.heads.items()}
        warn_of_fallback(providers, self.providers)

    @property
    def providers(self) -> list[str]:
        """onnxruntime's names of what the graphs really run on."""
        return next(iter(self._encoders.values())).providers

    def check_names(self, sample: Mapping[str, object]) -> None:
        """Refuse a sample that is empty or names a modality that the bundle lacks."""
        for name in sample:
            if name not in self.names:
                raise UnknownField(str(name), f"this model has no such modality; it reads {', '.join(self.names)}")
        if not sample:
            raise MissingInput(self.names[0], f"nothing was sent; send at least one of {', '.join(self.names)}")

    def check_options(self, rule: str, top_k: int | None) -> None:
        """Refuse a fusion rule that does not exist, or fewer labels than one."""
        if rule not in RULES:
            raise UnknownField("fusion", f"no rule is called {rule[:100]!r}; choose one of {', '.join(RULES)}")
        if top_k is not None and top_k < 1:
            raise InputError("top_k", f"got {top_k}; send a whole number from 1 to {len(self.classes)}")

    def decode(self, sample: Mapping[str, Payload]) -> dict[str, Array]:
        """Decode every payload of one sample: {name: payload} -> {name: (W, *shape)}.

        Raises: InputError, naming the modality.
        """
        self.check_names(sample)
        return {name: self.decode_one(name, sample[name]) for name in self.names if name in sample}

    def decode_one(self, name: str, payload: Payload) -> Array:
        """Decode one payload of one modality into (W, *shape)."""
        return self.bundle.inputs[name].decode(payload, name)

    def encode(self, name: str, arrays: Sequence[Array]) -> Array:
        """Encode many samples of one modality: B arrays of (W, *shape) -> features (B, D), windows averaged."""
        windows = np.concatenate(arrays)
        batches = range(0, len(windows), ENCODE_BATCH)
        features = np.concatenate([self._encoders[name].run(windows[at : at + ENCODE_BATCH]) for at in batches])
        counts = np.array([len(array) for array in arrays])
        if len(windows) == len(arrays):
            return features
        sums: Array = np.add.reduceat(features, np.cumsum(counts) - counts, axis=0)
        means: Array = sums / counts[:, None].astype(features.dtype)
        return means

    def head(self, name: str, features: Array) -> Array:
        """Turn one modality's features (B, D) into logits (B, C) by its head."""
        return self._heads[self.bundle.manifest.modalities[name].head].run(features)

    def logits(
        self, samples: Sequence[Mapping[str, Array]], lap: Callable[[str], None] = _no_lap
    ) -> tuple[Array, Array]:
        """Run the graphs that the decoded samples need, and no other.

        Args: samples, decoded; lap, told "encode-NAME" when a modality is done, to time it or to stop by raising.
        Returns: logits (M, B, C), 0 where absent; present (M, B) bool.
        """
        logits = np.zeros((len(self.names), len(samples), len(self.classes)), dtype=np.float32)
        present = np.array([[name in sample for sample in samples] for name in self.names])
        for m, name in enumerate(self.names):
            if present[m].any():
                arrays = [sample[name] for sample in samples if name in sample]
                logits[m, present[m]] = self.head(name, self.encode(name, arrays))
                lap(f"encode-{name}")
        return logits, present

    def predict(
        self, samples: Sequence[Mapping[str, Payload]], rule: str = DEFAULT_RULE, top_k: int | None = None
    ) -> list[Prediction]:
        """Decode, encode and fuse samples, each with any non-empty subset of the modalities.

        Raises: InputError, naming the modality or option at fault.
        """
        logits, present = self.logits([self.decode(sample) for sample in samples])
        return self.conclude(logits, present, rule, top_k)

    def conclude(
        self, logits: Array, present: Array, rule: str = DEFAULT_RULE, top_k: int | None = None
    ) -> list[Prediction]:
        """Fuse logits (M, B, C) where present (M, B), and say what was answered, why, and what was missing."""
        self.check_options(rule, top_k)
        fused = fuse(logits, present, self.bundle.fusion, rule)
        owed = influence(logits, present, self.bundle.fusion, rule, fused)
        alone = log_softmax(logits.astype(np.float64) / self._temperatures(rule))
        return [
            self._prediction(
                fused.log_probabilities[b], fused.weights[:, b], owed[:, b], alone[:, b], present[:, b], rule, top_k
            )
            for b in range(logits.shape[1])
        ]

    def _temperatures(self, rule: str) -> Array:
        """Return each opinion's temperature (M, 1, 1): the fitted one under the default rule, else 1."""
        fitted = self.bundle.fusion.temperatures if rule == DEFAULT_RULE else dict.fromkeys(self.names, 1.0)
        return np.array([fitted[name] for name in self.names]).reshape(-1, 1, 1)

    def _prediction(
        self, log_p: Array, weights: Array, owed: Array, alone: Array, present: Array, rule: str, top_k: int | None
    ) -> Prediction:
        order = np.argsort(-log_p, kind="stable")
        p = np.exp(log_p)
        opinions = {
            name: Opinion(
                float(weights[m]),
                float(owed[m]),
                float(entropy(alone[m])),
                self.classes[alone[m].argmax()],
                float(np.exp(alone[m].max())),
            )
            for m, name in enumerate(self.names)
            if present[m]
        }
        return Prediction(
            label=self.classes[order[0]],
            probability=float(p[order[0]]),
            probabilities={self.classes[c]: float(p[c]) for c in order[:top_k]},
            entropy=float(entropy(log_p)),
            fusion=rule,
            modalities=opinions,
            missing=[name for name in self.names if name not in opinions],
        )

    def verify(self) -> float:
        """Replay the golden samples, which also warms every graph up; returns the largest difference to torch.

        Raises: BundleError when it exceeds the manifest's tolerance.
        """
        if not self.bundle.manifest.golden:
            return 0.0
        decoded = [self.decode(sample) for sample in self.bundle.golden_samples()]
        log_p = fuse(*self.logits(decoded), self.bundle.fusion).log_probabilities
        difference = float(np.abs(np.exp(log_p) - self.bundle.golden_probabilities()).max())
        if not difference <= self.bundle.manifest.tolerance:
            raise BundleError(
                f"{self.bundle.folder}: the golden samples differ from training by {difference:.2g}, "
                f"allowed is {self.bundle.manifest.tolerance:.2g}; this machine computes something else, export again"
            )
        return difference

    def _open(self, path: str, providers: Sequence[str], threads: int) -> Session:
        try:
            return open_session(self.bundle.read(path), providers, threads)
        except Exception as error:  # onnxruntime raises a dozen types of its own
            raise BundleError(f"{self.bundle.folder / path}: onnxruntime cannot load it ({error})") from error
