"""With keys, everything but what is listed as open asks for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
from fastapi.routing import iter_route_contexts
from http_server import Served, serving
from pages import PAGE_FILES, SCRIPT, write_page
from patience import PATIENCE

from antiphon.api_keys import read_api_keys
from antiphon.http.edge.authentication import OPEN_PATHS

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, OTHER = "sk-right-and-secret", "sk-also:right"
CHAT = "/v1/chat/completions"
_BODY = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def closed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server with two keys."""
    keys = read_api_keys([f"alice:{KEY},bob:{OTHER}"])
    page = write_page(tmp_path_factory.mktemp("page"))
    async with serving(tmp_path_factory.mktemp("model"), api_keys=keys, page_folder=page) as server:
        yield server


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_every_route_but_the_open_ones_asks_for_a_key(closed: Served):
    routes = list(iter_route_contexts(closed.server.app.routes))
    asked = {route.path for route in routes}
    assert {CHAT, "/metrics", "/openapi.json", "/v1/models/{name:path}", *OPEN_PATHS} <= asked
    for route in routes:
        path = route.path.replace("{name:path}", "tiny").replace("{response_id}", "x")
        path = path.replace("/assets/{name}", SCRIPT)
        assert "{" not in path
        for method in sorted({*(route.methods or ()), "GET", "POST", "OPTIONS", "HEAD"}):
            reply = await closed.http.request(method, path)
            if path in OPEN_PATHS:
                assert reply.status_code in (200, 405)
            elif path in PAGE_FILES and method in ("GET", "HEAD"):
                assert reply.status_code == 200
            else:
                assert reply.status_code == 401, (method, path)
                assert reply.headers["www-authenticate"] == "Bearer"


async def test_public_metrics_are_read_without_a_key_and_nothing_else_is(tmp_path: Path):
    async with serving(tmp_path, api_keys=read_api_keys([f"alice:{KEY}"]), public_metrics=True) as server:
        reply = await server.http.get("/metrics")
        assert reply.status_code == 200
        assert "antiphon_requests_received_total" in reply.text
        for method, path in (
            *((method, "/metrics") for method in ("POST", "PUT", "DELETE", "OPTIONS")),
            *(
                ("GET", path)
                for path in ("/metrics/", "//metrics", "/METRICS", "/metrics/x", "/v1/models", "/v1/status", "/")
            ),
        ):
            reply = await server.http.request(method, path)
            assert reply.status_code == 401, (method, path)


async def test_of_the_page_only_what_is_there_is_open_and_only_to_be_read(closed: Served):
    browser = {"accept": "text/html,*/*;q=0.8"}
    assert (await closed.http.get("/", headers=browser)).text.startswith("<!doctype html>")
    assert (await closed.http.head("/", headers=browser)).status_code == 200
    for method, path, headers in (
        ("POST", "/", browser),
        ("GET", "/", {"accept": "application/json"}),
        ("GET", "/v1/models", browser),
        ("GET", "/v1/status", browser),
        ("GET", "/docs", browser),
        *(("GET", f"/assets{rest}", browser) for rest in ("", "/", "/nothing.js", "/../app", "/%2e%2e/index.html")),
        *(("GET", path, browser) for path in ("/index.html", "/ICON.svg", "/icon.svg/", "/ASSETS/app-1a2b3c4d.js")),
        *((method, SCRIPT, browser) for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH")),
    ):
        reply = await closed.http.request(method, path, headers=headers)
        assert reply.status_code == 401, (method, path, reply.text[:100])


@pytest.mark.parametrize("path", ["/", "/v2", "/health/", "//health", "/HEALTH", "/health%2f..%2fmetrics", "/ready/x"])
async def test_what_does_not_exist_asks_for_a_key_too(closed: Served, path: str):
    assert (await closed.http.get(path)).status_code == 401


async def test_the_refusal_has_openais_shape_and_says_what_to_send(closed: Served):
    for headers, says in (({}, "is required"), (bearer("wrong"), "is not valid")):
        reply = await closed.http.post(CHAT, json=_BODY, headers=headers)
        assert reply.status_code == 401
        error = reply.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == "invalid_api_key"
        assert says in error["message"]
        assert "Authorization: Bearer KEY" in error["message"]
        assert "x-request-id" in reply.headers
    assert reply.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    reply = await closed.http.post("/v1/messages", json=_BODY)
    assert reply.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "headers",
    [
        bearer(KEY),
        bearer(OTHER),
        {"authorization": f"bearer   {KEY}"},
        {"x-api-key": KEY},
        {"authorization": "Basic cHJveHk6cHJveHk=", "x-api-key": KEY},
        {"authorization": "Bearer of-a-proxy", "x-api-key": KEY},
    ],
)
async def test_a_key_opens_in_either_header(closed: Served, headers):
    assert (await closed.http.post(CHAT, json=_BODY, headers=headers)).status_code == 200
    assert (await closed.http.get("/metrics", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY}, {KEY}"},
        {"authorization": "Bearer alice"},
        {"x-api-key": f"alice:{KEY}"},
        {"x-api-key": ""},
        {"api-key": KEY},
        {"cookie": f"key={KEY}"},
    ],
)
async def test_nothing_else_does(closed: Served, headers):
    assert (await closed.http.get("/v1/models", headers=headers)).status_code == 401
    assert (await closed.http.get(f"/v1/models?api_key={KEY}&key={KEY}", headers=headers)).status_code == 401


