"""Builds an encoder for plain text from a SentencePiece BPE vocabulary, as Llama 2, Mistral and TinyLlama use it.

Tokens are text in which `▁` represents a space. Text that the vocabulary cannot represent is encoded byte by byte, with
tokens named `<0x00>` to `<0xFF>`; text that looks like such a name is not encoded as that token. A tokenizer.json
contains the merges. A GGUF file has a score for each token instead, and the merges are recovered by splitting every
token in two, the best score first. Models expect a space before a text, and some also before each text between two
control tokens; `leading` says which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from antiphon.checkpoint import TokenizerData
from antiphon.errors import CheckpointError
from antiphon.text.byte_level import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Leading, Vocabulary, bpe_encoder

SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
BYTE = 6  # GGUF's type of those tokens
SPECIAL = (UNKNOWN, CONTROL, USER_DEFINED)
MAX_LETTERS = 256  # length limit of tokens that merges can make; the longest in use have 64


def spell(token: str) -> bytes:
    """The bytes of an ordinary token."""
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode()


def vocabulary_from_scores(data: TokenizerData) -> Vocabulary:
    """The vocabulary of a GGUF file. Raises CheckpointError, naming the field, if no equivalent can be built."""
    types = data.token_types
    ids = {token: id for id, token in enumerate(data.tokens) if types[id] in (NORMAL, BYTE)}
    check_bytes(ids, "tokenizer.ggml.tokens")
    pieces = {token: id for token, id in ids.items() if types[id] == NORMAL}
    control = {token: id for id, token in enumerate(data.tokens) if token and types[id] in SPECIAL}
    hidden = frozenset(id for id, type in enumerate(types) if type not in (NORMAL, BYTE, USER_DEFINED))
    leading = Leading.EACH if data.add_space_prefix else Leading.NONE
    encoder = bpe_encoder(ids, _merges(pieces, data.scores), byte_fallback=True)
    return Vocabulary(encoder, dict(enumerate(data.tokens)), control, hidden, len(data.tokens), spell, leading)


def _merges(pieces: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to build a token from two others, the best tokens first."""
    by_score = sorted(pieces, key=lambda token: (-scores[pieces[token]], pieces[token]))
    return [
        (token[:at], token[at:])
        for token in by_score
        for at in range(1, len(token) if len(token) <= MAX_LETTERS else 0)
        if token[:at] in pieces and token[at:] in pieces
    ]


def check_bytes(ids: Mapping[str, int], where: str) -> None:
    """Raise CheckpointError unless there is a token for each byte; otherwise some text could not be encoded."""
    missing = next((byte for byte in range(256) if f"<0x{byte:02X}>" not in ids), None)
    if missing is not None:
        raise CheckpointError(
            f"{where} has no token <0x{missing:02X}>; a SentencePiece vocabulary needs one for each byte"
        )


def leading_space(tree: Mapping[str, Any]) -> Leading:
    """How a tokenizer.json handles spaces. Raises CheckpointError if it changes text in any other way."""
    normalizer, pre = tree.get("normalizer"), tree.get("pre_tokenizer")
    if pre is None:
        steps = normalizer.get("normalizers", [normalizer]) if normalizer else []
        prepend = [step for step in steps if step == {"type": "Prepend", "prepend": SPACE}]
        replace = [step for step in steps if step == _REPLACE]
        if len(replace) == 1 and len(prepend) + len(replace) == len(steps):
            return Leading.EACH if prepend else Leading.NONE
    elif normalizer is None and pre.get("type") == "Metaspace" and pre.get("replacement") == SPACE:
        scheme = {"always": Leading.EACH_WITHOUT, "first": Leading.FIRST, "never": Leading.NONE}.get(
            pre.get("prepend_scheme")
        )
        if scheme is not None and pre.get("split") is False:
            return scheme
    raise CheckpointError(
        "tokenizer.json transforms text in a way that is not supported; with 'byte_fallback', only replacing spaces by "
        "'▁' is"
    )


_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
