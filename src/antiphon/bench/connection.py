"""One connection of the load test's client: HTTP/1.1 over asyncio's transports, read and written by h11.

Owns the end of a response, however it comes: complete, cut off, or not HTTP at all. Each is an error of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol

import h11

CONNECT_SECONDS = 10.0
_MAX_HEAD = 1 << 16  # bytes of a response's head


class NoConnection(ConnectionError):
    """The server could not be reached, or it closed the connection before it had answered."""


class CutOff(EOFError):
    """The connection ended before the answer did."""


class BadResponse(ValueError):
    """What came is not HTTP."""


class Receiver(Protocol):
    """Takes one response as it comes. Times are those of `time.monotonic`."""

    def on_head(self, status: int, headers: dict[str, str], at: float) -> None:
        """The status and the headers, with names in lower case."""

    def on_data(self, data: bytes, at: float) -> None:
        """A part of the body, without HTTP's chunks around it."""


class Connection(asyncio.BufferedProtocol):
    """One connection, which does one exchange at a time.

    It reads into the buffer of its client: otherwise asyncio allocates 256 KiB for each read, which costs more than
    the reading.
    """

    def __init__(self, buffer: bytearray, forget: Callable[[Connection], None]) -> None:
        self._buffer = buffer
        self._forget = forget
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._receiver: Receiver | None = None
        self._began = False  # a head has come for this exchange
        self._is_at_end = False  # the server will send nothing more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def exchange(self, request: h11.Request, body: bytes, receiver: Receiver) -> None:
        """Send a request, and hand its response to `receiver` until it is complete; raises as `Client.send` does."""
        if self._transport is None or self._transport.is_closing():
            raise NoConnection("the server closed the connection")
        self._done = asyncio.get_running_loop().create_future()
        self._receiver, self._began = receiver, False
        content = [self._http.send(request), self._http.send(h11.Data(data=body)) if body else b""]
        self._transport.write(b"".join(part or b"" for part in content) + (self._http.send(h11.EndOfMessage()) or b""))
        await self._done

    def make_ready(self) -> bool:
        """Whether the connection can be used again; it is ready for the next exchange then."""
        self._receiver = None
        if self._transport is None or self._transport.is_closing():
            return False
        if (self._http.our_state, self._http.their_state) != (h11.DONE, h11.DONE) or self._is_at_end:
            return False
        if self._http.trailing_data[0]:  # more than was asked for
            return False
        self._http.start_next_cycle()
        return True

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, num_bytes: int) -> None:
        at = time.monotonic()
        if self._receiver is None:  # nothing was asked for
            self.abort()
            return
        self._http.receive_data(bytes(memoryview(self._buffer)[:num_bytes]))
        self._read(at)

    def eof_received(self) -> None:
        self._is_at_end = True
        if self._receiver is not None:
            self._http.receive_data(b"")
            self._read(time.monotonic())

    def connection_lost(self, error: Exception | None) -> None:
        self._forget(self)
        self._end(self._lost(reason_of(error)))

    def _lost(self, reason: str) -> Exception:
        return CutOff(f"the connection ended in the answer: {reason}") if self._began else NoConnection(reason)

    def _read(self, at: float) -> None:
        receiver = self._receiver
        assert receiver is not None
        next_event = self._http.next_event
        try:
            while (event := next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if type(event) is h11.Data:
                    receiver.on_data(bytes(event.data), at)
                elif type(event) is h11.Response:
                    self._began = True
                    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                    receiver.on_head(event.status_code, headers, at)
                elif type(event) is h11.EndOfMessage:
                    self._end(None)
                    return
                elif type(event) is h11.ConnectionClosed:
                    self._end(self._lost("the server closed it"))
                    return
        except h11.RemoteProtocolError as error:
            self._end(self._lost("the server closed it") if self._is_at_end else _bad(error))
        except Exception as error:  # the receiver's own, which must not be lost in a callback
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)

    def abort(self) -> None:
        """Close the connection at once."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()


def _bad(error: Exception) -> BadResponse:
    return BadResponse(f"the response is not HTTP: {error}")


def reason_of(error: BaseException | None) -> str:
    """Why there is no connection, in words; None: the other side closed it."""
    if error is None:
        return "the server closed it"
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        hint = "; does the server speak HTTPS?" if error.reason == "WRONG_VERSION_NUMBER" else ""
        return f"TLS failed: {error.reason or error}{hint}"
    if isinstance(error, socket.gaierror):  # its numbers are not those of the system's errors
        return f"the name is not known: {error.strerror}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
