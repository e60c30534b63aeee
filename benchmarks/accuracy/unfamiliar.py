"""`make bench-unfamiliar`: what one bad input costs the answer, while the other modalities are as they should be.

Each modality of the rows of a split is replaced by corrupted copies, in every way that its kind knows, in the fifth degree,
and in ways that no fit has seen (OTHERS). For every pattern of two and more modalities, the score of the answer is compared
with that without the corrupted modality: below it, sending the modality was worse than leaving it out. Beside it: how well
`unfamiliarity` separates corrupted from clean inputs, and how often it is above .99 for clean ones.

With --before, what another bundle with the same graphs has, such as the one before `mla-serve recalibrate`, is measured on the
same inputs. Takes two minutes for models/digits; writes unfamiliar.json and .md.

    python -m benchmarks.accuracy.unfamiliar --data DIR
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.shared import machine, write_results
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.console import console, main
from mla_serve.errors import ConfigError
from mla_serve.evaluation.scores import patterns
from mla_serve.fusion.formula import Array, Fusion, pattern_name
from mla_serve.fusion.novelty import References
from mla_serve.fusion.rules import fuse
from mla_serve.inputs import Input
from mla_serve.table import Row, read_payload, read_table

COMPARED = ("text", "columns")  # kinds whose references may read the input itself
WORST = 5  # the degree that is measured
ALARM = 0.99
Generator = np.random.Generator
Spoil = Callable[[Array, Generator], Array]
Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class UnfamiliarConfig:
    """Measure what one bad input costs the answer."""

    data: Path
    """Folder of the table."""
    model: Path = Path("models/digits")
    """Folder of the bundle."""
    split: str = "test"
    """Split to measure on."""
    rows: int = 500
    """Rows of the split, at most."""
    before: Path | None = None
    """Folder of a bundle with the same graphs, to be measured on the same inputs."""
    out: Path = Path("benchmarks/accuracy")
    """Folder that unfamiliar.json and .md are written to."""


# ---- ways that no fit has seen: of decoded windows, or of compared


def inverted(pixels: Array, generator: Generator) -> Array:  # noqa: ARG001
    """Invert the brightness."""
    return 255 - pixels


def gradient(pixels: Array, generator: Generator) -> Array:
    """Replace by a gradient of brightness."""
    height, width = pixels.shape[1:]
    angle, (low, high) = generator.uniform(0, 2 * np.pi), generator.integers(0, 256, 2)
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    along = np.clip(0.5 + np.cos(angle) * (across - 0.5) + np.sin(angle) * (down - 0.5), 0, 1)
    return np.broadcast_to(low + (high - low) * along, pixels.shape)


def stripes(pixels: Array, generator: Generator) -> Array:
    """Replace by bright stripes on black."""
    width = int(generator.integers(2, 8))
    stripe = 255.0 * (np.arange(pixels.shape[2]) // width % 2)
    return np.broadcast_to(stripe if generator.random() < 0.5 else stripe[None, :].T[: pixels.shape[1]], pixels.shape)


def chirp(samples: Array, generator: Generator) -> Array:
    """Replace by a tone that rises or falls."""
    low, high = np.exp(generator.uniform(np.log(0.01), np.log(0.45), 2))
    time = np.arange(len(samples))
    return 0.3 * np.sin(2 * np.pi * (low * time + (high - low) * time**2 / (2 * len(samples))))


def clicks(samples: Array, generator: Generator) -> Array:
    """Replace by clicks at equal distances."""
    clicked = np.zeros_like(samples)
    clicked[:: int(generator.integers(80, 1600))] = 0.5
    return clicked


def chords(samples: Array, generator: Generator) -> Array:
    """Replace by four chords that fade away."""
    parts = np.array_split(np.arange(len(samples)), 4)
    played = []
    for part in parts:
        time, pitch = np.arange(len(part)), 0.03 * 2 ** (generator.integers(0, 24) / 12)
        overtones = [np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 5)]
        played.append(0.2 * sum(overtones) * np.exp(-4 * time / len(part)))
    return np.concatenate(played)


def emoji(text: str, generator: Generator) -> str:  # noqa: ARG001
    """Replace by one to three emoji."""
    return "".join(map(chr, generator.integers(0x1F600, 0x1F64F, int(generator.integers(1, 4)))))


def symbols(text: str, generator: Generator) -> str:  # noqa: ARG001
    """Replace by punctuation and digits."""
    return "".join(map(chr, generator.integers(33, 64, int(generator.integers(2, 9)))))


def one_letter(text: str, generator: Generator) -> str:  # noqa: ARG001
    """Replace by one letter, repeated."""
    return chr(int(generator.integers(97, 123))) * int(generator.integers(2, 14))


def shuffled_letters(text: str, generator: Generator) -> str:
    """Shuffle the letters."""
    return "".join(generator.permutation(list(text)))


def reversed_order(values: Array, generator: Generator) -> Array:  # noqa: ARG001
    """Reverse the order of the numbers."""
    return values[::-1]


def placeholder(values: Array, generator: Generator) -> Array:
    """Put one number into every cell, as exports of tables do where a value is not known."""
    return np.where(np.isnan(values), values, generator.choice([-9999.0, -1.0, 0.0, 9999.0]))


def tenfold(values: Array, generator: Generator) -> Array:  # noqa: ARG001
    """Multiply everything by 10."""
    return np.asarray(10 * values)


OTHERS: Mapping[str, Mapping[str, Any]] = {
    "image": {"inverted": inverted, "gradient": gradient, "stripes": stripes},
    "audio": {"chirp": chirp, "clicks": clicks, "chords": chords},
    "text": {"emoji": emoji, "symbols": symbols, "one_letter": one_letter, "shuffled_letters": shuffled_letters},
    "vector": {"reversed": reversed_order, "tenfold": tenfold},
    "columns": {"placeholder": placeholder, "tenfold": tenfold},
}


def spoil_otherwise(spec: Input, payload: Any, spoil: Any, generator: Generator) -> Array:
    """Decode a payload that is spoiled in one of OTHERS."""
    if spec.kind == "text":
        return spec.decode(spoil(payload, generator), "text")
    windows = spec.decode(payload, spec.kind).copy()
    for window in windows:
        window[...] = spoil(window, generator)
    return windows


# ---- measuring


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One modality of the rows that have it: features (rows, D), opinions (rows, O), and what was decoded, for COMPARED."""

    features: Array
    opinions: Array
    decoded: Array

    def score(self, references: References, name: str) -> tuple[Array, Array]:
        """Return unfamiliarity and excess (rows,); 0 for a modality without a reference."""
        reference = references.by_modality.get(name)
        if reference is None:
            return np.zeros(len(self.features)), np.zeros(len(self.features))
        read = self.decoded if reference.reads_input else self.features
        scores = reference.score(read)
        return reference.percentile(scores), reference.excess(scores)


