"""The page as a person uses it: what is on it, found by role and name, and what a tab complains of.

Every complaint of a tab fails its test: an error or warning on the console, a violation of the policy, an uncaught
error, a dialog, a request to another host. A test may name what it provokes (`expects`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Dialog, Locator, Page, Request, expect

PATIENCE = 30_000  # milliseconds
expect.set_options(timeout=PATIENCE)

# Chromium itself writes such a line for every reply of 400 or more, and for every connection that breaks.
FAILED_LOAD = "Failed to load resource"

# Runs before the page's own scripts: the browser says what the policy forbade.
WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


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
        self.answers = page.get_by_role("article", name="Answer")
        self.questions = page.get_by_role("article", name="You")

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
        return self.answers.nth(index).locator(".prose").last

    async def ask(self, text: str) -> None:
        """Type a message and send it with Enter."""
        await self.composer.fill(text)
        await self.composer.press("Enter")

    async def until_done(self, count: int = 1) -> None:
        """Wait until that many answers are shown and none is being written."""
        await expect(self.answers).to_have_count(count)
        await expect(self.stop_button).to_have_count(0)

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


Check = Callable[[ChatPage], None]
