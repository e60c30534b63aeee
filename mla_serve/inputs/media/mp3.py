"""Add the missing frame count to an MP3 of variable bitrate.

Without it, libsndfile assumes the bitrate of the first frame for all. It then stops long before the end, or reports a
recording many times as long.
"""

from __future__ import annotations

from collections.abc import Iterator

KBPS = {  # by whether it is MPEG 1, of layer 3
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = (44_100, 48_000, 32_000)
VERSIONS = {3: 1, 2: 2, 0: 4}  # version bits -> divisor of the sampling rate
LAYER_3 = 1
MONO = 3
COUNTED = (b"Xing", b"Info", b"VBRI")
MOST_LOOKS = 100_000  # 40 minutes of sound; limits the cost of a hostile file
LONGEST_FRAME = 1500  # bytes; the next frame is searched for within this distance


def with_frame_count(payload: bytes) -> bytes:
    """Prepend a frame with the frame count to an MP3 of variable bitrate that has none; return other files unchanged."""
    first = payload[:LONGEST_FRAME]
    if frame_size(payload, 0) is None or any(name in first for name in COUNTED):
        return payload
    bitrates = [payload[at + 2] >> 4 for at in _frames(payload)]
    varies = len(bitrates) < MOST_LOOKS and len(set(bitrates)) > 1
    return _counting_frame(payload, len(bitrates)) + payload if varies else payload


def frame_size(payload: bytes, at: int) -> int | None:
    """Return the bytes of the frame at this position; None if there is no layer 3 frame of a known bitrate."""
    head = payload[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] >> 5 != 7:
        return None
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version not in VERSIONS or head[1] >> 1 & 3 != LAYER_3 or bitrate in (0, 15) or rate == 3:
        return None
    bytes_of_a_hertz = 144_000 if version == 3 else 72_000
    return bytes_of_a_hertz * KBPS[version == 3][bitrate] * VERSIONS[version] // RATES[rate] + (head[2] >> 1 & 1)


def _frames(payload: bytes) -> Iterator[int]:
    """Yield the positions of the frames; bytes between frames are skipped."""
    at = 0
    for _ in range(MOST_LOOKS):
        if at < 0:
            return
        size = frame_size(payload, at)
        if size is None:
            at = payload.find(b"\xff", at + 1, at + LONGEST_FRAME)
        else:
            yield at
            at += size


def _counting_frame(payload: bytes, count: int) -> bytes:
    """Make a silent frame like the first, of the largest bitrate, with the number of frames that follow."""
    head = bytes([0xFF, payload[1] | 1, payload[2] & 0x0D | 0xE0, payload[3]])  # without checksum and padding
    is_first_version, is_mono = head[1] >> 3 & 3 == 3, head[3] >> 6 == MONO
    side = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[is_first_version, is_mono]
    said = b"Xing\0\0\0\x01" + count.to_bytes(4, "big")
    return (head + bytes(side) + said).ljust(frame_size(head, 0) or 0, b"\0")
