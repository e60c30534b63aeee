"""The log-mel spectrogram of a recording as layers without weights, so that it becomes a part of the encoder's graph.

Those that pretrained models expect are in train/pretrained/fronts.py.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
