"""Answers that are nothing but calls: told as they are written, cut anywhere, ended where a call repeats itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples
from tiny_text import cut

from antiphon.text import ToolReading
from antiphon.text.forced_calls import ForcedCallParser
from antiphon.text.tool_shapes import SHAPES, write_calls

NAMES = ["look", "look_up", "add"]
UP, DOWN = '{"where": "up"}', '{"where": "down"}'
CALLS = [("look", UP), ("add", "{}"), ("look_up", '{"n": [1, {"</tool_call>": "}\\""}]}'), ("look", DOWN)]


def parse(pieces: list[str], shape: str = "hermes", *, names: list[str] = NAMES, several: bool = True, ends=True):
    """The calls, each (name, arguments, whether it is complete), and the parser."""
    parser = ForcedCallParser(ToolReading(SHAPES[shape], names, several, forced=True))
    parts = [part for piece in pieces for part in parser.push(piece)]
    parts += parser.finish() if ends and not parser.complete else []
    calls: list[tuple[str, str, bool]] = []
    for part in parts:
        assert not isinstance(part, str)
        if part.name is not None:
            calls.append((part.name, "", False))
        name, arguments, was_complete = calls[-1]
        assert not was_complete
        calls[-1] = (name, arguments + part.arguments, part.is_last)
    return calls, parser


def complete(calls: list[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    return [(name, arguments, True) for name, arguments in calls]


@pytest.mark.parametrize("shape", SHAPES)
@given(cuts=st.lists(st.integers(0, 400), max_size=8))
@settings(max_examples=examples(50))
def test_calls_however_they_are_cut(shape, cuts):
    text = write_calls(SHAPES[shape], CALLS)
    assert parse(cut(text, cuts), shape)[0] == parse(list(text), shape)[0] == complete(CALLS)


def test_arguments_come_as_they_are_written():
    text = write_calls(SHAPES["hermes"], CALLS[:1])
    parser = ForcedCallParser(ToolReading(SHAPES["hermes"], NAMES, forced=True))
    parts = [part for letter in text for part in parser.push(letter)]
    assert [part.arguments for part in parts] == list(UP)
    assert [part.name for part in parts] == ["look"] + [None] * (len(UP) - 1)
    assert [part.is_last for part in parts] == [False] * (len(UP) - 1) + [True]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_that_is_cut_off_ends_with_a_part_of_a_call(shape):
    text = write_calls(SHAPES[shape], CALLS)
    seen = set()
    for length in range(len(text)):
        calls, _ = parse([text[:length]], shape)
        *whole, last = calls or [("", "", True)]
        assert whole == complete(CALLS[: len(whole)])
        if calls:
            name, arguments = CALLS[len(whole)]
            assert last[0] == name
            assert arguments.startswith(last[1])
            assert last[2] == (last[1] == arguments)
        seen.add((len(calls), last[2]))
    assert {(number, done) for number in range(1, 5) for done in (True, False)} <= seen


def test_a_call_that_is_certain_is_told_though_its_arguments_have_not_begun():
    text = write_calls(SHAPES["hermes"], [("look_up", "{}")])
    assert parse([text[:20]], names=["look_up"])[0] == [("look_up", "", False)]
    assert parse([text[:20]])[0] == []
    assert parse([""], names=["look_up"])[0] == []
    begun = text[: text.index("_up") + 1]
    assert parse([begun], names=["look_up", "add"])[0] == [("look_up", "", False)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", range(3))
def test_a_call_that_repeats_an_earlier_one_ends_the_answer(shape, place):
    text = write_calls(SHAPES[shape], [*CALLS[:3], CALLS[place], CALLS[3]])
    for pieces in ([text], list(text)):
        calls, parser = parse(pieces, shape, ends=False)
        assert calls == complete(CALLS[:3])
        assert parser.complete
        assert parser.push("more") == parser.finish() == []


def test_a_call_that_only_begins_like_an_earlier_one_is_another():
    for second in (DOWN, '{"where": "up", "n": 1}', '{"where":"up"}', '{"where": "upper"}'):
        written = [("look", UP), ("look", second), ("look_up", UP)]
        assert parse(list(write_calls(SHAPES["hermes"], written)))[0] == complete(written)


def test_of_a_repetition_that_is_cut_off_nothing_is_lost():
    text = write_calls(SHAPES["hermes"], [("look", UP), ("look", UP)])
    cut_off = text[: text.rindex("up")]
    assert parse(list(cut_off))[0] == [("look", UP, True), ("look", '{"where": "', False)]


QUOTED = "".join(write_calls(shape, CALLS) for shape in SHAPES.values())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "answer", ["{}", '{"<tool_call>": 1}', "<", "<tool", "<｜", "<b>", "x <tool_call>", "", "x" + QUOTED]
)
def test_where_a_text_is_allowed_instead_it_comes_out_as_it_is(shape, answer):
    for pieces in ([answer], list(answer)):
        parser = ForcedCallParser(ToolReading(SHAPES[shape], NAMES, forced=True, or_text=True))
        parts = [part for piece in pieces for part in parser.push(piece)] + parser.finish()
        assert "".join(parts) == answer
    parser = ForcedCallParser(ToolReading(SHAPES[shape], NAMES, forced=True, or_text=True))
    assert parser.push("{") == ["{"]
    text = write_calls(SHAPES[shape], CALLS)
    for pieces in ([text], list(text)):
        parser = ForcedCallParser(ToolReading(SHAPES[shape], NAMES, forced=True, or_text=True))
        parts = [part for piece in pieces for part in parser.push(piece)] + parser.finish()
        assert [part.name for part in parts if part.name] == [name for name, _ in CALLS]
        assert "".join(part.arguments for part in parts) == "".join(arguments for _, arguments in CALLS)


def test_where_one_call_is_allowed_the_first_is_the_last():
    calls, parser = parse([write_calls(SHAPES["hermes"], CALLS)], several=False)
    assert calls == complete(CALLS[:1])
    assert parser.complete


@given(st.lists(st.dictionaries(st.text('a}"\\<'), st.text("{]\n"), max_size=2), min_size=1, max_size=4))
@settings(max_examples=examples(100))
def test_any_arguments(arguments):
    written = list(dict.fromkeys(("add", json.dumps(each)) for each in arguments))
    assert parse(list(write_calls(SHAPES["deepseek"], written)), "deepseek")[0] == complete(written)
