"""Photographs the chat page with the demo model: python screenshots.py FOLDER (or `make screenshots`)."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from chat_page import ChatPage
from page_server import Kind, PageServer
from playwright.async_api import Browser, async_playwright, expect
from programs import chromium
from real_server import real_server

from antiphon.demo import demo_path

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}

# The demo model does not think, so what it would need a larger model for comes from a model that is told what to say.
THOUGHT = """Let me find the power of 5 in 100!, since there are always enough factors of 2.

Multiples of 5 up to 100: $\\lfloor 100/5 \\rfloor = 20$. Multiples of 25: $\\lfloor 100/25 \\rfloor = 4$, and each of
them has one factor more. $5^3 = 125$ is larger than 100, so that is all: $20 + 4 = 24$.

Let me check it with a smaller case. $10!$ is 3628800, which ends with two zeros, and $\\lfloor 10/5 \\rfloor = 2$.
"""
ANSWER = """A zero at the end of a number is a factor of $10 = 2 \\cdot 5$. In $100!$ there are more factors of 2 than
of 5, so the factors of 5 decide:

$$
\\left\\lfloor \\frac{100}{5} \\right\\rfloor + \\left\\lfloor \\frac{100}{25} \\right\\rfloor = 20 + 4 = 24
$$

| Multiples of | How many | Factors of 5 |
|---|---:|---:|
| 5 | 20 | 20 |
| 25 | 4 | 4 more |

```python
def zeros(n: int) -> int:
    \"\"\"How many zeros n! ends with.\"\"\"
    return sum(n // 5**power for power in range(1, 10))
```

So $100!$ ends with $\\boxed{24}$ zeros.
"""
QUESTION = "How many zeros does 100! end with? Explain each step."


async def main(folder: Path) -> None:
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=flags)
        await with_the_demo_model(browser, folder)
        await with_a_thinking_model(browser, folder)
        await browser.close()
    print(f"screenshots are in {folder}")


async def with_the_demo_model(browser: Browser, folder: Path) -> None:
    """Desktop, dark and phone with the demo model's own words, and the queue in front of it."""
    with real_server(demo_path(), "--max-num-seqs", "1") as server:
        for name, options in (
            ("desktop", DESKTOP),
            ("dark", DESKTOP | {"color_scheme": "dark"}),
            ("phone", PHONE),
        ):
            tab = await opened(browser, server.url, **options)
            await photograph(tab, folder / f"{name}-empty.png")
            await tab.ask("Explain in three short steps how bread rises.")
            await tab.until_done()
            await photograph(tab, folder / f"{name}.png")
            await tab.page.context.close()
        tabs = [await opened(browser, server.url, **DESKTOP) for _ in range(3)]
        for tab in tabs:
            await tab.ask("Write a long story about a lighthouse and the people who live near it.")
        await expect(tabs[-1].phase()).to_contain_text("in line")
        await photograph(tabs[-1], folder / "queue.png")
        for tab in tabs:
            await tab.stop_button.click()
            await tab.page.context.close()


async def with_a_thinking_model(browser: Browser, folder: Path) -> None:
    """A thought while it is made, open and closed, in two languages, and a vote."""
    script = f"{THOUGHT}</think>\n\n{ANSWER}<｜end▁of▁sentence｜>"
    server = PageServer(Path(tempfile.mkdtemp()), Kind(thinks=True, script=script, fake={"step_seconds": 0.02}))
    tab = await opened(browser, server.url, **DESKTOP)
    await tab.ask(QUESTION)
    await expect(tab.thought()).to_contain_text("Multiples of 25")
    await photograph(tab, folder / "thinking.png")
    await tab.until_done()
    await photograph(tab, folder / "answer.png")
    await tab.thought_head().click()
    await tab.page.evaluate("scrollTo(0, 0)")
    await photograph(tab, folder / "thought-open.png")
    await tab.new_chat()
    await tab.composer.fill(QUESTION)
    await tab.button("Ask several times and compare the boxed answers").click()
    await tab.page.get_by_role("form", name="Ask several times").get_by_role("button", name="Ask 5 times").click()
    await expect(tab.page.get_by_role("region", name="Vote of 5")).to_contain_text("5 of 5 finished")
    await tab.page.evaluate("scrollTo(0, 0)")
    await photograph(tab, folder / "vote.png")
    await tab.page.context.close()
    server.stop()


async def opened(browser: Browser, url: str, **options: object) -> ChatPage:
    """The page in a browser of its own, with the server's state on it."""
    context = await browser.new_context(**{"locale": "en-GB"} | options)
    tab = ChatPage(await context.new_page(), url)
    await tab.page.goto(url)
    await expect(tab.composer).to_be_visible()
    return tab


async def photograph(tab: ChatPage, path: Path) -> None:
    """What is in the window, once fonts are there and nothing moves."""
    await tab.page.evaluate("document.fonts.ready.then(() => null)")
    await tab.page.screenshot(path=path, animations="disabled")


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    asyncio.run(main(Path(sys.argv[1])))
