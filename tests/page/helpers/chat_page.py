"""The page as a person uses it: what is on it, found by role and name, and what a tab complains of.

Every complaint of a tab fails its test: an error or warning on the console, a violation of the policy, an uncaught
error, a dialog, a request to another host. A test may name what it provokes (`expects`).
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

from page_server import PageServer
from playwright.async_api import BrowserContext, ConsoleMessage, Dialog, Error, Locator, Page, Request, expect

PATIENCE = int(os.environ.get("ANTIPHON_PAGE_PATIENCE", 180_000))  # milliseconds; who writes a test may set less
expect.set_options(timeout=PATIENCE)

# Chromium itself writes such a line for every reply of 400 or more, and for every connection that breaks.
FAILED_LOAD = "Failed to load resource"

# Runs before the page's own scripts: the browser says what the policy forbade.
WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


# The conversations that the page's database holds and that were not removed, with the texts of their messages by id.
STORED = """async () => {
  const name = (await indexedDB.databases()).map((each) => each.name).find((each) => each.includes("conversations"));
  const db = await new Promise((done) => { const ask = indexedDB.open(name); ask.onsuccess = () => done(ask.result); });
  const transaction = db.transaction(["heads", "messages"]);
  const all = (store) => new Promise((done) => {
    const ask = transaction.objectStore(store).getAll();
    ask.onsuccess = () => done(ask.result);
  });
  const [heads, messages] = await Promise.all([all("heads"), all("messages")]);
  db.close();
  const texts = Object.fromEntries(messages.map(({ id, text }) => [id, text]));
  const responses = messages.flatMap(({ answer }) => answer?.responseId ?? []);
  const states = messages.map(({ answer }) => answer?.state ?? "");
  return heads
    .filter((head) => head.removedAt === undefined)
    .map((head) => ({ ...head, texts, responses, states }));
}"""


# Remembers what the page announces, in the order in which it does.
LISTEN = """() => {
  window.said = [];
  const regions = new MutationObserver(() => {
    for (const region of document.querySelectorAll("[aria-live], [role=status], [role=alert], [role=log]")) {
      const text = region.textContent;
      if (text && window.said.at(-1) !== text) window.said.push(text);
    }
  });
  regions.observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


class ChatPage:
    """One tab."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._expected: list[str] = []
        self._host = urlsplit(origin).netloc
        page.set_default_timeout(PATIENCE)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("dialog", self._dismiss)
        page.on("request", self._look_at)
        self.composer = page.get_by_role("textbox", name="Your message", exact=True)
        self.send_button = page.get_by_role("button", name="Send", exact=True)
        self.stop_button = page.get_by_role("button", name="Stop", exact=True)
        self.conversations = page.get_by_role("navigation", name="Conversations")
        self.answers = page.locator("article.answer")
        self.questions = page.locator("article.user")
        self.status = page.get_by_role("group", name="State of the server")

    def expects(self, *parts: str) -> None:
        """Complaints with one of these in them are what the test is about."""
        self._expected += parts

    def unexpected(self) -> list[str]:
        """What nobody expected."""
        return [text for text in self.complaints if not any(part in text for part in self._expected)]

    def button(self, name: str | re.Pattern[str]) -> Locator:
        """A button of that name."""
        return self.page.get_by_role("button", name=name, exact=isinstance(name, str))

    def text(self, text: str | re.Pattern[str]) -> Locator:
        """A place that says so."""
        return self.page.get_by_text(text)

    def answer(self, index: int = -1) -> Locator:
        """The text of an answer that is shown, without its thought and buttons."""
        return self.answers.nth(index).locator(".text.prose")

    def thought(self, index: int = -1) -> Locator:
        """The text of an answer's thought, where it is open."""
        return self.answers.nth(index).locator(".thought-text")

    def thought_head(self, index: int = -1) -> Locator:
        """The line that opens and closes a thought."""
        return self.answers.nth(index).locator("button.thought-head")

    def phase(self) -> Locator:
        """The line about an answer that is being made."""
        return self.page.locator(".phase")

    def note(self) -> Locator:
        """What is said below an answer that is not whole."""
        return self.answers.last.get_by_role("note")

    async def new_chat(self) -> None:
        """Leave this conversation for a new one."""
        await self.button("New chat").click()
        await expect(self.answers).to_have_count(0)

    async def edit(self, index: int, text: str) -> None:
        """Change a question and send it again."""
        question = self.questions.nth(index)
        await question.hover()
        await question.get_by_role("button", name="Edit", exact=True).click()
        await question.get_by_role("textbox").fill(text)
        await question.get_by_role("button", name="Send").click()

    async def clipboard(self) -> str:
        """What was copied last; needs the permission to read it."""
        text: str = await self.page.evaluate("navigator.clipboard.readText()")
        return text

    def meter(self) -> Locator:
        """How full the context is."""
        return self.page.locator(".meter").first

    async def set(self, setting: str, value: str) -> None:
        """Give a setting a value."""
        await self.button("Settings").click()
        dialog = self.page.get_by_role("dialog", name="Settings")
        await dialog.get_by_label(setting, exact=True).fill(value)
        await dialog.get_by_role("button", name="Done").click()
        await expect(dialog).to_have_count(0)

    async def open_schema(self) -> None:
        """Open the dialog for structured answers."""
        await self.button("Add files or a form").click()
        await self.button("Structured answer…").click()

    async def try_now(self) -> None:
        """Do not wait for the next try, if the page has not made it already."""
        with suppress(Error):
            await self.phase().get_by_role("button", name="Try now").click(timeout=1000)

    async def ask(self, text: str) -> None:
        """Type a message and send it with Enter."""
        await self.composer.fill(text)
        await self.composer.press("Enter")

    async def until_done(self, count: int = 1) -> None:
        """Wait until that many answers are shown and none is being written."""
        await expect(self.answers).to_have_count(count)
        await expect(self.stop_button).to_have_count(0)

    async def until_writing(self, part: str | re.Pattern[str] = re.compile(r"\S")) -> None:
        """Wait until the last answer is being written and has such a text."""
        await expect(self.answer()).to_contain_text(part)
        await expect(self.stop_button).to_be_visible()

    async def listen(self) -> None:
        """From now on, remember what is announced to readers, in `window.said`."""
        await self.page.evaluate(LISTEN)

    async def heard(self, pattern: str) -> None:
        """Wait until something was announced, even if it is gone again."""
        await self.page.wait_for_function("(pattern) => window.said.some((text) => text.match(pattern))", arg=pattern)

    async def until_stored(self, condition: Callable[[list[dict[str, Any]]], bool], complaint: str) -> None:
        """Wait until the conversations in the browser's database are so: a change is shown before it is stored."""
        deadline = time.monotonic() + PATIENCE / 1000
        while not condition(stored := await self.page.evaluate(STORED)):
            assert time.monotonic() < deadline, f"{complaint}: {stored}"
            await asyncio.sleep(0.01)

    async def until_resumable(self) -> None:
        """Wait until the browser's database has the id of the response that is being written."""
        await self.until_stored(lambda all: any(head["responses"] for head in all), "no response was stored")

    async def reload(self) -> None:
        """Load the page again, once the answers that are shown are stored."""
        shown = await self.count_of("article")
        await self.until_stored(
            lambda all: any(len(head["texts"]) >= shown and "running" not in head["states"] for head in all),
            "the answers were not stored",
        )
        await self.page.reload()

    async def text_of_answer(self, index: int = -1) -> str:
        """All of its text."""
        return await self.answer(index).inner_text()

    async def count_of(self, selector: str) -> int:
        """How many elements fit a selector."""
        return await self.page.locator(selector).count()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    async def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _look_at(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.netloc != self._host:
            self.complaints.append(f"request to another host: {request.url}")


class Visit(Protocol):
    """Opens the page of a server in a tab: of a visitor who has been here before (`context`), or of a new one."""

    async def __call__(
        self, server: PageServer | str, path: str = "/", context: BrowserContext | None = None, **options: Any
    ) -> ChatPage: ...
