"""The protocol between front and engine: typed messages, msgpack, length-prefixed frames. Never pickle.

Owns the message types, their encoding and the framing. Both ends of the socket use the same decoder, which returns
messages of a known type with fields of the right types, or raises WireError. A frame that is too long is refused when
its header arrives. Only `Connection`, the engine's blocking end, does input and output. This module does not know
scheduling or asyncio.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from enum import StrEnum
from hashlib import sha256
from typing import Generic, Protocol, TypeVar

import msgspec

from antiphon.config import EngineConfig
from antiphon.grammar import Vocabulary
from antiphon.request import GenerateRequest, RequestProgress, TokenEvent
from antiphon.step import DeviceMemory

MAX_FRAME_BYTES = 16 << 20  # a prompt of a million tokens is 5 MB
_HEADER_BYTES = 4  # the payload's length, unsigned, little-endian
_RECEIVE_BYTES = 1 << 18


class WireError(ConnectionError):
    """The other side broke the protocol: a frame is too long, or is not a message."""


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages; the class name is the tag."""


# --- front to engine


class Configure(Message, frozen=True):
    """The first message: what to load and how."""

    config: EngineConfig
    vocabulary: Vocabulary | None = None  # to match grammars with; None: no request has a grammar


class AddRequest(Message, frozen=True):
    """Generate an answer. The request may contain tokens that an earlier engine generated."""

    request: GenerateRequest


class Abort(Message, frozen=True):
    """Stop a request and free its blocks. Unknown ids are ignored, since the request may just have finished."""

    request_id: str


class ServedElsewhere(Message, frozen=True):
    """Service that clients have had from other servers meanwhile; it counts in their fair shares."""

    clients: dict[str, float]  # weighted tokens, by fairness id


class Shutdown(Message, frozen=True):
    """Stop now, and drop what is running."""


ToEngine = Configure | AddRequest | Abort | ServedElsewhere | Shutdown

# --- engine to front


class Loading(Message, frozen=True):
    """The progress of loading."""

    fraction: float  # 0 to 1
    phase: str  # for people: "packing weights"


class Ready(Message, frozen=True):
    """The engine accepts requests now; a description of it."""

    runner: dict[str, str | int | float]  # the runner's own description
    num_blocks: int
    block_size: int  # tokens per block
    vocab_size: int
    context_length: int  # maximum tokens of a sequence, prompt and answer; at most what the pool holds
    versions: dict[str, str] = {}  # of Antiphon, Python and the libraries that an answer may depend on
    device_memory: DeviceMemory | None = None  # of its GPU, when it was ready; None: it uses none

    @property
    def instruction_set(self) -> str:
        """The kernels in use; empty if the runner has none."""
        return str(self.runner.get("instruction_set", ""))

    @property
    def fingerprint(self) -> str:
        """A hash over a small computation; equal ones mean equal arithmetic, bit for bit. Empty: not known."""
        return str(self.runner.get("fingerprint", ""))

    @property
    def model_fingerprint(self) -> str:
        """A hash over what the loaded model computes for a fixed prompt. Empty: not known."""
        return str(self.runner.get("model_fingerprint", ""))

    @property
    def system_fingerprint(self) -> str:
        """Both in one, in OpenAI's form: equal ones mean that equal requests get equal answers. Empty: not known."""
        if not (self.fingerprint and self.model_fingerprint):
            return ""
        both = f"{self.fingerprint} {self.model_fingerprint}"
        return "fp_" + sha256(both.encode()).hexdigest()[:12]


class EngineStats(Message, frozen=True):
    """The engine's state after a step. Names with `num_` are counts since this engine started."""

    running: int = 0  # sequences
    waiting: int = 0
    blocks_free: int = 0
    blocks_cached: int = 0  # not in use, but a prompt may find their contents
    blocks_in_use: int = 0
    blocks_total: int = 0
    step: int = 0  # number of the last step
    step_seconds: float = 0.0  # of the last step
    cycle_seconds: float = 0.0  # the same, and the time since the step before, without waiting for work
    step_tokens: int = 0  # computed in the last step
    busy_seconds: float = 0.0  # of all steps since this engine started
    num_computed_tokens: int = 0
    num_prefix_queries: int = 0  # tokens looked up in the prefix cache
    num_prefix_hits: int = 0  # of those, tokens found
    num_preemptions: int = 0
    num_drafted_tokens: int = 0  # verified in a step
    num_accepted_tokens: int = 0  # of those, tokens that were as drafted
    device_used_bytes: int = 0  # of its GPU's memory, by all processes; measured once a second
    device_total_bytes: int = 0  # of its GPU; 0: it uses none
    draft_saved_seconds: float = 0.0  # what they would have cost as steps of their own, estimated
    draft_spent_seconds: float = 0.0  # by how much drafts made steps longer, estimated


