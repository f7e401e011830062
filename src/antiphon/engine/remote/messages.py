"""What front and host say to each other beside the engine's own messages. msgpack, with types; never pickle.

    host → front    Welcome
    front → host    Begin            start an engine with these settings
    both            Heartbeat        again and again, so that each notices when the other is silent
    front → host    Kill             end the engine, in whatever state it is
    host → front    Ended            it has ended, and this is known of it; the host then closes the connection

Between Begin and Ended each side also passes on the engine's messages (`Kind.ENGINE`). Before the process runs, the
host itself says `Loading` and `Fatal` in the engine's place.
"""

from __future__ import annotations

import msgspec

from antiphon.config import EngineConfig
from antiphon.engine.wire import WireError
from antiphon.grammar import Vocabulary


class Control(msgspec.Struct, frozen=True, tag=True):
    """Base of these messages; the class name is the tag."""


class Welcome(Control, frozen=True):
    """What a host says of itself."""

    version: str  # of the package
    free_memory: int  # bytes of main memory that another engine may use
    gpu_memory: dict[str, int] = {}  # bytes that are free on each GPU that has no engine, as in {"cuda:0": 1 << 33}


class Begin(Control, frozen=True):
    """Start an engine. The connection is for this engine alone."""

    version: str  # of the package
    config: EngineConfig
    vocabulary: Vocabulary | None
    digests: dict[str, str]  # of the model's files (`model_digest`)
    heartbeat_seconds: float  # how often the host shows that it is there


class Heartbeat(Control, frozen=True):
    """The sender is there. A host also says what its engine does."""

    progress: int = 0  # changes while the engine makes progress
    working_on: list[str] = []  # ids of requests, as in `engine.progress`
    starved_seconds: float = 0.0  # without progress, for which the engine had no processor, since the last heartbeat


class Kill(Control, frozen=True):
    """End the engine at once."""


class Ended(Control, frozen=True):
    """The engine is gone."""

    status: int | None  # the exit status of its process, negative for a signal; None: there was none
    working_on: list[str] = []
    reason: str = ""  # as in `EngineEnd`


FromFront = Begin | Heartbeat | Kill
FromHost = Welcome | Heartbeat | Ended

_encoder = msgspec.msgpack.Encoder()
_from_front = msgspec.msgpack.Decoder(FromFront)
_from_host = msgspec.msgpack.Decoder(FromHost)


def encode_control(message: Control) -> bytes:
    """The payload of a frame."""
    return _encoder.encode(message)


def decode_from_front(payload: bytes) -> FromFront:
    """Raises WireError if it is not one of these messages."""
    try:
        message: FromFront = _from_front.decode(payload)
    except msgspec.DecodeError as error:
        raise WireError(f"not a message: {error}") from error
    return message


def decode_from_host(payload: bytes) -> FromHost:
    """Raises WireError if it is not one of these messages."""
    try:
        message: FromHost = _from_host.decode(payload)
    except msgspec.DecodeError as error:
        raise WireError(f"not a message: {error}") from error
    return message
