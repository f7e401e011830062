"""Asking and answering: what is sent, what is shown, and what can be done with a message afterwards."""

from __future__ import annotations

import re
from typing import Any

import pytest
from chat_page import Visit
from page_server import PAUSE, PageServer
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_question_is_answered_and_markdown_is_shown(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.ask(
        "Some **bold** text\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nx = 1\n```\n\n$x^2$ and \\(\\boxed{7}\\)"
    )
    await tab.until_done()
    answer = tab.answer()
    await expect(answer.locator("strong")).to_have_text("bold")
    await expect(answer.get_by_role("cell", name="2")).to_be_visible()
    await expect(answer.locator("pre code")).to_contain_text("x = 1")
    await expect(answer.locator(".katex")).to_have_count(2)
    await expect(answer.locator("pre code span").first).to_be_attached()  # highlighted


async def test_enter_sends_and_shift_enter_breaks_the_line(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.composer.click()
    await tab.page.keyboard.type("one")
    await tab.page.keyboard.press("Shift+Enter")
    await tab.page.keyboard.type("two")
    await expect(tab.composer).to_have_value("one\ntwo")
    await expect(tab.answers).to_have_count(0)
    await tab.page.keyboard.press("Enter")
    await tab.until_done()
    await expect(tab.composer).to_have_value("")
    await expect(tab.answer()).to_contain_text("two")


async def test_enter_that_ends_a_composition_sends_nothing(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.composer.click()
    device = await tab.page.context.new_cdp_session(tab.page)
    await device.send("Input.imeSetComposition", {"text": "ni hao", "selectionStart": 6, "selectionEnd": 6})
    # What an input method does to the page when its Enter chooses a word: a keydown of 229 while it composes.
    key = {"key": "Process", "code": "Enter", "windowsVirtualKeyCode": 229}
    await device.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})
    for code in (13, 229):
        await tab.composer.evaluate(
            """(field, keyCode) => {
              const how = {key: "Enter", code: "Enter", bubbles: true, cancelable: true};
              field.dispatchEvent(new KeyboardEvent("keydown", {...how, keyCode, isComposing: keyCode === 13}));
            }""",
            code,
        )
    await device.send("Input.insertText", {"text": "你好"})
    await expect(tab.composer).to_have_value("你好")
    await expect(tab.questions).to_have_count(0)
    await tab.page.keyboard.press("Enter")
    await tab.until_done()
    await expect(tab.answer()).to_have_text("你好")


async def test_stop_frees_the_sequence_at_once_and_keeps_what_was_said(endless: PageServer, visit: Visit):
    tab = await visit(endless)
    before = endless.metric("requests_aborted_total")
    await tab.ask("Go on")
    await tab.until_writing("and so on")
    assert endless.metric("requests_running") == 1
    await tab.stop_button.click()
    now = await endless.until_idle()
    assert now["antiphon_requests_aborted_total"] == before + 1
    await expect(tab.note()).to_contain_text("You stopped this answer.")
    said = await tab.text_of_answer()
    assert said.startswith("and so on")
    await tab.reload()
    await expect(tab.answer()).to_contain_text(said)  # what had come before the stop may have been shown after it


async def test_a_stopped_answer_continues_where_it_was(endless: PageServer, visit: Visit):
    tab = await visit(endless)
    await tab.ask("Go on")
    await tab.until_writing("and so on, and so")
    await tab.stop_button.click()
    await tab.until_done()
    said = await tab.text_of_answer()
    await tab.button("Continue").click()
    await expect(tab.answer()).to_have_text(re.compile(re.escape(said) + ".{20,}", re.S))
    await expect(tab.answers).to_have_count(1)
    await tab.stop_button.click()
    await tab.until_done()
    await endless.until_idle()


async def test_another_answer_and_an_edit_are_branches_and_nothing_is_lost(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.ask("first")
    await tab.until_done()
    await tab.ask("second")
    await tab.until_done(2)
    await tab.answers.nth(1).hover()
    await tab.answers.nth(1).get_by_role("button", name="Answer again").click()
    await tab.until_done(2)
    await expect(tab.answers.nth(1).get_by_text("2/2")).to_be_visible()

    await tab.edit(0, "changed")
    await tab.until_done(1)
    await expect(tab.answer(0)).to_have_text("changed")
    await expect(tab.questions).to_have_count(1)  # the second question belongs to the first version
    await tab.until_stored(lambda all: _first_texts(all) == ["changed"], "the edit was not stored")
    await tab.questions.first.get_by_role("button", name="Previous version").click()
    await expect(tab.questions).to_have_count(2)
    await expect(tab.answer(0)).to_have_text("first")
    await expect(tab.answer(1)).to_have_text("second")
    await tab.until_stored(lambda all: _first_texts(all) == ["first"], "the choice was not stored")
    await tab.reload()
    await expect(tab.answer(1)).to_have_text("second")
    await tab.questions.first.get_by_role("button", name="Next version").click()
    await expect(tab.answer(0)).to_have_text("changed")


def _first_texts(stored: list[dict[str, Any]]) -> list[str]:
    """The first message of each conversation, in the version that is chosen."""
    return [head["texts"][head["chosen"][""]] for head in stored]


async def test_a_deleted_message_comes_back(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.ask("first")
    await tab.until_done()
    await tab.ask("second")
    await tab.until_done(2)
    await tab.questions.nth(1).hover()
    await tab.questions.nth(1).get_by_role("button", name="Delete").click()
    await expect(tab.answers).to_have_count(1)
    await tab.button("Undo").click()
    await expect(tab.answers).to_have_count(2)
    await expect(tab.answer(1)).to_have_text("second")


async def test_code_and_answers_are_copied(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await tab.ask("Look:\n\n```python\nx = 1\ny = 2\n```\n\n*end*")
    await tab.until_done()
    await tab.answer().get_by_role("button", name=re.compile("Copy")).click()
    assert await tab.clipboard() == "x = 1\ny = 2"
    await tab.answers.first.hover()
    await tab.answers.first.get_by_role("button", name="Copy", exact=True).last.click()
    assert await tab.clipboard() == "Look:\n\n```python\nx = 1\ny = 2\n```\n\n*end*"


async def test_text_files_are_attached_with_their_count_of_tokens_and_sent(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    file = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"the secret word is melon"}
    await tab.page.locator("input[type=file]").first.set_input_files([file])
    await expect(tab.page.locator(".chip")).to_contain_text(re.compile(r"notes\.txt\s*\d+ tokens"))
    binary = {"name": "photo.png", "mimeType": "image/png", "buffer": b"\x89PNG\x00\xff"}
    await tab.page.locator("input[type=file]").first.set_input_files([binary])
    await expect(tab.text("“photo.png” is not a text file.")).to_be_visible()
    await tab.ask("What is it?")
    await tab.until_done()
    await expect(tab.answer()).to_contain_text("the secret word is melon")
    await expect(tab.questions.first).to_contain_text("notes.txt")


async def test_a_pasted_file_is_attached_and_can_be_taken_away(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.composer.evaluate(
        """(field) => {
          const data = new DataTransfer();
          data.items.add(new File(["a,b\\n1,2"], "table.csv", {type: "text/csv"}));
          field.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
        }"""
    )
    await expect(tab.page.locator(".chip")).to_contain_text("table.csv")
    await tab.button("Remove table.csv").click()
    await expect(tab.page.locator(".chip")).to_have_count(0)


async def test_a_reader_who_scrolls_up_is_left_there(pausing: PageServer, visit: Visit):
    tab = await visit(pausing, viewport={"width": 800, "height": 400})
    pauses = dict.fromkeys((12, 20, 30), PAUSE)
    await tab.ask("\n\n".join(f"Paragraph number {number}.{pauses.get(number, '')}" for number in range(60)))
    await tab.until_writing("number 12.")
    await tab.page.mouse.move(400, 150)
    await tab.page.mouse.wheel(0, -600)
    await tab.page.wait_for_function("() => scrollY + innerHeight < document.documentElement.scrollHeight - 100")
    at = await tab.page.evaluate("scrollY")
    pausing.go_on()
    await expect(tab.answer()).to_contain_text("number 20.")
    assert await tab.page.evaluate("scrollY") == at
    await tab.button("Jump to latest").click()
    pausing.go_on()
    await expect(tab.answer()).to_contain_text("number 30.")
    assert await tab.page.evaluate("document.documentElement.scrollHeight - innerHeight - scrollY") < 60
    await tab.stop_button.click()
    await tab.until_done()


async def test_an_answer_tells_its_timings(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.ask("one two three")
    await tab.until_done()
    await tab.button("Timings of this answer").click()
    table = tab.page.locator(".timings-table")
    for part in ("Waited", "Read the prompt", "Wrote", "Seed"):
        await expect(table).to_contain_text(part)
    await expect(table).not_to_contain_text("thought")  # there was none


async def test_a_menu_is_inside_the_window_of_a_small_phone(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.page.set_viewport_size({"width": 320, "height": 640})
    for count in (1, 2):  # the second answer has found the first prompt in the cache, which is the longest line
        await tab.ask("one two three " * 12)
        await tab.until_done(count)
    await tab.page.locator(".timings > button").last.click()
    box = tab.page.locator(".timings-table:popover-open")
    await expect(box).to_contain_text("known already")
    left, right, width, hidden = await box.evaluate("""box => {
        const { left, right } = box.getBoundingClientRect();
        return [left, right, document.documentElement.clientWidth, box.scrollWidth - box.clientWidth];
    }""")
    assert left >= 0
    assert right <= width
    assert hidden == 0


async def test_the_meter_counts_as_the_server_does(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.composer.fill("one two three")
    await expect(tab.meter()).to_contain_text(re.compile(r"^\d+ of 8,192"))  # before, it says "about"
    shown = int(re.search(r"(\d+) of", await tab.meter().inner_text())[1])
    await tab.ask("one two three")
    await tab.until_done()
    await tab.button("Timings of this answer").click()
    await expect(tab.page.locator(".timings-table")).to_contain_text(f"{shown} tokens")
