"""How a load test reads answers: events, thoughts, tokens and times, whatever pieces the bytes come in."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples

from antiphon.bench.answers import Answer, BadAnswer
from antiphon.bench.events import MAX_EVENT, EventReader, EventTooLarge


def chat(*deltas: dict[str, Any], usage: dict[str, Any] | None = None, done: bool = True) -> bytes:
    """A chat's stream."""
    events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        events.append({"choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(each)}\n\n" for each in events).encode() + b"data: [DONE]\n\n" * done


def read(*pieces: bytes, stream: bool = True) -> Answer:
    """An answer whose pieces come at 1, 2, 3 …"""
    answer = Answer(stream=stream)
    for at, piece in enumerate(pieces, 1):
        answer.feed(piece, float(at))
    answer.finish(float(len(pieces)))
    return answer


def each_at_its_time(stream: bytes) -> Answer:
    return read(*(event + b"\n\n" for event in stream.split(b"\n\n") if event))


EVENTS = ["a", "", "b\nc", 'data: "x"', " led by a blank", "ü€😀"]


@given(
    st.lists(st.sampled_from(EVENTS), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 200)),
)
@settings(max_examples=examples(100), deadline=None)
def test_any_split_of_the_bytes_gives_the_same_events(events, newline, cuts):
    lines = [[f"data: {line}" for line in event.split("\n")] for event in events]
    framed = "".join(newline.join([":note", "event: x", *each, "", ""]) for each in lines).encode()
    reader = EventReader()
    marks = sorted({0, len(framed), *(cut for cut in cuts if cut < len(framed))})
    found = [event for a, b in itertools.pairwise(marks) for event in reader.feed(framed[a:b])]
    found += reader.feed(b"\n") if newline == "\r" else []  # a CR at the end may be the half of a line's end
    assert [event.decode() for event in found] == events


def test_an_event_that_never_ends_is_given_up():
    reader = EventReader()
    for _ in range(4):
        assert reader.feed(b"data: " + b"x" * (MAX_EVENT // 4 - 7) + b"\n") == []
    with pytest.raises(EventTooLarge, match="4 MiB"):
        reader.feed(b"x" * (MAX_EVENT // 4))


@given(st.lists(st.integers(0, 2000)))
@settings(max_examples=examples(60), deadline=None)
def test_any_split_of_the_bytes_gives_the_same_answer(cuts):
    stream = chat(
        *({"reasoning_content": f"t{n}"} for n in range(3)),
        *({"content": f"ä{n} "} for n in range(4)),
        usage={"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}},
    )
    marks = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    answer = read(*(stream[a:b] for a, b in itertools.pairwise(marks)))
    assert (answer.thought, answer.text) == ("t0t1t2", "ä0 ä1 ä2 ä3 ")
    assert (answer.tokens, answer.prompt_tokens, len(answer.gaps)) == ((4, 5), 5, 6)
    assert answer.digest == read(stream).digest
    assert (answer.first_token or 0) <= (answer.first_answer or 0) <= (answer.last_token or 0)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_in_a_field_of_their_own_end_with_the_first_text_of_the_answer(field):
    answer = each_at_its_time(
        chat({"role": "assistant", "content": ""}, {field: "hm"}, {field: " so"}, {"content": "\n\n"}, {"content": "7"})
    )
    assert (answer.first_token, answer.first_answer, answer.last_token) == (2.0, 5.0, 5.0)
    assert (answer.thought, answer.text, answer.gaps) == ("hm so", "\n\n7", [1.0, 1.0, 1.0])
    assert answer.tokens == (2, 2)
    assert answer.tokens_estimated


@pytest.mark.parametrize("opening", ["<think>", "", "\n<think>\n"])
def test_thoughts_as_text_end_at_their_tag(opening):
    pieces = [*opening, "I ", "think </th", "ink>", "\n\n", "Seven", "."]
    answer = each_at_its_time(chat(*({"content": piece} for piece in pieces if piece)))
    assert answer.thought.strip() == "I think"
    assert answer.text == "\n\nSeven."
    assert answer.first_answer == len([piece for piece in pieces if piece]) - 1
    assert answer.first_token == 1.0
    assert answer.tokens[1] == 2


@given(st.integers(1, 40), st.booleans())
@settings(max_examples=examples(60), deadline=None)
def test_a_tag_is_found_however_the_text_is_cut(width, is_opened):
    whole = "<think>" * is_opened + "so 1 < 2 </thought> and </think>The answer </think> is"
    pieces = [whole[at : at + width] for at in range(0, len(whole), width)]
    answer = each_at_its_time(chat(*({"content": piece} for piece in pieces)))
    assert (answer.thought, answer.text) == ("so 1 < 2 </thought> and ", "The answer </think> is")
    begins = whole.index("The") // width + 1
    assert answer.first_answer == begins


def test_text_without_a_tag_is_the_answer_from_its_first_part():
    answer = each_at_its_time(chat({"content": "<th"}, {"content": "ing> is a tag"}))
    assert (answer.thought, answer.text) == ("", "<thing> is a tag")
    assert answer.tokens == (1, 1)  # what may become a thought counts as one
    plain = each_at_its_time(chat({"content": "Hello"}, {"content": " there"}))
    assert (plain.first_answer, plain.tokens) == (1.0, (0, 2))


def test_a_call_is_an_answer():
    answer = each_at_its_time(chat({"reasoning": "a tool"}, {"tool_calls": [{"function": {"name": "f"}}]}))
    assert (answer.first_token, answer.first_answer) == (1.0, 2.0)


def test_tokens_come_from_usage_and_are_divided_by_parts_where_it_knows_no_thought():
    deltas = [{"content": piece} for piece in ("<think>", "a", "b", "</think>", "x", "y", "z", "!")]
    answer = each_at_its_time(chat(*deltas, usage={"prompt_tokens": 3, "completion_tokens": 16}))
    assert answer.tokens == (8, 8)
    assert answer.split_estimated
    assert not answer.tokens_estimated
    told = chat(
        {"reasoning": "a"},
        {"content": "b"},
        usage={"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}},
    )
    assert read(told).tokens == (7, 2)
    assert not read(told).split_estimated


def test_completions_and_whole_answers_are_read_too():
    events = [{"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "length"}]}]
    stream = "".join(f"data: {json.dumps(each)}\n\n" for each in events).encode() + b"data: [DONE]\n\n"
    assert (read(stream).text, read(stream).finish_reason) == ("ab", "length")
    whole = {
        "choices": [{"message": {"reasoning_content": "t", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}},
        "degraded": {"level": 2, "max_tokens": 8},
    }
    encoded = json.dumps(whole).encode()
    answer = read(encoded[:10], encoded[10:], stream=False)
    assert (answer.thought, answer.text, answer.first_token, answer.cached_tokens) == ("t", "x", 2.0, 1)
    assert answer.degraded == {"level": 2, "max_tokens": 8}


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([b"data: {nonsense\n\n"], "nonsense"),
        ([b'data: {"choices": 7}\n\n'], "choices"),
        ([chat({"content": "x"}, done=False)], r"without \[DONE\]"),
        ([b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n'], "without finish_reason"),
        ([b"data: " + b"x" * MAX_EVENT], "MiB"),
    ],
)
def test_answers_that_are_not_what_the_api_describes_are_named(pieces, message):
    with pytest.raises(BadAnswer, match=message):
        read(*pieces)


def test_an_error_in_a_stream_ends_the_answer():
    error = {"error": {"code": "engine_died", "message": "The engine died."}}
    answer = read(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n' + f"data: {json.dumps(error)}\n\n".encode())
    assert answer.error == ("engine_died", "The engine died.")
