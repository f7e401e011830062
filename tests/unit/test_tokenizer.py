"""Token ids against llama.cpp's and Hugging Face's, and the rule that typed text never becomes a control token."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processor_time import takes_linear_time
from tiny_checkpoints import CONTROL_TOKENS, DATA, metadata, tiny_vocabulary, tokenizer_json, write_gguf
from tiny_text import tiny_data
from tokenizers import Tokenizer as HuggingFaceTokenizer

from antiphon.checkpoint import TokenizerData
from antiphon.errors import CheckpointError, ContextLengthExceeded, InvalidRequest
from antiphon.formats import open_checkpoint
from antiphon.text import Tokenizer
from antiphon.text.slices import can_be_sliced, slices

CASES = json.loads((DATA / "token_ids.json").read_text(encoding="utf-8"))["cases"]
PRE_TOKENIZERS = ("smollm", "qwen2", "deepseek-r1-qwen", "llama-bpe", "tekken")
# As Qwen and DeepSeek publish it; GGUF's version of it differs in contractions with letters beyond ASCII only.
QWEN_EXPRESSION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


TINY = Tokenizer(tiny_data())


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return TINY


@pytest.fixture(scope="module")
def demo(demo_model: Path) -> Tokenizer:
    return Tokenizer(open_checkpoint(demo_model).tokenizer)


def hugging_face(normalizer: dict[str, str] | None) -> Tokenizer:
    source = tokenizer_json() | {"normalizer": normalizer}
    return Tokenizer(replace(tiny_data(), tokenizer_json=json.dumps(source).encode()))


BOUNDED = [TINY, hugging_face(None), hugging_face({"type": "NFC"})]


@given(st.sampled_from(BOUNDED), st.text(st.sampled_from("a \n=한각ᄒ\u1161\u11ab\u0301é<|im_start|>")), st.booleans())
def test_a_text_is_refused_uncounted_only_where_counting_would_refuse_it(tokenizer, text, control):
    count = len((tokenizer.encode_with_control if control else tokenizer.encode)(text))
    tokenizer.check_room(text, count + 1, "prompt")


@pytest.mark.parametrize("tokenizer", BOUNDED)
def test_a_huge_text_is_refused_uncounted(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokenizer, "_encode", lambda *_: pytest.fail("was encoded"))
    with pytest.raises(ContextLengthExceeded, match=r"has at least \d+ tokens") as error:
        tokenizer.check_room("한 x" * 1_000_000, 4096, "prompt")
    assert error.value.param == "prompt"


def test_a_text_that_may_shrink_by_any_measure_is_counted():
    hugging_face({"type": "Strip", "strip_left": True, "strip_right": True}).check_room(" " * 10**6, 5, "prompt")


@pytest.mark.model
def test_ids_equal_llama_cpp_on_the_demo_model(demo: Tokenizer) -> None:
    for case in CASES:
        assert demo.encode(case["text"]) == case["smollm2"], case["text"]
        assert demo.encode_with_control(case["text"]) == case["smollm2+control"], case["text"]


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_ids_equal_llama_cpp_for_each_pre_tokenizer(pre: str) -> None:
    tokenizer = Tokenizer(tiny_data(pre))
    typed_control = [text for text, _ in CONTROL_TOKENS]
    for case in CASES:
        # llama.cpp lets typed text become user-defined tokens; we do not.
        if not any(text in case["text"] for text in typed_control):
            assert tokenizer.encode(case["text"]) == case[pre], case["text"]
        assert tokenizer.encode_with_control(case["text"]) == case[f"{pre}+control"], case["text"]


def test_ids_equal_hugging_face_with_the_published_expression() -> None:
    source = json.dumps(tokenizer_json(QWEN_EXPRESSION))
    ours = Tokenizer(TokenizerData(tokenizer_json=source.encode()))
    theirs = HuggingFaceTokenizer.from_str(source)
    for case in CASES:
        assert ours.encode_with_control(case["text"]) == theirs.encode(case["text"]).ids, case["text"]


def test_decoding_gives_the_bytes_back(tiny: Tokenizer) -> None:
    for case in CASES:
        for ids in (tiny.encode(case["text"]), tiny.encode_with_control(case["text"])):
            assert b"".join(map(tiny.id_to_bytes, ids)).decode() == case["text"]


@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from([text for text, _ in CONTROL_TOKENS]))).map("".join))
def test_typed_text_never_becomes_a_control_token(text: str) -> None:
    ids = TINY.encode(text)
    assert not set(TINY.control.ids.values()).intersection(ids)
    assert b"".join(map(TINY.id_to_bytes, ids)).decode() == text


def test_control_tokens_are_found_where_they_are_meant(tiny: Tokenizer) -> None:
    ids = tiny.encode_with_control("<｜User｜>a<think>")
    user, think = tiny.control_token_id("<｜User｜>"), tiny.control_token_id("<think>")
    assert ids == [user, *tiny.encode("a"), think]


def test_the_longest_control_token_wins() -> None:
    data = tiny_data()
    tokens, types = [*data.tokens, "<think>ing", "<thi"], [*data.token_types, 3, 3]
    tokenizer = Tokenizer(replace(data, tokens=tokens, token_types=types))
    assert tokenizer.encode_with_control("<think>ing") == [len(tokens) - 2]
    assert tokenizer.encode_with_control("<think>") == [tokens.index("<think>")]
    assert tokenizer.encode_with_control("<thin") == [len(tokens) - 1, *tokenizer.encode("n")]


def test_control_words_are_kept_from_text_even_if_whole_words_are_taken() -> None:
    """llama-bpe takes a word that is in the vocabulary whole; a control token may look like a word."""
    data = tiny_data("llama-bpe")
    tokenizer = Tokenizer(replace(data, tokens=[*data.tokens, "stop"], token_types=[*data.token_types, 3]))
    assert len(data.tokens) not in tokenizer.encode("stop")
    assert tokenizer.encode_with_control("stop") == [len(data.tokens)]


def test_special_tokens_are_hidden_and_user_defined_ones_are_not(tiny: Tokenizer) -> None:
    hidden = {text: tiny.is_control(id) for text, id in tiny.control.ids.items()}
    assert hidden["<｜end▁of▁sentence｜>"]
    assert not hidden["</think>"]
    assert tiny.is_control(tiny.vocab_size - 1), "padding of the vocabulary"
    assert tiny.is_control(tiny.vocab_size + 5)
    assert tiny.id_to_bytes(tiny.vocab_size + 5) == b""
    assert not tiny.is_control(0)


@pytest.mark.parametrize("text", ["\ud800", "ab\udfffc"])
def test_lone_surrogates_are_the_senders_mistake(tiny: Tokenizer, text: str) -> None:
    for encode in (tiny.encode, tiny.encode_with_control):
        with pytest.raises(InvalidRequest, match="surrogate") as caught:
            encode(text, param="prompt")
        assert caught.value.param == "prompt"


@pytest.mark.parametrize("text", ["a", " ", "\n", "<", "<|im_", "1", "😀"])
def test_long_texts_take_linear_time(tiny: Tokenizer, text: str) -> None:
    assert takes_linear_time(lambda length: tiny.encode_with_control(text * (length // len(text)) + "x"), 20_000)


def test_encoding_lets_other_threads_run() -> None:
    """A busy machine may keep this thread from running for most of a try; the interpreter's lock would in each."""
    text = " ".join(f"word{n}" for n in range(50_000))

    def longest_pause() -> float:
        """As a share of the time that encoding takes."""
        worker = threading.Thread(target=TINY.encode, args=(text,))
        longest, start = 0.0, time.perf_counter()
        last = start
        worker.start()
        while worker.is_alive():
            time.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        return longest / (last - start)

    assert any(longest_pause() < 0.6 for _ in range(20)), "the interpreter's lock was held for most of it"


