"""Sound: every format, rate and channel count comes out as the same recording."""

import contextlib
import dataclasses
import io
import struct

import numpy as np
import pytest
import soundfile

from mla_serve.errors import InputError, TooLarge, UnsupportedFormat
from mla_serve.inputs import Array, AudioInput
from mla_serve.inputs.audio import FORMATS
from mla_serve.inputs.media import mp3 as mp3_headers

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


@pytest.mark.parametrize("format", FORMATS)
def test_every_file_format_keeps_the_pitch(format: str) -> None:
    window = SPEC.decode(encode(tone(0.8), format=format))[0]
    assert pitch(window) == pytest.approx(440, abs=5)


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        *[("WAV", subtype) for subtype in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")],
        *[("AIFF", subtype) for subtype in ("FLOAT", "ULAW", "IMA_ADPCM")],
        *[("CAF", subtype) for subtype in ("FLOAT", "ALAC_16", "ALAC_24")],
        *[("AU", subtype) for subtype in ("ULAW", "G723_24")],
        *[("OGG", subtype) for subtype in ("VORBIS", "OPUS")],
    ],
)
def test_every_codec_keeps_the_pitch(format: str, subtype: str) -> None:
    assert pitch(SPEC.decode(encode(tone(0.8), format=format, subtype=subtype))[0]) == pytest.approx(440, abs=5)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_any_rate_is_resampled(rate: int) -> None:
    window = SPEC.decode(encode(tone(rate=rate), rate))[0]
    assert pitch(window) == pytest.approx(440, abs=5)
    assert np.abs(window).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_mixed_to_mono(channels: int) -> None:
    window = SPEC.decode(encode(np.tile(tone()[:, None], channels)))[0]
    np.testing.assert_allclose(window, tone(), atol=0.01)


@pytest.mark.parametrize("mix", [[1, -1], [1, -0.98], [1, 0, -1], [0.5, -0.5, 0.5, -0.5]])
def test_channels_of_opposite_phase_are_not_silence(mix: list[float]) -> None:
    """The louder channel is taken where the sum cancels: a microphone was wired the wrong way round."""
    window = SPEC.decode(encode(tone(3.0)[:, None] * mix))[0]
    np.testing.assert_allclose(np.abs(window).max(), 0.5 * max(mix), atol=0.01)
    assert pitch(window) == pytest.approx(440, abs=5)


@pytest.mark.parametrize("mix", [[1, 0], [1, -0.5], [1, 0.9], [1, *[0] * 31], [0, 1, 0, 0, 0, 0]])
def test_channels_that_do_not_cancel_are_averaged(mix: list[float]) -> None:
    samples = (tone()[:, None] * mix).astype(np.float32)
    window = SPEC.decode(encode(samples, subtype="FLOAT"))[0]
    np.testing.assert_array_equal(window, samples.mean(axis=1))


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


def wav(length: int, data: bytes, behind: bytes = b"") -> bytes:
    head = encode(tone())[:40]
    return head + length.to_bytes(4, "little") + data + behind


@pytest.mark.parametrize("length", [0, 2**32 - 1, 2**31 - 1, 2**31, 2**31 - 36, 0x7FFFFFDB])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(length: int) -> None:
    """A program that cannot go back leaves 0 or a large number in the place of the length."""
    data = encode(tone())[44:]
    np.testing.assert_array_equal(SPEC.decode(wav(length, data)), SPEC.decode(encode(tone())))


def test_a_wav_that_is_empty_stays_empty() -> None:
    for behind in (b"", b"LIST\4\0\0\0INFO", b"id3 \0\0\0\0"):
        with pytest.raises(InputError, match="holds no samples"):
            SPEC.decode(wav(0, b"", behind))


def piped(format: str) -> bytes:
    """Leave the lengths open, as ffmpeg does when it writes to a pipe."""
    content = bytearray(encode(tone(), format=format))
    if format == "FLAC":
        content[21] &= 0xF0  # the number of samples has 36 bits
        content[22:26] = bytes(4)
        content[26:42] = bytes(16)  # the sum over all samples
    elif format == "RF64":
        content[20:44] = bytes(24)
    elif format == "W64":
        data = content.index(b"data\xf3\xac")
        content[16:24] = b"\xff" * 8
        content[data + 16 : data + 24] = b"\xff" * 7 + b"\x7f"
    elif format == "CAF":
        data = content.index(b"data\0\0\0\0")
        content[data + 4 : data + 12] = b"\xff" * 8
    elif format == "AU":
        content[8:12] = b"\xff" * 4
    elif format == "AIFF":
        data = content.index(b"SSND")
        content[4:8] = content[22:26] = content[data + 4 : data + 8] = bytes(4)
    return bytes(content)


@pytest.mark.parametrize("format", ["FLAC", "RF64", "W64", "CAF", "AU", "AIFF"])
def test_every_format_written_to_a_pipe_is_read_to_its_end(format: str) -> None:
    assert piped(format) != encode(tone(), format=format)
    np.testing.assert_allclose(SPEC.decode(piped(format)), SPEC.decode(encode(tone())), atol=1e-4)


