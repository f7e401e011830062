"""Vocabularies of SentencePiece's BPE: ids equal llama.cpp's and Hugging Face's, and bytes come back whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processor_time import takes_linear_time
from tiny_checkpoints import DATA, write_gguf
from tiny_sentence_piece import CONTROL_TEXTS, SCORES, TEMPLATE, TOKENS, sentence_piece_data, sentence_piece_json
from tiny_sentence_piece import sentence_piece_metadata as metadata
from tokenizers import Tokenizer as HuggingFaceTokenizer

from antiphon.checkpoint import TokenizerData
from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint
from antiphon.text import Tokenizer
from antiphon.text.prompt import build_chat_prompt
from antiphon.text.template import ChatTemplate
from antiphon.text.thinking import ThoughtTokens

CASES = json.loads((DATA / "token_ids.json").read_text(encoding="utf-8"))["cases"]
SEAMS = ["a[INST] b c[/INST]d", "[INST] a", " [INST]", "<s>[INST]  x [/INST] y </s>", "[INST]é</s>", ""]
TINY = Tokenizer(sentence_piece_data())


def from_json(scheme: str) -> Tokenizer:
    return Tokenizer(TokenizerData(tokenizer_json=json.dumps(sentence_piece_json(scheme)).encode()))


def test_ids_equal_llama_cpp(tmp_path: Path) -> None:
    tokenizer = Tokenizer(open_checkpoint(write_gguf(tmp_path / "tiny.gguf", metadata())).tokenizer)
    assert tokenizer.add_bos
    for case in CASES:
        assert tokenizer.encode(case["text"]) == case["sentence-piece"], case["text"]
        assert tokenizer.encode_with_control(case["text"]) == case["sentence-piece+control"], case["text"]


@pytest.mark.parametrize("scheme", ["each", "always", "first", "never"])
def test_ids_equal_hugging_face(scheme: str) -> None:
    ours = from_json(scheme)
    theirs = HuggingFaceTokenizer.from_str(json.dumps(sentence_piece_json(scheme)))
    for text in [*SEAMS, *(case["text"] for case in CASES)]:
        assert ours.encode_with_control(text) == theirs.encode(text).ids, text


@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from([*CONTROL_TEXTS, "<0x0A>", "▁"]))).map("".join))
def test_typed_text_stays_text_and_its_bytes_come_back(text: str) -> None:
    ids = TINY.encode(text)
    assert not set(TINY.control.ids.values()).intersection(ids)
    assert b"".join(map(TINY.id_to_bytes, ids)).decode() == (" " + text if text else "").replace("▁", " ")
    inside = TINY.encode_inside(text)
    assert b"".join(map(TINY.id_to_bytes, inside)).decode() == text.replace("▁", " ")


def test_a_conversation_has_the_ids_of_its_whole_text() -> None:
    template = ChatTemplate(TEMPLATE, bos_token=TOKENS[1], eos_token=TOKENS[2])
    messages = [{"role": "user", "content": "What? [/INST] 11"}]
    try:
        prompt = build_chat_prompt(TINY, template, messages)
    finally:
        template.close()
    bos, begin, end = (TINY.control.ids[text] for text in ("<s>", "[INST]", "[/INST]"))
    assert prompt.token_ids == [bos, begin, *TINY.encode(" What? [/INST] 11 "), end]


def test_a_thought_is_closed_without_a_space_of_nobodys() -> None:
    limit = ThoughtTokens(TINY).limit(8, starts_in_thought=True)
    assert b"".join(map(TINY.id_to_bytes, limit.closing_token_ids)).decode() == "\n</think>\n\n"


@pytest.mark.parametrize("text", ["a", " ", "漢", "ab "])
def test_long_texts_take_linear_time(text: str) -> None:
    assert takes_linear_time(lambda length: TINY.encode(text * (length // len(text)) + "x"), 10_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": ["x" if text == "<0x0A>" else text for text in TOKENS]}, "no token <0x0A>"),
        ({"tokenizer_json": {"normalizer": {"type": "NFKC"}}}, "transforms text in a way that is not supported"),
        ({"tokenizer_json": {"normalizer": None, "pre_tokenizer": {"type": "Metaspace"}}}, "transforms text in a way"),
        ({"tokenizer_json": {"normalizer": {"type": "Sequence", "normalizers": []}}}, "transforms text in a way"),
        ({"tokenizer_json": {"normalizer": 4}}, "is damaged"),
    ],
)
def test_what_cannot_be_built_is_named(change: dict[str, object], message: str) -> None:
    if isinstance(fields := change.get("tokenizer_json"), dict):
        change = {"tokenizer_json": json.dumps(sentence_piece_json() | fields).encode()}
    with pytest.raises(CheckpointError, match=message):
        Tokenizer(replace(sentence_piece_data(), **change))


@pytest.mark.parametrize("scores", [SCORES[1:], [*SCORES[1:], float("nan")], None])
def test_unsound_scores_are_named(tmp_path: Path, scores: list[float] | None) -> None:
    fields = metadata() | {"tokenizer.ggml.scores": scores}
    fields = {key: value for key, value in fields.items() if value is not None}
    with pytest.raises(CheckpointError, match=r"tokenizer\.ggml\.scores"):
        open_checkpoint(write_gguf(tmp_path / "tiny.gguf", fields))
