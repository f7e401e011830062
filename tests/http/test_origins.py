"""Pages of other origins, other names in the Host header: what a browser may do, and what is refused."""

from __future__ import annotations

import pytest
from http_server import serving

from antiphon.api_keys import read_api_keys

CHAT = "/v1/chat/completions"
PAGE = "https://page.example"


def preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }


async def test_no_page_may_ask_unless_its_origin_is_named(tmp_path):
    async with serving(tmp_path) as server:
        reply = await server.http.options(CHAT, headers=preflight(PAGE))
        assert reply.status_code == 405
        assert not [name for name in reply.headers if name.startswith("access-control")]
        reply = await server.http.get("/v1/models", headers={"origin": PAGE})
        assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_a_named_origin_may_ask_with_a_key_and_read_every_answer(tmp_path):
    keys = read_api_keys(["secret"])
    async with serving(tmp_path, allowed_origins=(PAGE, "http://localhost:3000"), api_keys=keys) as server:
        reply = await server.http.options(CHAT, headers=preflight(PAGE))
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "authorization" in reply.headers["access-control-allow-headers"].lower()
        assert reply.headers["vary"].startswith("Origin")
        for key, status in (("secret", 200), ("wrong", 401)):
            reply = await server.http.get("/v1/models", headers={"origin": PAGE, "x-api-key": key})
            assert reply.status_code == status
            assert reply.headers["access-control-allow-origin"] == PAGE
            assert reply.headers["access-control-expose-headers"] == "*"
        other = await server.http.options(CHAT, headers=preflight("https://evil.example"))
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers
        assert (await server.http.options(CHAT)).status_code == 401  # no preflight, so a request like others


async def test_every_origin_may_be_allowed(tmp_path):
    async with serving(tmp_path, allowed_origins=("*",)) as server:
        reply = await server.http.options(CHAT, headers=preflight(PAGE))
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("box.example", 200),
        ("BOX.example:8000", 200),
        ("a.b.lan.example:1", 200),
        ("10.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("lan.example", 400),
        ("evil.example", 400),
        ("evil-lan.example", 400),
        ("box.example.evil.example", 400),
        ("box.example:x", 400),
        ("", 400),
    ],
)
async def test_only_named_hosts_are_answered_but_for_probes(tmp_path, host, status):
    hosts = ("box.example", "*.lan.example", "10.0.0.1", "::1")
    async with serving(tmp_path, allowed_hosts=hosts) as server:
        reply = await server.http.get("/v1/models", headers={"host": host})
        assert reply.status_code == status
        if status == 400:
            assert "Host header" in reply.json()["error"]["message"]
        assert (await server.http.get("/health", headers={"host": host})).status_code == 200
