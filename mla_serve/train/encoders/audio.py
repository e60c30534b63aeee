"""Recordings in training: choosing the input, augmentation, and encoders from waveform to log-mel to features.

The log-mel spectrogram is computed inside the graph.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence

import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mla_serve.errors import ConfigError, InputError
from mla_serve.inputs import AudioInput
from mla_serve.inputs.audio import PADDING, UNKNOWN
from mla_serve.inputs.media.library import library_call
from mla_serve.inputs.media.sound_headers import complete_header
from mla_serve.train.config import TrainConfig
from mla_serve.train.distributed.local_rows import draw_per_row
from mla_serve.train.encoders.base import Encoder
from mla_serve.train.encoders.blocks import conv_block, resnet18, uniform

MAX_RATE, MAX_SECONDS = 16_000, 10.0  # larger ones are used only where the configuration asks for them
BANDS = 48
LOWEST_HZ = 60.0
FLOOR = 1e-6  # of the loudest cell: -60 dB
SILENCE = 1e-10  # power of silence


class LogMel(nn.Module):
    """Waveform (B, T) -> normalised log-mel (B, 1, bands, frames), a fixed convolution and a fixed matrix.

    A convolution exports exactly and runs faster than the STFT operator. Each window is normalised by its
    own mean and spread, so loudness does not matter; silence gives zeros.

    Power is counted in units of the floor before the logarithm, so that silence is log(1) = 0 and its mean and spread are
    exact. As log(floor) = -23 in every cell, a mean that is off by its last bit would be divided by a spread of nearly 0,
    and torch and onnxruntime would differ. A constant offset raises the floor too, because
    the bands contain only its rounding errors.
    """

    kernel: Tensor
    mel: Tensor

    def __init__(self, rate: int, bands: int = BANDS) -> None:
        """Frames of 25 ms (up to the next power of two) every 10 ms."""
        super().__init__()
        self.hop = max(1, rate // 100)
        size = 2 ** math.ceil(math.log2(rate * 0.025))
        self.register_buffer("kernel", torch.from_numpy(_dft_kernel(size)), persistent=False)
        mel = _mel_matrix(rate, size, bands)
        self.below = max(1, int(mel.any(axis=0).argmax()))  # bins below the lowest band, the constant among them
        self.register_buffer("mel", torch.from_numpy(mel), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the normalised log-mel spectrogram."""
        device = waveform.device.type
        if torch.is_autocast_enabled(
            device
        ):  # half precision cannot hold -60 dB; in an exported graph autocast is never on
            with torch.autocast(device, enabled=False):
                return self._log_mel(waveform.to(self.kernel.dtype))
        return self._log_mel(waveform.to(self.kernel.dtype))

    def _log_mel(self, waveform: Tensor) -> Tensor:
        spectrum = F.conv1d(waveform[:, None], self.kernel, stride=self.hop)
        real, imaginary = spectrum.chunk(2, dim=1)
        bins = real.square() + imaginary.square()
        power = torch.einsum("mf,bft->bmt", self.mel, bins)
        loudest = torch.maximum(power.amax(dim=(1, 2)), bins[:, : self.below].amax(dim=(1, 2)))
        floor = (FLOOR * loudest).clamp_min(SILENCE)[:, None, None]
        log_mel = (power / floor + 1).log()
        centred = log_mel - log_mel.mean(dim=(1, 2), keepdim=True)
        spread = centred.square().mean(dim=(1, 2), keepdim=True).sqrt()
        return (centred / (spread + 1e-2))[:, None]


def _dft_kernel(size: int) -> np.ndarray:
    """Cosine and sine rows under a Hann window: (2 (size/2 + 1), 1, size) float32."""
    angles = 2 * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(size)) / size
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return (np.concatenate([np.cos(angles), -np.sin(angles)]) * hann)[:, None].astype(np.float32)


