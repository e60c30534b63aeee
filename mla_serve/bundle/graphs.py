"""Look into the bytes of an ONNX graph, without the onnx package: does it ask for files beside it?

onnxruntime loads graphs from memory here and refuses most references to other files, but by the way of optimisers that
stumble over them, and relative to the folder that the server runs in. So they are refused before it sees the graph.

Source: onnx.proto3, the field numbers of the messages that can hold a tensor; protobuf's wire format.
"""

from __future__ import annotations

from collections.abc import Iterator

from mla_serve.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# message -> field number -> the message that stands there
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
LARGEST = 2**31 - 2**24
"""Bytes of weights that one graph can hold: protobuf stops at 2 GiB, and the nodes need some too."""
DATA_LOCATION = 14  # of a tensor: 0 is in the file, 1 outside


def check_self_contained(graph: bytes) -> None:
    """Refuse a graph of which a part lies in another file.

    Raises: BundleError, also for bytes that are no graph.
    """
    waiting = [("model", memoryview(graph))]
    while waiting:
        kind, content = waiting.pop()
        for number, value in _fields(content):
            if kind == "tensor" and (number == 13 or (number == DATA_LOCATION and value != 0)):
                raise BundleError(
                    "the graph refers to external data in another file; export it with the weights inside"
                )
            if isinstance(value, memoryview) and number in FIELDS.get(kind, {}):
                waiting.append((FIELDS[kind][number], value))


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message: (number, value)."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        wire = key & 7
        if wire == VARINT:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        length = {FIXED64: 8, FIXED32: 4}.get(wire)
        if wire == BYTES:
            length, at = _varint(content, at)
        if length is None or at + length > len(content):
            raise BundleError("this is no ONNX graph; export the bundle again")
        yield key >> 3, content[at : at + length]
        at += length


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """Read a number; returns it and where it ends."""
    value, shift = 0, 0
    while at < len(content) and shift < 64:
        byte = content[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise BundleError("this is no ONNX graph; export the bundle again")
