"""For every reader: screen readers, the keyboard alone, a phone, the dark, Chinese, paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from chat_page import ChatPage, Visit
from documents import DOCUMENTS
from page_server import PAUSE, Kind, PageServer
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
ALL = "\n\n".join(DOCUMENTS.values())


async def violations(tab: ChatPage) -> list[Any]:
    """What axe finds: rule, element, why."""
    results = await Axe().run(tab.page)
    return [
        (each["id"], node["html"][:200], node["failureSummary"])
        for each in results.response["violations"]
        for node in each["nodes"]
    ]


@pytest.fixture
def thinker(start: Callable[[Kind], PageServer]) -> Iterator[PageServer]:
    """A server whose model thinks, and waits for the test wherever it says `PAUSE`."""
    server = start(Kind(thinks=True, pauses=True))
    yield server
    server.continue_engine()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(thinker: PageServer, visit: Visit, scheme: str):
    tab = await visit(thinker, color_scheme=scheme, reduced_motion="reduce")
    await expect(tab.status).to_contain_text("Nobody is waiting")
    assert await violations(tab) == []
    await tab.ask(f"Let me see. {PAUSE}</think>\n\n{ALL}")
    await expect(tab.thought()).to_be_visible()
    assert await violations(tab) == []
    thinker.go_on()
    await tab.until_done()
    await tab.thought_head().click()
    assert await violations(tab) == []
    await tab.button("Settings").click()
    await expect(tab.page.get_by_role("dialog", name="Settings")).to_be_visible()
    assert await violations(tab) == []


async def test_a_conversation_needs_no_mouse(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    press, type_ = tab.page.keyboard.press, tab.page.keyboard.type
    await expect(tab.composer).to_be_focused()
    await type_("first")
    await press("Enter")
    await tab.until_done()
    await press("Control+Shift+O")
    await expect(tab.answers).to_have_count(0)
    await expect(tab.composer).to_be_focused()
    await type_("second")
    await press("Enter")
    await tab.until_done()
    await press("Control+k")
    await expect(tab.page.get_by_role("searchbox")).to_be_focused()
    await type_("first")
    await expect(tab.conversations.get_by_role("link")).to_have_count(1)
    await focus_by_tab(tab, tab.conversations.get_by_role("link", name="first"))
    await press("Enter")
    await expect(tab.answer()).to_have_text("first")
    await focus_by_tab(tab, tab.answers.first.get_by_role("button", name="Answer again"))
    await press("Enter")
    await expect(tab.answers.first.get_by_text("2/2")).to_be_visible()
    await tab.until_done()
    await focus_by_tab(tab, tab.questions.first.get_by_role("button", name="Edit"))
    await press("Enter")
    await expect(tab.questions.first.get_by_role("textbox")).to_be_focused()
    await press("Escape")
    await expect(tab.questions.first.get_by_role("textbox")).to_have_count(0)


async def focus_by_tab(tab: ChatPage, wanted: Any) -> None:
    """Press Tab until an element has the focus; each that has it on the way must be visible."""
    for _ in range(120):
        await tab.page.keyboard.press("Tab")
        if await wanted.evaluate("(element) => element === document.activeElement"):
            shown = "(e) => getComputedStyle(e).outlineStyle !== 'none' || getComputedStyle(e).boxShadow !== 'none'"
            assert await wanted.evaluate(shown), "nothing shows where the focus is"
            return
    raise AssertionError(f"Tab does not come to {wanted}")


async def test_escape_stops_the_answer(endless: PageServer, visit: Visit):
    tab = await visit(endless)
    await tab.ask("Go on")
    await tab.until_writing()
    await tab.page.keyboard.press("Escape")
    await endless.until_idle()
    await expect(tab.note()).to_contain_text("You stopped this answer.")


async def test_a_screen_reader_hears_an_answer_once(slow: PageServer, visit: Visit):
    tab = await visit(slow)
    await tab.listen()
    text = " ".join(f"word{number}" for number in range(40))
    await tab.ask(text)
    await tab.until_done()
    await expect(tab.answer()).to_have_text(text)
    said = await tab.page.evaluate("window.said")
    assert [each for each in said if "word" in each] == [f"Answer complete. {text}"]
    assert len(said) < 12


@pytest.mark.parametrize("state", ["empty", "answered", "settings", "menu"])
async def test_a_phone_never_scrolls_sideways(thinker: PageServer, visit: Visit, state: str):
    tab = await visit(thinker, **PHONE)
    await expect(tab.composer).to_be_visible()
    if state == "answered":
        await tab.ask("Let me see.</think>\n\n" + ALL + "\n\n" + "unbroken" * 30 + "\n\n|" + "wide|" * 30)
        await tab.until_done()
        await tab.thought_head().click()
    elif state != "empty":
        await tab.button("Show conversations").click()
    if state == "settings":
        await tab.button("Settings").click()
        await expect(tab.page.get_by_role("dialog", name="Settings")).to_be_visible()
    assert await tab.page.evaluate("document.scrollingElement.scrollWidth") <= 360
    await tab.page.evaluate("scrollTo(200, 0)")
    assert await tab.page.evaluate("scrollX") == 0


async def test_a_phone_shows_the_buttons_that_a_mouse_would_uncover(echo: PageServer, visit: Visit):
    tab = await visit(echo, **PHONE)
    await tab.ask("hello")
    await tab.until_done()
    again = tab.answers.first.get_by_role("button", name="Answer again")
    assert await again.evaluate("(e) => getComputedStyle(e.closest('.quiet') ?? e).opacity") == "1"
    await again.tap()
    await expect(tab.answers.first.get_by_text("2/2")).to_be_visible()
    await tab.until_done()


async def test_the_dark_is_dark_and_the_reader_may_choose(echo: PageServer, visit: Visit):
    tab = await visit(echo, color_scheme="dark")
    brightness = (
        "() => getComputedStyle(document.documentElement).backgroundColor.match(/[\\d.]+/g).slice(0, 3).map(Number)"
    )
    dark = await tab.page.evaluate(brightness)
    await tab.button("Settings").click()
    dialog = tab.page.get_by_role("dialog", name="Settings")
    await dialog.get_by_role("group", name="Colours").get_by_label("Light").check()
    await dialog.get_by_role("button", name="Done").click()
    light = await tab.page.evaluate(brightness)
    assert sum(light) > 2 * sum(dark)
    await tab.page.reload()
    assert await tab.page.evaluate(brightness) == light


async def test_a_chinese_browser_gets_a_chinese_page(echo: PageServer, visit: Visit):
    tab = await visit(echo, locale="zh-CN")
    await expect(tab.page.locator("html")).to_have_attribute("lang", re.compile("^zh"))
    box = tab.page.get_by_role("textbox").last
    await box.fill("你好")
    await box.press("Enter")
    await tab.until_done()
    await expect(tab.answer()).to_have_text("你好")
    shown = await tab.page.locator("body").inner_text()
    words = set(re.findall(r"[A-Za-z]{3,}", shown)) - {"Antiphon", "token", "tokens", "tiny", "Enter", "Shift"}
    assert not words
    assert await violations(tab) == []


async def test_the_language_is_chosen_in_the_settings(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.button("Settings").click()
    dialog = tab.page.get_by_role("dialog")
    await dialog.get_by_role("group", name="Language").get_by_label("中文").check()
    await expect(tab.page.get_by_role("button", name="Send")).to_have_count(0)
    await tab.page.reload()
    await expect(tab.page.get_by_role("button", name="Send")).to_have_count(0)
    await expect(tab.page.locator("html")).to_have_attribute("lang", re.compile("^zh"))


async def test_paper_gets_the_conversation_alone(thinker: PageServer, visit: Visit):
    tab = await visit(thinker)
    await tab.ask("Let me see.</think>\n\nThe answer.")
    await tab.until_done()
    await tab.page.emulate_media(media="print")
    await expect(tab.composer).to_be_hidden()
    await expect(tab.conversations).to_be_hidden()
    await expect(tab.answer()).to_be_visible()
    await expect(tab.questions.first).to_be_visible()
    await expect(tab.answers.first.get_by_role("button", name="Answer again")).to_be_hidden()
