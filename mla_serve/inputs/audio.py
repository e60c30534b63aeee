"""Sound: decode any common file format into windows of samples at one rate."""

from __future__ import annotations

import dataclasses
import io
from typing import ClassVar

import numpy as np
import soundfile
import soxr

from mla_serve.errors import InputError, TooLarge, UnsupportedFormat
from mla_serve.inputs.base import LARGER, Array, Corruptions, Input, Payload, SentAs, added_later
from mla_serve.inputs.corruptions import (
    band_limit,
    clipping,
    noise_alone,
    reverberation,
    silence,
    sound_noise,
    tones,
)
from mla_serve.inputs.media.formats import describe, recognise
from mla_serve.inputs.media.metered import QuietFile
from mla_serve.inputs.media.safe_calls import library_call, no_output, short_reason
from mla_serve.inputs.media.sound_headers import complete_header

FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST", "VOC")
EXPECTED = "WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64, NIST or VOC"
RATES = (1_000, 384_000)
MAX_CHANNELS = 32
SILENCE = 1e-4  # a peak below -80 dBFS is silence
LOUDEST = 1e6  # of a float recording; squares of larger samples overflow, so such a recording is scaled first
CANCELLED = 0.01  # of the louder channel's energy; channels of opposite phase leave less than that when averaged
UNKNOWN = 2**62  # frames; libsndfile reports 2 ** 63 - 1 if the header has no length
BLOCK = 65_536
PADDING = 2.0  # fills up a window with mark_padding; no sample is as large


