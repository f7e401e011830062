"""Fingerprints in answers: equal ones mean equal bits, and an answer that changed its arithmetic says so."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from http_server import Served, events, joined, named_events, serving, until

from antiphon.engine.wire import Ready

MESSAGES = [{"role": "user", "content": "Hello"}]
SLOW = {"step_seconds": 0.02, "eos_token_id": -1}
OTHERS = SLOW | {"own_arithmetic": True}
TOKENS = 100  # two seconds
# Each API's path and body, and where its whole answer has our fields.
APIS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": TOKENS}),
    "completions": ("/v1/completions", {"prompt": "a", "max_tokens": TOKENS}),
    "responses": ("/v1/responses", {"input": "Hello", "max_output_tokens": TOKENS}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": TOKENS}),
    "ollama": (
        "/api/chat",
        {"model": "tiny", "messages": MESSAGES, "options": {"num_predict": TOKENS}, "stream": False},
    ),
    "llama.cpp": ("/completion", {"prompt": "a", "n_predict": TOKENS}),
    "simple": ("/generate", {"prompt": "Hello", "max_tokens": TOKENS}),
}


async def post(server: Served, path: str, body: dict[str, Any]) -> Any:
    reply = await server.http.post(path, json={"temperature": 0} | body)
    assert reply.status_code == 200, reply.text
    return reply


async def begun(server: Served, count: int) -> None:
    """Every request has received some tokens."""

    def lengths() -> list[int]:
        return [len(each.output_token_ids) for each in server.engine._accounts.unfinished.values()]

    await until(lambda: len(lengths()) == count and min(lengths()) > 3)


def signal_engines(server: Served, number: int) -> None:
    for engine in server.engine.engines():
        if engine.pid is not None:
            os.kill(engine.pid, number)


def kill_engine_with_work(server: Served) -> None:
    """All its requests move to the others."""
    busiest = max(server.engine.engines(), key=lambda engine: engine.running + engine.waiting)
    assert busiest.pid is not None
    os.kill(busiest.pid, signal.SIGKILL)


def test_a_system_fingerprint_is_of_both_fingerprints_and_none_without_them() -> None:
    def ready(**runner: str) -> Ready:
        return Ready(dict(runner), 8, 16, 256, 128)

    one = ready(fingerprint="a", model_fingerprint="b").system_fingerprint
    assert one.startswith("fp_")
    assert one == ready(fingerprint="a", model_fingerprint="b", threads="3").system_fingerprint
    assert one != ready(fingerprint="c", model_fingerprint="b").system_fingerprint
    assert one != ready(fingerprint="a", model_fingerprint="c").system_fingerprint
    assert ready(fingerprint="a").system_fingerprint == ready().system_fingerprint == ""


async def test_openais_answers_and_all_their_chunks_have_the_fingerprint_of_the_engine(tmp_path) -> None:
    async with serving(tmp_path) as server:
        assert server.engine.info is not None
        expected = server.engine.info.system_fingerprint
        for path, body in (APIS["chat"], APIS["completions"]):
            assert (await post(server, path, body)).json()["system_fingerprint"] == expected
            streamed = events((await post(server, path, body | {"stream": True})).text)
            assert {chunk["system_fingerprint"] for chunk in streamed} == {expected}
            assert not any("inexact_continuation" in chunk for chunk in streamed)
        completion = await server.openai.chat.completions.create(model="tiny", messages=MESSAGES)
        assert completion.system_fingerprint == expected
        metrics = (await server.http.get("/metrics")).text
        assert 'fingerprint="fake",instruction_set="",model_fingerprint="fake"' in metrics


async def test_engines_with_the_same_arithmetic_continue_exactly(tmp_path) -> None:
    async with serving(tmp_path, fake=SLOW, engines=2) as server:
        alone = (await post(server, *APIS["chat"])).json()
        asking = asyncio.create_task(post(server, *APIS["chat"]))
        await begun(server, 1)
        kill_engine_with_work(server)
        assert (await asking).json()["choices"] == alone["choices"]
        assert "inexact_continuation" not in (await asking).json()
        assert (await server.metrics())["antiphon_inexact_continuations_total"] == 0


async def test_a_stream_that_moves_to_other_arithmetic_keeps_what_was_sent_and_says_so(tmp_path, caplog) -> None:
    async with serving(tmp_path, fake=OTHERS, engines=2, share_equal_requests="all") as server:
        assert "engine 2 computes other bits than engine 1" in caplog.text or "engine 1 computes" in caplog.text
        path, body = APIS["chat"]
        alone = (await post(server, path, body)).json()["choices"][0]["message"]["content"]
        asking = [asyncio.create_task(post(server, path, body | {"stream": True})) for _ in range(2)]  # one follows
        await begun(server, 2)
        late = asyncio.create_task(post(server, path, body | {"stream": True, "user": "late"}))
        kill_engine_with_work(server)
        for reply in await asyncio.gather(*asking):
            chunks = events(reply.text)
            assert joined(chunks) == alone
            found = [chunk["system_fingerprint"] for chunk in chunks]
            assert len(set(found)) == 2
            assert found == sorted(found, key=lambda each: each != found[0]), "it changes once"
            assert [chunk.get("inexact_continuation") for chunk in chunks] == [None] * (len(chunks) - 1) + [True]
        assert joined(events((await late).text)) == alone
        assert (await server.metrics())["antiphon_inexact_continuations_total"] >= 2
        await server.check_accounts()


async def test_a_request_that_joins_an_equal_one_after_it_moved_says_so_too(tmp_path) -> None:
    async with serving(tmp_path, fake=OTHERS, engines=2, share_equal_requests="all") as server:
        first = asyncio.create_task(post(server, *APIS["chat"]))
        await begun(server, 1)
        kill_engine_with_work(server)
        (unfinished,) = server.engine._accounts.unfinished.values()
        await until(lambda: unfinished.stream.is_inexact)
        second = await post(server, *APIS["chat"])
        assert server.engine.num_shared == 1
        assert second.json()["inexact_continuation"] is (await first).json()["inexact_continuation"] is True
        assert second.json()["system_fingerprint"] == (await first).json()["system_fingerprint"]
        assert (await server.metrics())["antiphon_inexact_continuations_total"] == 2


async def test_what_has_no_tokens_yet_moves_unnoticed(tmp_path) -> None:
    async with serving(tmp_path, fake=OTHERS, engines=2) as server:
        signal_engines(server, signal.SIGSTOP)
        asking = asyncio.create_task(post(server, APIS["chat"][0], APIS["chat"][1] | {"max_tokens": 2}))
        await until(lambda: any(engine.running + engine.waiting for engine in server.engine.engines()))
        kill_engine_with_work(server)
        await until(lambda: server.engine.restarts == 1)
        signal_engines(server, signal.SIGCONT)
        assert "inexact_continuation" not in (await asking).json()
        assert server.engine.num_inexact == 0


async def test_every_api_says_that_an_answer_was_continued_inexactly(tmp_path) -> None:
    """Whole answers and, where the field has another place there, streams. All are computed by the engine that dies."""
    streams = {name: APIS[name][1] | {"stream": True} for name in ("messages", "responses", "completions")}
    async with serving(tmp_path, fake=OTHERS, engines=2) as server:
        await server.engine.operations.drain_engine(2)
        signal_engines(server, signal.SIGSTOP)  # so that all begin at the same time
        whole = {name: asyncio.create_task(post(server, *api)) for name, api in APIS.items()}
        streamed = {name: asyncio.create_task(post(server, APIS[name][0], body)) for name, body in streams.items()}
        await until(lambda: len(server.engine._accounts.unfinished) == len(APIS) + len(streams))
        signal_engines(server, signal.SIGCONT)
        await begun(server, len(APIS) + len(streams))
        server.engine.operations.resume_engine(2)
        kill_engine_with_work(server)
        for name, task in whole.items():
            assert (await task).json().get("inexact_continuation") is True, name
        assert named_events((await streamed["messages"]).text)[-2][1]["inexact_continuation"] is True
        assert named_events((await streamed["responses"]).text)[-1][1]["response"]["inexact_continuation"] is True
        assert events((await streamed["completions"]).text)[-1]["inexact_continuation"] is True
        assert server.engine.num_inexact == len(APIS) + len(streams)
