"""The page where it is not at home: behind a proxy, over plain http on another host, on servers that allow less."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from chat_page import FAILED_LOAD, Visit
from page_server import PATIENCE, PAUSE, Kind, PageServer
from playwright.async_api import expect
from reverse_proxies import proxied

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_it_works_below_a_path_of_nginx(pausing: PageServer, visit: Visit, tmp_path: Path):
    text = f"**one** $x^2$ word10 {PAUSE} " + " ".join(f"word{number}" for number in range(11, 60))
    with proxied("nginx", [pausing.url], tmp_path, path="/tools/chat/") as proxy:
        url = proxy.url.removesuffix("/tools/chat")
        tab = await visit(url, "/tools/chat/")
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        await tab.ask(text)
        await tab.until_writing("word10")  # it is not held back until the end
        pausing.go_on()
        await tab.until_done()
        await expect(tab.answer().locator(".katex").first).to_be_visible()
        await tab.reload()
        await expect(tab.answer()).to_contain_text("word59")
        assert asked
        assert not [each for each in asked if not each.startswith(f"{url}/tools/chat/")]


async def test_a_stop_behind_nginx_frees_the_sequence(endless: PageServer, visit: Visit, tmp_path: Path):
    with proxied("nginx", [endless.url], tmp_path, path="/chat/") as proxy:
        tab = await visit(proxy.url.removesuffix("/chat"), "/chat/")
        await tab.ask("Go on")
        await tab.until_writing("and so on")
        await tab.stop_button.click()
        await endless.until_idle()
        await tab.until_done()


async def test_it_works_over_plain_http_on_another_host(start: Callable[[Kind], PageServer], visit: Visit):
    server = start(Kind(settings={"allowed_hosts": ("chat.example",)}))
    url = server.url.replace("127.0.0.1", "chat.example")
    tab = await visit(url)
    assert await tab.page.evaluate("[isSecureContext, navigator.clipboard, crypto.randomUUID]") == [False, None, None]
    await tab.ask("```\ncopy me\n```")
    await tab.until_done()
    await tab.answer().get_by_role("button", name=re.compile("Copy")).click()
    await tab.composer.click()
    await tab.page.keyboard.press("Control+V")
    await expect(tab.composer).to_have_value("copy me")
    await tab.reload()
    await expect(tab.answer()).to_contain_text("copy me")


async def test_without_the_page_there_is_none(start: Callable[[Kind], PageServer]):
    server = start(Kind(settings={"page": False}))
    reply = httpx2.get(server.url, headers={"Accept": "text/html"}, timeout=PATIENCE, trust_env=False)
    assert reply.headers["content-type"] == "application/json"


async def test_it_works_where_the_status_is_closed(start: Callable[[Kind], PageServer], visit: Visit):
    tab = await visit(start(Kind(settings={"status": False})))
    tab.expects(FAILED_LOAD)
    await tab.ask("hello")
    await tab.until_done()
    await expect(tab.answer()).to_have_text("hello")


async def test_it_works_where_nothing_is_stored_at_the_server(start: Callable[[Kind], PageServer], visit: Visit):
    server = start(Kind(pauses=True, settings={"max_stored_responses": 0}))
    tab = await visit(server)
    tab.expects(FAILED_LOAD)
    await tab.ask(f"word1 {PAUSE} word2")
    await tab.until_writing("word1")
    await tab.stop_button.click()
    server.go_on()
    await server.until_idle()
    await tab.until_done()
    await tab.ask("hello")
    await tab.until_done(2)
    await expect(tab.answer()).to_have_text("hello")
