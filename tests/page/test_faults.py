"""What goes wrong is said in words, and what was said is kept and goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from chat_page import FAILED_LOAD, Visit
from page_server import ENDLESS, KEY, PAUSE, Kind, PageServer
from playwright.async_api import Route, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

Start = Callable[[Kind], PageServer]
SLOW = {"step_seconds": 0.015}
LONG = " ".join(f"word{number}" for number in range(100)).replace("word30", PAUSE)


async def test_when_the_engine_is_killed_the_text_goes_on_as_it_would_have(start_own: Start, visit: Visit):
    server = start_own(Kind(pauses=True))
    tab = await visit(server)
    await tab.ask(LONG)
    await tab.until_writing("word29")
    server.kill_engine()
    server.go_on()  # the next one comes to the same pause
    await tab.until_done()
    await expect(tab.answer()).to_have_text(LONG)
    await expect(tab.note()).to_have_count(0)
    assert server.metric("engine_restarts_total") == 1


async def test_when_the_server_is_killed_the_partial_answer_is_kept_and_continues(start_own: Start, visit: Visit):
    server = start_own(Kind(script="and so on, ", fake=ENDLESS | SLOW))
    tab = await visit(server)
    tab.expects(FAILED_LOAD)
    await tab.ask("Go on")
    await tab.until_writing("and so on, and so on")
    server.kill()
    await expect(tab.text(re.compile("The connection broke|The server cannot be reached")).first).to_be_visible()
    said = await tab.text_of_answer()
    server.start()
    await tab.page.reload()
    await expect(tab.answer()).to_contain_text(said)
    await tab.button("Continue").click()
    await expect(tab.answer()).to_have_text(re.compile(re.escape(said) + ".{20,}", re.S))
    await tab.stop_button.click()
    await tab.until_done()


async def test_a_server_that_comes_back_is_used_again_without_a_reload(start_own: Start, visit: Visit):
    server = start_own(Kind())
    tab = await visit(server)
    tab.expects(FAILED_LOAD)
    await tab.ask("one")
    await tab.until_done()
    server.kill()
    await tab.ask("two")
    await expect(tab.text("The server cannot be reached").first).to_be_visible()
    server.start()
    await tab.try_now()
    await tab.until_done(2)
    await expect(tab.answer()).to_have_text("two")


async def test_a_key_is_asked_for_and_the_conversation_goes_on(locked: PageServer, visit: Visit):
    tab = await visit(locked)
    tab.expects(FAILED_LOAD)
    prompt = tab.page.get_by_role("dialog", name="This server needs an API key")
    await prompt.get_by_label("API key", exact=True).fill("not-the-key")
    await prompt.get_by_role("button", name="Use this key").click()
    await expect(prompt).to_contain_text("The server does not accept this key.")
    await prompt.get_by_label("API key", exact=True).fill(KEY)
    await prompt.get_by_role("button", name="Use this key").click()
    await expect(prompt).to_have_count(0)
    await tab.ask("hello")
    await tab.until_done()
    await expect(tab.answer()).to_have_text("hello")
    stored = await tab.page.evaluate("JSON.stringify(localStorage)")
    assert KEY not in stored  # kept for the session alone
    await tab.reload()
    await tab.ask("again")
    await tab.until_done(2)


async def test_a_key_that_is_revoked_while_talking_is_asked_for_and_the_answer_comes(locked: PageServer, visit: Visit):
    tab = await visit(locked)
    tab.expects(FAILED_LOAD)
    prompt = tab.page.get_by_role("dialog", name="This server needs an API key")
    await prompt.get_by_role("button", name="Cancel").click()
    await tab.ask("hello")
    await prompt.get_by_label("API key", exact=True).fill(KEY)
    await prompt.get_by_role("button", name="Use this key").click()
    await expect(prompt).to_have_count(0)
    await tab.try_now()
    await tab.until_done()
    await expect(tab.answer()).to_have_text("hello")


async def test_a_full_queue_is_waited_for_with_a_countdown(start: Start, visit: Visit):
    server = start(Kind(script="and so on, ", fake=ENDLESS | SLOW, settings={"max_queued_requests": 1}))
    first, second = await visit(server), await visit(server)
    second.expects(FAILED_LOAD)
    await first.ask("Go on")
    await first.until_writing()
    await second.ask("Me too")
    await expect(second.phase()).to_contain_text(re.compile(r"Trying again in \d+ s"))
    await first.stop_button.click()
    await second.until_writing("and so on")  # by itself
    await second.stop_button.click()
    await second.until_done()
    await server.until_idle()


async def test_a_server_without_room_is_tried_again_after_the_time_that_it_names(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    tab.expects(FAILED_LOAD)
    tried: list[float] = []

    async def refuse_once(route: Route) -> None:
        tried.append(time.monotonic())
        if len(tried) > 1:
            await route.fallback()
            return
        error = {
            "error": {"message": "The server is full.", "type": "server_error", "param": None, "code": "overloaded"}
        }
        await route.fulfill(status=503, json=error, headers={"Retry-After": "2"})

    await tab.page.route(re.compile("/v1/responses$"), refuse_once)
    await tab.listen()
    await tab.ask("hello")
    await tab.heard("The server is full.")
    await tab.until_done()
    await expect(tab.answer()).to_have_text("hello")
    first, second = tried
    assert second - first >= 2


async def test_a_model_that_is_loading_is_waited_for(start_own: Start, visit: Visit):
    server = start_own(Kind(wait=False, fake={"load_seconds": 3}))
    with server.engine_stopped():
        tab = await visit(server)
        tab.expects(FAILED_LOAD)
        await expect(tab.status).to_contain_text("Loading the model")
        await tab.ask("hello")
        await expect(tab.text("The model is loading.").first).to_be_visible()
    await tab.until_done()
    await expect(tab.answer()).to_have_text("hello")


async def test_a_conversation_that_does_not_fit_is_told_so(start: Start, visit: Visit):
    tab = await visit(start(Kind(fake={"context_length": 64})))
    tab.expects(FAILED_LOAD)
    await tab.composer.fill("far too long " * 50)
    await expect(tab.text(re.compile(r"\d+ tokens too many"))).to_be_visible()
    await tab.composer.press("Enter")
    await expect(tab.note()).to_contain_text(re.compile(r"has \d+ tokens, but only 64 fit"))
    await tab.until_done()
    await tab.edit(0, "short")
    await tab.until_done()
    await expect(tab.answer()).to_have_text("short")


async def test_an_answer_that_fills_the_context_is_told_so(start: Start, visit: Visit):
    tab = await visit(start(Kind(script="and so on, ", fake={"context_length": 64})))
    await tab.ask("Go on")
    await tab.until_done()
    await expect(tab.note()).to_contain_text(re.compile("limit|full"))


async def test_an_empty_answer_is_told_so(start: Start, visit: Visit):
    tab = await visit(start(Kind(script="<｜end▁of▁sentence｜>")))
    await tab.ask("Say nothing")
    await expect(tab.note()).to_contain_text("The model ended without an answer.")
    await tab.until_done()


async def test_a_length_limit_is_told_and_the_answer_continues(start: Start, visit: Visit):
    tab = await visit(start(Kind(script="and so on, ")))
    await tab.set("Longest answer", "12")
    await tab.ask("Go on")
    await expect(tab.note()).to_contain_text("The limit of 12 tokens was reached.")
    said = await tab.text_of_answer()
    await tab.button("Continue").click()
    await expect(tab.answer()).to_have_text(re.compile(re.escape(said) + ".{5,}", re.S))
    await tab.until_done()


async def test_an_answer_goes_on_after_a_reload_as_if_nothing_had_been(pausing: PageServer, visit: Visit):
    tab = await visit(pausing)
    await tab.ask(LONG)
    await tab.until_writing("word29")
    await tab.until_resumable()
    await tab.page.reload()
    await tab.until_writing("word29")
    pausing.go_on()
    await tab.until_done()
    await expect(tab.answer()).to_have_text(LONG)
    await expect(tab.note()).to_have_count(0)


async def test_an_answer_is_made_while_no_tab_is_open(pausing: PageServer, visit: Visit):
    tab = await visit(pausing)
    await tab.ask(LONG)
    await tab.until_writing("word29")
    await tab.until_resumable()
    address = tab.page.url
    await tab.page.close()
    pausing.go_on()
    await pausing.until_idle()
    again = await visit(pausing, "/" + address.removeprefix(pausing.url + "/"), context=tab.page.context)
    await expect(again.answer()).to_have_text(LONG)
    await again.until_done()


async def test_a_connection_that_breaks_is_taken_up_again(pausing: PageServer, visit: Visit):
    tab = await visit(pausing)
    tab.expects(FAILED_LOAD, "ERR_INTERNET_DISCONNECTED")
    await tab.ask(LONG)
    await tab.until_writing("word29")
    await tab.page.context.set_offline(True)
    await tab.page.context.set_offline(False)
    pausing.go_on()
    await tab.until_done()
    await expect(tab.answer()).to_have_text(LONG)
