"""Refuse ONNX graphs that refer to other files, by reading their protobuf bytes. The onnx package is not needed.

A graph can name a file that holds its weights. onnxruntime looks for that file in the current directory of the server, and
what it then does depends on its optimisers. A bundle from elsewhere must not read files of the server, so such graphs are
refused before onnxruntime gets them.

Source: onnx.proto3, the field numbers of the messages that can hold a tensor; the wire format of protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator

from mla_serve.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
EXTERNAL_DATA = 13  # field of a tensor: where its data are in another file
DATA_LOCATION = 14  # field of a tensor: 0 inside the graph, 1 in another file
# message -> field number -> the message in that field; only the fields that lead to a tensor
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {EXTERNAL_DATA: "external"},
}
LARGEST = 2**31 - 2**24
"""Bytes of weights that one graph can hold: protobuf allows 2 GiB, and the nodes need some of it."""


def check_self_contained(graph: bytes) -> None:
    """Refuse a graph with tensors in another file.

    Raises: BundleError, also for bytes that are no graph.
    """
    waiting = [("model", memoryview(graph))]
    while waiting:
        kind, content = waiting.pop()
        for number, value in _fields(content):
            if kind == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)):
                raise BundleError(
                    "the graph refers to external data in another file; export it with the weights inside"
                )
            if isinstance(value, memoryview) and number in FIELDS.get(kind, {}):
                waiting.append((FIELDS[kind][number], value))


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message as (number, value)."""
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
    """Read a variable-length integer; return it and the position after it."""
    value, shift = 0, 0
    while at < len(content) and shift < 64:
        byte = content[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise BundleError("this is no ONNX graph; export the bundle again")