def _mel_matrix(rate: int, size: int, bands: int) -> np.ndarray:
    """Triangular filters, equally spaced on the mel scale (O'Shaughnessy): (bands, size/2 + 1) float32."""
    to_mel = lambda hz: 2595 * np.log10(1 + np.asarray(hz) / 700)  # noqa: E731
    mels = np.linspace(to_mel(LOWEST_HZ), to_mel(rate / 2), bands + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = np.arange(size // 2 + 1) * rate / size
    # A filter narrower than the spacing of the bins would be empty: widen it to one bin on either side.
    left = np.minimum(edges[:-2], edges[1:-1] - rate / size)[:, None]
    right = np.maximum(edges[2:], edges[1:-1] + rate / size)[:, None]
    centre = edges[1:-1, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)


class SpecAugment(nn.Module):
    """Mask random bands and times while training (Park et al., Interspeech 2019, without the time warp)."""

    def __init__(self, bands: int = 8, share: float = 0.2, times: int = 2) -> None:
        """Mask up to `bands` bands and up to `share` of the frames, `times` times each."""
        super().__init__()
        self.bands, self.share, self.times = bands, share, times

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return (B, 1, bands, frames) with masked cells at 0, the mean; unchanged when not training."""
        if not self.training:
            return log_mel
        batch, _, bands, frames = log_mel.shape
        for _ in range(self.times):
            log_mel = log_mel * _stripe(batch, bands, self.bands).to(log_mel.device)[:, None, :, None]
            log_mel = log_mel * _stripe(batch, frames, int(self.share * frames)).to(log_mel.device)[:, None, None, :]
        return log_mel


def _stripe(batch: int, size: int, longest: int) -> Tensor:
    """1 everywhere but on one random interval of each row: (B, size)."""
    length = draw_per_row(lambda n: torch.rand(n, 1), batch) * longest
    start = draw_per_row(lambda n: torch.rand(n, 1), batch) * (size - length)
    at = torch.arange(size)[None]
    return 1.0 - ((at >= start) & (at < start + length)).float()


class _AudioEncoder(Encoder):
    """What both audio encoders share."""

    @classmethod
    def choose_input(cls, values: Sequence[bytes], config: TrainConfig) -> AudioInput:
        """Take the median rate up to MAX_RATE, and a window that holds 98 % of the recordings, up to MAX_SECONDS."""
        infos = []
        for value in values:
            with contextlib.suppress(InputError), library_call("audio", "it cannot be opened", "re-encode it"):
                infos.append(soundfile.info(io.BytesIO(complete_header(value))))
        if not infos:
            raise ConfigError(
                f"none of the first training recordings can be read; expected {', '.join(AudioInput.formats)}"
            )
        rate = config.audio_rate or min(int(np.median([info.samplerate for info in infos])), MAX_RATE)
        durations = [info.duration for info in infos if info.frames < UNKNOWN] or [MAX_SECONDS]
        longest = float(np.quantile(durations, 0.98))
        seconds = config.audio_seconds or float(np.clip(np.ceil(longest * 4) / 4, 0.5, MAX_SECONDS))
        window = round(seconds * rate)
        return AudioInput(rate, window, hop=window // 2)

    @staticmethod
    def augment_windows(windows: Tensor, generator: torch.Generator) -> Tensor:
        """Change speed, position and loudness of recordings and add noise: (B, T) -> (B, T).

        Speed .8-1.2 (pitch moves with it), shift by up to 15 % of the window, gain +-6 dB, white noise at 5-50 dB on half.
        Marked padding stays where it is.
        """
        padding = windows == PADDING
        windows = windows.masked_fill(padding, 0.0)
        batch, length = windows.shape
        speed = uniform(0.8, 1.2, (batch, 1), generator)
        shift = uniform(-0.15, 0.15, (batch, 1), generator) * length
        at = (torch.arange(length) - length / 2) * speed + length / 2 + shift
        low = at.floor()
        inside = (low >= 0) & (low < length - 1)
        index = low.clamp(0, length - 2).long()
        share = (at - low).float()
        moved = (windows.gather(1, index) * (1 - share) + windows.gather(1, index + 1) * share) * inside
        level = moved.square().mean(dim=1, keepdim=True).sqrt()
        snr = uniform(5, 50, (batch, 1), generator)
        noisy = (torch.rand(batch, 1, generator=generator) < 0.5).float()
        noise = torch.randn(batch, length, generator=generator) * level * 10 ** (-snr / 20) * noisy
        louder = (moved + noise) * 10 ** (uniform(-6, 6, (batch, 1), generator) / 20)
        return louder.masked_fill(padding, PADDING)


class SmallAudio(_AudioEncoder):
    """Log-mel, five convolutions, three bands kept apart, mean and maximum over time."""

    def __init__(self, spec: AudioInput, width: int) -> None:
        """Build for any rate and window."""
        super().__init__(spec, width)
        self.front = LogMel(spec.rate)
        self.mask = SpecAugment()
        self.body = nn.Sequential(
            conv_block(1, 32, (2, 2)),
            conv_block(32, 48, (2, 2)),
            conv_block(48, 64, (2, 2)),
            conv_block(64, 96, (2, 1)),
            conv_block(96, 96),
        )
        self.end = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * 96 * 3, width))

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, T)."""
        maps = self.body(self.mask(self.front(windows)))
        pooled = torch.cat([maps.mean(dim=3), maps.amax(dim=3)], dim=1)
        features: Tensor = self.end(pooled.flatten(1))
        return features


class AudioResNet18(_AudioEncoder):
    """Log-mel, then ResNet-18 from scratch: the audio encoder of the MLA paper."""

    def __init__(self, spec: AudioInput, width: int) -> None:
        """Build for any rate and window."""
        super().__init__(spec, width)
        self.front = LogMel(spec.rate, bands=64)
        self.mask = SpecAugment()
        self.body = resnet18(1, width)

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, T)."""
        features: Tensor = self.body(self.mask(self.front(windows)))
        return features