def encode(predictor: Predictor, name: str, arrays: Sequence[Array]) -> Encoded:
    """Run decoded inputs of a modality through its graphs."""
    features = predictor.encode(name, arrays)
    compared = predictor.bundle.inputs[name].kind in COMPARED
    return Encoded(features, predictor.head(name, features), np.concatenate(arrays) if compared else np.empty(0))


def having(rows: Sequence[Row], name: str) -> list[int]:
    """Return the numbers of the rows that have a modality."""
    return [number for number, row in enumerate(rows) if name in row.values]


def corrupted(predictor: Predictor, rows: Sequence[Row], name: str, way: str) -> Encoded:
    """Encode corrupted copies of a modality, in the fifth degree or in one of OTHERS."""
    spec = predictor.bundle.inputs[name]
    other = OTHERS.get(spec.kind, {}).get(way.removeprefix("unseen: "))

    def spoil(number: int) -> Array:
        payload, generator = read_payload(rows[number].values[name]), np.random.default_rng([WORST, number])
        if way.startswith("unseen: "):
            return spoil_otherwise(spec, payload, other, generator)
        return spec.corrupt(payload, name, way, WORST, generator)

    return encode(predictor, name, [spoil(number) for number in having(rows, name)])


@dataclasses.dataclass(frozen=True)
class Measure:
    """Rows of a split, encoded as they are, and what was fitted: references and fusion."""

    predictor: Predictor
    rows: Sequence[Row]
    clean: Mapping[str, Encoded]
    targets: Array
    references: References
    fusion: Fusion

    def clean_scores(self) -> Found:
        """Score all rows as they are, and count the false alarms of each modality."""
        opinions, present, excess = self._stack({})
        there = present.any(axis=0)
        answers = fuse(opinions[:, there], present[:, there], self.fusion, excess=excess[:, there]).answers
        alarms = {name: float(np.mean(one.score(self.references, name)[0] > ALARM)) for name, one in self.clean.items()}
        return {"scores": self.predictor.task.score(answers, self.targets[there]), "alarms": alarms}

    def compare(self, name: str, spoiled: Encoded) -> Found:
        """Compare the score with a corrupted modality with that without it, in every pattern; and detect it."""
        from mla_serve.train.fit.novelty import auroc

        main_score, m = self.predictor.task.main_scores[0], self.predictor.names.index(name)
        opinions, present, excess = self._stack({name: spoiled})
        found: Found = {}
        for pattern in patterns(len(self.predictor.names)):
            usable = present[pattern].all(axis=0)
            if pattern[m] and pattern.sum() > 1 and usable.any():
                mask = np.repeat(pattern[:, None], usable.sum(), axis=1)
                without = mask & (np.arange(len(mask)) != m)[:, None]
                names = [each for each, there in zip(self.predictor.names, pattern, strict=True) if there]
                found[pattern_name(names)] = [
                    self.predictor.task.score(
                        fuse(opinions[:, usable], one, self.fusion, excess=excess[:, usable]).answers,
                        self.targets[usable],
                    )[main_score]
                    for one in (mask, without)
                ]
        scores = [one.score(self.references, name)[0] for one in (self.clean[name], spoiled)]
        return {"patterns": found, "auroc": auroc(*scores), "above": float(np.mean(scores[1] > ALARM))}

    def _stack(self, instead: Mapping[str, Encoded]) -> tuple[Array, Array, Array]:
        """Stack opinions (M, B, O), present (M, B) and excess (M, B), with some modalities replaced."""
        shape = len(self.predictor.names), len(self.rows)
        opinions = np.zeros((*shape, self.predictor.task.outputs))
        present, excess = np.zeros(shape, dtype=bool), np.zeros(shape)
        for m, name in enumerate(self.predictor.names):
            one, there = {**self.clean, **instead}[name], having(self.rows, name)
            present[m, there], opinions[m, there] = True, one.opinions
            excess[m, there] = one.score(self.references, name)[1]
        return opinions, present, excess


