"""The chat page's files: who gets the page, what is compressed and cached, and that nothing else is ever served."""

from __future__ import annotations

import gzip
import logging
import re
from pathlib import Path

import pytest
from http_server import serving
from pages import FONT, ICON, INDEX, LICENSES, PAGE_FILES, SCRIPT, write_page

from antiphon.api_keys import read_api_keys
from antiphon.http.page import read_page

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "accept-encoding": "gzip, br"}


@pytest.fixture
def page(tmp_path) -> Path:
    return write_page(tmp_path / "page")


async def test_a_browser_gets_the_page_and_programs_the_description(tmp_path, page):
    async with serving(tmp_path, page_folder=page) as server:
        for accept in ("text/html", BROWSER["accept"], "TEXT/HTML;level=1"):
            reply = await server.http.get("/", headers={"accept": accept})
            assert reply.text == INDEX
            assert reply.headers["content-type"] == "text/html; charset=utf-8"
            assert reply.headers["cache-control"] == "no-cache"
            assert reply.headers["vary"] == "Accept, Accept-Encoding"
        for accept in ("*/*", "application/json", "text/*", "text/html;q=0", "text/htmlx", ""):
            reply = await server.http.get("/", headers={"accept": accept})
            assert reply.json()["name"] == "antiphon"
            assert reply.headers["vary"] == "Accept"


async def test_without_the_page_there_is_the_description_and_no_file(tmp_path, page):
    async with serving(tmp_path, page_folder=page, page=False) as server:
        reply = await server.http.get("/", headers=BROWSER)
        assert reply.json()["name"] == "antiphon"
        assert "vary" not in reply.headers
        for path in PAGE_FILES:
            assert (await server.http.get(path)).status_code == 404


async def test_a_page_that_is_not_built_is_logged_once(tmp_path, caplog):
    caplog.set_level(logging.INFO, "antiphon.http.app")
    async with serving(tmp_path, page_folder=tmp_path / "nowhere") as server:
        for _ in range(3):
            assert (await server.http.get("/", headers=BROWSER)).json()["name"] == "antiphon"
        assert (await server.http.get(SCRIPT)).status_code == 404
    assert caplog.text.count("the chat page has not been built") == 1


@pytest.mark.parametrize(
    ("path", "media_type", "is_smaller"),
    [
        (SCRIPT, "text/javascript; charset=utf-8", True),
        (FONT, "font/woff2", False),
        (ICON, "image/svg+xml", False),
        (LICENSES, "text/plain; charset=utf-8", True),
    ],
)
async def test_each_file_is_compressed_once_where_that_helps(tmp_path, page, path, media_type, is_smaller):
    body = (page / path[1:]).read_bytes()
    async with serving(tmp_path, page_folder=page) as server:
        for encodings, wanted in (
            ("gzip", True),
            ("br, GZIP;q=0.5", True),
            ("gzip;q=0", False),
            ("gzip; q=0.000", False),
            ("br", False),
            ("identity", False),
            ("", False),
        ):
            is_compressed = wanted and is_smaller
            async with server.http.stream("GET", path, headers={"accept-encoding": encodings}) as reply:
                raw = b"".join([chunk async for chunk in reply.aiter_raw()])
            assert reply.headers["content-type"] == media_type
            assert reply.headers.get("content-encoding") == ("gzip" if is_compressed else None), encodings
            assert reply.headers["content-length"] == str(len(raw))
            assert reply.headers["vary"] == "Accept-Encoding"
            assert (gzip.decompress(raw) if is_compressed else raw) == body
            assert not is_compressed or len(raw) < len(body)
        is_hashed = path.startswith("/assets/")
        expected = "public, max-age=31536000, immutable" if is_hashed else "no-cache"
        assert reply.headers["cache-control"] == expected


async def test_what_a_browser_has_is_not_sent_again(tmp_path, page):
    async with serving(tmp_path, page_folder=page) as server:
        for path in ("/", *PAGE_FILES):
            first = await server.http.get(path, headers=BROWSER)
            etag = first.headers["etag"]
            for sent in (etag, f"W/{etag}", f'"other", {etag}', "*"):
                again = await server.http.get(path, headers=BROWSER | {"if-none-match": sent})
                assert (again.status_code, again.content) == (304, b"")
                for name in ("etag", "cache-control", "vary"):
                    assert again.headers[name] == first.headers[name]
            other = await server.http.get(path, headers=BROWSER | {"if-none-match": '"other"'})
            assert (other.status_code, other.content) == (200, first.content)
        compressed = (await server.http.get(SCRIPT, headers={"accept-encoding": "gzip"})).headers["etag"]
        plain = (await server.http.get(SCRIPT, headers={"accept-encoding": "identity"})).headers["etag"]
        assert compressed != plain