def test_bytes_outside_the_vocabulary_are_dropped_and_still_part_words() -> None:
    data = tiny_data()
    missing = next(id for id, letter in enumerate(data.tokens) if letter == "\u0101")  # the byte 0x01
    types = [5 if id == missing else type for id, type in enumerate(data.token_types)]
    tokenizer = Tokenizer(replace(data, token_types=types))
    assert tokenizer.encode("a\x01a") == tokenizer.encode("a") * 2


GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "x" * 1000}  # makes any text too long for memory


def nested(step: object, depth: int) -> object:
    """A normalizer inside so many sequences."""
    for _ in range(depth):
        step = {"type": "Sequence", "normalizers": [step]}
    return step


def changed_json(**fields: object) -> bytes:
    return json.dumps(tokenizer_json() | fields).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre_tokenizer": "gpt-9"}, "'gpt-9' .* not supported; supported are smollm, qwen2"),
        ({"merges": ["ab"]}, "merge 0 .* must be two tokens"),
        ({"tokenizer_json": b"{"}, "tokenizer.json is damaged"),
        ({"tokenizer_json": b'{"model": {"type": "Unigram"}}'}, "Unigram"),
        ({"tokenizer_json": b'{"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Metaspace"}}'}, "ByteLevel"),
        ({"tokenizer_json": b"[" * 100_000}, "tokenizer.json is damaged"),
        ({"tokenizer_json": changed_json(added_tokens=[{"content": 1, "id": 1, "special": True}])}, "has no text"),
        ({"tokenizer_json": changed_json(added_tokens=[{"content": "x", "id": -1, "special": True}])}, "whole numbers"),
        ({"tokenizer_json": changed_json(added_tokens=[{"content": "x"}])}, "KeyError: 'id'"),
        ({"tokenizer_json": changed_json(normalizer={"type": 4})}, "the normalizer 4, which is"),
        ({"tokenizer_json": changed_json(normalizer=GROWING)}, "the normalizer 'Replace', which is not supported"),
        ({"tokenizer_json": changed_json(normalizer=nested(GROWING, 3))}, "the normalizer 'Replace'"),
        ({"tokenizer_json": changed_json(normalizer=nested({"type": "NFC"}, 9))}, "more than 8 deep"),
        ({"tokenizer_json": changed_json(pre_tokenizer={"type": "Sequence", "pretokenizers": 5})}, "is damaged"),
        ({"tokenizer_json": changed_json(pre_tokenizer={"type": "Sequence", "pretokenizers": [None]})}, "is damaged"),
        (
            {"tokenizer_json": changed_json(added_tokens=[{"content": "\ud800", "id": 1, "special": True}])},
            "is damaged",
        ),
        ({"tokenizer_json": changed_json(), "num_rows": 999}, "rows for 999 tokens .vocab_size.; take the tokenizer"),
    ],
)
def test_what_cannot_be_built_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Tokenizer(replace(tiny_data(), **change))


