"""Recordings in training: choosing the input, augmentation, and encoders from waveform to log-mel to features.

The log-mel spectrogram (log_mel.py) is computed inside the graph.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from mla_serve.errors import ConfigError, InputError
from mla_serve.inputs import AudioInput
from mla_serve.inputs.audio import PADDING, UNKNOWN
from mla_serve.inputs.media.safe_calls import library_call
from mla_serve.inputs.media.sound_headers import complete_header
from mla_serve.train.config import TrainConfig
from mla_serve.train.distributed.local_rows import draw_per_row
from mla_serve.train.encoders.base import Encoder
from mla_serve.train.encoders.blocks import conv_block, resnet18, uniform
from mla_serve.train.encoders.log_mel import LogMel

MAX_RATE, MAX_SECONDS = 16_000, 10.0  # larger ones are used only where the configuration asks for them


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
    def augment_windows(windows: Tensor, generator: torch.Generator, how: str = "light") -> Tensor:  # noqa: ARG004
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
