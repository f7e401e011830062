"""The log of a background response's events: the same bytes as when they were sent, in little memory."""

from __future__ import annotations

import tracemalloc

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from antiphon.api.pieces import Piece, ToolCallDelta
from antiphon.api.responses import shapes
from antiphon.api.responses.event_log import EventLog, framed
from antiphon.api.responses.items import Output
from antiphon.api.shapes import TokenLogprob, TopLogprob, encoder

texts = st.text(st.characters(codec="utf-8"), max_size=5)
logprobs = st.lists(
    st.builds(
        TokenLogprob,
        texts,
        st.floats(-100, 0),
        st.lists(st.integers(0, 255), max_size=3),
        st.lists(st.builds(TopLogprob, texts, st.floats(-100, 0), st.just([])), max_size=2),
    ),
    max_size=2,
)
steps = st.one_of(
    st.tuples(st.builds(Piece, st.just(0), reasoning=texts), st.just([])),
    st.tuples(st.builds(Piece, st.just(0), content=texts), logprobs),
    texts.map(lambda text: (call(text), [])),
)


def call(arguments: str) -> Piece:
    first, rest = ToolCallDelta(0, "call_a", "f", arguments), ToolCallDelta(0, arguments='"é', is_last=True)
    return Piece(0, tool_calls=[first, rest])


def begun() -> tuple[shapes.ResponseBody, Output]:
    output = Output()
    response = shapes.ResponseBody("resp_a", 1, "tiny", tools=[{"minimum": 0.1}], background=True)
    response.output = output.items
    return response, output


@given(st.lists(steps, max_size=12), st.sampled_from(["completed", "cancelled", "failed"]), st.data())
def test_every_part_of_the_log_is_as_it_was_sent_while_the_response_runs_and_after_it(pieces, status, data):
    response, output = begun()
    log, sent = EventLog(), []

    def add(event: shapes.Event) -> None:
        first = len(log)
        log.append(event)
        if not isinstance(event, shapes.ResponseEvent):  # these differ until they are sent from the log
            assert log.chunk(first, response)[0] == framed(first, event)
        sent.append(log.chunk(first, response)[0])

    add(shapes.Created(response=response))
    add(shapes.Queued(response=response))
    add(shapes.InProgress(response=response))
    for piece, scores in pieces:
        for event in output.push(piece, scores):
            add(event)
        first = data.draw(st.integers(0, len(log)))
        assert log.chunk(first, response)[0] == b"".join(sent[first : first + 256])
    for event in output.close("completed") if status == "completed" else output.stop():
        add(event)
    response.status = status
    add(shapes.Completed(response=response) if status == "completed" else shapes.Incomplete(response=response))
    body = encoder.encode(response)
    for first in range(len(sent) + 1):
        assert b"".join(log.replay(body, first)) == b"".join(sent[first:])


def test_the_memory_of_a_log_grows_with_the_text_and_not_with_its_square():
    sizes = []
    for count in (1000, 2000, 4000):
        _, output = begun()
        log = EventLog()
        for _ in range(count):
            for event in output.push(Piece(0, content="word"), []):
                log.append(event)
        for event in output.close("completed"):
            log.append(event)
        sizes.append(log.num_bytes)
        assert len(log) == count + 5
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0]) == 2000 * 10  # 4 letters, 2 quotes, 4 for their place


def test_a_running_response_takes_no_more_memory_than_is_reserved_for_it():
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _, output = begun()
        log = EventLog()
        for number in range(20_000):
            for event in output.push(Piece(0, reasoning=f"word {number} ", content=""), []):
                log.append(event)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used < 3 * log.num_bytes, "see `_COPIES`"


def test_a_long_log_is_sent_in_chunks():
    response, output = begun()
    log = EventLog()
    for _ in range(1000):
        for event in output.push(Piece(0, content="x"), []):
            log.append(event)
    chunks = list(log.replay(encoder.encode(msgspec.structs.replace(response, output=output.so_far())), 0))
    assert [chunk.count(b"\n\n") for chunk in chunks] == [256, 256, 256, 234]