class StepReport(Message, frozen=True):
    """All results of one step, in one frame."""

    events: list[TokenEvent]
    stats: EngineStats
    begun: list[str] = []  # requests whose computation began in this step
    progress: list[RequestProgress] = []  # of requests that asked for it; older than their `events`


class FatalKind(StrEnum):
    """Why an engine cannot continue."""

    CHECKPOINT = "checkpoint"  # the model cannot be served
    CONFIG = "config"  # a setting cannot work
    MEMORY = "memory"  # there is too little now for the model and its settings
    HUNG = "hung"  # set by the front, which stopped the engine
    INTERNAL = "internal"  # a bug, or a hardware fault


class Fatal(Message, frozen=True):
    """The engine cannot continue and exits."""

    kind: FatalKind
    message: str


FromEngine = Loading | Ready | StepReport | Fatal

M = TypeVar("M")


def encode(message: Message) -> bytes:
    """One frame. Raises WireError if it would be too long."""
    return frame_of(encode_payload(message), type(message).__name__)


def encode_payload(message: Message) -> bytes:
    """What a frame holds."""
    return msgspec.msgpack.encode(message)


def frame_of(payload: bytes, what: str = "message") -> bytes:
    """One frame with an encoded message. Raises WireError if it would be too long; `what`: for its text."""
    if len(payload) > MAX_FRAME_BYTES:
        raise WireError(f"a {what} of {len(payload)} bytes is over the frame cap {MAX_FRAME_BYTES}")
    return len(payload).to_bytes(_HEADER_BYTES, "little") + payload


class FrameSplitter:
    """Cuts a stream of bytes into the contents of its frames, wherever the stream is cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes, and yield the contents of all complete frames. Raises WireError if one is too long."""
        self._buffer += data
        while (payload := self._take_frame()) is not None:
            yield payload

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


class FrameDecoder(Generic[M]):
    """Turns a stream of bytes into messages, wherever the stream is cut."""

    def __init__(self, messages: type[M]) -> None:
        self._decoder = msgspec.msgpack.Decoder(messages)
        self._splitter = FrameSplitter()

    def feed(self, data: bytes) -> Iterator[M]:
        """Add bytes, and yield all messages that are complete now. Raises WireError if one is not a message."""
        for payload in self._splitter.feed(data):
            yield self.decode(payload)

    def decode(self, payload: bytes) -> M:
        """One message. Raises WireError if it is not one."""
        try:
            return self._decoder.decode(payload)
        except msgspec.DecodeError as error:
            raise WireError(f"not a message: {error}") from error


def decoder_from_engine() -> FrameDecoder[FromEngine]:
    """A decoder for the front."""
    return FrameDecoder(FromEngine)  # type: ignore[arg-type]  # a union is no `type` to mypy


def decoder_to_engine() -> FrameDecoder[ToEngine]:
    """A decoder for the engine."""
    return FrameDecoder(ToEngine)  # type: ignore[arg-type]  # likewise


class Readable(Protocol):
    """An object with a file descriptor to wait for."""

    def fileno(self) -> int: ...


class Connection:
    """The engine's end of the socketpair. Sending blocks; receiving waits only if asked to."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = decoder_to_engine()

    def send(self, message: Message) -> None:
        self._socket.sendall(encode(message))

    def receive(self, *, wait: bool, or_until: Readable | None = None) -> Iterator[ToEngine]:
        """Yield all messages that have arrived, as they are decoded.

        With `wait`, wait for at least one, unless `or_until` becomes readable first. Raises EOFError when the front has
        closed the connection.
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
