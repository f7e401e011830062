"""Forms that any HTTP server takes: HEAD wherever GET is allowed, and targets with scheme and host."""

from __future__ import annotations

import asyncio

import pytest
from http_server import Served, serving

from antiphon.api_keys import read_api_keys

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def raw(server: Served, head: str) -> tuple[str, str]:
    """Status line and headers, and the body, of what a plain socket receives."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    reply = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = reply.partition("\r\n\r\n")
    return head, body


async def test_head_is_get_without_its_body(served: Served):
    for path in ("/health", "/ready", "/v1/models", "/version", "/metrics", "/openapi.json", "/docs"):
        got, head = await served.http.get(path), await served.http.head(path)
        assert head.status_code == got.status_code == 200
        assert head.content == b""
        if path != "/metrics":
            assert head.headers["content-length"] == got.headers["content-length"]
    assert (await served.http.head("/v1/chat/completions")).status_code == 405
    assert (await served.http.head("/nowhere")).status_code == 404


async def test_an_absolute_target_is_its_path(served: Served):
    for target in ("http://localhost/health", "HTTPS://example.org:1/health", "http://localhost/health?x=1"):
        head, body = await raw(served, f"GET {target} HTTP/1.1")
        assert head.startswith("HTTP/1.1 200 ")
        assert body == '{"status":"ok"}'
    head, _ = await raw(served, "GET http://localhost HTTP/1.1")
    assert " 500 " not in head


async def test_an_absolute_target_opens_no_route_and_no_other_host(tmp_path):
    async with serving(tmp_path, api_keys=read_api_keys(["k" * 20])) as server:
        head, _ = await raw(server, "GET http://localhost/v1/models?/health HTTP/1.1")
        assert head.startswith("HTTP/1.1 401 ")
    async with serving(tmp_path, allowed_hosts=("localhost",)) as server:
        head, _ = await raw(server, "GET http://evil.example/v1/models HTTP/1.1")
        assert head.startswith("HTTP/1.1 400 ")
