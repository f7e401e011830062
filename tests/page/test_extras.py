"""Voting, replays, probabilities, structured answers, presets."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx2
import pytest
from chat_page import Visit
from page_server import Kind, PageServer
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

Start = Callable[[Kind], PageServer]


@pytest.fixture
def random(start: Start) -> PageServer:
    """A server whose model writes letters that depend on the seed, and ends only where it must."""
    return start(Kind(script=None))


async def test_a_vote_is_tallied_and_any_answer_is_opened(slow: PageServer, visit: Visit):
    tab = await visit(slow)
    await tab.composer.fill("So it is \\(\\boxed{42}\\), " + "certainly " * 10)
    await tab.button("Ask several times and compare the boxed answers").click()
    form = tab.page.get_by_role("form", name="Ask several times")
    await form.get_by_label("Number of answers").fill("4")
    await form.get_by_role("button", name="Ask 4 times").click()
    tally = tab.page.get_by_role("region", name="Vote of 4")
    await expect(tally).to_contain_text("42")
    await expect(tally).to_contain_text("42 wins with 4 of 4.")
    await expect(tally).to_contain_text("4 of 4 finished")
    await tally.get_by_role("button", name="Answer 3: finished").click()
    await expect(tally.get_by_role("button", name="Answer 3: finished")).to_have_attribute("aria-pressed", "true")
    await expect(tally.get_by_role("button", name="Answer 3: finished")).to_be_focused()
    await tab.answers.first.hover()
    await expect(tab.button("Replay")).to_be_disabled()  # its random numbers depend on its place in the vote
    await tally.get_by_role("button", name="Answer 1: finished").click()
    await expect(tab.button("Replay")).to_be_enabled()
    await tally.get_by_role("button", name="Answer 3: finished").click()
    await expect(tab.answer()).to_contain_text("certainly")
    await tab.page.reload()
    await expect(tally).to_contain_text("42 wins with 4 of 4.")
    await slow.until_idle()


async def test_a_vote_without_boxes_says_so_and_can_be_stopped(endless: PageServer, visit: Visit):
    tab = await visit(endless)
    await tab.composer.fill("Go on")
    await tab.button("Ask several times and compare the boxed answers").click()
    await tab.page.get_by_role("form", name="Ask several times").get_by_role("button", name=re.compile("^Ask ")).click()
    tally = tab.page.get_by_role("region", name="Vote of 5")
    await expect(tally.get_by_role("button", name=re.compile("Answer 5: answering, [0-9]+ tokens"))).to_be_visible()
    await tally.get_by_role("button", name="Stop all").click()
    await endless.until_idle()
    await expect(tally).to_contain_text("No answer has a box, so there is no winner.")


async def test_a_replay_gives_the_same_answer_while_others_are_served(random: PageServer, visit: Visit):
    tab, other = await visit(random), await visit(random)
    for each in (tab, other):
        await each.set("Longest answer", "40")  # all have so many letters, so two seeds never give the same
    await tab.ask("Say something")
    await tab.until_done()
    said = await tab.text_of_answer()
    await other.ask("Say something else")
    await tab.answers.first.hover()
    await tab.button("Replay").click()
    await expect(tab.text(re.compile(r"The same, character by character \([\d,]+\)"))).to_be_visible()
    await tab.until_done()
    await expect(tab.answer()).to_have_text(said)
    await other.until_done()
    await tab.answers.first.get_by_role("button", name="Answer again").click()  # another seed
    await tab.until_done()
    await expect(tab.answer()).not_to_have_text(said)


async def test_an_answer_that_a_busy_server_limited_says_so_and_can_be_replayed(start: Start, visit: Visit):
    rules = "memory>0.1%: max_tokens=12"  # it always is
    busy = start(Kind(script=None, degrade=rules, settings={"degrade_stay": 0.05}))
    body = {"prompt": "Hello", "max_tokens": 13}
    while "x-antiphon-degraded" not in httpx2.post(f"{busy.url}/v1/completions", json=body, trust_env=False).headers:
        pass
    tab = await visit(busy)
    await tab.ask("Say something")
    await tab.until_done()
    note = tab.page.get_by_role("note").filter(
        has_text="The server was busy and limited this answer: at most 12 tokens."
    )
    await expect(note).to_be_visible()
    await tab.answers.first.hover()
    await tab.button("Replay").click()
    await expect(tab.text(re.compile(r"The same, character by character"))).to_be_visible()


async def test_probabilities_are_shown_as_tint_with_the_rivals(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.set("Probabilities", "3")
    await tab.ask("one two three")
    await tab.until_done()
    await tab.answers.first.hover()
    await tab.button("Show probabilities").click()
    tokens = tab.page.locator("[data-token]")
    await expect(tokens.first).to_be_visible()
    assert "".join(await tokens.all_inner_texts()).strip() == "one two three"
    await tokens.first.hover()
    panel = tab.page.get_by_role("tooltip")
    await expect(panel).to_contain_text("60.7 %")  # exp(-0.5), what the fake model says
    await tab.page.mouse.move(0, 0)
    await tokens.first.focus()
    await tab.page.keyboard.press("ArrowRight")
    await expect(tokens.nth(1)).to_be_focused()
    await expect(panel).to_contain_text("%")


async def test_a_form_made_of_a_schema_gives_structured_answers(random: PageServer, visit: Visit):
    tab = await visit(random)
    await tab.open_schema()
    dialog = tab.page.get_by_role("dialog", name="Structured answer")
    await dialog.get_by_text("JSON Schema", exact=True).first.click()
    schema = (
        '{"title": "Yes or no", "type": "object", "properties": {"agreed": {"type": "boolean"}, '
        '"kind": {"enum": ["big", "small"]}}, "required": ["agreed", "kind"], "additionalProperties": false}'
    )
    await dialog.get_by_role("textbox").last.fill(schema)
    await dialog.get_by_role("button", name="Use for the next answers").click()
    await expect(tab.text("Structured: Yes or no")).to_be_visible()
    await tab.ask("Do you agree?")
    form = tab.page.get_by_role("group", name="Structured answer")
    await expect(form).to_contain_text("Agreed")  # the label of "agreed"
    await expect(form).to_contain_text(re.compile("big|small"))
    await tab.until_done()
    await form.get_by_role("button", name="Raw JSON").click()
    await expect(form.locator("pre")).to_contain_text('"agreed"')


async def test_a_schema_that_is_wrong_is_explained(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.open_schema()
    dialog = tab.page.get_by_role("dialog", name="Structured answer")
    await dialog.get_by_text("JSON Schema", exact=True).first.click()
    await dialog.get_by_role("textbox").last.fill('{"type": "object", "properties": {"a": {"type": "int"}}}')
    await expect(dialog).to_contain_text("“int” is not a type. Use “integer”.")
    await expect(dialog.get_by_role("button", name="Use for the next answers")).to_be_disabled()


async def test_settings_are_used_kept_and_saved_as_a_preset(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    bodies: list[dict] = []
    tab.page.on("request", lambda request: bodies.append(request.post_data_json) if request.method == "POST" else None)
    for name, value in (("System prompt", "Be brief."), ("Temperature", "0.3"), ("Top p", "0.8"), ("Seed", "7")):
        await tab.set(name, value)
    await tab.button("Settings").click()
    dialog = tab.page.get_by_role("dialog", name="Settings")
    await dialog.get_by_role("button", name="Save as preset…").click()
    await tab.page.get_by_label("Name of the preset").fill("Brief")
    await tab.page.get_by_role("button", name="Save", exact=True).click()
    await dialog.get_by_label("Preset", exact=True).select_option("Publisher's advice")
    await expect(dialog.get_by_label("Temperature")).to_have_value("")
    await dialog.get_by_label("Preset", exact=True).select_option("Brief")
    await expect(dialog.get_by_label("Temperature")).to_have_value("0.3")
    await dialog.get_by_role("button", name="Done").click()
    await tab.page.reload()
    await tab.ask("hello")
    await tab.until_done()
    asked = [body for body in bodies if body and body.get("stream")][-1]
    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.3, 0.8, 7)
    assert asked["instructions"] == "Be brief."


async def test_a_value_that_is_out_of_range_is_refused_with_a_reason(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.button("Settings").click()
    dialog = tab.page.get_by_role("dialog", name="Settings")
    await dialog.get_by_label("Temperature").fill("3")
    await expect(dialog).to_contain_text("Enter a number from 0 to 2.")
    await dialog.get_by_label("Temperature").fill("warm")
    await expect(dialog).to_contain_text("Enter a number, for example 0.6.")
