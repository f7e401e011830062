"""A generation by itself, its streams fed by hand: what is merged, what is counted, what is ended."""

from __future__ import annotations

import asyncio

import pytest
from http_server import until
from running_server import text_model
from tiny_checkpoints import CHATML_TEMPLATE
from tiny_text import bytes_to_ids

from antiphon.api.choice import Choice
from antiphon.api.generation import Generation
from antiphon.api.job import Prompt
from antiphon.engine.requests.stream import TokenStream
from antiphon.errors import EngineDied, SlowReader
from antiphon.metrics import Metrics
from antiphon.request import FinishReason, SamplingParams, TokenEvent


class Bench:
    """One request with hand-fed streams."""

    def __init__(self, text, num_choices=1, stop=(), max_unread=1000):
        self.ended: list[tuple[str, FinishReason]] = []
        self.metrics = Metrics("0", "m")
        self.text = text
        account = self.metrics.request("chat")
        account.accept()
        self.streams = [TokenStream(f"r{index}", lambda *how: self.ended.append(how)) for index in range(num_choices)]
        choices = [Choice(index, events, text.stream(stop=stop), account) for index, events in enumerate(self.streams)]
        self.generation = Generation(choices, [Prompt([1, 2], SamplingParams())], account, max_unread_tokens=max_unread)

    def feed(self, index, text, finish=None):
        ids = self.text.tokenizer.encode(text)
        for token_id in ids:
            self.streams[index].push(TokenEvent(f"r{index}", token_id, num_cached_tokens=1))
        if finish:
            self.streams[index].push(TokenEvent(f"r{index}", finish_reason=finish))

    def total(self, name):
        return self.metrics.registry.get_sample_value(f"antiphon_requests_{name}", {"endpoint": "chat"}) or 0.0


@pytest.fixture
def text(tmp_path):
    model = text_model(tmp_path, CHATML_TEMPLATE)
    yield model
    model.close()


async def test_tokens_that_wait_come_as_one_piece(text):
    bench = Bench(text)
    bench.feed(0, "a rather long answer", FinishReason.LENGTH)
    async with bench.generation:
        pieces = [piece async for piece in bench.generation]
    assert [(piece.content, piece.finish_reason) for piece in pieces] == [("a rather long answer", "length")]
    assert bench.generation.tally.completion == len(text.tokenizer.encode("a rather long answer"))
    assert bench.generation.tally.cached == 1
    assert bench.total("finished_total") == 1
    assert bench.total("running") == 0


async def test_what_nobody_reads_is_given_up_and_counted_at_once(text):
    bench = Bench(text, num_choices=2, max_unread=20)
    bench.feed(0, "x" * 10)
    async with bench.generation:
        pieces = aiter(bench.generation)
        assert (await anext(pieces)).content == "x" * 10  # and now the reader is busy elsewhere
        bench.feed(0, "y" * 15)
        await asyncio.sleep(0.01)
        assert bench.ended == []
        bench.feed(0, "z" * 15)
        await until(lambda: bench.total("aborted_total") == 1)
        assert {request_id for request_id, _ in bench.ended} == {"r0", "r1"}
        told = bench.metrics.registry.get_sample_value("antiphon_request_generated_tokens_sum")
        rest = await anext(pieces)
        assert told == 10 + len(rest.token_ids)
        assert bench.metrics.registry.get_sample_value("antiphon_generated_tokens_total") == told
        assert rest.content.startswith("y" * 15 + "z")
        with pytest.raises(SlowReader, match="20 tokens"):
            await anext(pieces)
    assert bench.total("aborted_total") == 1
    assert bench.total("failed_total") == 0
    assert bench.metrics.registry.get_sample_value("antiphon_generated_tokens_total") == told


async def test_choices_come_apart(text):
    bench = Bench(text, num_choices=2)
    bench.feed(1, "second", FinishReason.STOP)
    async with bench.generation:
        pieces = aiter(bench.generation)
        assert (await anext(pieces)).index == 1
        bench.feed(0, "first", FinishReason.STOP)
        assert (await anext(pieces)).content == "first"
        assert [piece async for piece in pieces] == []
    assert bench.generation.tally.prompt == 2


async def test_a_stop_string_finishes_the_request_at_the_engine(text):
    bench = Bench(text, stop=["END"])
    bench.feed(0, "so END and more")
    async with bench.generation:
        pieces = [piece async for piece in bench.generation]
    assert "".join(piece.content for piece in pieces) == "so "
    assert bench.ended[0] == ("r0", FinishReason.STOP)
    assert bench.total("finished_total") == 1


async def test_a_stop_string_in_what_the_last_token_left_over_is_a_stop(text):
    bench = Bench(text, stop=["\ufffd"])
    begun, *_ = bytes_to_ids(text.tokenizer, "é".encode())
    bench.feed(0, "so")
    bench.streams[0].push(TokenEvent("r0", begun, finish_reason=FinishReason.LENGTH))
    async with bench.generation:
        pieces = [piece async for piece in bench.generation]
    assert "".join(piece.content for piece in pieces) == "so"
    assert pieces[-1].finish_reason == "stop"


async def test_leaving_early_aborts_every_choice(text):
    bench = Bench(text, num_choices=2)
    bench.feed(0, "a")
    async with bench.generation:
        await anext(aiter(bench.generation))
    assert {("r0", FinishReason.ABORT), ("r1", FinishReason.ABORT)} <= set(bench.ended)
    assert bench.total("aborted_total") == 1


async def test_one_failed_choice_fails_the_request_after_what_it_said(text):
    bench = Bench(text, num_choices=2)
    bench.feed(0, "half")
    bench.streams[0].push(EngineDied("died twice"))
    async with bench.generation:
        pieces = aiter(bench.generation)
        assert (await anext(pieces)).content == "half"
        with pytest.raises(EngineDied):
            await anext(pieces)
    assert bench.total("failed_total") == 1
    assert ("r1", FinishReason.ABORT) in bench.ended


async def test_an_accepted_request_ends_once_in_the_metrics(text):
    bench = Bench(text)
    bench.feed(0, "x", FinishReason.STOP)
    async with bench.generation:
        assert [piece async for piece in bench.generation]
    await bench.generation.__aexit__(None, None, None)
    assert bench.total("finished_total") == bench.total("accepted_total") == 1