def test_a_text_at_which_the_regex_library_panics_is_the_senders_mistake(capfd: pytest.CaptureFixture[str]) -> None:
    """Oniguruma gives up after ten million steps, and `tokenizers` panics, which no `except Exception` catches."""
    source = json.dumps(tokenizer_json(r"(?:a|aa)+b|[^a]+"))
    tokenizer = Tokenizer(TokenizerData(tokenizer_json=source.encode()))
    for encode in (tokenizer.encode, tokenizer.encode_with_control):
        with pytest.raises(InvalidRequest, match=r"cannot cut this text into tokens \(.*retry-limit.*\); shorten"):
            encode("a" * 1000)
    assert tokenizer.encode("aab"), "the tokenizer goes on working"


def test_a_token_without_a_row_is_plain_text() -> None:
    """As `[PAD]` is in many a fine-tuned model; its id would be out of the embedding's reach."""
    source = tokenizer_json()
    num_rows = len(tiny_vocabulary()[0])
    source["added_tokens"].append(source["added_tokens"][0] | {"id": num_rows, "content": "<huge>"})
    tokenizer = Tokenizer(replace(tiny_data(), tokenizer_json=json.dumps(source).encode(), num_rows=num_rows))
    ids = tokenizer.encode_with_control("<huge>")
    assert ids == tokenizer.encode("<huge>")
    assert max(ids) < num_rows
    assert tokenizer.beyond == {"<huge>"}


def test_a_gguf_vocabulary_arrives_whole(tmp_path: Path) -> None:
    data = open_checkpoint(write_gguf(tmp_path / "tiny.gguf", metadata())).tokenizer
    assert (data.tokens, data.token_types, data.merges) == tiny_vocabulary()


SLICED = [
    *(Tokenizer(tiny_data(pre)) for pre in PRE_TOKENIZERS),
    Tokenizer(replace(tiny_data(), tokenizer_json=json.dumps(tokenizer_json(QWEN_EXPRESSION)).encode())),
]


@pytest.mark.parametrize("tokenizer", SLICED)
@given(text=st.text(st.sampled_from("abzT 1'sé。，我\n\t.<|é\u0301한ᄒ\u1161")))
def test_the_tokens_of_slices_are_those_of_the_text(tokenizer: Tokenizer, text: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("antiphon.text.slices.SLICE", 2)
        patch.setattr("antiphon.text.control._WINDOW", 3)
        assert tokenizer._can_be_sliced
        assert tokenizer._encode(text) == tokenizer._encode_at_once(text)
        sliced = tokenizer.encode_with_control(text + "<|im_start|>" + text)
    assert sliced == tokenizer.encode_with_control(text + "<|im_start|>" + text)


@given(text=st.text(st.sampled_from("ab 1。，")), window=st.integers(1, 5))
def test_a_text_is_cut_at_the_same_places_however_little_of_it_is_searched_at_once(text: str, window: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("antiphon.text.slices.SLICE", 2)
        at_once = list(slices(text))
        patch.setattr("antiphon.text.slices._WINDOW", window)
        assert list(slices(text)) == at_once


def test_a_text_beyond_its_limit_is_not_encoded_to_its_end(tiny: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    encoded: list[int] = []
    at_once = tiny._encode_at_once
    monkeypatch.setattr(
        tiny, "_encode_at_once", lambda text, limit=None: encoded.append(len(text)) or at_once(text, limit)
    )
    for encode in (tiny.encode, tiny.encode_with_control):
        encoded.clear()
        assert len(encode("zq xj " * 500_000, limit=1000)) >= 1000
        assert sum(encoded) < 70_000


def test_only_steps_that_end_words_at_spaces_are_sliced():
    tree = tokenizer_json(QWEN_EXPRESSION)
    assert can_be_sliced(tree)
    split, level = tree["pre_tokenizer"]["pretokenizers"]
    for steps in (
        [split | {"invert": True}, level],
        [split | {"behavior": "Removed"}],
        [level | {"add_prefix_space": True}],
    ):
        assert not can_be_sliced(tree | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}})
    assert not can_be_sliced(tokenizer_json())
    assert not can_be_sliced(tree | {"normalizer": {"type": "Lowercase"}})