async def test_openais_client_gets_in_and_knows_a_refusal(closed: Served):
    for key in (KEY, "wrong"):
        async with openai.AsyncOpenAI(
            base_url=f"{closed.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE
        ) as ours:
            if key == KEY:
                assert (await ours.models.list()).data[0].id == "tiny"
            else:
                with pytest.raises(openai.AuthenticationError):
                    await ours.models.list()


async def test_a_body_is_not_waited_for(closed: Served):
    host, port = closed.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(PATIENCE):
        assert b" 401 " in await reader.readline()
    writer.close()


async def test_refusals_are_counted_and_no_key_is_ever_told(closed: Served, caplog):
    caplog.set_level(logging.DEBUG)
    headers = bearer(KEY)
    before = (await closed.http.get("/metrics", headers=headers)).text
    reply = await closed.http.get("/v1/models", headers=bearer("sk-wrong-and-secret"))
    after = (await closed.http.get("/metrics", headers=headers)).text

    def count(text: str) -> float:
        return float(text.partition("\nantiphon_requests_unauthorized_total ")[2].partition("\n")[0])

    assert count(after) == count(before) + 1
    for text in (reply.text, str(reply.headers), caplog.text, after):
        assert "secret" not in text


async def test_without_keys_everyone_may_ask(served: Served):
    for headers in ({}, bearer("anything"), {"x-api-key": "anything"}):
        assert (await served.http.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize("per_key", [False, True], ids=["shared", "per key"])
async def test_prompts_of_other_keys_cannot_be_probed_where_each_has_a_cache_of_its_own(tmp_path, per_key):
    keys = read_api_keys([f"alice:{KEY},bob:{OTHER}"])
    body = {"prompt": "The same long beginning for everybody. " * 8, "max_tokens": 1}

    async def cached(server: Served, key: str, **fields: str) -> bool:
        reply = await server.http.post("/v1/completions", json={**body, **fields}, headers=bearer(key))
        return reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 0

    async with serving(tmp_path, api_keys=keys, prefix_cache_per_key=per_key) as server:
        assert not await cached(server, KEY)
        assert await cached(server, KEY)
        assert await cached(server, OTHER) is not per_key
        assert not await cached(server, OTHER, cache_salt="alice\0")  # nor can a salt imitate a key
        assert not await cached(server, OTHER, cache_salt="secret")
        assert await cached(server, OTHER, cache_salt="secret")
        assert await cached(server, KEY, cache_salt="secret") is not per_key
