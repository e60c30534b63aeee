"""What every encoder promises, the numeric front ends, and augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mla_serve.inputs import INPUTS, AudioInput, ColumnsInput, ImageInput, Input, TextInput, VectorInput
from mla_serve.train.config import TrainConfig
from mla_serve.train.encoders import ENCODERS, Encoder, default_encoder
from mla_serve.train.encoders.audio import SmallAudio
from mla_serve.train.encoders.image import SmallImage
from mla_serve.train.encoders.log_mel import LogMel
from mla_serve.train.encoders.text import SmallText, train_tokenizer
from tests.conftest import COLUMNS

WIDTH = 16


def example(kind: str) -> Input:
    return {
        "image": ImageInput(32, 32, 3),
        "audio": AudioInput(8000, 6000, 3000),
        "text": TextInput(train_tokenizer(["eins zwei drei"] * 20).to_str(), 12),
        "vector": VectorInput(5),
        "columns": ColumnsInput(COLUMNS),
    }[kind]


every_encoder = pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ENCODERS for name in ENCODERS[kind]]
)


def build(kind: str, name: str, spec: Input | None = None) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ENCODERS[kind][name](spec or example(kind), WIDTH).eval()


def windows(kind: str, spec: Input, count: int = 4) -> torch.Tensor:
    generator = np.random.default_rng(0)
    return torch.from_numpy(np.concatenate([spec.decode(spec.generate(generator), kind) for _ in range(count)]))


def test_every_kind_has_an_encoder_that_chooses_its_input() -> None:
    assert set(ENCODERS) == set(INPUTS)
    for kind in ENCODERS:
        assert default_encoder(kind).choose_input.__func__ is not Encoder.choose_input.__func__  # type: ignore[attr-defined]


@every_encoder
@torch.no_grad()
def test_features_have_the_promised_width_and_do_not_see_the_batch(kind: str, name: str) -> None:
    encoder, batch = build(kind, name), windows(kind, example(kind))
    features = encoder(batch)
    assert features.shape == (4, WIDTH)
    torch.testing.assert_close(features[1:2], encoder(batch[1:2]), atol=1e-4, rtol=1e-4)


@every_encoder
@torch.no_grad()
def test_extreme_inputs_give_finite_features(kind: str, name: str) -> None:
    spec = example(kind)
    encoder = build(kind, name)
    extremes = [np.zeros((2, *spec.shape), spec.dtype), np.ones((2, *spec.shape), spec.dtype)]
    if spec.dtype is np.float32:
        extremes.append(np.full((2, *spec.shape), 1e30 if kind in ("vector", "columns") else 1.0, np.float32))
    for extreme in extremes:
        features = encoder(torch.from_numpy(extreme))
        assert torch.isfinite(features).all()
        assert features.abs().max() < 1e4


@every_encoder
def test_every_parameter_learns(kind: str, name: str) -> None:
    encoder = build(kind, name).train()
    encoder(windows(kind, example(kind))).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())


@pytest.mark.parametrize("size", [8, 12, 28, 64, 97])
@torch.no_grad()
def test_small_image_takes_any_size(size: int) -> None:
    spec = ImageInput(size, size, 1)
    assert build("image", "small", spec)(windows("image", spec)).shape == (4, WIDTH)


@pytest.mark.parametrize("rate", [4000, 8000, 16000, 44100])
@torch.no_grad()
def test_log_mel_shows_where_a_tone_is_at_any_rate(rate: int) -> None:
    front = LogMel(rate)
    time = torch.arange(rate // 2) / rate
    bands = [int(front(torch.sin(2 * np.pi * hz * time)[None])[0, 0].mean(1).argmax()) for hz in (200, 500, 1500)]
    assert bands == sorted(set(bands))
    assert (front.mel.sum(dim=1) > 0).all()


@torch.no_grad()
def test_log_mel_equals_the_fourier_transform_of_torch() -> None:
    front = LogMel(8000)
    waveform = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    size = front.kernel.shape[-1]
    window = torch.hann_window(size)
    stft = torch.stft(waveform, size, front.hop, size, window, center=False, return_complex=True)
    ours = torch.nn.functional.conv1d(waveform[:, None], front.kernel, stride=front.hop)
    real, imaginary = ours.chunk(2, dim=1)
    torch.testing.assert_close(torch.complex(real, imaginary), stft, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_loudness_does_not_matter_and_silence_is_flat() -> None:
    front, waveform = LogMel(8000), torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) * 0.3
    torch.testing.assert_close(front(waveform), front(waveform * 0.1), atol=2e-3, rtol=0)
    for offset in (0.0, 0.5, -1.0):
        assert front(torch.full((1, 8000), offset)).abs().max() < 1e-4


def test_normalisation_is_measured_on_the_training_set() -> None:
    encoder = build("vector", "small")
    rows = torch.randn(100, 5) * 7 + 3
    rows[:, 2] = 4.0
    encoder.measure(rows)
    torch.testing.assert_close(encoder.mean, rows.mean(0), atol=1e-4, rtol=0)
    assert encoder.std[2] == 1


@torch.no_grad()
def test_a_text_of_which_nothing_is_left_is_not_an_outlier() -> None:
    encoder = build("text", "small")
    features = encoder(torch.tensor([[0] * 12, [5, 6, 7] + [0] * 9]))
    assert features[0].abs().max() < 10 * features[1].abs().max() + 1


@pytest.mark.parametrize("kind", ENCODERS)
def test_augmentation_keeps_shape_and_range_and_follows_the_generator(kind: str) -> None:
    batch = windows(kind, example(kind))
    first, again, other = (
        default_encoder(kind).augment_windows(batch, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == batch.shape
    assert torch.equal(first.isfinite(), batch.isfinite())
    torch.testing.assert_close(first, again, rtol=0, atol=0, equal_nan=True)
    assert kind in ("vector", "text", "columns") or not torch.equal(first, other)


def test_augmented_images_stay_pictures() -> None:
    pixels = torch.zeros(64, 1, 28, 28, dtype=torch.uint8)
    pixels[:, :, 8:20, 10:18] = 255
    moved = SmallImage.augment_windows(pixels, torch.Generator().manual_seed(0))
    assert moved.min() >= 0
    assert moved.max() <= 255
    mass = moved.sum(dim=(1, 2, 3)) / pixels.float().sum(dim=(1, 2, 3))
    assert mass.min() > 0.4
    assert mass.max() < 2.0


def test_augmented_recordings_move_in_time_and_pitch() -> None:
    time = torch.arange(8000) / 8000
    tones = torch.sin(2 * np.pi * 500 * time).repeat(64, 1)
    moved = SmallAudio.augment_windows(tones, torch.Generator().manual_seed(0))
    pitch = torch.fft.rfft(moved).abs().argmax(dim=1).float()
    assert pitch.min() > 380
    assert pitch.max() < 620
    assert pitch.std() > 20


def test_typos_leave_half_alone_and_never_leave_nothing() -> None:
    generator = np.random.default_rng(0)
    texts = [SmallText.augment_text("siebenundzwanzig", generator) for _ in range(400)]
    assert 0.4 < np.mean([text == "siebenundzwanzig" for text in texts]) < 0.7
    assert all(SmallText.augment_text(text, generator).strip() for text in ["ab", "abc", " a ", "семь"] * 50)


def test_a_recording_of_unknown_length_is_taken_for_one_of_the_longest() -> None:
    """A FLAC that was written to a pipe does not say how long it is; libsndfile says 2 ** 63 - 1."""
    from tests.inputs.test_audio import encode, piped, tone

    spec = SmallAudio.choose_input([piped("FLAC"), encode(tone(1.0))], TrainConfig())
    assert spec.window == 8000
    assert SmallAudio.choose_input([piped("FLAC")], TrainConfig()).window == 80_000
