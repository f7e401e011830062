"""Opens a channel: the handshake over a connection, as the front or as the host, within a deadline.

Errors are of two kinds. HandshakeError: the other side answers, and is something else, or has another version or
secret. Any other OSError: it cannot be reached or does not answer; it may later.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

from antiphon.engine.remote.address import HostAddress
from antiphon.engine.remote.channel import Channel
from antiphon.engine.remote.handshake import (
    HELLO_BYTES,
    PROOF_BYTES,
    PROTOCOL_VERSION,
    HandshakeError,
    Hello,
    is_proof,
    keys_of,
)

CONNECT_SECONDS = 5.0  # for the connection and the handshake
_UPGRADE = "use the same version of Antiphon on both machines"


async def connect(address: HostAddress, secret: str, tls: ssl.SSLContext | None = None) -> Channel:
    """Connect to an engine host, as a front. `tls`: how to check its certificate, for an encrypted address.

    Raises:
        HandshakeError: what answers is not an engine host of this version, or has another secret.
        OSError: nothing answers, or not in time.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            context, name = (tls, address.host) if address.is_encrypted else (None, None)
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=context, server_hostname=name
            )
            return await _handshake_of_front(reader, writer, secret)
    except BaseException as error:
        if writer:
            writer.transport.abort()
        if isinstance(error, TimeoutError):
            raise TimeoutError("no answer in time") from None
        raise


async def _handshake_of_front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: str) -> Channel:
    ours = Hello.fresh()
    writer.write(ours.encode())
    theirs = Hello.decode(await _read(reader, HELLO_BYTES, "it closed the connection before it said anything"))
    if theirs.version != PROTOCOL_VERSION:
        raise HandshakeError(
            f"it speaks version {theirs.version} of the protocol for engines, and this server speaks version "
            f"{PROTOCOL_VERSION}; {_UPGRADE}"
        )
    keys = keys_of(secret, ours, theirs)
    writer.write(keys.front_proof)
    try:
        proof = await reader.readexactly(PROOF_BYTES)
    except (asyncio.IncompleteReadError, ConnectionError):
        raise HandshakeError("it refuses this server's secret; give both the same one") from None
    if not is_proof(proof, keys.host_proof):
        raise HandshakeError("it does not know this server's secret; give both the same one")
    return Channel(reader, writer, send_key=keys.from_front, receive_key=keys.from_host)


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: str) -> Channel:
    """Let a front prove itself, as an engine host. The caller sets a deadline.

    Raises:
        HandshakeError: who connected is not a front of this version, or has another secret.
        OSError: the connection was lost.
    """
    theirs = Hello.decode(await _read(reader, HELLO_BYTES, "it closed the connection before it said anything"))
    ours = Hello.fresh()
    writer.write(ours.encode())
    if theirs.version != PROTOCOL_VERSION:
        with suppress(OSError):
            await writer.drain()  # so that it can say which version is spoken here
        raise HandshakeError(
            f"it speaks version {theirs.version} of the protocol for engines, and this host speaks version "
            f"{PROTOCOL_VERSION}; {_UPGRADE}"
        )
    keys = keys_of(secret, theirs, ours)
    proof = await _read(reader, PROOF_BYTES, "it closed the connection before it proved that it has the secret")
    if not is_proof(proof, keys.front_proof):
        raise HandshakeError("it has another secret")
    writer.write(keys.host_proof)
    return Channel(reader, writer, send_key=keys.from_host, receive_key=keys.from_front)


async def _read(reader: asyncio.StreamReader, num_bytes: int, otherwise: str) -> bytes:
    try:
        return await reader.readexactly(num_bytes)
    except asyncio.IncompleteReadError:
        raise ConnectionAbortedError(otherwise) from None
