"""The least HTTP/1.1 client that load needs: it costs a tenth of a real one, which shares the processor with the service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from mla_serve.inputs import Payload

BOUNDARY = "b0undary"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def form(sample: Mapping[str, Payload]) -> bytes:
    """Write a whole request to /predict."""
    body = b""
    for name, payload in sample.items():
        is_file = isinstance(payload, bytes)
        text = payload if isinstance(payload, bytes | str) else json.dumps(payload)
        content = text if isinstance(text, bytes) else text.encode()
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        body += (b'; filename="f"' if is_file else b"") + b"\r\n\r\n" + content + b"\r\n"
    return post("/predict", body + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}")


def post(path: str, body: bytes, content_type: str) -> bytes:
    """Write a whole request."""
    head = f"POST {path} HTTP/1.1\r\nHost: load\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def connect(port: int) -> Stream:
    """Connect to this machine."""
    return await asyncio.open_connection("127.0.0.1", port)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: status, headers, body.

    Raises: asyncio.IncompleteReadError when the connection ends before; its `partial` is empty when nothing had come.
    """
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    if "content-length" in headers:
        return int(lines[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return int(lines[0].split()[1]), headers, body


async def get(port: int, path: str) -> tuple[int, bytes]:
    """Get one path on a connection of its own."""
    reader, writer = await connect(port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(30):
            status, _, body = await read_answer(reader)
        return status, body
    finally:
        writer.close()