def encode_rows(predictor: Predictor, rows: Sequence[Row]) -> dict[str, Encoded]:
    """Encode all modalities of rows as they are."""
    specs = predictor.bundle.inputs
    return {
        name: encode(
            predictor, name, [specs[name].decode(read_payload(rows[b].values[name]), name) for b in having(rows, name)]
        )
        for name in predictor.names
    }


def same_graphs(one: Bundle, other: Bundle) -> bool:
    """Return whether two bundles have the same modalities and graphs."""
    modalities = [bundle.manifest.modalities for bundle in (one, other)]
    graphs = [
        {name: hashed for name, hashed in bundle.manifest.files.items() if name.endswith(".onnx")}
        for bundle in (one, other)
    ]
    return modalities[0] == modalities[1] and graphs[0] == graphs[1]


def measure(config: UnfamiliarConfig) -> Found:
    """Measure the bundle, and the one before it."""
    predictor = Predictor(Bundle.load(config.model))
    splits = read_table(config.data).splits
    if config.split not in splits:
        raise ConfigError(f"--split {config.split}: the table has {', '.join(splits)}")
    rows = splits[config.split][: config.rows]
    bundle, clean = predictor.bundle, encode_rows(predictor, rows)
    versions = {"as it is": (bundle.references, bundle.fusion)}
    if config.before:
        before = Bundle.load(config.before)
        if not same_graphs(before, bundle):
            raise ConfigError(f"--before {config.before}: its graphs are not those of {config.model}")
        versions = {"before": (before.references, before.fusion), **versions}
    targets = predictor.task.encode([row.label for row in rows])
    measures = {version: Measure(predictor, rows, clean, targets, *fitted) for version, fitted in versions.items()}
    found: Found = {version: {"clean": one.clean_scores(), "modalities": {}} for version, one in measures.items()}
    ways = [
        (name, way)
        for name in predictor.names
        for way in [
            *bundle.inputs[name].corruptions,
            *(f"unseen: {way}" for way in OTHERS.get(bundle.inputs[name].kind, {})),
        ]
    ]
    for name, way in track(ways, "ways", console=console):
        spoiled = corrupted(predictor, rows, name, way)
        for version, one in measures.items():
            found[version]["modalities"].setdefault(name, {})[way] = one.compare(name, spoiled)
    for version, (_, fusion) in versions.items():
        found[version]["discounts"] = dict(fusion.discounts)
    facts = {"model": config.model.name, "split": config.split, "rows": len(rows), "machine": machine()}
    return facts | {"score": predictor.task.main_scores[0], "versions": found}


