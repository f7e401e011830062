"""Two servers that know each other: a stored response is found by whichever server is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from http_server import Served, named_events, serving, until
from reverse_proxies import free_address
from running_server import MODEL
from scrapes import check_accounts, samples
from starlette.types import Receive, Scope, Send

from antiphon import peers as ledger
from antiphon.api_keys import read_admin_keys, read_api_keys
from antiphon.http import peers
from antiphon.http.edge.authentication import PEER_KEY_HEADER, Authentication, is_from_peer
from antiphon.metrics import Metrics

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "sk-a-key-for-operators"
KEYS = "mine: k1\nyours: k2\nlimited: k3 requests-per-minute=2\n"
RESPONSES = "/v1/responses"
MINE = {"x-api-key": "k1"}


@asynccontextmanager
async def two_servers(folder: Path) -> AsyncIterator[list[Served]]:
    """Two servers that take 10 ms for a token, and have heard of each other."""
    (folder / "keys").write_text(KEYS)
    settings: dict[str, Any] = {
        "api_keys": read_api_keys([], str(folder / "keys")),
        "admin_keys": read_admin_keys([ADMIN]),
        "peer_key": ADMIN,
        "fairness": "address",
        "allowed_hosts": ("chat.example.org",),  # and 127.0.0.1, as the servers are there
        "fake": {"step_seconds": 0.01, "eos_token_id": -1},
    }
    addresses = [free_address(), free_address()]
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                serving(folder, port=mine.port, peers=(f"http://{other.text}",), **settings)
            )
            for mine, other in (addresses, reversed(addresses))
        ]
        await until(lambda: all(all(server.server.peers.reached.values()) for server in servers))
        yield servers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Served]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "INTERVAL", 0.05)
        async with two_servers(tmp_path_factory.mktemp("model")) as both:
            yield both


async def create(server: Served, text: str = "Hello", **fields: Any) -> Any:
    body = {"input": text, "max_output_tokens": 16, **fields}
    reply = await server.http.post(RESPONSES, json=body, headers=MINE)
    assert reply.status_code == 200, reply.text
    return reply.json()


def accepted(servers: list[Served]) -> list[int]:
    return [server.engine.counters.accepted for server in servers]


async def test_a_response_is_read_and_deleted_at_either_server(servers: list[Served]):
    one, other = servers
    made = await create(one)
    for path in ("", "/input_items", "?stream=true", "?stream=true&starting_after=2"):
        own, passed = [
            await server.http.get(f"{RESPONSES}/{made['id']}{path}", headers=MINE) for server in (one, other)
        ]
        assert (own.status_code, passed.status_code) == (200, 200)
        assert passed.content == own.content
        assert passed.headers["content-type"] == own.headers["content-type"]
    deleted = await other.http.delete(f"{RESPONSES}/{made['id']}", headers=MINE)
    assert deleted.json()["deleted"] is True
    for server in servers:
        gone = await server.http.get(f"{RESPONSES}/{made['id']}", headers=MINE)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "previous_response_not_found")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_continues_where_it_is_stored_and_as_if_it_was_asked_there(
    servers: list[Served], stream: bool
):
    one, other = servers
    first = await create(one)
    body = {"previous_response_id": first["id"], "input": "Go on", "max_output_tokens": 16, "temperature": 0}
    before = accepted(servers)
    asked = body | {"stream": stream}
    replies = [await server.http.post(RESPONSES, json=asked, headers=MINE) for server in (one, other)]
    assert [now - then for now, then in zip(accepted(servers), before, strict=True)] == [2, 0]
    if stream:
        texts = ["".join(event.get("delta", "") for _, event in named_events(reply.text)) for reply in replies]
    else:
        texts = [reply.json()["output"][0]["content"][0]["text"] for reply in replies]
    assert texts[0] == texts[1]
    assert texts[0]
    counted = await other.http.post(f"{RESPONSES}/input_tokens", json=body, headers=MINE)
    own = await one.http.post(f"{RESPONSES}/input_tokens", json=body, headers=MINE)
    assert counted.json() == own.json()


async def test_a_background_response_is_followed_and_cancelled_from_the_other_server(servers: list[Served]):
    one, other = servers
    made = await create(one, background=True, stream=False, max_output_tokens=3000)
    seen = b""
    async with other.http.stream("GET", f"{RESPONSES}/{made['id']}?stream=true", headers=MINE) as reply:
        assert reply.status_code == 200
        async for chunk in reply.aiter_raw():
            if not seen:  # it arrives while the response is generated
                running = await other.http.get(f"{RESPONSES}/{made['id']}", headers=MINE)
                assert running.json()["status"] in ("queued", "in_progress")
                cancelled = await other.http.post(f"{RESPONSES}/{made['id']}/cancel", headers=MINE)
                assert cancelled.json()["status"] == "cancelled"
            seen += chunk
    names = [name for name, _ in named_events(seen.decode())]
    assert names[0] == "response.created"
    assert names[-1] == "response.incomplete"


async def test_a_response_belongs_to_its_key_at_either_server_and_other_ids_are_not_found(servers: list[Served]):
    made = await create(servers[0])
    for server in servers:
        for id, key in ((made["id"], "k2"), ("resp_none", "k1"), (f"resp_{'0' * 48}", "k1")):
            reply = await server.http.get(f"{RESPONSES}/{id}", headers={"x-api-key": key})
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "previous_response_not_found")
            body = {"input": "Go on", "previous_response_id": id}
            assert (await server.http.post(RESPONSES, json=body, headers={"x-api-key": key})).status_code == 404
        assert (await server.http.get(f"{RESPONSES}/{made['id']}", headers={"x-api-key": "k9"})).status_code == 401


async def test_a_request_that_is_passed_on_counts_once_and_only_a_peer_is_believed(servers: list[Served]):
    one, other = servers
    limited = {"x-api-key": "k3"}
    body = {"input": "Hello", "max_output_tokens": 16}
    first = (await one.http.post(RESPONSES, json=body, headers=limited)).json()["id"]

    def left(server: Served) -> int:
        return int(dict(server.server.app.state.context.rates.headers("limited"))[b"x-ratelimit-remaining-requests"])

    await until(lambda: left(other) == 1)
    more = await other.http.post(RESPONSES, json={**body, "previous_response_id": first}, headers=limited)
    assert more.status_code == 200
    assert more.headers.get_list("x-ratelimit-remaining-requests") == ["0"]
    assert left(one) in (0, 1)  # two requests of two, or the other server's report has not come yet
    forged = {**limited, "x-antiphon-peer-key": "k3", "x-forwarded-for": "6.6.6.6"}
    assert (await other.http.post(RESPONSES, json=body, headers=forged)).status_code == 429


async def test_a_request_that_is_passed_on_keeps_its_id_and_the_name_of_the_host_it_was_sent_to(servers: list[Served]):
    one, other = servers
    made = await create(one)
    body = {"input": "Go on", "previous_response_id": made["id"], "max_output_tokens": 16}
    headers = {**MINE, "host": "chat.example.org", "x-request-id": "its-own"}
    reply = await other.http.post(RESPONSES, json=body, headers=headers)
    assert (reply.status_code, reply.headers["x-request-id"]) == (200, "its-own")
    assert (await other.http.post(RESPONSES, json=body, headers=headers | {"host": "evil.example"})).status_code == 400


async def test_only_an_admin_key_makes_a_peer_whose_word_about_the_client_is_taken():
    seen: list[tuple[str, bool]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["client"][0], is_from_peer(scope)))

    async def nothing(*_: object) -> None:
        pass

    edge = Authentication(app, (), Metrics("0", MODEL, tuple), lambda _: False, read_admin_keys([ADMIN]))
    for key in (ADMIN, "k1", "", f"{ADMIN} "):
        headers = [(PEER_KEY_HEADER, key.encode()), (b"x-forwarded-for", b"192.0.2.7")]
        scope = {"type": "http", "method": "POST", "path": RESPONSES, "client": ("10.0.0.6", 5), "headers": headers}
        await edge(scope, nothing, nothing)
    assert seen == [("192.0.2.7", True)] + [("10.0.0.6", False)] * 3


async def test_a_client_that_leaves_ends_the_work_at_the_server_that_it_was_passed_on_to(servers: list[Served]):
    one, other = servers
    made = await create(one)
    before = one.engine.counters.aborted
    body = {"input": "Go on", "previous_response_id": made["id"], "max_output_tokens": 3000}
    for stream in (True, False):
        task = asyncio.create_task(other.http.post(RESPONSES, json={**body, "stream": stream}, headers=MINE))
        await until(lambda: one.engine.counters.running == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: one.engine.counters.running == 0)
    assert one.engine.counters.aborted == before + 2


async def test_a_body_that_is_refused_is_counted_as_ever(servers: list[Served]):
    _, other = servers

    async def counted() -> list[float]:
        scrape = samples((await other.http.get("/metrics", headers=MINE)).text)
        check_accounts(scrape)
        return [scrape[f'antiphon_requests_{what}_total{{endpoint="responses"}}'] for what in ("received", "accepted")]

    received, accepted = await counted()
    for content in (b"{", json.dumps({"previous_response_id": 7, "input": "x"}).encode(), b'{"input": 7}'):
        headers = {**MINE, "content-type": "application/json"}
        reply = await other.http.post(RESPONSES, content=content, headers=headers)
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert await counted() == [received + 3, accepted]


async def test_a_server_that_ends_leaves_an_error_behind_and_is_lost_after_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(peers, "INTERVAL", 0.05)
    async with two_servers(tmp_path) as (one, other):
        made = await create(one)
        body = {"input": "Go on", "previous_response_id": made["id"], "max_output_tokens": 3000, "stream": True}
        seen = b""
        async with other.http.stream("POST", RESPONSES, json=body, headers=MINE) as reply:
            async for chunk in reply.aiter_raw():
                if not seen:
                    for connection in list(one.server.server_state.connections):
                        connection.transport.abort()
                seen += chunk
        last = json.loads(seen.decode().strip().rpartition("data: ")[2])
        assert last["error"]["code"] == "response_unavailable"
        for listener in one.server.servers:
            listener.close()
        for ask in (
            lambda: other.http.get(f"{RESPONSES}/{made['id']}", headers=MINE),
            lambda: other.http.post(RESPONSES, json=body, headers=MINE),
        ):
            refused: httpx2.Response = await ask()
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "response_unavailable")
            assert int(refused.headers["retry-after"]) >= 1
        monkeypatch.setattr(ledger, "GONE_SECONDS", -1.0)
        lost = await other.http.get(f"{RESPONSES}/{made['id']}", headers=MINE)
        assert lost.status_code == 404
