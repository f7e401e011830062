"""One Chromium for all tests of the page, and a server for each kind that does not get disturbed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from chat_page import WATCH_POLICY, ChatPage, Visit
from page_server import ENDLESS, KEY, Kind, PageServer
from playwright.async_api import Browser, BrowserContext, async_playwright
from programs import chromium


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, without a window."""
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    # A page on a host that is not this machine has no secure context; the name leads here all the same.
    flags.append("--host-resolver-rules=MAP chat.example 127.0.0.1")
    path = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """Opens tabs; afterwards no tab may have complained. A new context is another visitor, with nothing stored."""
    tabs: list[ChatPage] = []
    contexts: list[BrowserContext] = []

    async def open_tab(
        server: PageServer | str, path: str = "/", context: BrowserContext | None = None, **options: Any
    ) -> ChatPage:
        if context is None:
            context = await browser.new_context(**{"locale": "en-GB", "accept_downloads": True} | options)
            await context.add_init_script(WATCH_POLICY)
            contexts.append(context)
        url = server if isinstance(server, str) else server.url
        tab = ChatPage(await context.new_page(), url)
        tabs.append(tab)
        await tab.page.goto(url + path)
        return tab

    yield open_tab
    complaints = [complaint for tab in tabs for complaint in tab.unexpected()]
    for context in contexts:
        await context.close()
    assert not complaints, complaints


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Kind], PageServer]]:
    """Starts servers, one for each kind; equal kinds share one."""
    servers: dict[str, PageServer] = {}

    def started(kind: Kind) -> PageServer:
        if repr(kind) not in servers:
            servers[repr(kind)] = PageServer(tmp_path_factory.mktemp("model"), kind)
        return servers[repr(kind)]

    yield started
    for server in servers.values():
        server.stop()


@pytest.fixture
def start_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Kind], PageServer]]:
    """Starts servers that a test may disturb: they are its own."""
    servers: list[PageServer] = []

    def started(kind: Kind) -> PageServer:
        servers.append(PageServer(tmp_path_factory.mktemp("model"), kind))
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


@pytest.fixture
def echo(start: Callable[[Kind], PageServer]) -> PageServer:
    """A server whose model says what it is told."""
    return start(Kind())


@pytest.fixture
def pausing(start: Callable[[Kind], PageServer]) -> Iterator[PageServer]:
    """A server like `echo`, but it waits for the test wherever it says `PAUSE`."""
    server = start(Kind(pauses=True))
    yield server
    server.continue_engine()  # where a test stopped an answer, or failed


@pytest.fixture
def slow(start: Callable[[Kind], PageServer]) -> PageServer:
    """A server like `echo`, at some sixty tokens a second."""
    return start(Kind(fake={"step_seconds": 0.015}))


@pytest.fixture
def endless(start: Callable[[Kind], PageServer]) -> PageServer:
    """A server whose model never ends by itself."""
    return start(Kind(script="and so on, ", fake=ENDLESS | {"step_seconds": 0.025}))


@pytest.fixture
def locked(start: Callable[[Kind], PageServer]) -> PageServer:
    """A server that asks for a key."""
    return start(Kind(keys=(KEY,)))
