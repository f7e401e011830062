"""Several tabs of one browser share what is stored, and none overwrites or blocks another."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from chat_page import Visit
from page_server import ENDLESS, Kind, PageServer
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_two_tabs_talk_at_once_and_nothing_is_overwritten(slow: PageServer, visit: Visit):
    first = await visit(slow)
    second = await visit(slow, context=first.page.context)
    one, two = (" ".join(f"{word}{number}" for number in range(60)) for word in ("left", "right"))
    await first.ask(one)
    await second.ask(two)
    for tab, text in ((first, one), (second, two)):
        await tab.until_done()
        await expect(tab.answer()).to_have_text(text)
        await expect(tab.conversations.get_by_role("link")).to_have_count(2)
    third = await visit(slow, context=first.page.context)
    for start, text in (("left0", one), ("right0", two)):
        await third.conversations.get_by_role("link", name=re.compile(start)).click()
        await expect(third.answer()).to_have_text(text)


async def test_two_tabs_with_one_conversation_both_keep_what_the_other_said(echo: PageServer, visit: Visit):
    first = await visit(echo)
    await first.ask("together")
    await first.until_done()
    second = await visit(echo, "/" + first.page.url.removeprefix(echo.url + "/"), context=first.page.context)
    await second.until_done()
    await second.ask("from the second")
    await second.until_done(2)
    await expect(first.answers).to_have_count(2)
    await first.ask("from the first")
    await first.until_done(3)
    await expect(second.answers).to_have_count(3)
    await first.reload()
    for index, text in enumerate(("together", "from the second", "from the first")):
        await expect(first.answer(index)).to_have_text(text)


async def test_a_deleted_conversation_is_gone_in_other_tabs_too(echo: PageServer, visit: Visit):
    first = await visit(echo)
    await first.ask("short lived")
    await first.until_done()
    second = await visit(echo, context=first.page.context)
    await expect(second.conversations.get_by_role("link")).to_have_count(1)
    await second.conversations.get_by_role("link").hover()
    await second.conversations.get_by_role("button", name=re.compile("Actions for")).click()
    await second.page.locator(":popover-open").get_by_role("button", name="Delete").click()
    await expect(first.conversations.get_by_role("link")).to_have_count(0)


async def test_seven_tabs_stream_at_once(start: Callable[[Kind], PageServer], visit: Visit):
    server = start(Kind(script="and so on, ", fake=ENDLESS | {"step_seconds": 0.2}))  # little to draw
    tabs = [await visit(server)]
    for _ in range(6):
        tabs.append(await visit(server, context=tabs[0].page.context))
    for tab in tabs:
        await tab.ask("Go on")
    for tab in tabs:  # browsers open six connections to a host
        await tab.until_writing("and so on, and so")
    await server.until(lambda now: now.get("antiphon_requests_running") == 7, "seven are not answered at once")
    for tab in tabs:
        await tab.stop_button.click()
        await tab.until_done()
    await server.until_idle()


async def test_a_hidden_tab_does_not_ask_for_the_status(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await expect(tab.status).to_contain_text("Nobody is waiting")
    await tab.page.evaluate(
        """() => {
          Object.defineProperty(document, "visibilityState", {get: () => "hidden"});
          Object.defineProperty(document, "hidden", {get: () => true});
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    asked: list[str] = []
    await tab.page.clock.install()
    tab.page.on("request", lambda request: asked.append(request.url))
    await tab.page.clock.run_for(60_000)
    assert not [url for url in asked if url.endswith("/v1/status")]
