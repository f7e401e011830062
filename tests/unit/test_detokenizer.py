"""Tokens to text: whole characters, byte for byte, whatever the cuts; stop strings found across them."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples
from tiny_text import bytes_to_ids, cut, tiny_data

from antiphon.text import TextStream, Tokenizer
from antiphon.text.detokenizer import Detokenizer
from antiphon.text.stop_strings import StopSearch, StopStrings

TOKENIZER = Tokenizer(tiny_data())
IDS = st.lists(st.integers(0, TOKENIZER.vocab_size + 2), max_size=30)


def one_a_byte(data: bytes) -> list[int]:
    return bytes_to_ids(TOKENIZER, data)


def pieces(ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(TOKENIZER)
    return [*map(detokenizer.push, ids), detokenizer.finish()]


@given(st.text())
def test_text_comes_back_whole(text: str) -> None:
    assert "".join(pieces(TOKENIZER.encode(text))) == text
    assert "".join(pieces(one_a_byte(text.encode()))) == text


@given(IDS)
def test_any_tokens_give_what_decoding_at_once_gives(ids: list[int]) -> None:
    shown = b"".join(TOKENIZER.id_to_bytes(id) for id in ids if not TOKENIZER.is_control(id))
    assert "".join(pieces(ids)) == shown.decode(errors="replace")


def test_a_character_waits_for_its_last_byte() -> None:
    assert pieces(one_a_byte("😀é".encode())) == ["", "", "", "😀", "", "é", ""]


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"a\xf0\x9f", "a�"), (b"\xffa", "�a"), (b"\xe4\xbda", "�a"), (b"\xc0\xaf", "��"), (b"\xed\xa0\x80", "���")],
)
def test_bytes_that_are_no_text_are_replaced(data: bytes, expected: str) -> None:
    assert "".join(pieces(one_a_byte(data))) == expected


def test_control_tokens_have_no_text_even_inside_a_character() -> None:
    first, *rest = one_a_byte("é".encode())
    end = TOKENIZER.control.ids["<｜end▁of▁sentence｜>"]
    assert "".join(pieces([end, first, end, *rest, end])) == "é"


def naive(text: str, stops: list[str]) -> str:
    """Up to the stop string that is complete first, the longest of several that end together."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


AB = st.text("ab", max_size=40)


@given(AB, st.lists(st.text("ab", min_size=1, max_size=6), max_size=5), st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=examples(400))
def test_stop_strings_are_found_however_the_text_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    search = StopSearch(StopStrings(stops))
    sent = ""
    for piece in cut(text, cuts):
        sent += search.push(piece)
        if search.matched:
            break
    sent += search.finish()
    assert sent == naive(text, stops)
    assert search.matched == any(stop in text for stop in stops)


@given(AB, st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=5))
def test_no_more_than_needed_is_held_back(text: str, stops: list[str]) -> None:
    search = StopSearch(StopStrings(stops))
    sent = "".join(search.push(letter) for letter in text)
    if not search.matched:
        held = text.removeprefix(sent)
        assert sent + held == text
        assert not held or any(stop.startswith(held) for stop in stops)


def test_nothing_comes_after_a_stop_string() -> None:
    search = StopSearch(StopStrings(["STOP"]))
    assert search.push("one ST") == "one "
    assert search.push("OP two") == ""
    assert search.matched
    assert search.push("three") + search.finish() == ""


def test_sixteen_long_stop_strings_cost_linear_time() -> None:
    search = StopSearch(StopStrings(["a" * 1000 + letter for letter in "bcdefghijklmnopq"]))
    start = time.process_time()
    for _ in range(50_000):
        search.push("a" * 8)
    assert time.process_time() - start < 3
    assert len(search.finish()) == 1000


def run(stream: TextStream, ids: list[int]) -> tuple[str, int]:
    """(content, tokens until it stopped)"""
    content = ""
    for count, id in enumerate(ids, 1):
        delta = stream.push(id)
        content += delta.content
        if delta.stopped:
            return content, count
    return content + stream.finish().content, len(ids)


def test_a_stop_string_before_min_tokens_is_text() -> None:
    ids = one_a_byte(b"a.b.c.d")
    assert run(TextStream(TOKENIZER, stop=["."]), ids) == ("a", 2)
    assert run(TextStream(TOKENIZER, stop=["."], min_tokens=2), ids) == ("a", 2)
    assert run(TextStream(TOKENIZER, stop=["."], min_tokens=3), ids) == ("a.b", 4)
    assert run(TextStream(TOKENIZER, stop=["."], min_tokens=7), ids) == ("a.b.c.d", 7)


def test_a_stop_string_may_lie_in_the_last_characters() -> None:
    assert run(TextStream(TOKENIZER, stop=["é"]), one_a_byte("café".encode())) == ("caf", 5)
    assert run(TextStream(TOKENIZER, stop=["\n\n"]), one_a_byte(b"x\n")) == ("x\n", 2)
    assert run(TextStream(TOKENIZER, stop=["�"]), one_a_byte(b"x\xe4")) == ("x", 2)
