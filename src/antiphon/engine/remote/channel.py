"""A connection between a front and an engine host after the handshake: frames that nobody in between can change.

    length (4 bytes, little-endian) | kind (1 byte) | payload | seal (16 bytes)

The length is that of the payload. The seal is HMAC-SHA256 of the frame's number in its direction, its header and its
payload, cut to 16 bytes, so a frame that was changed, left out, repeated or reordered is refused. A frame that is too
long is refused when its header arrives, before anything is allocated for it. Frames are not encrypted; TLS does that.
"""

from __future__ import annotations

import asyncio
import hmac
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from enum import IntEnum

from antiphon.engine.wire import MAX_FRAME_BYTES, WireError

_HEADER = struct.Struct("<IB")  # length of the payload, kind
_NUMBER = struct.Struct("<Q")
_SEAL_BYTES = 16
_READ_BYTES = 1 << 18
_BACKED_UP_BYTES = 1 << 20


class Kind(IntEnum):
    """What a frame holds."""

    ENGINE = 0  # a message of the engine's protocol (`engine.wire`), as its process sends or gets it
    CONTROL = 1  # a message between front and host (`messages`)


Frame = tuple[Kind, bytes]


class Sealer:
    """Makes the frames of one direction."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def seal(self, kind: Kind, payload: bytes) -> bytes:
        """The next frame. Raises WireError if the payload is too long."""
        if len(payload) > MAX_FRAME_BYTES:
            raise WireError(f"a message of {len(payload)} bytes is over the cap {MAX_FRAME_BYTES}")
        body = _HEADER.pack(len(payload), kind) + payload
        frame = body + _seal(self._key, self._number, body)
        self._number += 1
        return frame


class Opener:
    """Reads the frames of one direction, wherever the stream is cut."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes, and yield all frames that are complete now. Raises WireError for a frame that is not genuine."""
        self._buffer += data
        while (frame := self._take()) is not None:
            yield frame

    def _take(self) -> Frame | None:
        if len(self._buffer) < _HEADER.size:
            return None
        length, kind = _HEADER.unpack_from(self._buffer)
        if length > MAX_FRAME_BYTES:
            raise WireError(f"a frame of {length} bytes is over the cap {MAX_FRAME_BYTES}")
        body_bytes = _HEADER.size + length
        if len(self._buffer) < body_bytes + _SEAL_BYTES:
            return None
        body = bytes(self._buffer[:body_bytes])
        seal = bytes(self._buffer[body_bytes : body_bytes + _SEAL_BYTES])
        del self._buffer[: body_bytes + _SEAL_BYTES]
        if not hmac.compare_digest(seal, _seal(self._key, self._number, body)):
            raise WireError("a frame was changed on its way")
        self._number += 1
        try:
            return Kind(kind), body[_HEADER.size :]
        except ValueError:
            raise WireError(f"there is no kind {kind} of frames") from None


def _seal(key: bytes, number: int, body: bytes) -> bytes:
    return hmac.digest(key, _NUMBER.pack(number) + body, "sha256")[:_SEAL_BYTES]


class Channel:
    """One end of the connection. Only one task may read it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, send_key: bytes, receive_key: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._sealer = Sealer(send_key)
        self._opener = Opener(receive_key)
        self.num_received = 0  # bytes; grows while the other side is there

    def send(self, kind: Kind, payload: bytes) -> None:
        """Queue a frame. If the connection is lost, so is the frame. Raises WireError if the payload is too long."""
        frame = self._sealer.seal(kind, payload)
        if not self._writer.is_closing():
            self._writer.write(frame)

    @property
    def is_backed_up(self) -> bool:
        """Whether the other side has not read what was sent to it for a while."""
        return self._writer.transport.get_write_buffer_size() > _BACKED_UP_BYTES

    async def drain(self) -> None:
        """Wait until the other side has read enough of what was queued. Raises ConnectionError if it is gone."""
        await self._writer.drain()

    async def frames(self) -> AsyncIterator[Frame]:
        """The other side's frames, until the connection ends. Raises WireError for a frame that is not genuine."""
        while data := await self._read():
            self.num_received += len(data)
            for frame in self._opener.feed(data):
                yield frame

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(_READ_BYTES)
        except OSError:  # a lost connection ends like a closed one; TLS has errors of its own
            return b""

    def abort(self) -> None:
        """End the connection at once, without sending what is queued. `frames` ends."""
        self._writer.transport.abort()

    async def close(self, patience: float = 1.0) -> None:
        """Send what is queued, as far as that is possible within `patience` seconds, and end the connection."""
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(patience):
                await self._writer.wait_closed()
        self._writer.transport.abort()