@pytest.mark.parametrize("format", ["MP3", "FLAC", "WAV", "AIFF"])
@pytest.mark.parametrize("zeros", [0, 1, 5000])
@pytest.mark.parametrize("flags", [0, 0x10])
def test_a_tag_and_zeros_before_the_sound_are_passed_over(format: str, zeros: int, flags: int) -> None:
    sound = encode(tone(0.8), format=format)
    footer = bytes(10) if flags else b""
    tagged = b"ID3\4\0" + bytes([flags, 0, 0, 1, 2]) + bytes(130) + footer + bytes(zeros) + sound
    np.testing.assert_allclose(SPEC.decode(tagged), SPEC.decode(sound), atol=1e-5)


def test_a_large_tag_is_no_part_of_the_length() -> None:
    """Without a count of frames libsndfile would take a picture in the tag for minutes of sound, and two tags for no MP3."""
    sound = mp3(0.5)
    for tag in (b"ID3\4\0\0\0\x3f\0\0" + bytes(0x3F << 14), 2 * (b"ID3\3\0\0\0\0\1\0" + bytes(128))):
        np.testing.assert_allclose(SPEC.decode(tag + sound), SPEC.decode(sound), atol=1e-5)


def mp3(seconds: float, bitrate_mode: str = "CONSTANT", quiet_first: bool = False) -> bytes:
    """Write an MP3, half of it noise and half silence, as a program does that cannot go back: without a count of frames."""
    noise = np.random.default_rng(0).normal(0, 0.2, round(seconds * 22_050))
    halves = (0 * noise, noise) if quiet_first else (noise, 0 * noise)
    buffer = io.BytesIO()
    options = {"format": "MP3", "bitrate_mode": bitrate_mode, "compression_level": 0.2}
    with soundfile.SoundFile(buffer, "w", 44_100, 1, **options) as file:
        file.write(np.concatenate(halves))
    content = buffer.getvalue()
    return content[mp3_headers.frame_size(content, 0) :]


@pytest.mark.parametrize("quiet_first", [False, True])
@pytest.mark.parametrize("gap", [0, 700])
def test_an_mp3_of_varying_bitrate_is_read_to_its_end(quiet_first: bool, gap: int) -> None:
    """libsndfile alone would stop early where the first frames are large, and take it for too long where they are small."""
    spec = dataclasses.replace(SPEC, max_seconds=30.0, max_windows=1000, trim_db=0.0)
    content = mp3(20, "VARIABLE", quiet_first)
    content = content[:3000] + bytes(gap) + content[3000:]
    assert len(spec.decode(content)) == pytest.approx(1 + (20 * 8000 - 4000) / 2000, abs=2)


def test_frames_of_an_mp3_are_looked_for_so_often_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    content, looks = mp3(0.5)[:3000] + b"\xff" * 1_000_000, []
    size = mp3_headers.frame_size
    monkeypatch.setattr(mp3_headers, "frame_size", lambda *given: looks.append(given) or size(*given))
    assert mp3_headers.with_frame_count(content) == content
    assert 1000 < len(looks) <= mp3_headers.MOST_LOOKS + 1


RAISED = [TypeError, KeyError, struct.error, OverflowError, ZeroDivisionError, AttributeError, MemoryError, OSError]


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("where", ["__init__", "read"])
def test_whatever_soundfile_raises_is_an_input_error(
    where: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("odd")

    content = encode(tone())
    if where == "__init__":
        monkeypatch.setattr("soundfile.SoundFile.__del__", lambda _: None)
    monkeypatch.setattr(f"soundfile.SoundFile.{where}", fail)
    with pytest.raises(InputError, match="odd") as caught:
        SPEC.decode(content, "voice")
    assert caught.value.field == "voice"


def test_a_bug_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("mla_serve.inputs.audio._mono", fail)
    with pytest.raises(TypeError, match="a bug"):
        SPEC.decode(encode(tone()))


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "this is PNG, expected WAV.*send a recording"),
        (b"\0\0\0\x14ftypmp42\0\0\0\0isom", "this is MP4, expected WAV.*ffmpeg -i in.mp4 -vn out.wav"),
        (b"\0\0\0\x14ftypM4A \0\0\0\0mp42", "this is M4A .AAC or.*ffmpeg -i in.m4a out.wav"),
        (b"#!AMR\n\x04", "this is AMR, expected WAV.*ffmpeg -i in.amr out.wav"),
        (encode(tone(), format="IRCAM"), "this is SF .Berkeley/IRCAM/CARL., expected WAV.*ffmpeg"),
        (b"hello", "this is plain text, expected WAV"),
    ],
)
def test_what_is_no_recording_is_named(payload: bytes, named: str) -> None:
    with pytest.raises(UnsupportedFormat, match=named) as caught:
        SPEC.decode(payload, "voice")
    assert caught.value.field == "voice"
    assert "\\x" not in caught.value.message


def test_a_damaged_recording_is_named_damaged_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"the WAV file cannot be read \(.*\); convert it: ffmpeg -i in.wav out.wav"):
        SPEC.decode(encode(tone())[:30])
