"""Peers that vanish without a word, and connections for which there is no descriptor: real sockets, real kernel."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import socket
import struct
import time
from collections.abc import Callable

import pytest
from http_server import Served, serving, until
from open_files import no_descriptor_left

from antiphon.http.listening import Listener, allowed_connections

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_BPF_RETURN = 0x06  # linux/bpf_common.h: BPF_RET, the number of bytes to keep
_TCP_REPAIR = 19  # linux/tcp.h


def cut_off(connection: socket.socket) -> None:
    """Nothing that comes is acknowledged any more, as if the cable had been cut."""
    drop_everything = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0), 8)
    program = struct.pack("HL", 1, ctypes.addressof(drop_everything))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def lose_power(connection: socket.socket) -> None:
    """The other side knows nothing of the connection any more, and has not said so."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    except PermissionError:
        pytest.skip("this process may not make a connection vanish (CAP_NET_ADMIN)")
    connection.close()


async def send(connection: socket.socket, server: Served, **fields: object) -> None:
    """Ask for an answer that takes long."""
    body = json.dumps({"prompt": "x", "max_tokens": 4000, "temperature": 0, **fields}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    lines = (
        "POST /v1/completions HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, (host, int(port)))
    await loop.sock_sendall(connection, "\r\n".join((*lines, "", "")).encode() + body)
    await until(lambda: server.engine.counters.running == 1)


@pytest.mark.parametrize(
    ("vanish", "stream"),
    [(cut_off, False), (cut_off, True), (lose_power, False)],
    ids=["cut off, whole", "cut off, streamed", "without power, whole"],
)
async def test_a_client_that_vanished_is_noticed(tmp_path, vanish: Callable[[socket.socket], None], stream: bool):
    """Its connection has no end. While it waits for a whole answer, nothing is sent that could not be delivered."""
    async with serving(tmp_path, network_timeout=2.0, fake={"step_seconds": 0.05}) as server:
        with socket.socket() as connection:
            await send(connection, server, stream=stream)
            vanish(connection)
            await server.until_metric("antiphon_requests_aborted_total", 1)
        assert server.engine.counters.running == 0
        assert (await server.complete(max_tokens=3)).status_code == 200
        await server.check_accounts()


async def test_a_client_that_waits_longer_than_the_network_timeout_is_not_taken_for_one_that_vanished(tmp_path):
    async with serving(tmp_path, network_timeout=1.0, fake={"step_seconds": 0.1}) as server:
        assert (await server.complete(max_tokens=30)).status_code == 200


async def test_connections_wait_while_there_is_no_descriptor_and_cost_next_to_nothing(tmp_path, caplog):
    """asyncio alone would try as many times a second as its backlog allows, and log each try."""
    async with serving(tmp_path) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.socket() as connection:
            connection.connect((host, int(port)))  # the kernel completes it; the server has yet to accept it
            with no_descriptor_left():
                started = time.process_time()
                await asyncio.sleep(2.5)
                assert time.process_time() - started < 0.5
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.setblocking(False)
            assert b"200 OK" in await asyncio.get_running_loop().sock_recv(connection, 4096)
        assert [
            record.message for record in caplog.records if "descriptor" in record.message or "wait" in record.message
        ] == [f"new connections wait, because the system has no resources for them: {os.strerror(24)}"]


def test_a_listener_without_descriptors_is_asked_once_and_then_pauses():
    with Listener(socket.AF_INET) as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        with no_descriptor_left():
            with pytest.raises(OSError, match="Too many open files"):
                listener.accept()
            with pytest.raises(BlockingIOError):
                listener.accept()
        listener._paused_until = 0.0
        listener.accept()[0].close()


def test_connections_are_limited_to_what_the_limit_on_open_files_allows(caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert allowed_connections(1) == 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        assert (allowed_connections(200), allowed_connections(1000)) == (200, 200)
        assert not caplog.records[:-1]
        assert "--max-connections 1000, so 200 are allowed" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