@dataclasses.dataclass(frozen=True)
class AudioInput(Input):
    """WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64, NIST or VOC of any rate and channel count, as mono windows.

    Channels are averaged; if they cancel each other out, the louder one is used. Silence at both ends is cut. A clip
    shorter than the window is padded on both sides. A longer one gives windows half a window apart, spread evenly over
    the clip when there would be more than max_windows. A silent recording is valid.

    Fields: rate in Hz; window and hop in samples at that rate; max_windows; trim_db, how far below the loudest 10 ms
    the ends may be, 0 to leave them; max_seconds and max_samples (frames x channels), refused from the header before
    decoding; mark_padding, to fill a short window up with PADDING at its end, so that an encoder knows how long it is.
    """

    rate: int
    window: int
    hop: int
    max_windows: int = 8
    trim_db: float = 40.0
    max_seconds: float = 120.0
    max_samples: int = 24_000_000
    mark_padding: bool = added_later(False)

    kind: ClassVar[str] = "audio"
    tensor: ClassVar[str] = "waveform"
    dtype: ClassVar[type[np.generic]] = np.float32
    sent_as: ClassVar[SentAs] = "file"
    formats: ClassVar[tuple[str, ...]] = FORMATS
    corruptions: ClassVar[Corruptions] = {
        "noise": sound_noise,
        "clipping": clipping,
        "band_limit": band_limit,
        "reverberation": reverberation,
        "noise_alone": noise_alone,
        "tones": tones,
        "silence": silence,
    }

    @classmethod
    def trial(cls) -> AudioInput:
        """Make a small input that refuses the files that any refuses."""
        return cls(8000, window=8000, hop=4000)

    @property
    def shape(self) -> tuple[int]:
        """(T,)."""
        return (self.window,)

    def decode(self, payload: Payload, field: str = "audio") -> Array:
        """Decode a file into (W, T) float32 in [-1, 1], or PADDING behind the end."""
        if not isinstance(payload, bytes) or not payload:
            given = "an empty file" if payload == b"" else type(payload).__name__
            raise InputError(field, f"expected the bytes of a sound file, got {given}; leave it out")
        samples, rate = self._read(payload, field)
        peak = np.abs(samples).max(initial=0.0)  # NaN if there is one
        if not np.isfinite(peak):
            raise InputError(field, "the samples contain NaN or infinity; re-encode the recording as 16-bit WAV")
        if peak > LOUDEST:
            samples = samples / peak
        if rate != self.rate:
            samples = soxr.resample(samples, rate, self.rate)
            peak = np.abs(samples).max(initial=0.0)
        if peak > 1.0:
            samples = samples / np.abs(samples).max()
        return self._windows(self._trim(samples)).astype(np.float32, copy=False)

    def generate(self, generator: np.random.Generator) -> bytes:
        """Make a WAV of three random tones in noise, one window long."""
        time = np.arange(self.window) / self.rate
        tones = np.sin(2 * np.pi * np.outer(generator.uniform(0.02, 0.4, 3) * self.rate, time)).sum(0)
        buffer = io.BytesIO()
        soundfile.write(buffer, 0.2 * tones + 0.01 * generator.standard_normal(self.window), self.rate, format="WAV")
        return buffer.getvalue()

    def generate_large(self, generator: np.random.Generator) -> bytes:
        """Make a longer recording at another rate."""
        longer = dataclasses.replace(self, rate=2 * self.rate, window=round(2 * LARGER * self.window))
        return longer.generate(generator)

    def _spoil(self, window: Array, corruption: str, severity: int, generator: np.random.Generator) -> None:
        """Spoil what is recorded, and leave the padding as it is."""
        recorded = window[: self.recorded(window)]
        recorded[...] = self.corruptions[corruption](recorded, severity, generator, self.rate)

    def recorded(self, window: Array) -> int:
        """Count the samples of a window (T,) that are not padding."""
        return int(np.count_nonzero(window != PADDING)) if self.mark_padding else len(window)

    def _read(self, payload: bytes, field: str) -> tuple[Array, int]:
        """Read mono samples (T,) and their rate; the header is checked before."""
        payload = complete_header(payload)
        samples, rate, cancelled = self._read_once(payload, field, None)
        if cancelled is not None:
            samples, rate, _ = self._read_once(payload, field, cancelled)
        return samples, rate

    def _read_once(self, payload: bytes, field: str, channel: int | None) -> tuple[Array, int, int | None]:
        """Read one channel or the mean of all: samples, rate, and the louder channel if the channels cancel out."""
        try:
            with no_output:
                file = _SoundFile(QuietFile(payload))
        except Exception as error:  # soundfile raises RuntimeError, TypeError and more on damaged files
            raise _unreadable(field, payload, error) from None
        with file:
            if file.format not in FORMATS:
                raise UnsupportedFormat(
                    field, f"this is {file.format_info}, expected {EXPECTED}; convert it: ffmpeg -i in out.wav"
                )
            self._check_header(file, field)
            samples, cancelled = self._read_blocks(file, field, channel)
            return samples, file.samplerate, cancelled

    def _check_header(self, file: soundfile.SoundFile, field: str) -> None:
        if not RATES[0] <= file.samplerate <= RATES[1]:
            raise InputError(
                field, f"a rate of {file.samplerate} Hz; expected {RATES[0]} to {RATES[1]} Hz, resample it"
            )
        if file.channels > MAX_CHANNELS:
            raise TooLarge(field, f"{file.channels} channels, at most {MAX_CHANNELS} are read; mix it down to mono")
        if 0 < file.frames < 2**62:
            self._check_length(file.frames, file, field)

    def _check_length(self, frames: int, file: soundfile.SoundFile, field: str) -> None:
        if frames > self.max_seconds * file.samplerate or frames * file.channels > self.max_samples:
            raise TooLarge(
                field,
                f"{frames / file.samplerate:.0f} s x {file.channels} channels at {file.samplerate} Hz; at most "
                f"{self.max_seconds:g} s and {self.max_samples:,} samples are read, send the part that matters",
            )

    def _read_blocks(self, file: soundfile.SoundFile, field: str, channel: int | None) -> tuple[Array, int | None]:
        """Read to the end in blocks and mix to mono; the length is checked again, because a header may be wrong."""
        blocks, frames, block = [], 0, None
        energies, mixed = np.zeros(file.channels), 0.0
        while block is None or len(block) == BLOCK:  # a shorter one is the last
            with library_call(field, "the sound file is damaged", "re-encode it: ffmpeg -i in out.wav"):
                block = file.read(BLOCK, dtype="float32", always_2d=True)
            frames += len(block)
            self._check_length(frames, file, field)
            with np.errstate(over="ignore", invalid="ignore"):  # decode() refuses NaN and infinity
                blocks.append(_mono(block, channel))
                if file.channels > 1 and channel is None:
                    energies += np.einsum("tc,tc->c", block, block, dtype=np.float64)
                    mixed += _energy(blocks[-1]) * file.channels**2
        if not frames:
            raise InputError(field, "the recording holds no samples; leave it out or send one that does")
        cancelled = int(energies.argmax()) if mixed < CANCELLED * energies.max() else None
        return (np.concatenate(blocks) if len(blocks) > 1 else blocks[0]), cancelled

    def _trim(self, samples: Array) -> Array:
        """Cut both ends where they are trim_db below the loudest 10 ms; do not cut a silent recording."""
        if not self.trim_db:
            return samples
        frame = max(1, self.rate // 100)
        padded = _padded(samples, 0, -len(samples) % frame)
        level = np.sqrt(np.mean(np.square(padded.reshape(-1, frame)), axis=1))
        if level.max(initial=0.0) < SILENCE:
            return samples[: self.window]
        loud = np.flatnonzero(level > level.max() * 10 ** (-self.trim_db / 20))
        return samples[loud[0] * frame : (loud[-1] + 1) * frame]

    def _windows(self, samples: Array) -> Array:
        """Cut into (W, window), padding a short clip on both sides and covering a long one to its end."""
        spare = len(samples) - self.window
        if spare <= 0 and self.mark_padding:
            return _padded(samples, 0, -spare, PADDING)[None]
        if spare <= 0:
            return _padded(samples, -spare // 2, -spare - -spare // 2)[None]
        count = min(1 + -(-spare // self.hop), self.max_windows)
        starts = np.linspace(0, spare, count).round().astype(int)
        return np.stack([samples[start : start + self.window] for start in starts])


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A sound file that is not seekable if its length is unknown.

    soundfile seeks to its own position after each block, which libsndfile refuses at the end of such a file.
    """

    def seekable(self) -> bool:
        """Return whether the file is seekable."""
        return bool(super().seekable() and self._info.frames < UNKNOWN)


def _mono(block: Array, channel: int | None) -> Array:
    """Return one channel of a block (T, channels), or their mean."""
    mono: Array = block.mean(axis=1) if channel is None and block.shape[1] > 1 else block[:, channel or 0]
    return mono


def _energy(samples: Array) -> float:
    return float(np.einsum("t,t->", samples, samples, dtype=np.float64))


def _unreadable(field: str, payload: bytes, error: Exception) -> InputError:
    """Return the error for a file that libsndfile cannot open; it names the format."""
    known = recognise(payload)
    cure = known.cure("audio") if known else "re-encode it: ffmpeg -i in out.wav"
    if known and known.name.upper().split()[0] in FORMATS:
        return InputError(field, f"the {known.name} file cannot be read ({short_reason(error)}); {cure}")
    return UnsupportedFormat(field, f"this is {describe(payload)}, expected {EXPECTED}; {cure}")


def _padded(samples: Array, before: int, after: int, value: float = 0.0) -> Array:
    """Pad with a value on both sides. Not np.pad, which takes longer than all other steps together."""
    padded = np.full(before + len(samples) + after, value, samples.dtype)
    padded[before : before + len(samples)] = samples
    return padded
