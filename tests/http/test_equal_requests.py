"""Equal requests at the same time: computed once, and each of them as if it were alone."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from http_server import Served, events, joined, serving, until

from antiphon.api_keys import ApiKey, read_api_keys

FAKE = {"step_seconds": 0.02, "eos_token_id": -1}
ASKED = {"temperature": 0, "max_tokens": 60}


def keys(tmp_path) -> tuple[ApiKey, ...]:
    path = tmp_path / "keys"
    path.write_text("ann: k1\nbob: k2\n")
    return read_api_keys([], str(path))


async def ask(server: Served, key: str = "", **fields: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"messages": [{"role": "user", "content": "Hello"}], **ASKED, **fields}
    return await server.http.post("/v1/chat/completions", json=body, headers=headers)


def received(server: Served) -> list[list[int]]:
    """The tokens that each unfinished request has got."""
    return [each.output_token_ids for each in server.engine._accounts.unfinished.values()]


async def test_thirty_equal_requests_are_one_computation_and_thirty_answers(tmp_path):
    async with serving(tmp_path, fake=FAKE, share_equal_requests="key") as server:
        alone = (await ask(server)).json()
        computed = (await server.metrics())["antiphon_computed_tokens_total"]
        replies = [reply.json() for reply in await asyncio.gather(*(ask(server) for _ in range(30)))]
        assert [reply["choices"] for reply in replies] == [alone["choices"]] * 30
        assert all(reply["usage"]["completion_tokens"] == ASKED["max_tokens"] for reply in replies)
        metrics = await server.metrics()
        assert metrics["antiphon_requests_shared_total"] == 29
        assert metrics["antiphon_computed_tokens_total"] - computed < 2 * computed
        assert metrics["antiphon_generated_tokens_total"] == 31 * ASKED["max_tokens"]
        await server.check_accounts()


async def test_one_that_comes_late_gets_the_whole_answer_and_one_that_leaves_takes_nothing_along(tmp_path):
    """Also the one that is computed may leave."""
    async with serving(tmp_path, fake=FAKE, share_equal_requests="key") as server:
        expected = (await ask(server)).json()["choices"][0]["message"]["content"]
        first = asyncio.create_task(ask(server, stream=True))
        await until(lambda: any(len(tokens) > 10 for tokens in received(server)))
        late = asyncio.create_task(ask(server, stream=True))
        later = asyncio.create_task(ask(server))
        await until(lambda: server.engine.num_shared == 2)
        first.cancel()
        await until(lambda: server.engine.counters.aborted == 1)
        assert joined(events((await late).text)) == expected
        assert (await later).json()["choices"][0]["message"]["content"] == expected
        await server.check_accounts()


async def test_streams_that_share_survive_their_engine(tmp_path):
    async with serving(tmp_path, fake=FAKE, share_equal_requests="key") as server:
        expected = (await ask(server)).json()["choices"][0]["message"]["content"]
        tasks = [asyncio.create_task(ask(server, stream=True)) for _ in range(3)]
        await until(lambda: server.engine.num_shared == 2)
        await until(lambda: all(received(server)))
        assert server.engine.engine_pid
        os.kill(server.engine.engine_pid, signal.SIGKILL)
        assert [joined(events(reply.text)) for reply in await asyncio.gather(*tasks)] == [expected] * 3
        assert server.engine.restarts == 1


async def test_other_settings_and_other_keys_share_nothing(tmp_path):
    async with serving(tmp_path, fake=FAKE, share_equal_requests="key", api_keys=keys(tmp_path)) as server:
        asked = [("k1", {}), ("k2", {}), ("k1", {"max_tokens": 61}), ("k1", {"temperature": 0.7, "seed": 1})]
        asked += [("k1", {"temperature": 0.7, "seed": 2}), ("k1", {"temperature": 0.7}), ("k1", {"temperature": 0.7})]
        await asyncio.gather(*(ask(server, key, **fields) for key, fields in asked))
        assert server.engine.num_shared == 0
        await asyncio.gather(*(ask(server, "k1", temperature=0.7, seed=1) for _ in range(2)))
        assert server.engine.num_shared == 1


async def test_an_operator_can_let_all_share_or_none(tmp_path):
    for mode, num_shared in (("all", 1), ("off", 0)):
        async with serving(tmp_path, fake=FAKE, share_equal_requests=mode, api_keys=keys(tmp_path)) as server:
            await asyncio.gather(ask(server, "k1"), ask(server, "k2"))
            assert server.engine.num_shared == num_shared
