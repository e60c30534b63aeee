"""Sound: every format, rate and channel count comes out as the same recording."""

import contextlib
import io

import numpy as np
import pytest
import soundfile

from mla_serve.errors import InputError, TooLarge, UnsupportedFormat
from mla_serve.inputs import Array, AudioInput

SPEC = AudioInput(8000, 4000, 2000)


def tone(seconds: float = 0.5, rate: int = 8000, hertz: float = 440.0) -> Array:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def encode(samples: Array, rate: int = 8000, format: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def pitch(window: Array) -> float:
    spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window))))
    return float(spectrum.argmax() * SPEC.rate / len(window))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_gives_the_same_recording(subtype: str) -> None:
    window = SPEC.decode(encode(tone(), subtype=subtype))[0]
    np.testing.assert_allclose(window, tone(), atol=0.01)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_every_file_format_keeps_the_pitch(format: str) -> None:
    window = SPEC.decode(encode(tone(0.8), format=format))[0]
    assert pitch(window) == pytest.approx(440, abs=5)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_any_rate_is_resampled(rate: int) -> None:
    window = SPEC.decode(encode(tone(rate=rate), rate))[0]
    assert pitch(window) == pytest.approx(440, abs=5)
    assert np.abs(window).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_mixed_to_mono(channels: int) -> None:
    window = SPEC.decode(encode(np.tile(tone()[:, None], channels)))[0]
    np.testing.assert_allclose(window, tone(), atol=0.01)


def test_silence_at_both_ends_is_cut_and_the_clip_put_in_the_middle() -> None:
    quiet = np.zeros(6000)
    window = SPEC.decode(encode(np.concatenate([quiet, tone(0.25), quiet])))
    assert window.shape == (1, 4000)
    np.testing.assert_allclose(window, SPEC.decode(encode(tone(0.25))), atol=1e-6)
    assert np.abs(window[0, :900]).max() == 0
    assert np.abs(window[0, 1100:2900]).max() > 0.4


def test_silence_alone_is_valid() -> None:
    assert not SPEC.decode(encode(np.zeros(100_000))).any()


def test_a_click_of_one_sample_is_valid() -> None:
    assert SPEC.decode(encode(np.ones(1))).shape == (1, 4000)


@pytest.mark.parametrize(("seconds", "windows"), [(0.5, 1), (0.51, 2), (1.0, 3), (1.25, 4), (60, 8)])
def test_a_long_clip_gives_windows_half_a_window_apart_up_to_the_cap(seconds: float, windows: int) -> None:
    assert SPEC.decode(encode(tone(seconds))).shape == (windows, 4000)


def test_the_windows_of_a_long_clip_reach_from_its_start_to_its_end() -> None:
    clip = np.concatenate([tone(1.0, hertz=440), tone(20.0, hertz=600), tone(1.0, hertz=800)])
    windows = SPEC.decode(encode(clip))
    assert [round(pitch(window), -1) for window in windows] == [440, *[600] * 6, 800]


def test_samples_beyond_full_scale_are_scaled_not_clipped() -> None:
    window = SPEC.decode(encode(60_000 * tone(), subtype="FLOAT"))[0]
    np.testing.assert_allclose(window, tone() / 0.5, atol=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    samples = tone()
    samples[100] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        SPEC.decode(encode(samples, subtype="FLOAT"))


def test_length_is_checked_from_the_header() -> None:
    with pytest.raises(TooLarge, match="at most 2 s"):
        AudioInput(8000, 4000, 2000, max_seconds=2).decode(encode(tone(3)))


def test_frames_times_channels_are_bounded() -> None:
    with pytest.raises(TooLarge, match="10,000 samples"):
        AudioInput(8000, 4000, 2000, max_samples=10_000).decode(encode(np.tile(tone()[:, None], 6)))


def test_a_header_that_lies_about_the_length_costs_nothing() -> None:
    wav = bytearray(encode(tone()))
    wav[40:44] = (2**31 - 2).to_bytes(4, "little")
    with contextlib.suppress(InputError):
        assert SPEC.decode(bytes(wav)).shape == (1, 4000)


@pytest.mark.parametrize("rate", [1, 999, 400_000])
def test_an_absurd_rate_is_refused(rate: int) -> None:
    wav = bytearray(encode(tone()))
    wav[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(InputError, match="Hz"):
        SPEC.decode(bytes(wav))


def test_no_samples_at_all_is_an_error() -> None:
    with pytest.raises(InputError):
        SPEC.decode(encode(np.zeros(0)))


@pytest.mark.parametrize("payload", [b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"\0\0\0 ftypmp42" + b"\0" * 50, b"hello"])
def test_what_is_no_recording_is_told_apart(payload: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="expected WAV") as caught:
        SPEC.decode(payload, "voice")
    assert caught.value.field == "voice"
