"""Conversations are kept, found, named, exported, imported and shared; what comes from a file is data."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from chat_page import ChatPage, Visit
from documents import ATTACKS
from page_server import PageServer
from playwright.async_api import Browser, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def talk(tab: ChatPage, *texts: str) -> None:
    """One conversation for each text."""
    for text in texts:
        await tab.new_chat()
        await tab.ask(text)
        await tab.until_done()


async def saved(tab: ChatPage, button: str | re.Pattern[str], folder: Path) -> Path:
    """Press a button of the dialog for files and return what the browser saved."""
    async with tab.page.expect_download() as download:
        await tab.page.get_by_role("dialog").get_by_role("button", name=button).click()
    path = folder / (await download.value).suggested_filename
    await (await download.value).save_as(path)
    return path


async def import_file(tab: ChatPage, name: str, text: str) -> None:
    """Import a file in the dialog that is open."""
    file = {"name": name, "mimeType": "application/json", "buffer": text.encode()}
    await tab.page.get_by_role("dialog").locator("input[type=file]").set_input_files([file])


async def test_titles_are_the_first_words_and_the_model_is_not_asked_for_them(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    before = echo.metric("requests_accepted_total")
    await talk(tab, "What is the capital of France, and why is it not Lyon, which is nicer in every way there is?")
    link = tab.conversations.get_by_role("link")
    await expect(link).to_have_text(re.compile("^What is the capital of France"))
    assert echo.metric("requests_accepted_total") == before + 1


async def test_conversations_are_found_by_title_and_by_text(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await talk(tab, "apples " * 30 + "quince", "pears", "plums")
    search, links = tab.page.get_by_role("searchbox"), tab.conversations.get_by_role("link")
    await expect(links).to_have_count(3)
    for query, count in (("PEARS", 1), ("quince", 1), ("nothing like it", 0)):
        await search.fill(query)
        await expect(links).to_have_count(count)
    await expect(tab.text("Nothing found.")).to_be_visible()


async def test_a_conversation_is_renamed_pinned_and_deleted_with_a_way_back(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await talk(tab, "one", "two")
    links = tab.conversations.get_by_role("link")

    async def choose(title: str, action: str) -> None:
        await tab.conversations.get_by_role("link", name=title, exact=True).hover()
        await tab.button(f"Actions for “{title}”").click()
        await tab.page.locator(":popover-open").get_by_role("button", name=action).click()

    await choose("one", "Rename")
    name = tab.page.get_by_role("textbox", name="Name of the conversation")
    await name.fill("The first")
    await name.press("Enter")
    await choose("The first", "Pin")
    await expect(links.first).to_have_text("The first")
    await tab.until_stored(lambda all: _pins(all) == {"The first": True, "two": False}, "the pin was not stored")
    await tab.page.reload()
    await expect(links.first).to_have_text("The first")
    await choose("two", "Delete")
    await expect(links).to_have_count(1)
    await tab.button("Undo").click()
    await expect(links).to_have_count(2)
    await choose("two", "Delete")
    await tab.page.reload()  # at once: what the database has not done yet is done now
    await expect(links).to_have_count(1)
    await tab.until_stored(lambda all: _pins(all) == {"The first": True}, "the conversation was not removed")
    await tab.page.reload()
    await expect(links).to_have_count(1)


def _pins(stored: list[dict[str, Any]]) -> dict[str, bool]:
    return {head["shownTitle"]: head["pinned"] for head in stored}


async def test_what_is_exported_is_imported_by_another_browser(echo: PageServer, visit: Visit, tmp_path: Path):
    tab = await visit(echo)
    await talk(tab, "one", "two **bold**")
    await tab.button("Export, import, share…").click()
    exported = await saved(tab, "All 2 conversations", tmp_path)
    assert json.loads(exported.read_text("utf-8"))["version"] == 1
    other = await visit(echo)
    await other.button("Export, import, share…").click()
    await import_file(other, exported.name, exported.read_text("utf-8"))
    await expect(other.text("2 conversations added.")).to_be_visible()
    await import_file(other, exported.name, exported.read_text("utf-8"))
    await expect(other.text("2 were there already.")).to_be_visible()
    await other.page.keyboard.press("Escape")
    await expect(other.conversations.get_by_role("link")).to_have_count(2)
    await other.conversations.get_by_role("link", name="two").click()
    await expect(other.answer().locator("strong")).to_have_text("bold")
    await other.ask("three")
    await other.until_done(2)


async def test_a_conversation_is_exported_as_markdown(echo: PageServer, visit: Visit, tmp_path: Path):
    tab = await visit(echo)
    await talk(tab, "two **bold**")
    await tab.button("Export, import, share…").click()
    await tab.page.get_by_role("group", name="Format").get_by_label("Markdown").check()
    text = (await saved(tab, "This conversation", tmp_path)).read_text("utf-8")
    assert text.count("two **bold**") >= 2


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "{}",
        "[]",
        '{"version": 99, "conversations": []}',
        '{"version": 1, "conversations": [{"version": 1, "id": "x", "title": 3}]}',
        '{"version": 1, "conversations": [{"version": 1, "id": "__proto__", "messages": {"__proto__": {"a": 1}}}]}',
        "[" * 100_000,
    ],
)
async def test_a_file_that_is_no_export_is_refused_with_a_reason(echo: PageServer, visit: Visit, text: str):
    tab = await visit(echo)
    await tab.button("Export, import, share…").click()
    await import_file(tab, "odd.json", text)
    await expect(tab.text(re.compile("“odd.json” was not imported. ."))).to_be_visible()
    await tab.page.keyboard.press("Escape")
    await expect(tab.conversations.get_by_role("link")).to_have_count(0)
    assert await tab.page.evaluate("({}).a") is None


async def test_an_imported_file_with_attacks_is_text(echo: PageServer, visit: Visit, tmp_path: Path):
    tab = await visit(echo)
    await talk(tab, "harmless")
    await tab.button("Export, import, share…").click()
    text = (await saved(tab, "This conversation", tmp_path)).read_text("utf-8")
    evil = json.dumps(ATTACKS["image with a handler"] + ATTACKS["javascript link"])[1:-1]
    other = await visit(echo)
    await other.button("Export, import, share…").click()
    await import_file(other, "evil.json", text.replace("harmless", evil))
    await expect(other.text("1 conversation added.")).to_be_visible()
    await other.page.keyboard.press("Escape")
    await other.conversations.get_by_role("link").click()
    await expect(other.answer()).to_contain_text("<img src=x")
    assert await other.page.locator("img, .message a[href^='javascript']").count() == 0
    assert await other.page.evaluate("window.pwned") is None


async def test_a_shared_file_opens_without_scripts_under_a_policy_of_its_own(
    echo: PageServer, visit: Visit, browser: Browser, tmp_path: Path
):
    tab = await visit(echo)
    await talk(
        tab, f"**Bold** and $x^2$\n\n{ATTACKS['script']}\n\n```python\nx = 1\n```\n\n[site](https://example.org)"
    )
    await tab.button("Export, import, share…").click()
    file = await saved(tab, "Save as a web page", tmp_path)
    text = file.read_text("utf-8")
    assert "<script" not in text.lower()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    context = await browser.new_context(java_script_enabled=False)
    complaints: list[str] = []
    page = await context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: complaints.append(request.url) if request.url[:4] == "http" else None)
    await page.goto(file.as_uri())
    await expect(page.locator("strong").last).to_have_text("Bold")
    await expect(page.get_by_text("<script>window.pwned = 1</script>").last).to_be_visible()
    await expect(page.get_by_text("x = 1").last).to_be_visible()
    assert await page.locator("a[href='https://example.org'], a[href='https://example.org/']").count() >= 1
    assert await page.locator("button, input, textarea").count() == 0
    await context.close()
    assert not complaints


async def test_an_answer_is_copied_as_a_command_that_works(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await tab.listen()
    text = 'It\'s a "test" with $HOME, `id`, \\n and 你好'
    await tab.ask(text)
    await tab.until_done()
    for form, check in (("curl command", "curl"), ("Python script", "python")):
        await tab.answers.first.hover()
        await tab.button("Copy as…").click()
        await tab.page.locator(":popover-open").get_by_role("button", name=form).click()
        await tab.heard(f"{form} copied")
        assert text in await run_copied(check, await tab.clipboard())


async def run_copied(kind: str, command: str) -> str:
    """What a copied command prints, with JSON's escapes read."""
    program = ["bash", "-c", command] if kind == "curl" else [sys.executable, "-c", command]
    process = await asyncio.create_subprocess_exec(
        *program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    try:
        return str(json.loads(output)["choices"][0]["message"]["content"])
    except (ValueError, KeyError):
        return output.decode()
