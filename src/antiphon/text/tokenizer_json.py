"""Builds an encoder for plain text from a tokenizer.json, the `tokenizers` library's own format.

Two kinds are supported, since their ids can be turned back into bytes one by one, which streaming needs: byte-level
BPE, whose normalizer and pre-tokenizer are used as they are if all their steps are of known kinds, and SentencePiece's
BPE with byte fallback, which `sentence_piece` handles. Added tokens are left out of the encoder's vocabulary, so that
as with `byte_level` no text can be encoded as one of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Encoder

from antiphon.errors import CheckpointError
from antiphon.panics import faults_as
from antiphon.text import byte_level, sentence_piece
from antiphon.text.byte_level import Leading, Vocabulary, bpe_encoder
from antiphon.text.control import PLAIN, Matching
from antiphon.text.slices import can_be_sliced

MAX_ID = 1 << 24
# Steps of published byte-level models. Others can make a text many times longer, or crash the library.
_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents")
_PRE_TOKENIZERS = ("Split", "ByteLevel", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit")
_MAX_NESTING = 8
# Variants of BPE that no supported model uses.
_FOREIGN = ("continuing_subword_prefix", "end_of_word_suffix")


def vocabulary_from_json(source: bytes, num_rows: int | None = None) -> Vocabulary:
    """`num_rows`: of the model's embedding; added tokens beyond them are plain text.

    Raises CheckpointError if the file is damaged or of another kind.
    """
    try:
        tree = json.loads(source)
        _check_model(tree)
        return _vocabulary(tree, MAX_ID if num_rows is None else min(num_rows, MAX_ID))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"tokenizer.json is damaged ({type(error).__name__}: {error})"[:500]) from None


def _vocabulary(tree: dict[str, Any], end: int) -> Vocabulary:
    model = tree["model"]
    added = _added_tokens(tree)
    special_ids = {token.id for token in added.values()}
    ordinary = {text: id for text, id in model["vocab"].items() if text not in added and id not in special_ids}
    _check_ids([*ordinary.values(), *special_ids])
    if (last := max(ordinary.values(), default=0)) >= end:
        raise CheckpointError(
            f"tokenizer.json has a token of id {last}, but the model has rows for {end} tokens (vocab_size); take the "
            "tokenizer that belongs to it"
        )
    special = {text: token for text, token in added.items() if token.id < end}
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    merges = [(a, b) for a, b in pairs if a in ordinary and b in ordinary and a + b in ordinary]
    bpe = bpe_encoder(
        ordinary, merges, ignore_merges=bool(model.get("ignore_merges")), byte_fallback=_is_sentence_piece(tree)
    )
    encoder, spell, leading, sliced = bpe, sentence_piece.spell, Leading.NONE, False
    if _is_sentence_piece(tree):
        sentence_piece.check_bytes(ordinary, "tokenizer.json")
        leading = sentence_piece.leading_space(tree)
    else:
        encoder, spell, sliced = _steps_around(tree), byte_level.spell, can_be_sliced(tree)
        encoder.model = bpe.model
    control = {text: token.id for text, token in special.items()}
    tokens = {id: text for text, id in (*ordinary.items(), *control.items())}
    return Vocabulary(
        encoder,
        tokens,
        control,
        frozenset(token.id for token in special.values() if token.is_special),
        max(tokens) + 1,
        spell,
        leading,
        frozenset(added.keys() - special.keys()),
        {text: token.matching for text, token in special.items()},
        can_be_sliced=sliced,
    )


@dataclass(frozen=True, slots=True)
class _Added:
    """An added token."""

    id: int
    is_special: bool  # hidden from what the model says
    matching: Matching


def _added_tokens(tree: dict[str, Any]) -> dict[str, _Added]:
    """By their text."""
    added = {}
    for token in tree.get("added_tokens") or []:
        text = token["content"]
        if not isinstance(text, str) or not text:
            raise ValueError("an added token has no text")
        text.encode()  # raises a ValueError for half a character, which no byte sequence spells
        matching = Matching(*(bool(token.get(key)) for key in ("lstrip", "rstrip", "single_word", "normalized")))
        added[text] = _Added(token["id"], bool(token["special"]), PLAIN if matching == PLAIN else matching)
    return added


def _check_ids(ids: list[Any]) -> None:
    if not ids or not all(type(id) is int and 0 <= id < MAX_ID for id in ids):
        raise ValueError(f"its ids must be whole numbers from 0 to {MAX_ID - 1}")


def _steps_around(tree: dict[str, Any]) -> Encoder:
    """The library's tokenizer with everything but the vocabulary."""
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    rest: dict[str, Any] = {
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "model": empty,
    }
    with faults_as(_unusable):
        return Encoder.from_str(json.dumps(tree | rest))


def _unusable(reason: str) -> CheckpointError:
    return CheckpointError(f"tokenizer.json cannot be used: {reason}")


def _is_sentence_piece(tree: dict[str, Any]) -> bool:
    return bool(tree["model"].get("byte_fallback"))


def _check_model(tree: dict[str, Any]) -> None:
    model = tree["model"]
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise CheckpointError(f"tokenizer.json has a {kind} model, which is not supported; BPE is")
    for key in _FOREIGN:
        if model.get(key):
            raise CheckpointError(f"tokenizer.json sets {key!r}, which is not supported; byte-level BPE is")
    if _is_sentence_piece(tree):
        return
    steps = _steps(tree, "pre_tokenizer", "pretokenizers", _PRE_TOKENIZERS)
    if "ByteLevel" not in steps:
        raise CheckpointError("tokenizer.json cuts text without a ByteLevel step, which is not supported")
    _steps(tree, "normalizer", "normalizers", _NORMALIZERS)


def _steps(tree: dict[str, Any], field: str, inner: str, known: tuple[str, ...]) -> set[str]:
    """The kinds of a field's steps, also of nested ones; raises CheckpointError for an unknown one."""
    kinds: set[str] = set()
    level = [tree[field]] if tree.get(field) else []
    for _ in range(_MAX_NESTING):
        kinds |= {step["type"] for step in level if step["type"] != "Sequence"}
        level = [below for step in level if step["type"] == "Sequence" for below in step[inner]]
    if level:
        raise CheckpointError(f"tokenizer.json nests the steps of its {field} more than {_MAX_NESTING} deep")
    if unknown := sorted(kinds - set(known)):
        raise CheckpointError(
            f"tokenizer.json has the {field} {unknown[0]!r}, which is not supported; {', '.join(known)} are"
        )
    return kinds
