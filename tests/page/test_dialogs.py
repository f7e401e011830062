"""What the dialogs keep, refuse and delete."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from chat_page import FAILED_LOAD, ChatPage, Visit
from page_server import KEY, Kind, PageServer
from playwright.async_api import Locator, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

STORED = "JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage)])"
HEADS = """async () => {
  const name = (await indexedDB.databases()).map((each) => each.name).find((each) => each.includes("conversations"));
  const db = await new Promise((done) => { const ask = indexedDB.open(name); ask.onsuccess = () => done(ask.result); });
  const all = (store) => new Promise((done) => {
    const ask = db.transaction(store).objectStore(store).getAll();
    ask.onsuccess = () => done(ask.result);
  });
  const found = [...await all("heads"), ...await all("messages")];
  db.close();
  return found.length;
}"""


async def settings_of(tab: ChatPage) -> Locator:
    """Open the settings."""
    await tab.button("Settings").click()
    return tab.page.get_by_role("dialog", name="Settings")


async def test_everything_is_deleted_after_a_question(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.ask("a secret")
    await tab.until_done()
    await tab.set("System prompt", "another secret")
    dialog = await settings_of(tab)
    await dialog.get_by_role("button", name="Delete everything…").click()
    question = tab.page.get_by_role("dialog", name="Delete everything")
    await question.get_by_role("button", name="Cancel").click()
    await expect(tab.answers).to_have_count(1)
    await dialog.get_by_role("button", name="Delete everything…").click()
    await question.get_by_role("button", name="Delete everything").click()
    await expect(tab.text("Everything was deleted.")).to_be_attached()
    await expect(dialog.get_by_label("System prompt")).to_have_value("")
    await dialog.get_by_role("button", name="Done").click()
    await expect(tab.answers).to_have_count(0)
    await expect(tab.conversations.get_by_role("link")).to_have_count(0)
    await tab.page.reload()
    await expect(tab.composer).to_be_visible()
    await expect(tab.conversations.get_by_role("link")).to_have_count(0)
    assert "secret" not in await tab.page.evaluate(STORED)
    assert await tab.page.evaluate(HEADS) == 0


async def test_a_reset_takes_back_the_settings_and_keeps_presets_and_conversations(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.ask("hello")
    await tab.until_done()
    await tab.set("Temperature", "0.3")
    dialog = await settings_of(tab)
    await dialog.get_by_role("button", name="Save as preset…").click()
    name = tab.page.get_by_label("Name of the preset")
    await expect(name).to_be_focused()
    await tab.page.get_by_role("button", name="Save", exact=True).click()
    await expect(tab.text("Enter a name.")).to_be_visible()
    await name.fill("Calm")
    await name.press("Enter")
    await dialog.get_by_role("button", name="Reset all settings").click()
    await tab.page.get_by_role("button", name="Reset", exact=True).click()
    await expect(dialog.get_by_label("Temperature")).to_have_value("")
    preset = dialog.get_by_label("Preset", exact=True)
    await expect(preset).to_have_value("preset:")  # the publisher's advice
    assert await preset.locator("option").all_inner_texts() == ["Publisher's advice", "Calm"]
    await preset.select_option("Calm")
    await expect(dialog.get_by_label("Temperature")).to_have_value("0.3")
    await dialog.get_by_role("button", name="Rename…").click()
    await name.fill("Cool")
    await name.press("Enter")
    await expect(preset).to_have_value("preset:Cool")
    await dialog.get_by_role("button", name="Delete", exact=True).click()
    confirm = tab.page.get_by_role("dialog", name="Delete", exact=True)
    await confirm.get_by_role("button", name="Delete", exact=True).click()
    assert await preset.locator("option").all_inner_texts() == ["Publisher's advice", "Own values"]
    await dialog.get_by_role("button", name="Done").click()
    await expect(tab.answers).to_have_count(1)


async def test_a_key_is_remembered_where_that_is_wished_and_forgotten_again(locked: PageServer, visit: Visit):
    tab = await visit(locked)
    tab.expects(FAILED_LOAD)
    prompt = tab.page.get_by_role("dialog", name="This server needs an API key")
    field = prompt.get_by_label("API key", exact=True)
    await expect(field).to_be_focused()
    await field.fill("schlüssel")
    await field.press("Enter")
    await expect(prompt).to_contain_text("only letters, digits and signs")
    await field.fill(KEY)
    await prompt.get_by_label("Remember on this device").check()
    await field.press("Enter")
    await expect(prompt).to_have_count(0)
    later = await visit(locked, context=tab.page.context)  # another tab has a session of its own
    await later.ask("hello")
    await later.until_done()
    dialog = await settings_of(later)
    await expect(dialog).to_contain_text("A key is set, and remembered on this device.")
    later.expects(FAILED_LOAD)
    await dialog.get_by_role("button", name="Forget the key").click()
    await expect(dialog).to_contain_text("No key is set.")
    assert KEY not in await later.page.evaluate(STORED)


async def test_fields_become_a_schema_and_a_description(start: Callable[[Kind], PageServer], visit: Visit):
    tab = await visit(start(Kind(script=None, fake={"eos_odds": 60})))
    bodies: list[dict] = []
    tab.page.on("request", lambda request: bodies.append(request.post_data_json) if request.method == "POST" else None)
    await tab.open_schema()
    dialog = tab.page.get_by_role("dialog", name="Structured answer")
    await dialog.get_by_label("Name").fill("agreed")
    await dialog.get_by_label("Kind").select_option("Yes or no")
    await dialog.get_by_role("button", name="Add a field").click()
    second = dialog.get_by_role("group", name="Field 2")
    await second.get_by_label("Name").fill("size")
    await second.get_by_label("Kind").select_option("One of…")
    await expect(dialog).to_contain_text("Enter at least one choice.")
    await second.get_by_label("Choices, separated by commas").fill("big, small")
    await second.get_by_label("Choices, separated by commas").press("Tab")
    await second.get_by_label("Required").uncheck()
    await dialog.get_by_role("button", name="Describe it in the message").click()
    sentence = 'Answer as a JSON object with: agreed (boolean), size ("big" | "small").'
    await expect(tab.composer).to_have_value(sentence)
    await tab.composer.press("Enter")
    await tab.until_done()
    asked = next(body for body in bodies if body and body.get("stream"))
    assert asked["text"]["format"]["schema"] == {
        "type": "object",
        "properties": {"agreed": {"type": "boolean"}, "size": {"enum": ["big", "small"]}},
        "required": ["agreed"],
        "additionalProperties": False,
    }
    form = tab.page.get_by_role("group", name="Structured answer")
    await form.get_by_role("button", name="Raw JSON").click()
    assert set(json.loads(await form.locator("pre").inner_text())) <= {"agreed", "size"}
    await tab.page.get_by_role("button", name="Answer freely again").click()
    await tab.ask("freely")
    await tab.until_done(2)
    assert "text" not in [body for body in bodies if body and body.get("stream")][-1]


async def test_a_vote_has_from_three_to_sixteen_answers(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.composer.fill("hello")
    await tab.button("Ask several times and compare the boxed answers").click()
    form = tab.page.get_by_role("form", name="Ask several times")
    for wrong in ("2", "17", "4.5", ""):
        await form.get_by_label("Number of answers").fill(wrong)
        await expect(form).to_contain_text("A whole number from 3 to 16.")
        await expect(form.get_by_role("button", name="Ask ")).to_be_disabled()
    await form.get_by_role("button", name="16", exact=True).click()
    await expect(form.get_by_role("button", name="Ask 16 times")).to_be_enabled()
    await tab.page.keyboard.press("Escape")
    await expect(form).to_have_count(0)
    await expect(tab.answers).to_have_count(0)
