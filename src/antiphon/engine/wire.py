"""The protocol between front and engine: typed messages, msgpack, length-prefixed frames. Never pickle.

Owns the message types, their encoding and the framing; both ends of the socket use the same decoder. What comes out is
a message of a known type with fields of the right type, or a WireError; a frame longer than its cap is refused by its
header. Only `Connection`, the engine's blocking end, does input and output; nothing here knows scheduling or asyncio.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import msgspec

from antiphon.config import EngineConfig
from antiphon.grammar import Vocabulary
from antiphon.request import GenerateRequest, RequestProgress, TokenEvent

MAX_FRAME_BYTES = 16 << 20  # a prompt of a million tokens is 5 MB
_HEADER_BYTES = 4  # the payload's length, unsigned, little-endian
_RECEIVE_BYTES = 1 << 18


class WireError(ConnectionError):
    """The other side broke the protocol: an oversized frame, or one that is no message."""


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of everything that crosses; the class name is the tag."""


# --- front to engine


class Configure(Message, frozen=True):
    """The first message: what to load and how."""

    config: EngineConfig
    vocabulary: Vocabulary | None = None  # what grammars are matched with; None: no request will have one


class AddRequest(Message, frozen=True):
    """Generate; the request may carry tokens that an earlier engine already produced."""

    request: GenerateRequest


class Abort(Message, frozen=True):
    """Stop a request and free its blocks; unknown ids are ignored, since it may just have finished."""

    request_id: str


class Shutdown(Message, frozen=True):
    """Stop now; whatever runs is dropped."""


ToEngine = Configure | AddRequest | Abort | Shutdown

# --- engine to front


class Loading(Message, frozen=True):
    """How far loading has come."""

    fraction: float  # 0 to 1
    phase: str  # for people: "packing weights"


class Ready(Message, frozen=True):
    """The engine takes requests now, and what it is."""

    runner: dict[str, str | int | float]  # the runner's own description
    num_blocks: int
    block_size: int  # tokens a block
    vocab_size: int
    context_length: int  # tokens a sequence may have, prompt and answer; never more than the pool holds


class EngineStats(Message, frozen=True):
    """The engine's state after a step; counts with `num_` in front that only grow are since this engine's start."""

    running: int = 0  # sequences
    waiting: int = 0
    blocks_free: int = 0
    blocks_cached: int = 0  # nobody holds them, but their contents may be hit
    blocks_in_use: int = 0
    blocks_total: int = 0
    step: int = 0  # number of the last step
    step_seconds: float = 0.0  # of the last step
    step_tokens: int = 0  # computed in the last step
    num_computed_tokens: int = 0
    num_prefix_queries: int = 0  # tokens looked up in the prefix cache
    num_prefix_hits: int = 0  # of those, tokens found
    num_preemptions: int = 0


class StepReport(Message, frozen=True):
    """All that one step produced, in one frame."""

    events: list[TokenEvent]
    stats: EngineStats
    begun: list[str] = []  # requests that were computed for the first time in this step
    progress: list[RequestProgress] = []  # of requests that asked for it; older than their `events`


class FatalKind(StrEnum):
    """Why an engine cannot go on."""

    CHECKPOINT = "checkpoint"  # the model cannot be served
    CONFIG = "config"  # a setting cannot work
    MEMORY = "memory"  # there is too little for the model and its settings, now at least
    HUNG = "hung"  # said by the front, which ended it
    INTERNAL = "internal"  # a bug, or a broken machine


class Fatal(Message, frozen=True):
    """The engine cannot go on and exits."""

    kind: FatalKind
    message: str


FromEngine = Loading | Ready | StepReport | Fatal

M = TypeVar("M")


def encode(message: Message) -> bytes:
    """One frame."""
    payload = msgspec.msgpack.encode(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise WireError(f"a {type(message).__name__} of {len(payload)} bytes is over the frame cap {MAX_FRAME_BYTES}")
    return len(payload).to_bytes(_HEADER_BYTES, "little") + payload


class FrameDecoder(Generic[M]):
    """Turns a stream of bytes, cut anywhere, into the messages of one direction."""

    def __init__(self, messages: type[M]) -> None:
        self._decoder = msgspec.msgpack.Decoder(messages)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """Add bytes; yield every message they complete."""
        self._buffer += data
        while (payload := self._take_frame()) is not None:
            try:
                yield self._decoder.decode(payload)
            except msgspec.DecodeError as error:
                raise WireError(f"not a message: {error}") from error

    def _take_frame(self) -> bytes | None:
        if len(self._buffer) < _HEADER_BYTES:
            return None
        size = int.from_bytes(self._buffer[:_HEADER_BYTES], "little")
        if size > MAX_FRAME_BYTES:
            raise WireError(f"a frame of {size} bytes is over the cap {MAX_FRAME_BYTES}")
        end = _HEADER_BYTES + size
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_HEADER_BYTES:end])
        del self._buffer[:end]
        return payload


def decoder_from_engine() -> FrameDecoder[FromEngine]:
    """What the front reads."""
    return FrameDecoder(FromEngine)  # type: ignore[arg-type]  # a union is no `type` to mypy


def decoder_to_engine() -> FrameDecoder[ToEngine]:
    """What the engine reads."""
    return FrameDecoder(ToEngine)  # type: ignore[arg-type]


class Readable(Protocol):
    """Something with a file descriptor to wait for."""

    def fileno(self) -> int: ...


class Connection:
    """The engine's end of the socketpair: blocking sends, receives that wait only when told to."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = decoder_to_engine()

    def send(self, message: Message) -> None:
        self._socket.sendall(encode(message))

    def receive(self, *, wait: bool, or_until: Readable | None = None) -> Iterator[ToEngine]:
        """Yield every message that has arrived, as it is decoded.

        With `wait`, wait for at least one, unless `or_until` becomes readable first. EOFError when the front is gone.
        """
        poll = select.poll()  # not `select.select`, which cannot wait for descriptors from 1024 on
        poll.register(self._socket, select.POLLIN)
        if or_until:
            poll.register(or_until, select.POLLIN)
        waiting = wait
        while any(fd == self._socket.fileno() for fd, _ in poll.poll(None if waiting else 0)):
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise EOFError("the front closed the connection")
            for message in self._decoder.feed(data):
                waiting = False
                yield message
