"""The tokens around thoughts: tags are known however they are spelled, with and without tokens of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_text import tiny_data

from antiphon.text import Tokenizer
from antiphon.text.thinking import ThoughtTokens


def tokenizer(*, with_tags: bool) -> Tokenizer:
    data = tiny_data()
    if with_tags:
        return Tokenizer(data)
    tokens = [f"<unused {id}>" if "think>" in token else token for id, token in enumerate(data.tokens)]
    return Tokenizer(replace(data, tokens=tokens))


def contains(token_ids: list[int], run: tuple[int, ...]) -> bool:
    return any(tuple(token_ids[at : at + len(run)]) == run for at in range(len(token_ids)))


@pytest.mark.parametrize("with_tags", [True, False])
def test_tags_are_found_in_text_however_they_are_spelled(with_tags):
    known = tokenizer(with_tags=with_tags)
    limit = ThoughtTokens(known).limit(5, starts_in_thought=False)
    for tag, spellings in (("<think>", limit.begin_token_ids), ("</think>", limit.end_token_ids)):
        assert all(tag in b"".join(map(known.id_to_bytes, ids)).decode() for ids in spellings)
        for text in (tag, f"so.\n{tag}\n\nIt", f"so {tag}", f"\n{tag}\n"):
            for token_ids in (known.encode(text), known.encode_with_control(text)):
                assert any(contains(token_ids, spelling) for spelling in spellings), text
        assert (spellings[0] == (known.control_token_id(tag),)) is with_tags


@pytest.mark.parametrize("with_tags", [True, False])
def test_the_closing_tokens_spell_a_line_end_the_tag_and_a_blank_line(with_tags):
    known = tokenizer(with_tags=with_tags)
    tokens = ThoughtTokens(known)
    closing = tokens.limit(5, starts_in_thought=True).closing_token_ids
    assert b"".join(map(known.id_to_bytes, closing)) == b"\n</think>\n\n"
    assert tokens.num_closing_tokens == len(closing)


def test_sentence_ends_hold_no_words():
    known = tokenizer(with_tags=True)
    ends = ThoughtTokens(known).limit(5, starts_in_thought=True).sentence_end_token_ids
    texts = [known.id_to_bytes(id).decode() for id in ends]
    assert {".", "?", "!", "\n", ".\n"} <= set(texts)
    assert not any(letter.isalnum() for text in texts for letter in text)
    assert len(texts) < 100


def test_a_prompt_inside_the_thought_needs_no_opening_tag():
    tokens = ThoughtTokens(tokenizer(with_tags=True))
    assert tokens.limit(5, starts_in_thought=True).begin_token_ids == ()
