"""`antiphon.Engine`: its answers are the server's, from any thread and loop, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from http_server import serving
from patience import wait_until
from processes import children, is_gone

from antiphon import Engine
from antiphon.api.context import Context
from antiphon.api.pieces import Piece, ToolCallDelta
from antiphon.config import FakeSettings
from antiphon.engine.client import EngineClient
from antiphon.errors import CheckpointError, ConfigError, ContextLengthExceeded, EngineError, InvalidRequest, NotReady
from antiphon.offline.answers import GrowingChoice, ToolCall

QUESTION = [{"role": "user", "content": "Hello"}]
FIELDS = {"seed": 3, "temperature": 0.8, "max_tokens": 12}
SLOW = FakeSettings(step_seconds=0.02)


# --- answers


async def test_an_answer_is_the_servers_answer(engine: Engine, tmp_path):
    async with serving(tmp_path, fake={"eos_token_id": -1}) as server:
        fields = {**FIELDS, "n": 2, "logprobs": True, "top_logprobs": 2}
        over_http = (await server.chat("Hello", **fields)).json()
        answer = await engine.achat(QUESTION, **fields)
        assert [choice.text for choice in answer.choices] == [
            choice["message"]["content"] for choice in over_http["choices"]
        ]
        usage = over_http["usage"]
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
            usage["prompt_tokens"],
            24,
            usage["total_tokens"],
        )
        for choice, sent in zip(answer.choices, over_http["choices"], strict=True):
            assert len(choice.token_ids) == 12
            assert choice.finish_reason == sent["finish_reason"] == "length"
            scored = sent["logprobs"]["content"]
            assert [(one.token, list(one.bytes), one.logprob) for one in choice.logprobs] == [
                (one["token"], one["bytes"], pytest.approx(one["logprob"])) for one in scored
            ]
            assert [len(one.top) for one in choice.logprobs] == [2] * 12
            assert tuple(one.token_id for one in choice.logprobs) == choice.token_ids

        over_http = (await server.complete(["Hello", "World"], **FIELDS)).json()
        texts = [answer.text for answer in await engine.agenerate(["Hello", "World"], **FIELDS)]
        assert texts == [choice["text"] for choice in over_http["choices"]]


def test_prompts_are_texts_or_token_ids_one_or_several(engine: Engine):
    one = engine.generate([5, 6, 7], **FIELDS)
    assert one.text == one.choices[0].text
    assert [answer.choices for answer in engine.generate([[5, 6, 7], [8]], **FIELDS)] == [
        one.choices,
        engine.generate([8], **FIELDS).choices,
    ]
    assert engine.generate("Hello", **FIELDS).choices == engine.generate(["Hello"], **FIELDS)[0].choices
    assert engine.generate([]) == []
    several = engine.chat([QUESTION, QUESTION], **FIELDS)
    assert [answer.text for answer in several] == [engine.chat(QUESTION, **FIELDS).text] * 2


def test_a_stream_adds_up_to_the_whole(engine: Engine):
    fields = {**FIELDS, "n": 3, "logprobs": True}
    whole = engine.chat(QUESTION, **fields)
    deltas = list(engine.stream_chat(QUESTION, **fields))
    for index, choice in enumerate(whole.choices):
        mine = [delta for delta in deltas if delta.index == index]
        assert "".join(delta.text for delta in mine) == choice.text
        assert tuple(token_id for delta in mine for token_id in delta.token_ids) == choice.token_ids
        assert tuple(one for delta in mine for one in delta.logprobs) == choice.logprobs
        assert [delta.finish_reason for delta in mine if delta.finish_reason] == ["length"]
    assert [delta.usage is None for delta in deltas] == [True] * (len(deltas) - 1) + [False]
    assert deltas[-1].usage.completion_tokens == whole.usage.completion_tokens
    text = "".join(delta.text for delta in engine.stream("Hello", **FIELDS))
    assert text == engine.generate("Hello", **FIELDS).text


async def test_streams_for_an_event_loop(engine: Engine):
    text = "".join([delta.text async for delta in engine.astream("Hello", **FIELDS)])
    assert text == (await engine.agenerate("Hello", **FIELDS)).text
    text = "".join([delta.text async for delta in engine.astream_chat(QUESTION, **FIELDS)])
    assert text == (await engine.achat(QUESTION, **FIELDS)).text


async def test_a_call_that_waits_does_so_in_a_running_event_loop_too(engine: Engine):
    """As in a notebook, whose cells run inside one."""
    assert engine.chat(QUESTION, **FIELDS).text


def test_a_thought_is_apart_from_the_text(thinking: Path):
    from antiphon.formats import open_checkpoint
    from antiphon.text import TextModel

    text = TextModel.from_checkpoint(open_checkpoint(thinking))
    script = tuple(text.tokenizer.encode_with_control("Hm.</think>\n\nParis \\boxed{42}"))
    text.close()
    with Engine(thinking, fake=True, fake_settings=FakeSettings(script=script)) as engine:
        answer = engine.chat(QUESTION, max_tokens=len(script), n=3, vote=True)
        assert answer.reasoning.strip() == "Hm."
        assert answer.text.strip() == "Paris \\boxed{42}"
        assert (answer.vote.answer, answer.vote.count, answer.vote.counts) == ("42", 3, {"42": 3})
        assert answer.usage.reasoning_tokens > 0
        assert engine.generate("Hello", max_tokens=len(script)).reasoning == ""
        closed = engine.chat(QUESTION, max_tokens=40, thinking_token_budget=1)
        assert closed.choices[0].thought_closed == "budget"
        assert [each.thought_closed for each in engine.stream_chat(QUESTION, thinking_token_budget=1)].count("budget")


async def test_a_prompt_may_be_scored(engine: Engine, tmp_path):
    async with serving(tmp_path, fake={"eos_token_id": -1}) as server:
        for prompt in ("Hello there", [5, 6, 7]):
            for max_tokens in (0, 3):
                fields = {"echo": True, "logprobs": 1, "max_tokens": max_tokens, "temperature": 0}
                sent = (await server.complete(prompt, **fields)).json()["choices"][0]
                answer = await engine.agenerate(prompt, **fields)
                assert answer.text == sent["text"]
                assert answer.prompt_logprobs[0] is None
                scored = [None, *(one.logprob for one in (*answer.prompt_logprobs[1:], *answer.logprobs))]
                assert scored == sent["logprobs"]["token_logprobs"]
                ids = [one.token_id for one in answer.prompt_logprobs[1:]]
                assert ids == list(answer.prompt_token_ids[1:])
        assert (await engine.agenerate([5, 6, 7], max_tokens=1)).prompt_token_ids == (5, 6, 7)
        assert (await engine.agenerate([5, 6], max_tokens=1, logprobs=0)).prompt_logprobs is None
        assert (await engine.agenerate([5, 6], max_tokens=1, echo=True)).prompt_logprobs is None


def test_tool_calls_are_put_together():
    choice = GrowingChoice()
    choice.push(Piece(0, tool_calls=[ToolCallDelta(0, "call_1", "add", '{"a"')]))
    choice.push(Piece(0, tool_calls=[ToolCallDelta(0, arguments=": 1}"), ToolCallDelta(1, "call_2", "sub", "{}")]))
    assert choice.tool_calls.whole() == (ToolCall("call_1", "add", '{"a": 1}'), ToolCall("call_2", "sub", "{}"))


def test_python_values_that_json_spells_otherwise(engine: Engine):
    told = engine.generate("Hello", max_tokens=4, temperature=0, logit_bias={7: 100}, stop=("xyz",))
    assert told.token_ids == (7, 7, 7, 7)


# --- together


def test_calls_from_many_threads_are_computed_together(tiny: Path):
    with Engine(tiny, fake=True, fake_settings=SLOW) as engine, ThreadPoolExecutor(16) as pool:
        alone = engine.generate("Hello", **FIELDS)
        one = _num_steps(engine)
        texts = [done.text for done in pool.map(lambda _: engine.generate("Hello", **FIELDS), range(16))]
        assert texts == [alone.text] * 16
        assert _num_steps(engine) - one < 16 * one / 2


def _num_steps(engine: Engine) -> int:
    return engine._background.submit(_client).result().stats.step


def test_a_list_longer_than_any_batch(tiny: Path):
    with Engine(tiny, fake=True, max_num_seqs=2) as engine:
        prompts = [[n % 200 + 1] for n in range(300)]
        answers = engine.generate(prompts, max_tokens=2, seed=1)
        assert len(answers) == 300
        assert answers[7].choices == engine.generate([8], max_tokens=2, seed=1).choices


# --- mistakes


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_token": 5}, "max_token"),
        ({"stream": True}, "stream"),
        ({"stop": object()}, "stop"),
        ({"stop": "\ud800"}, "stop"),
        ({"model": "other"}, "model"),
    ],
)
def test_a_mistake_is_named_as_over_http(engine: Engine, fields, param):
    for call in (engine.generate, engine.stream):
        with pytest.raises(Exception) as raised:  # noqa: PT011  # which, the next lines say
            list(call("Hello", **fields))
        assert raised.value.param == param
    with pytest.raises(InvalidRequest, match="echo"):
        list(engine.stream("Hello", echo=True))
    with pytest.raises(InvalidRequest):
        engine.chat([{"role": "nobody", "content": "x"}])
    with pytest.raises(InvalidRequest):
        engine.chat([])
    with pytest.raises(InvalidRequest):
        engine.generate("")
    with pytest.raises(ContextLengthExceeded):
        engine.generate([1] * 600)


def test_one_mistake_in_a_list_ends_the_list_and_says_where(engine: Engine):
    with pytest.raises(InvalidRequest) as raised:
        engine.generate(["a", "b", "", "c"], max_tokens=400)
    assert raised.value.__notes__ == ["(item 2 of the list)"]
    assert engine.generate("Hello", max_tokens=2).finish_reason == "length"


def test_settings_are_checked_before_anything_starts():
    before = children(os.getpid())
    for settings, said in (
        ({"contxt_length": 5}, "context_length"),
        ({"context_length": "5"}, "whole number"),
        ({"kv_cache_type": "f64"}, "int8, f16"),
        ({"max_num_sequences": 5}, "max_num_seqs"),
        ({"port": 8000}, "no setting 'port'"),
        ({"loop_guard": 1}, "True or False"),
    ):
        with pytest.raises(ConfigError, match=said):
            Engine("demo", **settings)
    assert children(os.getpid()) == before


def test_a_model_that_cannot_be_had_is_told_to_everybody(tmp_path, tiny: Path):
    with pytest.raises(CheckpointError, match="no file"), Engine(tmp_path / "nothing.gguf"):
        raise AssertionError("not reached")
    engine = Engine(tiny, fake=True, fake_settings=FakeSettings(refuse_to_load="weights are bent"))
    for _ in range(2):
        with pytest.raises(CheckpointError, match="weights are bent"):
            engine.generate("Hello")
    engine.close()


def test_a_request_that_fails_fails_alone(tiny: Path):
    with Engine(tiny, fake=True, fake_settings=FakeSettings(fail_on=77)) as engine:
        with pytest.raises(EngineError):
            engine.generate([77, 1])
        assert engine.generate([1, 2]).finish_reason == "length"


def test_it_survives_the_death_of_its_process(tiny: Path):
    with Engine(tiny, fake=True, fake_settings=SLOW) as engine:
        whole = engine.generate("Hello", max_tokens=60, seed=1).text
        stream = engine.stream("Hello", max_tokens=60, seed=1)
        text = next(stream).text
        os.kill(engine._background.submit(_client).result().engine_pid, signal.SIGKILL)
        assert text + "".join(delta.text for delta in stream) == whole


# --- ends


def test_nothing_is_left_behind_a_block_however_it_is_left(tiny: Path):
    before = set(children(os.getpid()))
    with Engine(tiny, fake=True) as engine:
        family = set(children(os.getpid())) - before
        assert family
    assert all(map(is_gone, family))
    with pytest.raises(NotReady, match="closed"):
        engine.generate("Hello")
    engine.close()

    def fail() -> None:
        with Engine(tiny, fake=True):
            family.update(set(children(os.getpid())) - before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(map(is_gone, family))


async def test_nothing_is_left_behind_an_asynchronous_block(tiny: Path):
    before = set(children(os.getpid()))
    async with Engine(tiny, fake=True) as engine:
        family = set(children(os.getpid())) - before
        assert (await engine.agenerate("Hello", max_tokens=1)).finish_reason == "length"
    assert family
    assert all(map(is_gone, family))


def test_nothing_is_left_behind_an_object_that_is_dropped(tiny: Path):
    before = set(children(os.getpid()))
    engine = Engine(tiny, fake=True)
    engine.generate("Hello", max_tokens=1)
    family = set(children(os.getpid())) - before
    assert family
    del engine
    gc.collect()
    assert all(map(is_gone, family))


def test_closing_ends_the_calls_that_run(tiny: Path):
    engine = Engine(tiny, fake=True, fake_settings=SLOW)
    stream = engine.stream("Hello", max_tokens=400)
    next(stream)
    outcomes: list[Exception] = []

    def call() -> None:
        try:
            engine.generate("Hello", max_tokens=400)
        except NotReady as error:
            outcomes.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: len(engine._background._calls) >= 2, "the call never began")
    engine.close()
    caller.join()
    assert [str(error) for error in outcomes] == ["This engine is closed."]
    with pytest.raises(NotReady):
        list(stream)


async def test_leaving_a_stream_or_a_wait_ends_the_work(tiny: Path):
    with Engine(tiny, fake=True, fake_settings=SLOW) as engine:
        counters = (await asyncio.wrap_future(engine._background.submit(_client))).counters
        for delta in engine.stream("Hello", max_tokens=400):
            assert delta.finish_reason is None
            break
        await asyncio.to_thread(wait_until, lambda: counters.aborted == 1, "the stream runs on")
        waiting = asyncio.create_task(engine.agenerate("Hello", max_tokens=400))
        await asyncio.to_thread(wait_until, lambda: counters.running == 1, "the call never began")
        waiting.cancel()
        await asyncio.to_thread(wait_until, lambda: counters.aborted == 2, "the call runs on")


def test_a_fork_is_told_to_make_its_own(engine: Engine):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            engine.close()
            engine.generate("Hello")
        except NotReady as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as said:
        assert "another process" in said.read()
    assert engine.generate("Hello", max_tokens=1).finish_reason == "length"


PROGRAM = """
import os, sys
sys.path[:0] = {path!r}
from antiphon import Engine
from antiphon.config import FakeSettings
from processes import children

engine = Engine({model!r}, fake=True, fake_settings=FakeSettings(step_seconds=0.02))
stream = engine.stream("Hello", max_tokens=400)
next(stream)
print(*children(os.getpid()), flush=True)
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "status", "said"),
    [
        ("pass", 0, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("os.kill(os.getpid(), 2); engine.generate('x', max_tokens=400)", -signal.SIGINT, "KeyboardInterrupt"),
    ],
)
def test_no_ending_of_the_program_leaves_the_engine_behind(tiny: Path, ending, status, said):
    program = PROGRAM.format(path=sys.path, model=str(tiny), ending=ending)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert done.stderr.count("Traceback") == bool(said)
    family = [int(pid) for pid in done.stdout.split()]
    assert len(family) == 2  # the engine, and what renders templates
    wait_until(lambda: all(map(is_gone, family)), "a process is left over")


async def _client(context: Context) -> EngineClient:
    return context.engine
