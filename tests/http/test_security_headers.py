"""The headers that keep a browser from running or loading anything: on every response, refusals and errors included."""

from __future__ import annotations

import asyncio

import pytest
from http_server import serving
from pages import SCRIPT, write_page
from patience import PATIENCE

from antiphon.api_keys import read_api_keys
from antiphon.http.edge.security_headers import SECURITY_HEADERS

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data: blob:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}


def test_the_policy_is_the_one_that_was_tried():
    directives = (each.strip().partition(" ") for each in SECURITY_HEADERS["content-security-policy"].split(";"))
    assert {name: value for name, _, value in directives} == POLICY


async def test_every_response_has_them(tmp_path, monkeypatch):
    page = write_page(tmp_path / "page")
    async with serving(tmp_path, page_folder=page, api_keys=read_api_keys(["secret"])) as server:

        def fail(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("antiphon.http.routes.status.status_of", fail)
        key = {"authorization": "Bearer secret"}
        chat = "/v1/chat/completions"
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        replies = [
            await server.http.get("/", headers={"accept": "text/html", "sec-fetch-site": "none"}),
            await server.http.get("/", headers=key),
            await server.http.get(SCRIPT),
            await server.http.get(SCRIPT, headers={"if-none-match": "*"}),
            await server.http.get("/health"),
            await server.http.get("/metrics", headers=key),
            await server.http.get("/nowhere", headers=key),
            await server.http.get("/v1/models"),  # 401
            await server.http.get("/v1/models", headers=key | {"host": "evil.example"}),
            await server.http.get("/v1/models", headers=key | {"sec-fetch-site": "cross-site"}),
            await server.http.get("/v1/status", headers=key),  # 500
            await server.http.post(chat, json={}, headers=key),
            await server.http.post(chat, json=body, headers=key),
            await server.http.post(chat, json=body | {"stream": True}, headers=key),
            await server.http.get("/health", headers={"x-long": "x" * 17_000}),
        ]
        statuses = [200, 200, 200, 304, 200, 200, 404, 401, 400, 403, 500, 400, 200, 200, 431]
        assert [reply.status_code for reply in replies] == statuses
        for reply in replies:
            for name, value in SECURITY_HEADERS.items():
                assert reply.headers.get_list(name) == [value], (reply.url, name)


async def test_a_page_over_plain_http_from_another_machine_lacks_the_header_that_its_browser_calls_an_error(tmp_path):
    """Chromium's console: the header "has been ignored, because the URL's origin was untrustworthy"."""
    async with serving(tmp_path, page_folder=write_page(tmp_path / "page")) as server:
        headers = (await server.http.get("/", headers={"accept": "text/html,*/*;q=0.8"})).headers
        assert SECURITY_HEADERS.keys() - headers.keys() == {"cross-origin-opener-policy"}


async def test_the_description_page_has_a_policy_of_its_own_which_allows_its_style_alone(tmp_path):
    async with serving(tmp_path) as server:
        headers = (await server.http.get("/docs")).headers
        (policy,) = headers.get_list("content-security-policy")
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
        assert "script" not in policy
        for name in SECURITY_HEADERS.keys() - {"content-security-policy"}:
            assert headers[name] == SECURITY_HEADERS[name]


@pytest.mark.parametrize("sent", [b"not HTTP\r\n\r\n", b"GET /health HTTP/1.1\r\nx: " + b"x" * 20_000])
async def test_refusals_before_there_is_a_request_have_them(tmp_path, sent):
    async with serving(tmp_path) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        writer.close()
        assert " 4" in head.partition("\r\n")[0]
        for name, value in SECURITY_HEADERS.items():
            assert f"\r\n{name}: {value.lower()}\r\n" in head


async def test_refusals_of_a_full_server_have_them(tmp_path):
    async with serving(tmp_path, max_connections=1, fake={"step_seconds": 0.05}) as server:
        host, port = server.url.removeprefix("http://").split(":")
        body = b'{"prompt": "x", "max_tokens": 4000, "stream": true}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        busy_reader, busy = await asyncio.open_connection(host, int(port))
        busy.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        async with asyncio.timeout(PATIENCE):
            await busy_reader.readuntil(b"\r\n\r\n")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            refusal = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        for each in (writer, busy):
            each.close()
        assert " 503 " in refusal.partition("\r\n")[0]
        for name, value in SECURITY_HEADERS.items():
            assert f"\r\n{name}: {value.lower()}\r\n" in refusal
