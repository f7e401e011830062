"""Tool calls found in what a model writes: both shapes, several calls, calls that are none, cut anywhere."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processor_time import takes_linear_time
from property_tests import examples
from tiny_text import bytes_to_ids, cut, tiny_data

from antiphon.text import TextStream, Tokenizer, ToolReading
from antiphon.text.tool_calls import CallPart, ToolCallParser, _Body
from antiphon.text.tool_shapes import SHAPES, shape_in, write_calls

TOKENIZER = Tokenizer(tiny_data())
NAMES = ["look", "add"]
HERMES, DEEPSEEK = SHAPES["hermes"], SHAPES["deepseek"]
LOOK = '<tool_call>\n{"name": "look", "arguments": {"where": "up"}}\n</tool_call>'
ADD = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": [2]}}</tool_call>'
FOUND_LOOK, FOUND_ADD = ("look", '{"where": "up"}'), ("add", '{"a": 1, "b": [2]}')


def reading(shape: str, *, several: bool = True) -> ToolReading:
    return ToolReading(SHAPES[shape], NAMES, several)


def parse(pieces: list[str], shape: str = "hermes", *, several: bool = True):
    """(content, calls)"""
    parser = ToolCallParser(reading(shape, several=several))
    parts = [part for found in (*map(parser.push, pieces), parser.finish()) for part in found]
    calls = [(part.name, part.arguments) for part in parts if isinstance(part, CallPart)]
    return "".join(part for part in parts if isinstance(part, str)), calls


def deepseek(*calls: str) -> str:
    written = "\n".join(f"<｜tool▁call▁begin｜>{call}<｜tool▁call▁end｜>" for call in calls)
    return f"<｜tool▁calls▁begin｜>{written}<｜tool▁calls▁end｜>"


R1_LOOK = 'function<｜tool▁sep｜>look\n```json\n{"where": "up"}\n```'
V31_ADD = 'add<｜tool▁sep｜>{"a": 1, "b": [2]}'


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("Paris.", "Paris.", []),
        (LOOK, "", [FOUND_LOOK]),
        (f"{LOOK}\n{ADD}\n", "", [FOUND_LOOK, FOUND_ADD]),
        (f"{LOOK}{ADD}", "", [FOUND_LOOK, FOUND_ADD]),
        (f"Let me look.\n\n{LOOK}", "Let me look.", [FOUND_LOOK]),
        (f"{LOOK}\nSo.\n", "\nSo.\n", [FOUND_LOOK]),
        (LOOK.removesuffix("</tool_call>"), "", [FOUND_LOOK]),  # ended without the closing tag
        ('<tool_call>{"name": "look"}</tool_call>', "", [("look", "{}")]),
        ('<tool_call>{"arguments": {}, "id": 7, "name": "look"}</tool_call>', "", [("look", "{}")]),
        ('<tool_call>{"name": "look", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("look", '{"a": 1}')]),
        (
            '<tool_call>{"name": "look", "arguments": {"é": "\\u00e9<"}}</tool_call>',
            "",
            [("look", '{"é": "\\u00e9<"}')],
        ),
        ('<tool_call>{"name": "look", "parameters": {"where": "up"}}</tool_call>', "", [FOUND_LOOK]),
        ('<tool_call>{"parameters": "{\\"a\\": 1}", "name": "look"}</tool_call>', "", [("look", '{"a": 1}')]),
        ('<tool_call>{"type": "function", "name": "look"}</tool_call>', "", [("look", "{}")]),
        # What looks like the start of a call and is none spoils no call behind it.
        (f"The <tool_call> tag: <tool_call>{LOOK}", "The <tool_call> tag: <tool_call>", [FOUND_LOOK]),
        (
            f'<tool_call>{{"name": "look", "arguments": {{"where": "up}}}}</tool_call>\n{LOOK}',
            '<tool_call>{"name": "look", "arguments": {"where": "up}}</tool_call>',
            [FOUND_LOOK],
        ),
    ],
)
def test_calls_in_hermes_shape(text, content, calls):
    for pieces in ([text], list(text)):
        assert parse(pieces) == (content, calls)


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (deepseek(R1_LOOK), "", [FOUND_LOOK]),
        (deepseek(V31_ADD), "", [FOUND_ADD]),
        (deepseek(R1_LOOK, V31_ADD), "", [FOUND_LOOK, FOUND_ADD]),
        (f"Hm.\n{deepseek(R1_LOOK)}\n", "Hm.", [FOUND_LOOK]),
        (deepseek(R1_LOOK).removesuffix("<｜tool▁calls▁end｜>"), "", [FOUND_LOOK]),
        (f"<｜tool▁call▁begin｜>{R1_LOOK}<｜tool▁call▁end｜>", "", [FOUND_LOOK]),
        (deepseek("function<｜tool▁sep｜>look\n```json\n\n```"), "", [("look", "{}")]),
        ("<｜tool▁calls▁begin｜> nothing", "<｜tool▁calls▁begin｜> nothing", []),
    ],
)
def test_calls_in_deepseeks_shapes(text, content, calls):
    for pieces in ([text], list(text)):
        assert parse(pieces, "deepseek") == (content, calls)


NO_CALLS = {
    "hermes": [
        "<tool_call>",
        "<tool_call></tool_call>",
        "a <tool_call>{</tool_call> b",
        '<tool_call>{"name": "look", "arguments": {"where": }}</tool_call>',
        '<tool_call>{"name": "look", "arguments": {"where": NaN}}</tool_call>',
        "<tool_call>{'name': 'look', 'arguments': {}}</tool_call>",
        '<tool_call>{"name": "look", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "look", "arguments": "up"}</tool_call>',
        '<tool_call>{"name": "look", "arguments": null}</tool_call>',
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        # A near miss of "arguments" is no call without arguments.
        *(
            f'<tool_call>{{"name": "look", "{key}": {{"where": "up"}}}}</tool_call>'
            for key in ("args", "argument", "Arguments", "input", "kwargs", "parameter", "tool_input")
        ),
        '<tool_call>{"name": "look", "arguments": {}, "parameters": {"where": "up"}}</tool_call>',
        '<tool_call>{"name": "look", "arguments": {"where": "up"}, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "look", "where": "up"}</tool_call>',
        '<tool_call>{"function": {"name": "look", "arguments": {}}}</tool_call>',
        '<tool_call>{"name": "look", "parameters": [1]}</tool_call>',
        '<tool_call>{"name": "look", "arguments": {"a": "</tool_call>',
        '<tool_call>{"name": "look", "arguments": {"a": "\n"}}</tool_call>',
        '<tool_call>{"name": "look", "arguments": {"a": "\\x"}}</tool_call>',
        '<tool_call>{"name": "look", "arguments": {}}}</tool_call>',
        '<tool_call>{"name": "look", "arguments": {}} </tool_cal',
        '<tool_call>{"name": "look", "argu',
        '<tool_call>{"name": "look", "arguments": ' + "[" * 5000 + "</tool_call>",
        "<tool_cal l> \n",
        "</tool_call>",
        " \n",
    ],
    "deepseek": [
        deepseek("look"),
        deepseek("function<｜tool▁sep｜>look"[:-4]),
        deepseek('function<｜tool▁sep｜>look\n```json\n{"a": }\n```'),
        deepseek('query<｜tool▁sep｜>look\n```json\n{"a": 1}\n```'),
        deepseek('other<｜tool▁sep｜>{"a": 1}'),
        deepseek("look<｜tool▁sep｜>[1]"),
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>look",  # cut off: it may have become look_up
        "<｜tool▁call▁begin｜>" + "a" * 600 + "<｜tool▁call▁end｜>",
        deepseek('function<｜tool▁sep｜>look\n{"a": 1} {"b": 2}'),
    ],
}


@pytest.mark.parametrize(("shape", "text"), [(shape, text) for shape, texts in NO_CALLS.items() for text in texts])
def test_what_is_no_call_comes_out_as_it_was(shape, text):
    for pieces in ([text], list(text)):
        assert parse(pieces, shape) == (text, [])


ANY_TEXT = st.text("ab </\\\"'{}[]:,<｜\n", max_size=8) | st.sampled_from(
    [tag for shape in SHAPES.values() for tag in (*shape.tags, "</tool_call>\n", "\n```" + DEEPSEEK.close)]
)
WRITTEN = st.dictionaries(ANY_TEXT, ANY_TEXT | st.lists(ANY_TEXT, max_size=2), max_size=3)


@pytest.mark.parametrize("shape", SHAPES)
@given(arguments=st.lists(WRITTEN, min_size=1, max_size=3), cuts=st.lists(st.integers(0, 400), max_size=6))
@settings(max_examples=examples(100))
def test_a_string_of_a_call_may_hold_any_text(shape, arguments, cuts):
    calls = [("look", json.dumps(each, ensure_ascii=False)) for each in arguments]
    text = write_calls(SHAPES[shape], calls)
    assert parse([text], shape) == parse(cut(text, cuts), shape) == ("", calls)


def test_what_is_no_call_is_told_from_one_at_once():
    parser = ToolCallParser(reading("hermes"))
    assert parser.push("<tool_call> t") == ["<tool_call>", " t"]
    assert parser.push('<tool_call>{"name": x') == ["<tool_call>", '{"name":', " x"]


def test_a_broken_call_spoils_no_other():
    broken = '<tool_call>{"name": look}</tool_call>'
    assert parse([f"{broken}\n{LOOK}\n{broken}"]) == (f"{broken}\n{broken}", [FOUND_LOOK])


def test_where_one_call_is_allowed_the_first_is_the_last():
    assert parse([f"Hm. {LOOK}\n{ADD} more"], several=False) == ("Hm.", [FOUND_LOOK])


PARTS = [LOOK, ADD, "<tool_call>", "</tool_call>", "<tool", '{"name": "look"}', "\n", " ", "<", "a", "é"]
PARTS += ['<tool_call>{"', '<tool_call>{"name": "look", "arguments": {"a": "', '"', "\\", "}", ":", ","]
PARTS_DEEPSEEK = [deepseek(R1_LOOK), "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"]
PARTS_DEEPSEEK += ["<｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n{", '"', "}", "```", "\\", ": 1"]
PARTS_DEEPSEEK += [V31_ADD, "<｜tool▁calls▁end｜>", "<｜tool▁", "\n", "<", "a"]


@pytest.mark.parametrize(("shape", "parts"), [("hermes", PARTS), ("deepseek", PARTS_DEEPSEEK)])
@given(data=st.data())
@settings(max_examples=examples(200))
def test_streamed_and_at_once_are_the_same_and_nothing_is_lost(shape, parts, data):
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=10)))
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=10))
    content, calls = parse([text], shape)
    assert parse(cut(text, cuts), shape) == parse(list(text), shape) == (content, calls)
    # Text keeps its letters and their order; what is missing of it are the calls, their tags and blanks.
    letters = iter(text)
    assert all(letter in letters for letter in content)
    if not calls:
        assert content == text


@pytest.mark.parametrize(
    "unit",
    [
        "<tool_call>",
        " ",
        LOOK,
        "<tool_call>{<<<<",
        '<tool_call>{"',
        '<tool_call>{"": "',
        '<tool_call>{"": "\\"',
        '<tool_call>{"":["","',
        '<tool_call>{"": "</tool_call>',
    ],
)
@pytest.mark.parametrize("end", ["", '"', "\n"])
def test_each_letter_is_looked_at_a_bounded_number_of_times(unit, end, monkeypatch):
    counts = {"looked at": 0}

    def counted(function):
        def counting(self, text, start, **options):
            before = counts["looked at"]
            position = function(self, text, start, **options)
            counts["looked at"] = before + position - start  # what a part of it counted too counts once
            return position

        return counting

    monkeypatch.setattr(ToolCallParser, "_read_text", counted(ToolCallParser._read_text))
    monkeypatch.setattr(_Body, "feed", counted(_Body.feed))
    text = unit * (20_000 // len(unit)) + end
    for size in (4, len(text)):
        counts["looked at"] = 0
        parse([text[at : at + size] for at in range(0, len(text), size)])
        assert counts["looked at"] <= 4 * len(text)


@pytest.mark.parametrize(
    "unit", ["<tool_call>", " ", LOOK, '<tool_call>{"', '<tool_call>{"": "', '<tool_call>{"":["","']
)
def test_the_cost_grows_with_the_length_and_no_faster(unit):
    def read(length: int) -> None:
        text = unit * (length // len(unit))
        parse([text[at : at + 4] for at in range(0, len(text), 4)])

    assert takes_linear_time(read, 20_000)


@pytest.mark.parametrize("shape", SHAPES)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.dictionaries(st.text("a<｜{\"'\n\\é"), st.text("b</{}"))), min_size=1)
)
@settings(max_examples=examples(50))
def test_what_is_written_for_a_model_can_be_read_back(shape, calls):
    written = [(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in calls]
    assert parse([write_calls(SHAPES[shape], written)], shape) == ("", written)


def test_the_shape_is_that_of_the_template():
    assert shape_in("{{ '<tool_call>' }}") is HERMES
    assert shape_in("{{ '<｜tool▁call▁begin｜>' }} <tool_call>") is DEEPSEEK
    assert shape_in("{{ messages }}") is None
    assert shape_in("<tool_call>\n<function=x>") is None
    assert shape_in("<tool_call>x<arg_key>") is None


def streamed(ids: list[int], **options):
    stream = TextStream(TOKENIZER, **options)
    deltas = [*map(stream.push, ids), stream.finish()]
    calls = [(call.name, call.arguments) for delta in deltas for call in delta.calls]
    return "".join(d.reasoning for d in deltas), "".join(d.content for d in deltas), calls, stream


def test_calls_are_looked_for_in_the_answer_and_not_in_the_thought():
    text = f"I could {LOOK}\n</think>\n\nLet me.\n{LOOK}"
    options = {"starts_in_thought": True, "thinks": True, "tools": reading("hermes")}
    for ids in (TOKENIZER.encode_with_control(text), bytes_to_ids(TOKENIZER, text.encode())):
        assert streamed(ids, **options)[:3] == (f"I could {LOOK}", "Let me.", [FOUND_LOOK])


def test_a_stop_string_ends_the_answer_and_gives_back_what_was_begun():
    ids = TOKENIZER.encode_with_control(f"{LOOK}\n<tool_call>STOP {ADD}")
    _, content, calls, stream = streamed(ids, stop=["STOP"], tools=reading("hermes"))
    assert (content, calls) == ("\n<tool_call>", [FOUND_LOOK])
    assert stream.push(ids[0]).stopped


FRAMES = ["\n", "tool_call", '"name"', "}", "</tool_call>", "<", "look", '{"where": "up"}', "up"]


@pytest.mark.parametrize("stop", FRAMES)
def test_a_stop_string_is_looked_for_in_text_and_not_in_calls(stop):
    for text in (LOOK, f"{LOOK}\n{ADD}", f"So. {LOOK}"):
        for ids in (TOKENIZER.encode_with_control(text), bytes_to_ids(TOKENIZER, text.encode())):
            assert streamed(ids, stop=[stop], tools=reading("hermes"))[:3] == ("", *parse([text]))
    ids = TOKENIZER.encode_with_control(f"{LOOK} Then{stop}x {ADD}")
    _, content, calls, stream = streamed(ids, stop=[stop], tools=reading("hermes"))
    assert (content, calls) == (" Then", [FOUND_LOOK])
    assert stream.push(ids[0]).stop_string == stop


def test_a_stop_string_does_not_go_across_a_call():
    ids = TOKENIZER.encode_with_control(f"ST{LOOK}OP")
    assert streamed(ids, stop=["STOP"], tools=reading("hermes"))[1:3] == ("STOP", [FOUND_LOOK])


def test_a_stream_stops_behind_the_only_call():
    ids = TOKENIZER.encode_with_control(f"{LOOK}\n{ADD}")
    stream = TextStream(TOKENIZER, tools=reading("hermes", several=False))
    deltas = [stream.push(id) for id in ids]
    assert [call.name for delta in deltas for call in delta.calls] == ["look"]
    assert deltas[-1].stopped
    assert deltas[-1].stop_string is None
    assert stream.finish().content == ""
