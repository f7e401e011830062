"""nginx and HAProxy with generated configurations, while servers are full, die, come and go."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from http_server import Served, serving, until
from patience import PATIENCE
from reverse_proxies import PROXIES, Pair, Proxy, address_of, free_address, proxied

from antiphon.api_keys import read_api_keys
from antiphon.proxies.addresses import Address

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = {"Authorization": "Bearer sk-a-key-without-limits"}
LIMITED = {"Authorization": "Bearer sk-a-key-with-a-limit-1"}
CHAT = "/v1/chat/completions"
FRONT = Path(__file__).parents[1] / "helpers" / "front_process.py"


def client(proxy: Proxy, **options: object) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=proxy.url, timeout=PATIENCE, trust_env=False, **options)


def question(text: str = "Hello", max_tokens: int = 4, **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, **fields}


@asynccontextmanager
async def open_stream(http: httpx2.AsyncClient, **fields: object) -> AsyncIterator[AsyncIterator[bytes]]:
    """A stream whose first event has arrived."""
    async with http.stream("POST", CHAT, json=question(stream=True, **fields)) as reply:
        assert reply.status_code == 200, await reply.aread()
        chunks = reply.aiter_raw()
        await anext(chunks)
        yield chunks


async def rest(chunks: AsyncIterator[bytes]) -> str:
    """How a stream ends: with its end, or cut."""
    body = b""
    try:
        async for chunk in chunks:
            body += chunk
    except httpx2.HTTPError:
        return "cut"
    return "whole" if body.endswith(b"data: [DONE]\n\n") else "cut"


async def responses(servers: Sequence[Served], status: int) -> float:
    """Responses of the servers with this status, so far."""
    scrapes = [await server.metrics() for server in servers]
    name = "antiphon_http_responses_total{"
    return sum(
        value
        for scrape in scrapes
        for series, value in scrape.items()
        if series.startswith(name) and f'status="{status}"' in series
    )


def accepted(server: Served) -> int:
    return server.engine.counters.accepted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Two servers that accept one request at a time, except from the health checks."""
    keys = read_api_keys(["free:sk-a-key-without-limits, limited:sk-a-key-with-a-limit-1"])
    settings = {
        "fake": {"step_seconds": 0.01},
        "max_queued_requests": 1,
        "fairness": "none",
        "api_keys": (keys[0], type(keys[1])(keys[1].name, keys[1].digest, requests_per_minute=1)),
    }
    folder = tmp_path_factory.mktemp("small")
    async with serving(folder, **settings) as one, serving(folder, **settings) as other:
        for server in (one, other):
            server.http.headers.update(KEY)
        yield one, other


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_full_server_is_passed_over_and_the_refusal_of_full_ones_arrives_whole(
    kind: str, small: Pair, tmp_path: Path
):
    one, other = small
    statuses: Counter[int] = Counter()
    with proxied(kind, [server.url for server in small], tmp_path) as proxy:
        async with client(proxy, headers=KEY) as http:
            before = await responses([one], 503)
            async with open_stream(one.http, max_tokens=4000):
                for _ in range(6):
                    statuses[(await http.post(CHAT, json=question())).status_code] += 1
                    assert (await http.post("/v1/messages", json=question())).status_code == 200
                assert statuses == {200: 6}
                assert await responses([one], 503) > before  # so the other one was tried
                async with open_stream(other.http, max_tokens=4000):
                    own = await one.http.post(CHAT, json=question())
                    for _ in range(6):
                        reply = await http.post(CHAT, json=question())
                        assert (reply.status_code, reply.json()["error"].keys()) == (503, own.json()["error"].keys())
                        assert reply.json()["error"]["code"] == "server_overloaded"
                        assert int(reply.headers["retry-after"]) >= 1
                        assert int(reply.headers["retry-after-ms"]) >= 1
                    anthropic = await http.post("/v1/messages", json=question())
                    status = 503 if kind == "nginx" else 529
                    assert (anthropic.status_code, anthropic.json()["error"]["type"]) == (status, "overloaded_error")
                    assert int(anthropic.headers["retry-after"]) >= 1
            await until(lambda: not any(server.engine.counters.running for server in small))
            for _ in range(4):  # nobody was taken for dead
                statuses[(await http.post(CHAT, json=question())).status_code] += 1
            assert statuses == {200: 10}


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_key_over_its_rate_is_refused_once(kind: str, small: Pair, tmp_path: Path):
    with proxied(kind, [server.url for server in small], tmp_path) as proxy:
        async with client(proxy, headers=LIMITED) as http:
            statuses = [(await http.post(CHAT, json=question())).status_code for _ in range(3)]  # each may have one
            assert statuses[-1] == 429
            before = await responses(small, 429)
            replies = [await http.post(CHAT, json=question()) for _ in range(3)]
            assert [reply.status_code for reply in replies] == [429] * 3
            assert all("retry-after" in reply.headers and "retry-after-ms" in reply.headers for reply in replies)
            assert await responses(small, 429) == before + 3


