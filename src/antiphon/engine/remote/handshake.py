"""How a front and an engine host prove to each other that they have the same secret. Bytes only: no input or output.

    front → host    hello: "antiphon", protocol version, 32 random bytes
    host → front    hello, likewise
    front → host    HMAC-SHA256 of both hellos, with a key for the front's proof
    host → front    HMAC-SHA256 of both hellos, with a key for the host's proof

All keys come from the secret and both hellos, so they differ in every connection, and a recorded connection cannot be
played again. The front proves itself first: a host tells nothing to whom it does not know. The frames that follow are
sealed with one key for each direction (`channel`). The versions are part of what is proved, so nobody in between can
change them. The secret itself is never sent; it must be long and random, since anyone who records a handshake can try
guesses.

Sources: HMAC, RFC 2104; extraction and expansion of keys, RFC 5869 (HKDF), with one block for each key.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from dataclasses import dataclass

PROTOCOL_VERSION = 1
HELLO_BYTES, PROOF_BYTES = 42, 32
_MAGIC = b"antiphon"
_HELLO = struct.Struct("<8sH32s")
_HASH = "sha256"


class HandshakeError(ConnectionError):
    """The other side is not what it should be; the text says what it is, and what would work."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of each side."""

    version: int
    nonce: bytes  # 32 random bytes

    @classmethod
    def fresh(cls) -> Hello:
        return cls(PROTOCOL_VERSION, secrets.token_bytes(32))

    def encode(self) -> bytes:
        return _HELLO.pack(_MAGIC, self.version, self.nonce)

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        """Raises HandshakeError unless these are the bytes of a hello; the version may be another one."""
        if len(data) != HELLO_BYTES:
            raise HandshakeError(f"its hello has {len(data)} bytes instead of {HELLO_BYTES}")
        magic, version, nonce = _HELLO.unpack(data)
        if magic != _MAGIC:
            raise HandshakeError("it does not speak Antiphon's protocol for engines")
        return cls(version, nonce)


@dataclass(frozen=True, slots=True)
class Keys:
    """What both sides know after their hellos, if they have the same secret."""

    front_proof: bytes
    host_proof: bytes
    from_front: bytes  # the key of frames that the front sends
    from_host: bytes


def keys_of(secret: str, front: Hello, host: Hello) -> Keys:
    """The proofs and keys of one connection."""
    hellos = front.encode() + host.encode()
    root = hmac.digest(hellos, secret.encode(), _HASH)

    def derived(purpose: bytes) -> bytes:
        return hmac.digest(root, b"antiphon engine " + purpose + b"\x01", _HASH)

    return Keys(derived(b"front proof"), derived(b"host proof"), derived(b"from front"), derived(b"from host"))


def is_proof(received: bytes, expected: bytes) -> bool:
    """Whether a proof is right; takes the same time in all cases."""
    return hmac.compare_digest(received, expected)
