"""The thought: a live window, then one line; why it was closed; and that the reader decides what is open."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from chat_page import Visit
from page_server import ENDLESS, PAUSE, Kind, PageServer
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

PACE = {"step_seconds": 0.01}
STEPS = [f"Step {number} follows from step {number // 2}." for number in range(40)]  # goes in no circles
THOUGHT = " ".join([*STEPS[:10], PAUSE, *STEPS[10:]])


@pytest.fixture
def thinker(start: Callable[[Kind], PageServer]) -> Iterator[PageServer]:
    """A server whose model thinks what it is told up to the closing tag, pausing, and answers the rest."""
    server = start(Kind(thinks=True, pauses=True, fake=PACE))
    yield server
    server.continue_engine()


@pytest.fixture
def brooder(start: Callable[[Kind], PageServer]) -> PageServer:
    """A server whose model never stops thinking by itself, and where nothing else ends it."""
    return start(Kind(thinks=True, script="and so on, ", fake=ENDLESS | PACE, settings={"loop_guard": False}))


async def test_a_thought_is_a_window_while_it_is_made_and_a_line_afterwards(thinker: PageServer, visit: Visit):
    tab = await visit(thinker)
    await tab.ask(THOUGHT + "</think>\n\nThe answer.")
    await expect(tab.thought()).to_contain_text("Step 9 follows")
    await expect(tab.phase()).to_contain_text("Thinking")
    height = (await tab.thought().bounding_box())["height"]
    assert height < 400
    thinker.go_on()
    await tab.until_done()
    await expect(tab.thought()).to_have_count(0)
    await expect(tab.thought_head()).to_have_text(re.compile(r"Thought for .+ · \d+ tokens"))
    await expect(tab.answer()).to_have_text("The answer.")
    await tab.thought_head().click()
    await expect(tab.thought()).to_contain_text("Step 0 follows from step 0. Step 1 follows")


async def test_what_the_reader_opened_stays_open_and_what_they_closed_stays_closed(thinker: PageServer, visit: Visit):
    tab = await visit(thinker)
    text = THOUGHT + "</think>\n\nThe answer."
    await tab.ask(text)
    await tab.button("Show all").press("Enter")  # a click would wait for the window to stand still
    thinker.go_on()
    await tab.until_done()
    await expect(tab.thought()).to_be_visible()  # it was opened while it was made

    await tab.new_chat()
    await tab.ask(text)
    await expect(tab.thought()).to_be_visible()
    await tab.thought_head().press("Enter")
    await expect(tab.thought()).to_have_count(0)
    thinker.go_on()
    await expect(tab.answer()).to_contain_text("The")
    await expect(tab.thought()).to_have_count(0)
    await tab.until_done()
    await expect(tab.thought()).to_have_count(0)


async def test_nothing_jumps_when_the_thought_closes(thinker: PageServer, visit: Visit):
    tab = await visit(thinker)
    await tab.ask(THOUGHT + "</think>\n\n" + "The answer goes on. " * 30)
    await expect(tab.thought()).to_contain_text("Step 9 follows")
    await tab.page.evaluate(
        """() => {
          window.shifts = [];
          new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) window.shifts.push(entry.value);
          }).observe({type: "layout-shift"});
        }"""
    )
    thinker.go_on()
    await tab.until_done()
    await expect(tab.thought_head()).to_contain_text("Thought for")
    shifts = await tab.page.evaluate("window.shifts")
    assert shifts, "the line below the answer moves down with it"
    assert sum(shifts) < 0.1  # of the window's area times the distance: Chromium's own limit for a good page


async def test_answer_now_closes_the_thought_and_the_answer_follows(brooder: PageServer, visit: Visit):
    tab = await visit(brooder)
    await tab.ask("Think")
    await expect(tab.thought()).to_contain_text("and so on")
    await tab.button("Answer now").click()
    await tab.until_writing("so on")
    await expect(tab.thought_head()).to_contain_text("you asked for the answer")
    await expect(tab.answers).to_have_count(1)
    await tab.stop_button.click()
    await tab.until_done()
    await brooder.until_idle()


async def test_a_budget_that_is_spent_is_named(brooder: PageServer, visit: Visit):
    tab = await visit(brooder)
    await tab.button(re.compile("^Thinking: ")).click()
    await tab.page.get_by_role("radio", name="256").check(force=True)
    await tab.page.keyboard.press("Escape")
    await tab.set("Longest answer", "300")
    await tab.ask("Think")
    await tab.until_done()
    await expect(tab.answer()).to_contain_text("so on")
    await expect(tab.thought_head()).to_contain_text("budget spent")
    await tab.reload()
    await expect(tab.thought_head()).to_contain_text("budget spent")


async def test_a_thought_that_goes_in_circles_is_named(start: Callable[[Kind], PageServer], visit: Visit):
    tab = await visit(start(Kind(thinks=True, script="and so on, ")))
    await tab.set("Longest answer", "400")
    await tab.ask("Think")
    await tab.until_done()
    await expect(tab.answer()).to_contain_text("so on")
    await expect(tab.thought_head()).to_contain_text("was going in circles")


async def test_without_thinking_the_answer_begins_at_once(brooder: PageServer, visit: Visit):
    tab = await visit(brooder)
    await tab.button(re.compile("^Thinking: ")).click()
    await tab.page.get_by_role("switch", name="Thinking").uncheck(force=True)
    await tab.page.keyboard.press("Escape")
    await expect(tab.button("Thinking: No thinking")).to_be_visible()
    await tab.ask("Do not think")
    await tab.until_writing("so on")
    await expect(tab.thought_head()).to_have_count(0)
    await tab.stop_button.click()
    await tab.until_done()


async def test_a_thought_that_used_everything_is_explained(brooder: PageServer, visit: Visit):
    tab = await visit(brooder)
    await tab.set("Longest answer", "2")  # there is no room for both
    await tab.ask("Think")
    await expect(tab.note()).to_contain_text("The thought used all 2 tokens, so there is no answer.")
    await tab.until_done()
