"""Control tokens in text: found as the `tokenizers` library finds them, and never expensive to look for."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import CONTROL_TOKENS, tokenizer_json
from tiny_text import tiny_data
from tokenizers import Tokenizer as HuggingFaceTokenizer

from antiphon.errors import CheckpointError
from antiphon.text import Tokenizer
from antiphon.text.control import MAX_LETTERS, MAX_NESTING, ControlTokens, Matching

FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


def with_added(*tokens: dict[str, Any]) -> bytes:
    """The tiny tokenizer.json with these added tokens beside its own."""
    tree = tokenizer_json()
    plain = dict.fromkeys(FLAGS, False) | {"special": True}
    first = len(tree["model"]["vocab"]) + len(tree["added_tokens"])  # the library numbers them so, too
    tree["added_tokens"] += [{"id": first + n, **plain, **token} for n, token in enumerate(tokens)]
    return json.dumps(tree).encode()


# One token for each way of matching, so that any two of them meet in a text.
WAYS = [dict(zip(FLAGS, ways, strict=True)) for ways in product([False, True], repeat=len(FLAGS))]
SOURCE = with_added(*({"content": f"<{chr(97 + n)}>", **way} for n, way in enumerate(WAYS)), {"content": "zqword"})
OURS = Tokenizer(replace(tiny_data(), tokenizer_json=SOURCE))
THEIRS = HuggingFaceTokenizer.from_str(SOURCE.decode())
PIECES = [
    *(f"<{chr(97 + n)}>" for n in range(len(WAYS))),
    *(text for text, _ in CONTROL_TOKENS),
    *(
        " ",
        "  ",
        "\n",
        "\u00a0",
        "\u3000",
        "\x1c",
        "\u200d",
        "_",
        "a",
        "7",
        "é",
        "\u0301",
        "²",
        "Ⓐ",
        "<",
        ">",
        "word",
        "-",
    ),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_ids_equal_the_librarys_whatever_the_way_of_matching(text: str):
    assert OURS.encode_with_control(text) == THEIRS.encode(text, add_special_tokens=False).ids


def test_each_way_of_matching_by_example():
    tokens = ControlTokens(
        {"<l>": 1, "<r>": 2, "<w>": 3},
        {"<l>": Matching(lstrip=True), "<r>": Matching(rstrip=True), "<w>": Matching(single_word=True)},
    )
    assert list(tokens.split("a \n<l> b")) == ["a", 1, " b"]
    assert list(tokens.split("a <r> \nb")) == ["a ", 2, "b"]
    assert list(tokens.split("a<w> <w>b <w>")) == ["a<w> <w>b ", 3]
    assert list(tokens.split("<r> <l>")) == [2, 1]


def test_a_token_at_the_edge_of_a_window_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("antiphon.text.control._WINDOW", 16)
    tokens = ControlTokens({"<token>": 1, "<to": 2})
    for before in range(40):
        assert list(tokens.split("x" * before + "<token>y")) == [*(["x" * before] if before else []), 1, "y"]


@given(
    st.lists(st.text("ab<", min_size=1, max_size=5), min_size=1, max_size=5, unique=True),
    st.text("ab<c", max_size=7),
)
def test_what_may_go_on_with_a_token(texts: list[str], text: str):
    tokens = ControlTokens({text: id for id, text in enumerate(texts)})
    ends = [token[start:] for token in texts for start in range(1, len(token))]
    wanted = bool(text) and any(text.startswith(end) or end.startswith(text) for end in ends)
    assert tokens.may_continue(text) == wanted


@given(
    st.lists(st.text("ab<", min_size=1, max_size=4), min_size=1, max_size=8, unique=True),
    st.text("ab<c", max_size=20),
)
def test_the_longest_token_at_the_first_place_is_found(texts: list[str], text: str):
    tokens = ControlTokens({token: id for id, token in enumerate(texts)})
    wanted: list[str | int] = []
    plain, at = "", 0
    while at < len(text):
        here = max((token for token in texts if text.startswith(token, at)), key=len, default="")
        if here:
            wanted += [*([plain] if plain else []), texts.index(here)]
            plain = ""
        else:
            plain += text[at]
        at += len(here) or 1
    assert list(tokens.split(text)) == [*wanted, *([plain] if plain else [])]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["x" * 30_000], "'xxx.*… has 30000 letters; the most is 256"),
        (["x" * length for length in range(1, 200)], "more than 96 control tokens begin with each other"),
        ([f"{n:06}" + "x" * 240 for n in range(5000)], "more than 1048576 letters in all"),
    ],
)
def test_texts_that_would_be_expensive_to_look_for_are_refused(texts: list[str], message: str):
    data = tiny_data()
    types = [*data.token_types, *[3] * len(texts)]
    with pytest.raises(CheckpointError, match=message) as error:
        Tokenizer(replace(data, tokens=[*data.tokens, *texts], token_types=types))
    assert len(error.value.message) < 300


def test_the_most_that_is_allowed_can_be_looked_for():
    ControlTokens({"x" * length: length for length in range(1, MAX_NESTING + 2)})
    assert list(ControlTokens({"x" * MAX_LETTERS: 1}).split("x" * (MAX_LETTERS + 1))) == [1, "x"]


def test_many_tokens_cost_memory_in_proportion_to_their_text():
    """As models of speech have them."""
    texts = {f"<custom_token_{n}>": n for n in range(20_000)}
    tracemalloc.start()
    try:
        tokens = ControlTokens(texts)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100 * sum(map(len, texts))
    assert list(tokens.split("a<custom_token_777>b")) == ["a", 777, "b"]
    assert tokens.may_continue("token_1")
    assert not tokens.may_continue("token_x")
