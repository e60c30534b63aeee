"""The numeric part of preprocessing, as torch modules (fronts): decoded windows in, a transformers model's arguments out.

A front also returns which steps of the model's output are real, (B, steps) bool, or None where all are. A new front is a
class and a line in FRONTS. Constants are computed in float64 and rounded at the end.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mla_serve.inputs.audio import PADDING

Given = tuple[dict[str, Tensor], Tensor | None]


class Front(nn.Module, abc.ABC):
    """Compute a model's arguments from decoded windows."""

    @abc.abstractmethod
    def forward(self, windows: Tensor) -> Given:
        """Compute them from (B, *shape)."""


class Pixels(Front):
    """Rescale and normalise by channel: (B, C, H, W) of 0..255."""

    mean: Tensor
    std: Tensor

    def __init__(self, factor: float, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the processor's rescale_factor, image_mean and image_std."""
        super().__init__()
        self.factor = factor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, windows: Tensor) -> Given:
        """Normalise."""
        return {"pixel_values": (windows.float() * self.factor - self.mean) / self.std}, None


class Tokens(Front):
    """Mask the padding: ids (B, L)."""

    def __init__(self, pad: int) -> None:
        """Take the id that fills up."""
        super().__init__()
        self.pad = pad

    def forward(self, windows: Tensor) -> Given:
        """Pass the ids on, with their mask."""
        real = windows != self.pad
        return {"input_ids": windows, "attention_mask": real.long()}, real


class Waveform(Front):
    """Zero mean and unit variance over what was recorded, zeros behind it (wav2vec 2.0 and its kin): (B, T)."""

    def __init__(self, normalise: bool, mask: bool, kernels: Sequence[int], strides: Sequence[int]) -> None:
        """Take do_normalize and return_attention_mask, and the kernels and strides of the model's convolutions."""
        super().__init__()
        self.normalise, self.mask = normalise, mask
        self.kernels, self.strides = tuple(kernels), tuple(strides)

    def forward(self, windows: Tensor) -> Given:
        """Normalise; count the steps that the convolutions leave of each recording."""
        real = windows != PADDING
        values, length = torch.where(real, windows, 0.0), real.sum(dim=1)
        if self.normalise:
            count = length[:, None].float()
            mean = values.sum(dim=1, keepdim=True) / count
            centred = torch.where(real, values - mean, 0.0)
            variance = centred.square().sum(dim=1, keepdim=True) / count
            values = centred / (variance + 1e-7).sqrt()
        given = {"input_values": values} | ({"attention_mask": real.long()} if self.mask else {})
        return given, _first(self.steps(length), int(self.steps(torch.tensor(windows.shape[1]))))

    def steps(self, length: Tensor) -> Tensor:
        """Return how many steps so many samples become, one at least."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            length = torch.div(length - kernel, stride, rounding_mode="floor") + 1
        return length.clamp_min(1)


class _LogMel(Front):
    """Frames of a waveform to the logarithm of mel bands, by a fixed convolution and a fixed matrix."""

    kernel: Tensor
    mel: Tensor

    def __init__(self, frame: np.ndarray, hop: int, mel: np.ndarray, floor: float) -> None:
        """Take frame (2 F, samples), the cosines and then the sines that are taken of each frame; mel (F, bands)."""
        super().__init__()
        self.hop, self.floor = hop, floor
        self.register_buffer("kernel", torch.from_numpy(frame).float()[:, None], persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel.T.copy()).float(), persistent=False)

    def bands(self, values: Tensor) -> Tensor:
        """Compute (B, bands, frames), not less than the floor."""
        real, imaginary = F.conv1d(values[:, None], self.kernel, stride=self.hop).chunk(2, dim=1)
        power = torch.einsum("mf,bft->bmt", self.mel, real.square() + imaginary.square())
        return power.clamp_min(self.floor)


class Fbank(_LogMel):
    """Kaldi's filter banks as the Audio Spectrogram Transformer takes them: (B, T) -> (B, frames, bands).

    A frame loses its mean, is pre-emphasised, windowed and transformed: all linear, so one matrix. What lies behind the
    recording is 0 before normalisation, as the extractor pads.
    """

    SAMPLES, HOP, SIZE, EMPHASIS, FLOOR = 400, 160, 512, 0.97, 1.192092955078125e-07

    def __init__(self, bands: int, rate: int, frames: int, normalise: bool, mean: float, std: float) -> None:
        """Take num_mel_bins, sampling_rate, max_length, do_normalize, mean and std."""
        from transformers.audio_utils import mel_filter_bank, window_function

        mel = mel_filter_bank(
            self.SIZE // 2 + 1, bands, 20, rate // 2, rate, mel_scale="kaldi", triangularize_in_mel_space=True
        )
        eye = np.eye(self.SAMPLES)
        steady = eye - 1 / self.SAMPLES
        emphasis = eye - self.EMPHASIS * np.eye(self.SAMPLES, k=-1)
        emphasis[0, 0] = 1 - self.EMPHASIS
        window = window_function(self.SAMPLES, "hann", periodic=False)
        super().__init__(_dft(self.SIZE, self.SAMPLES) * window @ emphasis @ steady, self.HOP, mel, self.FLOOR)
        self.frames, self.mean, self.scale = frames, (mean, 0.0)[not normalise], (2 * std, 1.0)[not normalise]

    def forward(self, windows: Tensor) -> Given:
        """Compute the picture, whole, padded to the model's number of frames."""
        real = windows != PADDING
        log_mel = self.bands(torch.where(real, windows, 0.0)).log().transpose(1, 2)
        length = torch.div(real.sum(dim=1) - self.SAMPLES, self.HOP, rounding_mode="floor") + 1
        outputs = _first(length, log_mel.shape[1])[:, :, None]  # none of a clip shorter than a frame
        padded = F.pad(torch.where(outputs, log_mel, 0.0), (0, 0, 0, self.frames - log_mel.shape[1]))
        return {"input_values": (padded - self.mean) / self.scale}, None


