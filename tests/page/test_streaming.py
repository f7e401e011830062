"""A streamed answer is what it would be if it were shown at once, and long ones neither freeze nor fill the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from chat_page import ChatPage, Visit
from documents import DOCUMENTS
from page_server import Kind, PageServer
from playwright.async_api import Browser, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

# The answer as a tree: names, attributes that mean something, texts. Texts that touch are one.
TREE = """(root) => {
  const tree = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.data;
    const attributes = [...node.attributes].map(({name, value}) => `${name}=${value}`).sort();
    const children = [];
    for (const child of [...node.childNodes].filter((each) => each.nodeType !== Node.COMMENT_NODE).map(tree)) {
      if (child === "") continue;
      if (typeof child === "string" && typeof children.at(-1) === "string") children.push(children.pop() + child);
      else children.push(child);
    }
    return [node.localName, attributes, children];
  };
  return tree(root);
}"""


async def settled(tab: ChatPage) -> object:
    """The tree of an answer once what is loaded late, highlighting and formulas, is there."""
    last, now = None, await tab.answer().evaluate(TREE)
    while last != now:
        await tab.page.evaluate("() => new Promise((done) => requestIdleCallback(() => setTimeout(done, 100)))")
        last, now = now, await tab.answer().evaluate(TREE)
    return now


def page_tasks(trace: bytes) -> list[float]:
    """Processor seconds of each task of a page's main thread: what other programs take from it does not count."""
    events = json.loads(trace)["traceEvents"]
    pages = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = [event for event in events if event["name"].endswith("RunTask") and (event["pid"], event["tid"]) in pages]
    return [event["tdur"] / 1e6 for event in tasks if "tdur" in event]


@pytest.fixture
def letters(start: Callable[[Kind], PageServer]) -> PageServer:
    """A server that sends a token or two a frame, so that documents are cut nearly everywhere."""
    return start(Kind(fake={"step_seconds": 0.008}))


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_streamed_is_the_same_as_shown_at_once(letters: PageServer, visit: Visit, name: str):
    tab = await visit(letters)
    await tab.ask(DOCUMENTS[name])
    await tab.until_done()
    streamed, text = await settled(tab), await tab.text_of_answer()
    await tab.reload()
    await expect(tab.answer()).to_be_visible()
    assert await settled(tab) == streamed
    assert await tab.text_of_answer() == text


async def test_an_answer_that_was_stopped_anywhere_looks_the_same_after_a_reload(letters: PageServer, visit: Visit):
    tab = await visit(letters)
    for name, text in DOCUMENTS.items():
        await tab.new_chat()
        await tab.ask("\n\n".join([text] * 8))  # so that it has not ended before
        await expect(tab.answer()).to_be_visible()
        with letters.engine_stopped():
            await tab.stop_button.click()
        await tab.until_done()
        streamed = await settled(tab)
        await tab.reload()
        await expect(tab.answer()).to_be_visible()
        assert await settled(tab) == streamed, name


async def test_60_kilobytes_of_thought_neither_freeze_the_page_nor_fill_it(
    start: Callable[[Kind], PageServer], visit: Visit, browser: Browser
):
    paragraph = "So $x_1 + 2$ is **not** enough, and `y` has to be looked at again, as in [1]. " * 6 + "\n\n"
    words = paragraph * (60_000 // len(paragraph)) + "</think>\n\nDone."
    fake = {"context_length": 1 << 17, "block_size": 1024}
    settings = {"loop_guard": False}
    tab = await visit(start(Kind(thinks=True, script=words + "<｜end▁of▁sentence｜>", fake=fake, settings=settings)))
    await browser.start_tracing(page=tab.page, categories=["toplevel"])
    device = await tab.page.context.new_cdp_session(tab.page)
    await device.send("Performance.enable", {"timeDomain": "threadTicks"})
    await tab.ask("Think long")
    await expect(tab.thought()).to_be_visible()
    early = await tab.count_of("*")
    seen: list[tuple[int, float, int]] = []  # tokens so far, processor time of the page in seconds, elements
    while not await tab.answer().is_visible():
        metrics = {each["name"]: each["value"] for each in (await device.send("Performance.getMetrics"))["metrics"]}
        tokens = re.search(r"([\d,]+) tokens", await tab.thought_head().inner_text())
        seen.append(
            (int(tokens[1].replace(",", "")) if tokens else 0, metrics["TaskDuration"], await tab.count_of("*"))
        )
        await tab.page.evaluate("() => new Promise((done) => setTimeout(done, 250))")
    await tab.until_done()
    assert max(elements for _, _, elements in seen) < early + 6000, "the window of a thought grows with it"
    whole = max(tokens for tokens, _, _ in seen)
    half = next(time for tokens, time, _ in seen if tokens >= whole / 2)
    assert seen[-1][1] - half < 2 * half + 1, "what is written late costs more than what is written early"
    tasks = page_tasks(await browser.stop_tracing())
    assert tasks, "the browser told of no task"
    assert max(tasks) < 0.3, sorted(tasks)[-20:]
    await tab.thought_head().click()  # all of it
    await expect(tab.thought()).to_contain_text("looked at again")
    await tab.thought_head().click()
    await expect(tab.thought()).to_have_count(0)
