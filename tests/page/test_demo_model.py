"""The page with a real model: the demo model as `antiphon serve` serves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_page import Visit
from playwright.async_api import expect
from real_server import RealServer, real_server

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def demo(demo_model: Path) -> Iterator[RealServer]:
    """The demo model, served as it comes."""
    with real_server(demo_model) as server:
        yield server


async def test_a_newcomer_is_answered(demo: RealServer, visit: Visit):
    tab = await visit(demo.url)
    await expect(tab.text(demo.model).first).to_be_visible()
    await tab.set("Temperature", "0")
    await tab.set("Longest answer", "24")
    await tab.ask("What is the capital of France?")
    await tab.until_done()
    await expect(tab.answer()).to_contain_text("Paris")


async def test_a_replay_of_a_real_model_gives_the_same_answer(demo: RealServer, visit: Visit):
    tab = await visit(demo.url)
    await tab.set("Longest answer", "40")
    await tab.ask("Tell me about the sea.")
    await tab.until_done()
    said = await tab.text_of_answer()
    await tab.answers.first.hover()
    await tab.button("Replay").click()
    await tab.until_done()
    await expect(tab.text("The same, character by character")).to_be_visible()
    await expect(tab.answer()).to_have_text(said)


async def test_stop_frees_a_real_model(demo: RealServer, visit: Visit):
    tab = await visit(demo.url)
    await tab.ask("Write a very long story about a lighthouse.")
    await tab.until_writing()
    await tab.stop_button.click()
    await tab.until_done()
    demo.wait_idle()
