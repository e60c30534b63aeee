"""How well unlike input is told: `python benchmarks/unfamiliar.py MODEL DATA` prints AUROCs against the test split.

Nothing is tuned here. Each case is 200 payloads, decoded and encoded as a caller's would be.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from sklearn.datasets import load_sample_images

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation.splits import run_split
from mla_serve.inputs import Payload
from mla_serve.train.data.keypad import TONES
from mla_serve.train.fit.novelty import auroc

COUNT = 200
RATE = 8000
WORDS = [
    "house",
    "tree",
    "water",
    "mother",
    "garden",
    "window",
    "table",
    "bread",
    "street",
    "morning",
    "winter",
    "river",
    "letter",
    "music",
    "doctor",
    "yellow",
    "horse",
    "market",
    "silver",
    "kitchen",
    "bridge",
    "forest",
    "school",
    "Haus",
    "Baum",
    "Wasser",
    "Mutter",
    "Garten",
    "Fenster",
    "Tisch",
    "Brot",
    "maison",
    "arbre",
    "fenêtre",
    "jardin",
    "pain",
    "livre",
    "casa",
    "árbol",
    "agua",
    "ventana",
    "mesa",
    "libro",
    "calle",
    "noche",
    "dom",
    "drzewo",
    "woda",
    "okno",
    "stół",
    "dům",
    "strom",
    "voda",
    "дом",
    "дерево",
    "вода",
    "окно",
    "книга",
    "улица",
    "мать",
    "σπίτι",
    "δέντρο",
    "νερό",
    "βιβλίο",
    "بيت",
    "شجرة",
    "ماء",
    "كتاب",
    "घर",
    "पेड़",
    "पानी",
    "किताब",
    "房子",
    "水",
    "书",
    "母亲",
    "家",
    "木",
    "本",
    "窓",
    "집",
    "나무",
    "물",
]
Generator = np.random.default_rng


def png(pixels: np.ndarray) -> bytes:
    """Write an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def wav(samples: np.ndarray) -> bytes:
    """Write a sound file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples / max(1.0, np.abs(samples).max()), RATE, format="WAV")
    return buffer.getvalue()


def image_cases(samples: list[Payload]) -> dict[str, list[Payload]]:
    """Photographs, inverted images, noise."""
    generator = Generator(0)
    photographs = load_sample_images().images
    crops: list[Payload] = []
    for number in range(COUNT):
        photograph = photographs[number % 2]
        side = int(generator.integers(60, 320))
        top, left = (int(generator.integers(size - side)) for size in photograph.shape[:2])
        crops.append(png(photograph[top : top + side, left : left + side]))
    opened = [np.asarray(Image.open(io.BytesIO(bytes(sample)))) for sample in samples[:COUNT]]  # type: ignore[arg-type]
    return {
        "photographs": crops,
        "inverted": [png(255 - pixels) for pixels in opened],
        "white noise": [png(generator.integers(0, 256, opened[0].shape)) for _ in range(COUNT)],
    }


def audio_cases(samples: list[Payload]) -> dict[str, list[Payload]]:  # noqa: ARG001
    """White noise, music-like tones, telephone keys."""
    generator = Generator(0)
    time = np.arange(RATE // 2) / RATE
    decay = np.exp(-4 * time)

    def chord() -> np.ndarray:
        notes = 220 * 2 ** (generator.choice(24, 3) / 12)
        return 0.15 * decay * sum(np.sin(2 * np.pi * note * k * time) / k for note in notes for k in (1, 2, 3))

    def key() -> np.ndarray:
        return 0.4 * np.sin(2 * np.pi * np.outer(TONES[int(generator.integers(10))], time)).sum(axis=0)

    return {
        "white noise": [wav(0.1 * generator.standard_normal(RATE // 2)) for _ in range(COUNT)],
        "music-like tones": [wav(np.concatenate([chord()[: RATE // 4], chord()[: RATE // 4]])) for _ in range(COUNT)],
        "DTMF": [wav(key()) for _ in range(COUNT)],
    }


def text_cases(samples: list[Payload]) -> dict[str, list[Payload]]:
    """Words that are no numbers, characters from anywhere."""
    generator = Generator(0)
    blocks = [(0x21, 0x7E), (0x400, 0x4FF), (0x4E00, 0x9FFF), (0x0900, 0x097F), (0x2190, 0x22FF), (0x1F300, 0x1F5FF)]

    def anything() -> str:
        length = int(generator.integers(3, 12))
        return "".join(
            chr(int(generator.integers(*blocks[int(generator.integers(len(blocks)))]))) for _ in range(length)
        )

    return {
        "non-number words": [w for w in WORDS if w not in samples],
        "random Unicode": [anything() for _ in range(COUNT)],
    }


def main(model: str, data: str) -> None:
    """Print a table."""
    predictor = Predictor(Bundle.load(model))
    split_run = run_split(predictor, Path(data), "test")
    print(f"{'modality':10}{'case':20}{'AUROC':>7}{'mean percentile':>17}")
    for name, make in (("image", image_cases), ("audio", audio_cases), ("text", text_cases)):
        if name not in predictor.names:
            continue
        reference = predictor.bundle.references.by_modality[name]
        own = [sample[name] for sample in split_run.samples() if name in sample]
        known = reference.score(predictor.encode(name, [predictor.decode_one(name, each) for each in own]))
        print(f"{name:10}{'test itself':20}{'':7}{reference.percentile(known).mean():17.3f}   ({reference.method})")
        for case, payloads in make(own).items():
            scores = reference.score(predictor.encode(name, [predictor.decode_one(name, each) for each in payloads]))
            print(f"{name:10}{case:20}{auroc(known, scores):7.3f}{reference.percentile(scores).mean():17.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