@contextmanager
def server_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its URL."""
    command = [sys.executable, str(FRONT), str(folder), json.dumps({"step_seconds": 0.02})]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", PROXIES)
async def test_the_death_of_a_server_cuts_its_streams_alone(kind: str, pair: Pair, tmp_path: Path):
    one, _ = pair
    with server_process(tmp_path) as (process, url), proxied(kind, [one.url, url], tmp_path) as proxy:
        async with client(proxy) as http, AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(open_stream(http, max_tokens=200)) for _ in range(6)]
            survivors = one.engine.counters.running
            assert 0 < survivors < 6
            silent = [asyncio.create_task(http.post(CHAT, json=question(max_tokens=60))) for _ in range(4)]
            await until(lambda: one.engine.counters.running > survivors)
            process.kill()
            process.wait()
            for _ in range(6):
                assert (await http.post(CHAT, json=question())).status_code == 200
            assert [(await task).status_code for task in silent] == [200] * 4  # begun again at the other server
            ends = Counter(await asyncio.gather(*map(rest, streams)))
            assert ends == {"whole": survivors, "cut": 6 - survivors}


@pytest.mark.parametrize("kind", PROXIES)
async def test_servers_are_added_and_drained_while_streams_run(kind: str, pair: Pair, tmp_path: Path):
    one, other = pair
    with proxied(kind, [one.url], tmp_path) as proxy:
        async with client(proxy) as http, open_stream(http, max_tokens=300) as stream:
            await asyncio.to_thread(proxy.use, [address_of(one.url), address_of(other.url)])
            before = accepted(other)
            async with client(proxy) as fresh:
                for _ in range(6):
                    assert (await fresh.post(CHAT, json=question())).status_code == 200
                assert accepted(other) > before
                made = await other.http.post("/v1/responses", json={"input": "Q", "max_output_tokens": 16})
                for _ in range(3):  # a server that was added is asked for stored responses, too
                    assert (await fresh.get(f"/v1/responses/{made.json()['id']}")).status_code == 200
            await asyncio.to_thread(proxy.use, [address_of(other.url)])
            before, ran = accepted(other), accepted(one)
            async with client(proxy) as fresh:
                for _ in range(6):
                    assert (await fresh.post(CHAT, json=question())).status_code == 200
            assert (accepted(other), accepted(one)) == (before + 6, ran)
            assert await rest(stream) == "whole"


def turns_of(first: list[dict[str, object]]) -> list[dict[str, object]]:
    """Three requests of one conversation, which grows."""
    messages, bodies = list(first), []
    for number in range(3):
        bodies.append({"messages": list(messages), "max_tokens": 2, "unknown": "x" * 50_000 * number})
        messages += [{"role": "assistant", "content": f"{number}"}, {"role": "user", "content": "Go on"}]
    return bodies


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


SYSTEM = {"role": "system", "content": "All conversations begin with this."}
BEGINNINGS = (
    [user("one")],
    [user('with "quotes", and\nlines')],
    [user("最初の言葉 " * 200)],
    [user([{"type": "text", "text": "a part"}])],
    [SYSTEM, user("two")],
    [SYSTEM, user("三")],
    [{"role": "system", "content": "四"}, user("three")],
)


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_server_that_is_stopped_ends_its_streams_first_and_nobody_notices(
    kind: str, pair: Pair, tmp_path: Path
):
    one, _ = pair
    async with serving(tmp_path, fake={"step_seconds": 0.01}) as leaving:
        with proxied(kind, [leaving.url, one.url], tmp_path) as proxy:
            async with client(proxy) as http, AsyncExitStack() as stack:
                streams = [await stack.enter_async_context(open_stream(http, max_tokens=100)) for _ in range(4)]
                assert leaving.engine.counters.running > 0
                ran = accepted(leaving)
                leaving.server.begin_shutdown()
                for _ in range(6):
                    assert (await http.post(CHAT, json=question())).status_code == 200
                assert await asyncio.gather(*map(rest, streams)) == ["whole"] * 4
                await until(lambda: not leaving.server.started or leaving.server.should_exit)
                for _ in range(6):
                    assert (await http.post(CHAT, json=question())).status_code == 200
                assert accepted(leaving) == ran


@pytest.mark.parametrize("kind", PROXIES)
async def test_connections_beyond_a_servers_limit_do_not_reach_it(kind: str, pair: Pair, tmp_path: Path):
    one, _ = pair
    with proxied(kind, [one.url], tmp_path, max_connections=17) as proxy:  # one, and 16 for operators
        assert proxy.settings.server_connections == 1
        async with client(proxy) as http:
            async with open_stream(http, max_tokens=4000):
                before = accepted(one)
                waiting = asyncio.create_task(http.post(CHAT, json=question()))
                if kind == "nginx":
                    refused = await waiting
                    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_server_available")
                    assert refused.headers["retry-after"] == "5"
                else:
                    await asyncio.to_thread(proxy.until_queued)
                assert accepted(one) == before
            if kind == "haproxy":
                assert (await waiting).status_code == 200


async def test_conversations_that_begin_the_same_go_to_the_same_server_within_a_bound(pair: Pair, tmp_path: Path):
    with proxied("haproxy", [server.url for server in pair], tmp_path, affinity="prefix") as proxy:
        async with client(proxy, headers={"Content-Type": "application/json"}) as http:

            async def shares(bodies: Sequence[dict[str, object]], *, ascii: bool = False) -> list[int]:
                before = list(map(accepted, pair))
                for body in bodies:
                    reply = await http.post(CHAT, content=json.dumps(body, ensure_ascii=ascii))
                    assert reply.status_code == 200, reply.text
                return [now - then for now, then in zip(map(accepted, pair), before, strict=True)]

            for first in BEGINNINGS:
                for ascii in (False, True):
                    assert sorted(await shares(turns_of(first), ascii=ascii)) == [0, 3], (first, ascii)
            for system, ascii in ((SYSTEM, False), (SYSTEM, True), ({"role": "system", "content": "四"}, True)):
                users = [user(f"質問 {number}") for number in range(16)]
                different = [{"messages": [system, each], "max_tokens": 1} for each in users]
                assert min(await shares(different, ascii=ascii)) >= 2, (system, ascii)
            before = list(map(accepted, pair))
            async with AsyncExitStack() as stack:
                for _ in range(10):
                    await stack.enter_async_context(open_stream(http, text="the same", max_tokens=4000))
                counts = [now - then for now, then in zip(map(accepted, pair), before, strict=True)]
            assert sum(counts) == 10
            assert max(counts) <= 7  # 125 % of the mean of 5, rounded up, and one that was there first


async def test_a_stored_response_is_found_whichever_server_has_it(proxy: Proxy, pair: Pair):
    stored = []
    for server in pair:
        body = {"input": "Hello", "max_output_tokens": 16}
        stored.append((await server.http.post("/v1/responses", json=body)).json()["id"])
    async with client(proxy) as http:
        for name in stored * 3:
            assert (await http.get(f"/v1/responses/{name}")).json()["id"] == name
            body = {"input": "Go on", "max_output_tokens": 16, "previous_response_id": name}
            assert (await http.post("/v1/responses", json=body)).status_code == 200
        missing = await http.get("/v1/responses/resp_none")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "previous_response_not_found")


@pytest.mark.parametrize("kind", PROXIES)
async def test_without_any_server_clients_are_told_when_to_come_back(kind: str, tmp_path: Path):
    dead = [f"http://{free_address().text}" for _ in range(3)]
    with proxied(kind, dead, tmp_path) as proxy:
        async with client(proxy) as http:
            replies = {path: await http.post(path, json=question()) for path in (CHAT, "/v1/messages", "/api/chat")}
    for reply in replies.values():
        assert reply.status_code == 503
        assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("5", "5000")
        assert reply.headers["content-type"] == "application/json"
    assert replies[CHAT].json()["error"]["code"] == "no_server_available"
    assert replies["/v1/messages"].json()["error"]["type"] == "overloaded_error"
    assert replies["/api/chat"].json() == {"error": replies[CHAT].json()["error"]["message"]}


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_server_that_closes_idle_connections_first_costs_no_request(kind: str, tmp_path: Path):
    async with serving(tmp_path, keep_alive_timeout=0.03) as hasty:
        with proxied(kind, [hasty.url], tmp_path) as proxy:
            async with client(proxy) as http:
                for number in range(40):
                    reply = await http.post(CHAT, json=question(max_tokens=1))
                    assert reply.status_code == 200, (number, reply.text)
                    await asyncio.sleep(0.027 + 0.0002 * (number % 20))


class Nameserver(asyncio.DatagramProtocol):
    """Answers questions for IPv4 addresses with one address. See RFC 1035, section 4."""

    def __init__(self, address: str) -> None:
        self.address = address  # empty: it does not know

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5  # of the question: a name, a type and a class
        is_ipv4 = bool(self.address) and data[end - 4 : end - 2] == b"\0\1"
        answer = b"\xc0\x0c\0\1\0\1" + bytes(4) + b"\0\4" + socket.inet_aton(self.address) if is_ipv4 else b""
        head = data[:2] + b"\x81\x80" + b"\0\1" + bytes([0, is_ipv4]) + bytes(4)
        self._transport.sendto(head + data[12:end] + answer, sender)


async def test_haproxy_follows_the_name_of_a_server_that_is_replaced(tmp_path: Path):
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(lambda: Nameserver(""), ("127.0.0.1", 0))
    asked = Address(*transport.get_extra_info("sockname"))
    port = free_address().port
    backend = f"http://server.test:{port}"
    with closing(transport), proxied("haproxy", [backend], tmp_path, nameserver=asked) as proxy:
        async with client(proxy) as http:
            for names.address in ("127.0.0.1", "127.0.0.2"):
                async with serving(tmp_path, host=names.address, port=port) as server, asyncio.timeout(PATIENCE):
                    while not accepted(server):
                        await http.post(CHAT, json=question(max_tokens=1))
                        await asyncio.sleep(0.05)


async def test_haproxy_has_metrics_of_its_own(pair: Pair, tmp_path: Path):
    one, other = pair
    metrics = free_address()
    with proxied("haproxy", [one.url, other.url], tmp_path, metrics_listen=metrics):
        async with httpx2.AsyncClient(base_url=f"http://{metrics.text}", trust_env=False, timeout=PATIENCE) as http:
            text = (await http.get("/metrics")).text
            assert 'haproxy_server_status{proxy="antiphon",server="s2"' in text
            assert (await http.get("/")).status_code == 404


async def test_nginx_has_figures_of_its_own(pair: Pair, tmp_path: Path):
    metrics = free_address()
    with proxied("nginx", [pair[0].url], tmp_path, metrics_listen=metrics):
        async with httpx2.AsyncClient(base_url=f"http://{metrics.text}", trust_env=False, timeout=PATIENCE) as http:
            assert "Active connections" in (await http.get("/nginx_status")).text
