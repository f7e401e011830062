"""Pages of other origins, other names in the Host header: what a browser may do, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from http_server import Served, serving

from antiphon.api_keys import read_api_keys

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
PAGE = "https://page.example"
HOST = "localhost:8000"
ANYWHERE = "0.0.0.0"  # noqa: S104  # told to the application; the test itself binds to loopback


def preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }


async def test_no_page_may_ask_unless_its_origin_is_named(tmp_path):
    async with serving(tmp_path) as server:
        for reply in (
            await server.http.options(CHAT, headers=preflight(PAGE)),
            await server.http.get("/v1/models", headers={"origin": PAGE}),
        ):
            assert reply.status_code == 403
            assert reply.json()["error"]["code"] == "cross_site_request"
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def named(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server that answers to some names and a friend's pages."""
    hosts = ("box.example", "*.lan.example", "10.0.0.1", "::1")
    folder = tmp_path_factory.mktemp("model")
    async with serving(folder, allowed_hosts=hosts, allowed_origins=("https://friend.example",)) as server:
        yield server


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
async def test_only_named_hosts_are_answered_but_for_probes(named, host, status):
    reply = await named.http.get("/v1/models", headers={"host": host})
    assert reply.status_code == status
    if status == 400:
        assert "Host header" in reply.json()["error"]["message"]
    assert (await named.http.get("/health", headers={"host": host})).status_code == 200


NAMES = {
    "127.0.0.1": {
        "localhost:8000": 200,
        "LOCALHOST": 200,
        "127.0.0.1:8000": 200,
        "127.8.9.10": 200,
        "[::1]:8000": 200,
        "box.example": 200,
        "localhost.evil.example": 400,
        "127.0.0.1.evil.example": 400,
        "192.168.1.5:8000": 400,
        "": 400,
    },
    "localhost": {"evil.example": 400},
    "::1": {"evil.example:8000": 400},
    ANYWHERE: {"evil.example": 400, "localhost": 400},
}


@pytest.mark.parametrize("bound_to", NAMES)
async def test_a_loopback_server_answers_to_local_names_and_those_named_to_it(tmp_path, bound_to):
    async with serving(tmp_path, host=bound_to, allowed_hosts=("box.example",)) as server:
        for host, status in NAMES[bound_to].items():
            assert (await server.http.get("/v1/models", headers={"host": host})).status_code == status, host


async def test_a_server_that_others_reach_answers_to_any_name_unless_some_are_named(tmp_path):
    async with serving(tmp_path, host=ANYWHERE) as server:
        assert (await server.http.get("/v1/models", headers={"host": "any.example"})).status_code == 200


LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no browser
        ({"origin": f"http://{HOST}"}, 200),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "https://page.example"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "https://front.example"}, 200),  # through a proxy
        ({"sec-fetch-site": "none"}, 200),  # typed by hand
        ({"sec-fetch-site": "same-site", "origin": "http://localhost:3000"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": f"http://{HOST}"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ({"sec-fetch-site": "cross-site", **LINK}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "https://friend.example"}, 200),
    ],
)
async def test_pages_of_other_sites_are_refused_unless_they_are_named(named, headers, status):
    reply = await named.http.get("/v1/models", headers={"host": HOST, **headers})
    assert reply.status_code == status
    form = {"host": HOST, "content-type": "text/plain", **headers}
    reply = await named.http.post("/generate?prompt=x&max_tokens=1", headers=form)
    is_link = "document" in headers.values()
    assert reply.status_code == (403 if is_link else status)
    if reply.status_code == 403:
        assert reply.json()["error"]["code"] == "cross_site_request"
    assert (await named.http.get("/health", headers={"host": HOST, **headers})).status_code == 200