async def test_head_is_get_without_the_body(tmp_path, page):
    async with serving(tmp_path, page_folder=page) as server:
        for path in ("/", *PAGE_FILES):
            whole = await server.http.get(path, headers=BROWSER)
            head = await server.http.head(path, headers=BROWSER)
            assert (head.status_code, head.content) == (200, b"")
            for name in ("content-length", "content-type", "etag", "cache-control"):
                assert head.headers[name] == whole.headers[name]


async def test_only_files_that_were_there_at_start_are_served(tmp_path, page):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (page / "link.txt").symlink_to(secret)
    (page / ".hidden").write_text("secret")
    (page / "assets" / ".hidden.js").write_text("secret")
    async with serving(tmp_path, page_folder=page) as server:
        (page / "assets" / "late.js").write_text("secret")
        for path in (
            *("/link.txt", "/.hidden", "/assets/.hidden.js", "/assets/late.js", "/index.html", "/assets", "/assets/"),
            *("/assets/../../secret.txt", "/assets/..%2f..%2fsecret.txt", "/%2e%2e/secret.txt"),
            *("/assets/%2e%2e/icon.svg", f"{SCRIPT}/", f"{SCRIPT}%00", "/ASSETS/app-1a2b3c4d.js", "/assets\\late.js"),
        ):
            reply = await server.http.get(path, headers=BROWSER)
            assert reply.status_code == 404, path
            assert reply.json()["error"]["code"] == "unknown_url"
        (page / SCRIPT[1:]).unlink()
        assert (await server.http.get(SCRIPT)).status_code == 200
        assert (await server.http.post(SCRIPT)).status_code == 405


def browser_fetch(host: str, **headers: str) -> dict[str, str]:
    """The headers of a request of the page's own, as `fetch` sends it."""
    return {"host": host, "origin": f"https://{host}", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"} | headers


async def test_the_pages_own_requests_pass_on_this_machine_and_behind_a_proxy(tmp_path, page):
    keys = read_api_keys(["secret"])
    hosts = ("chat.example.org",)
    async with serving(tmp_path, page_folder=page, api_keys=keys, allowed_hosts=hosts) as server:
        port = server.url.rpartition(":")[2]
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "chat.example.org"):
            opened = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
            reply = await server.http.get("/", headers=BROWSER | opened | {"host": host})
            assert reply.text == INDEX
            followed = opened | {"sec-fetch-site": "cross-site"}  # a link on another page
            assert (await server.http.get("/", headers=BROWSER | followed | {"host": host})).text == INDEX
            script = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "script"}
            assert (await server.http.get(SCRIPT, headers=script | {"host": host})).status_code == 200
            for headers in (browser_fetch(host, **{"sec-fetch-site": "same-origin"}), browser_fetch(host)):
                body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
                with_key = headers | {"authorization": "Bearer secret"}
                assert (await server.http.get("/v1/status", headers=with_key)).status_code == 200
                reply = await server.http.post("/v1/chat/completions", json=body, headers=with_key)
                assert reply.status_code == 200
        foreign = {"host": "chat.example.org", "sec-fetch-site": "cross-site", "sec-fetch-dest": "script"}
        assert (await server.http.get(SCRIPT, headers=foreign)).status_code == 403
        assert (await server.http.get("/", headers=BROWSER | {"host": "evil.example"})).status_code == 400


@pytest.mark.skipif(read_page() is None, reason="the page has not been built")
async def test_every_address_in_the_built_page_is_relative_and_is_served(tmp_path):
    """So that it works below any path of a proxy."""
    async with serving(tmp_path) as server:
        index = (await server.http.get("/", headers=BROWSER)).text
        addresses = re.findall(r"""(?:src|href)=["']?([^"' >]+)""", index)
        assert addresses
        for address in addresses:
            assert address.startswith("./"), address
            assert (await server.http.get(address[1:])).status_code == 200
        assert (await server.http.get("/LICENSES.txt")).status_code == 200


def test_a_folder_is_read_once(page):
    assert read_page(page) is read_page(page) is not None
    assert read_page(page / "assets") is None
