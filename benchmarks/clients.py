"""A light HTTP client for benchmarks: one request on a connection of its own, with the time of each part of the answer.

Costs far less processor time than a real HTTP library, which matters where client and server share two cores. It reads
what Antiphon and llama.cpp send (a length or chunks), follows no redirects and reuses no connection. A connection that
ends too early raises an error; an answer with any status is returned.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_TEXT = re.compile(rb'"(?:content|reasoning_content|text|response)":\s?"[^"]')


def has_text(part: bytes) -> bool:
    """Whether a part of an answer has text, of a thought or after it, that is not empty."""
    return _TEXT.search(part) is not None


@dataclass
class Reply:
    """An answer as it came. Times are in seconds of the monotonic clock."""

    status: int
    headers: dict[str, str]  # names in lower case
    sent: float
    parts: list[tuple[float, bytes]] = field(default_factory=list)  # of the body, each with the time of its arrival

    @property
    def body(self) -> bytes:
        return b"".join(part for _, part in self.parts)

    @property
    def ended(self) -> float:
        return self.parts[-1][0] if self.parts else self.sent

    @property
    def first_text(self) -> float | None:
        """When the first part with text came; None if none did."""
        return next((at for at, part in self.parts if has_text(part)), None)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> Iterator[Any]:
        """The payloads of a stream of server-sent events, without the closing [DONE]."""
        for line in self.body.split(b"\n"):
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])

    @property
    def is_done(self) -> bool:
        """Whether a stream of OpenAI's ends with [DONE]."""
        return self.body.rstrip().endswith(b"data: [DONE]")


async def ask(
    port: int,
    path: str,
    body: Mapping[str, Any] | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "",
) -> Reply:
    """Send one request and read its whole answer. A cancelled call closes the connection.

    Raises:
        OSError: no connection, or it was reset.
        EOFError: the connection ended before the answer did (asyncio.IncompleteReadError).
    """
    encoded = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(encoded)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    sent = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    try:
        writer.write("\r\n".join((*lines, "", "")).encode() + encoded)
        status, found = await _head(reader)
        reply = Reply(status, found, sent)
        async for part in _parts(reader, found):
            reply.parts.append((time.monotonic(), part))
        return reply
    finally:
        writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _parts(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") != "chunked":
        length = int(headers.get("content-length", "0"))
        if length:
            yield await reader.readexactly(length)
        return
    while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
        yield (await reader.readexactly(size + 2))[:-2]
    if not (await reader.readline()).endswith(b"\n"):
        raise asyncio.IncompleteReadError(b"", None)
