"""Through nginx and HAProxy with generated configurations: answers are passed on as they are made, and as they are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
from certificates import certificate
from http_server import Served, events, joined, until
from patience import PATIENCE
from processes import run_briefly
from reverse_proxies import MAX_BODY_BYTES, PROXIES, Pair, Proxy, proxied, trusting

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMS = 100
TOKENS = 20


def client(proxy: Proxy, **options: object) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=None)
    return httpx2.AsyncClient(base_url=proxy.url, timeout=PATIENCE, trust_env=False, limits=limits, **options)


def question(text: str, **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": TOKENS, "temperature": 0, **fields}


async def running(pair: Pair) -> int:
    return sum(server.engine.counters.running for server in pair)


@contextmanager
def held(*servers: Served) -> Iterator[list[int]]:
    """Their engines, which compute nothing meanwhile."""
    pids = [engine.pid for server in servers for engine in server.engine.engines() if engine.pid]
    with ExitStack() as stack:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            stack.callback(os.kill, pid, signal.SIGCONT)
        yield pids


async def streamed(http: httpx2.AsyncClient, text: str, begun: asyncio.Queue[str] | None = None) -> str:
    """The text of a streamed answer."""
    body = b""
    async with http.stream("POST", "/v1/chat/completions", json=question(text, stream=True)) as reply:
        assert reply.status_code == 200, await reply.aread()
        async for chunk in reply.aiter_raw():
            if not body and begun is not None:
                begun.put_nowait(text)
            body += chunk
    return joined(events(body.decode()))


async def test_no_stream_is_cut_or_changed_when_the_proxy_reloads(proxy: Proxy, pair: Pair):
    texts = [f"Question {number}" for number in range(STREAMS)]
    async with httpx2.AsyncClient(base_url=pair[0].url, timeout=PATIENCE, trust_env=False) as direct:
        alone = await asyncio.gather(*(streamed(direct, text) for text in texts))
    begun: asyncio.Queue[str] = asyncio.Queue()
    async with client(proxy) as http:
        async with asyncio.timeout(PATIENCE):
            with held(*pair) as engines:
                tasks = [asyncio.create_task(streamed(http, text, begun)) for text in texts]
                while begun.empty():
                    run_briefly(engines)
                    await asyncio.sleep(0.1)
                assert await running(pair) > 0
                await asyncio.to_thread(proxy.reload)
                await asyncio.to_thread(proxy.wait_serving)  # the new processes do
            answers = await asyncio.gather(*tasks)
    assert answers == alone
    assert len(set(answers)) > 1


async def test_an_event_arrives_before_the_next_one_is_made(proxy: Proxy, pair: Pair):
    async with client(proxy) as http:
        body = question("Go on", stream=True, max_tokens=4000)
        async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
            assert "content-encoding" not in reply.headers
            chunks = reply.aiter_raw()
            async with asyncio.timeout(PATIENCE):
                while b"content" not in await anext(chunks):
                    pass
            assert await running(pair) == 1
    await until(lambda: not any(server.engine.counters.running for server in pair))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_work_at_the_server(proxy: Proxy, pair: Pair, stream: bool):
    before = sum(server.engine.counters.aborted for server in pair)
    async with client(proxy) as http:
        body = question("Go on", stream=stream, max_tokens=4000)
        task = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        await until(lambda: any(server.engine.counters.running for server in pair))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until(lambda: not any(server.engine.counters.running for server in pair))
    assert sum(server.engine.counters.aborted for server in pair) == before + 1


async def test_a_long_body_passes_and_a_longer_one_gets_the_servers_own_refusal(proxy: Proxy, pair: Pair):
    long = "a" * (MAX_BODY_BYTES - 1000)
    async with client(proxy) as http:
        reply = await http.post("/v1/chat/completions", json=question("Hello", unknown=long, max_tokens=2))
        assert reply.status_code == 200
        for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
            content = json.dumps(question("Hello", unknown="a" * MAX_BODY_BYTES))
            options = {"content": content, "headers": {"Content-Type": "application/json"}}
            refused, own = await http.post(path, **options), await pair[0].http.post(path, **options)
            assert (refused.status_code, refused.json()) == (413, own.json())
            assert refused.headers["content-type"] == "application/json"


async def chunked() -> object:
    for _ in range(40):
        yield b" " * 10_000


async def test_a_body_of_unknown_length_is_limited_too(proxy: Proxy):
    async with client(proxy) as http:
        headers = {"Content-Type": "application/json"}
        reply = await http.post("/v1/chat/completions", content=chunked(), headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")


OPERATORS = (
    "/metrics", "/metrics/", "/metrics?x=1", "/%6detrics", "/metric%73", "//metrics", "/v1/../metrics", "/./metrics",
    "/admin", "/admin/engines", "/admin%2fengines", "/%61dmin/engines", "/admin/../metrics", "/%2e/metrics",
)  # fmt: skip


async def test_metrics_and_admin_routes_are_closed_however_they_are_spelled(proxy: Proxy, pair: Pair):
    address = proxy.settings.listen[0]
    for target in (*OPERATORS, f"http://{address.text}/metrics", f"http://{address.text}/%6detrics"):
        for method in ("GET", "HEAD", "POST"):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(f"{method} {target} HTTP/1.1\r\nHost: {address.text}\r\nConnection: close\r\n\r\n".encode())
            async with asyncio.timeout(PATIENCE):
                reply = await reader.read()
            writer.close()
            assert reply.split()[1] in (b"404", b"400"), (method, target, reply)
            assert b"antiphon_" not in reply
    assert (await pair[0].http.get("/admin/engines")).status_code == 401  # the servers themselves have such routes


NO_REQUESTS = {
    b"garbage\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: \x00\r\n\r\n": 400,
    b"GET / HTTP/3.0\r\nHost: a\r\n\r\n": 400,
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n": 431,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n": 431,
}


async def test_what_is_no_request_is_refused_as_the_servers_refuse_it(proxy: Proxy):
    address = proxy.settings.listen[0]
    for sent, status in NO_REQUESTS.items():
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(sent)
        async with asyncio.timeout(PATIENCE):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert int(head.split()[1]) == status, (sent[:60], head)
        if proxy.kind == "nginx":  # HAProxy's message for what is not HTTP cannot be changed
            assert json.loads(body)["error"]["type"] == "invalid_request_error"


async def test_a_request_keeps_its_id_and_the_address_that_it_came_from(pair: Pair, tmp_path: Path):
    heads: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as echo:
        url = f"http://127.0.0.1:{echo.sockets[0].getsockname()[1]}"
        for kind in PROXIES:
            with proxied(kind, [url], tmp_path) as proxy:
                async with client(proxy) as http:
                    await http.get("/v1/models", headers={"X-Request-Id": "mine", "X-Forwarded-For": "6.6.6.6"})
                    await http.get("/v1/models")
    seen = [head.lower() for head in heads if "/v1/models" in head]
    assert len(seen) == 4
    for head in seen:
        assert "x-forwarded-for: 127.0.0.1\r\n" in head
        assert "6.6.6.6" not in head
        assert "x-forwarded-proto: http\r\n" in head
        assert head.count("x-request-id: ") == 1
    assert ["x-request-id: mine\r\n" in head for head in seen] == [True, False, True, False]


@pytest.mark.parametrize("kind", PROXIES)
async def test_over_tls_below_a_path_and_under_one_name(kind: str, pair: Pair, tmp_path: Path):
    cert, key = certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_text(cert.read_text() + key.read_text())
    options = {"certificate": str(both), "path": "/tools/chat/", "server_names": ("localhost",)}
    with proxied(kind, [server.url for server in pair], tmp_path, **options) as proxy:
        port = proxy.settings.listen[0].port
        context = trusting(cert)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as secure,
        ):
            assert (secure.selected_alpn_protocol(), secure.version()) == ("h2", "TLSv1.3")
        old = ssl.create_default_context(cafile=str(cert))
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", port)) as raw, pytest.raises(ssl.SSLError):
            old.wrap_socket(raw, server_hostname="localhost")
        if kind == "nginx":
            plain = httpx2.get(f"http://localhost:{port}/", trust_env=False, timeout=PATIENCE)
            assert "https://" in plain.json()["error"]["message"]
        base = f"https://localhost:{port}"
        async with httpx2.AsyncClient(base_url=base, timeout=PATIENCE, trust_env=False, verify=trusting(cert)) as http:
            models = await http.get("/tools/chat/v1/models")
            assert models.json()["data"]
            assert "strict-transport-security" in models.headers
            reply = await http.post("/tools/chat/v1/chat/completions", json=question("Hello"))
            assert reply.json()["choices"][0]["message"]["content"]
            for path in ("/v1/models", "/tools/chat/metrics", "/tools/chat/%6detrics", "/tools/chat/admin/engines"):
                assert (await http.get(path)).status_code == 404, path
            other = await http.get("/tools/chat/v1/models", headers={"Host": "evil.example"})
            assert (other.status_code, other.json()["error"]["type"]) == (400, "invalid_request_error")