def worst(comparison: Found) -> tuple[str, float, float]:
    """Return the pattern that loses most: its name, the score with the corrupted modality, and that without it."""
    name = min(
        comparison["patterns"], key=lambda each: comparison["patterns"][each][0] - comparison["patterns"][each][1]
    )
    return name, *comparison["patterns"][name]


def losses(version: Found, *, unseen: bool) -> Array:
    """Return score with minus score without, of every way and pattern that fits have seen, or have not."""
    return np.array(
        [
            given - without
            for ways in version["modalities"].values()
            for way, comparison in ways.items()
            if way.startswith("unseen") == unseen
            for given, without in comparison["patterns"].values()
        ]
    )


def markdown(results: Found) -> str:
    """Write the page."""
    versions = results["versions"]
    lines = [
        "# One bad input beside good ones",
        "",
        f"`make bench-unfamiliar`: bundle {results['model']}, {results['rows']} rows of {results['split']}. One modality is "
        f"corrupted in the fifth degree, the others stay. The {results['score']} of the answer is compared with that "
        "without the corrupted modality, in every combination of two and more modalities. Ways marked `unseen` took no part "
        "in any fit. On digits, the kinds of detectors were chosen with a look at the test rows and at the unseen ways, so they "
        "look better there than they would on other data.",
        "",
        "| | clean | false alarms above .99 | ways and combinations: mean difference | below by more than a point | unseen: mean difference | below by more than a point |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, version in versions.items():
        known, unseen = (losses(version, unseen=each) for each in (False, True))
        alarms = ", ".join(f"{modality} {share:.1%}" for modality, share in version["clean"]["alarms"].items())
        columns = [f"{each.mean():+.3f} | {np.mean(each < -0.01):.0%}" for each in (known, unseen)]
        lines.append(
            f"| {name} | {version['clean']['scores'][results['score']]:.3f} | {alarms} | {' | '.join(columns)} |"
        )
    lines += ["", "The combination that loses most, and how well `unfamiliarity` separates the inputs (AUROC):", ""]
    lines.append("| modality | way | " + " | ".join(f"{v}: with, without, in | AUROC" for v in versions) + " |")
    lines.append("|---" * (2 + 2 * len(versions)) + "|")
    first = next(iter(versions.values()))
    for modality, ways in first["modalities"].items():
        for way in ways:
            cells = []
            for version in versions.values():
                comparison = version["modalities"][modality][way]
                pattern, given, without = worst(comparison)
                cells.append(f"{given:.3f}, {without:.3f}, {pattern} | {comparison['auroc']:.2f}")
            lines.append(f"| {modality} | {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(config: UnfamiliarConfig) -> None:
    """Measure, and write the results."""
    results = measure(config)
    write_results(config.out, "unfamiliar", results, markdown(results))
    console.print(f"{config.out}/unfamiliar.md")


if __name__ == "__main__":
    main(run, UnfamiliarConfig, needs="train")
