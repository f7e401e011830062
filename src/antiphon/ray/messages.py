"""What the server and its Ray driver say to each other: lines of JSON over the driver's pipes, with types. A leaf."""

from __future__ import annotations

import msgspec


class Ask(msgspec.Struct, frozen=True, tag=True):
    """A question, or an order. `ask_id` is in the answer to it."""

    ask_id: int


class Place(Ask, frozen=True):
    """Start an engine host on a node that has room for one more engine."""

    num_cpus: int
    memory_bytes: int  # 0: none is reserved
    resources: dict[str, float]
    timeout: float  # seconds
    hub: str
    offline: bool


class Release(Ask, frozen=True):
    """The engine host of an earlier `Place`, whose id this is, is not needed any more, or not waited for."""


class Nodes(Ask, frozen=True):
    """Which nodes are there?"""


class Answer(msgspec.Struct, frozen=True, tag=True):
    """An answer to the question `ask_id`."""

    ask_id: int


class Placed(Answer, frozen=True):
    """An engine host listens at this address."""

    host: str
    port: int
    secret: str  # which its engines' server must know
    node: str  # the node's id in Ray


class Node(msgspec.Struct, frozen=True):
    """A node that is alive."""

    num_cpus: float  # of which Ray may give some away
    memory_bytes: int


class Found(Answer, frozen=True):
    """The nodes of the cluster."""

    nodes: list[Node]


class Refused(Answer, frozen=True):
    """It was not possible. The reason is a clause fit for the log and for clients."""

    reason: str


class Connected(msgspec.Struct, frozen=True, tag=True):
    """The first line of a driver: it has connected to the cluster."""


class NotConnected(msgspec.Struct, frozen=True, tag=True):
    """The first and last line of a driver: there is no cluster."""

    reason: str


FromServer = Place | Release | Nodes
FromDriver = Connected | NotConnected | Placed | Found | Refused

_encoder = msgspec.json.Encoder()
_from_server: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)
_from_driver: msgspec.json.Decoder[FromDriver] = msgspec.json.Decoder(FromDriver)


def encode_line(message: msgspec.Struct) -> bytes:
    """One line."""
    return _encoder.encode(message) + b"\n"


def decode_from_server(line: bytes) -> FromServer:
    """Raises msgspec.DecodeError if it is none of these messages."""
    return _from_server.decode(line)


def decode_from_driver(line: bytes) -> FromDriver:
    """Raises msgspec.DecodeError if it is none of these messages."""
    return _from_driver.decode(line)
