"""Thought and answer told apart: tag absent, present, never closed, cut anywhere; streamed or at once."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples
from tiny_text import bytes_to_ids, cut, tiny_data

from antiphon.text import TextStream, Tokenizer
from antiphon.text.reasoning import ReasoningSplitter

TOKENIZER = Tokenizer(tiny_data())


def split(pieces: list[str], *, starts_in_thought: bool) -> tuple[str, str]:
    splitter = ReasoningSplitter(starts_in_thought=starts_in_thought)
    parts = [*map(splitter.push, pieces), splitter.finish()]
    return "".join(thought for thought, _ in parts), "".join(answer for _, answer in parts)


@pytest.mark.parametrize(
    ("starts_in_thought", "text", "thought", "answer"),
    [
        (True, "\n\nhm\n</think>\n\nFour.", "\n\nhm", "Four."),
        (True, "\n</think>\n\nFour.", "", "Four."),
        (False, "\n\nFour.", "", "\n\nFour."),
        (False, "<think>Four.", "", "<think>Four."),
    ],
)
def test_a_text_that_is_continued_has_no_beginning(starts_in_thought, text, thought, answer):
    for pieces in ([text], list(text)):
        splitter = ReasoningSplitter(starts_in_thought=starts_in_thought, continues=True)
        parts = [*map(splitter.push, pieces), splitter.finish()]
        assert ("".join(part for part, _ in parts), "".join(part for _, part in parts)) == (thought, answer)


@pytest.mark.parametrize(
    ("starts_in_thought", "text", "thought", "answer"),
    [
        (True, "hm\n</think>\n\nFour.", "hm", "Four."),
        (True, "\nhm", "hm", ""),
        (True, "<think>\nhm</think>Four.", "hm", "Four."),
        (True, "</think>\n\nFour.", "", "Four."),
        (True, "\n</think>", "", ""),
        (True, "a\n\nb </thin k> </think>c</think>d", "a\n\nb </thin k> ", "c</think>d"),
        (True, "hm</thi", "hm</thi", ""),
        (True, "hm\n", "hm\n", ""),
        (True, "<thing> is", "<thing> is", ""),
        (False, "<think>\nhm\n</think>\n\nFour.", "hm", "Four."),
        (False, "\n <think>hm", "hm", ""),
        (False, "Four.", "", "Four."),
        (False, "  Four.\n", "", "  Four.\n"),
        (False, "Use <think> for it.</think>", "", "Use <think> for it.</think>"),
        (False, "<thi", "", "<thi"),
        (False, "\n", "", "\n"),
        (False, "<think><think>a", "<think>a", ""),
        (True, "<think>\n<think>a", "<think>a", ""),
        (False, "<think></think>Four. <think>no</think>", "", "Four. <think>no</think>"),
    ],
)
def test_thought_and_answer(starts_in_thought: bool, text: str, thought: str, answer: str) -> None:
    for pieces in ([text], list(text)):
        assert split(pieces, starts_in_thought=starts_in_thought) == (thought, answer)


TEXTS = st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "<", "</thi", "a", "é"]), max_size=8).map("".join)


@given(TEXTS, st.lists(st.integers(0, 60), max_size=8), st.booleans())
@settings(max_examples=examples(400))
def test_streamed_and_at_once_are_the_same(text: str, cuts: list[int], starts_in_thought: bool) -> None:
    once = split([text], starts_in_thought=starts_in_thought)
    assert split(cut(text, cuts), starts_in_thought=starts_in_thought) == once


def tokens_of(stream: TextStream, ids: list[int]) -> tuple[str, str, int]:
    deltas = [*map(stream.push, ids), stream.finish()]
    return "".join(d.reasoning for d in deltas), "".join(d.content for d in deltas), stream.num_reasoning_tokens


def test_reasoning_tokens_are_counted_with_their_tags() -> None:
    text = "ab\n</think>\n\ncd"
    whole = TOKENIZER.encode_with_control(text)  # the closing tag is one token
    spelled = bytes_to_ids(TOKENIZER, text.encode())  # and here it is eight
    stream = TextStream(TOKENIZER, starts_in_thought=True, thinks=True)
    closing = whole.index(TOKENIZER.control.ids["</think>"])
    assert tokens_of(stream, whole) == ("ab", "cd", closing + 1)
    stream = TextStream(TOKENIZER, starts_in_thought=True, thinks=True)
    assert tokens_of(stream, spelled) == ("ab", "cd", len("ab\n</think>"))


def test_tags_flagged_as_control_tokens_count_too() -> None:
    data = tiny_data()
    types = [3 if "think>" in token else type for token, type in zip(data.tokens, data.token_types, strict=True)]
    tokenizer = Tokenizer(replace(data, token_types=types))
    stream = TextStream(tokenizer, thinks=True)
    assert tokens_of(stream, tokenizer.encode_with_control("<think>a</think>b"))[:2] == ("a", "b")


@pytest.mark.parametrize("flagged", [True, False])
def test_a_character_cut_off_by_the_closing_tag_belongs_to_the_thought(flagged: bool) -> None:
    data = tiny_data()
    pairs = zip(data.tokens, data.token_types, strict=True)
    types = [3 if flagged and "think>" in token else type for token, type in pairs]
    tokenizer = Tokenizer(replace(data, token_types=types))
    begun, *_ = bytes_to_ids(tokenizer, "é".encode())
    tag = tokenizer.encode_with_control("</think>")
    stream = TextStream(tokenizer, starts_in_thought=True, thinks=True)
    ids = [*tokenizer.encode("hm"), begun, *tag, *tokenizer.encode("\n\nFour.")]
    assert tokens_of(stream, ids)[:2] == ("hm\ufffd", "Four.")


def test_a_model_that_does_not_think_says_everything() -> None:
    stream = TextStream(TOKENIZER)
    assert tokens_of(stream, TOKENIZER.encode_with_control("<think>a</think>b")) == ("", "<think>a</think>b", 0)


def test_stop_strings_end_answers_and_not_thoughts() -> None:
    stream = TextStream(TOKENIZER, stop=["\n\n"], starts_in_thought=True, thinks=True)
    ids = bytes_to_ids(TOKENIZER, b"a\n\nb</think>\n\nc\n\nd")
    assert tokens_of(stream, ids)[:2] == ("a\n\nb", "c")
    assert stream.push(ids[0]).stopped


@given(TEXTS, st.booleans(), st.lists(st.text("a<t\n", min_size=1, max_size=3), max_size=3))
def test_the_way_tokens_cut_text_does_not_matter(text: str, starts_in_thought: bool, stops: list[str]) -> None:
    def result(ids: list[int]) -> tuple[str, str]:
        stream = TextStream(TOKENIZER, stop=stops, starts_in_thought=starts_in_thought, thinks=True)
        return tokens_of(stream, ids)[:2]

    assert result(TOKENIZER.encode_with_control(text)) == result(bytes_to_ids(TOKENIZER, text.encode()))