class WhisperMel(_LogMel):
    """Whisper's log-mel spectrogram, of a recording filled up with silence: (B, T) -> (B, bands, frames)."""

    RANGE = 8.0  # what lies further below the loudest cell is cut off, in powers of ten

    def __init__(self, bands: int, rate: int, size: int, hop: int, samples: int, stride: int) -> None:
        """Take feature_size, sampling_rate, n_fft, hop_length, n_samples; stride, of the encoder's convolutions."""
        from transformers.audio_utils import mel_filter_bank, window_function

        mel = mel_filter_bank(size // 2 + 1, bands, 0.0, 8000.0, rate, norm="slaney", mel_scale="slaney")
        super().__init__(_dft(size, size) * window_function(size, "hann"), hop, mel, 1e-10)
        self.size, self.samples, self.stride = size, samples, stride

    def forward(self, windows: Tensor) -> Given:
        """Compute the picture; count the steps that the encoder makes of the recording."""
        real = windows != PADDING
        whole = F.pad(torch.where(real, windows, 0.0), (0, self.samples - windows.shape[1]))
        around = F.pad(whole[:, None], (self.size // 2, self.size // 2), mode="reflect")[:, 0]
        log_mel = self.bands(around)[:, :, :-1].log10()
        log_mel = torch.maximum(log_mel, log_mel.amax(dim=(1, 2), keepdim=True) - self.RANGE)
        per_step = self.hop * self.stride
        steps = torch.div(real.sum(dim=1) + per_step - 1, per_step, rounding_mode="floor")
        return {"input_features": (log_mel + 4.0) / 4.0}, _first(steps, self.samples // per_step)


def _dft(size: int, samples: int) -> np.ndarray:
    """Cosine rows, then sine rows, of a transform of `size` points that sees `samples` of them: (size + 2, samples)."""
    angles = 2 * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(samples)) / size
    return np.concatenate([np.cos(angles), -np.sin(angles)])


def _first(count: Tensor, size: int) -> Tensor:
    """Mark the first `count` (B,) of `size` steps: (B, size) bool."""
    return torch.arange(size, device=count.device) < count[:, None]


FRONTS: dict[str, type[Front]] = {
    "pixels": Pixels,
    "tokens": Tokens,
    "waveform": Waveform,
    "fbank": Fbank,
    "whisper": WhisperMel,
}
"""By the name that settings give them."""


def make_front(settings: Mapping[str, Any]) -> Front:
    """Build a front from settings: {"type": a key of FRONTS, and its arguments}."""
    arguments = dict(settings)
    return FRONTS[arguments.pop("type")](**arguments)
