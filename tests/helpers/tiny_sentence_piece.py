"""A tiny vocabulary in SentencePiece's BPE, as GGUF files and as the `tokenizers` library write such."""

from __future__ import annotations

import json
from typing import Any

from tiny_checkpoints import CONTROL, DATA, NORMAL, metadata

from antiphon.checkpoint import TokenizerData

UNKNOWN, BYTE = 2, 6
SPACE = "▁"
CONTROL_TEXTS = ("<s>", "</s>", "[INST]", "[/INST]")
_TOKENS = json.loads((DATA / "tiny_sentence_piece.json").read_text(encoding="utf-8"))["tokens"]
TOKENS = ["<unk>", *CONTROL_TEXTS, *(f"<0x{byte:02X}>" for byte in range(256)), *_TOKENS]
TYPES = [UNKNOWN] + [CONTROL] * len(CONTROL_TEXTS) + [BYTE] * 256 + [NORMAL] * len(_TOKENS)
SCORES = [0.0] * (len(TOKENS) - len(_TOKENS)) + [-float(rank) for rank in range(len(_TOKENS))]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)


def sentence_piece_data(**changes: Any) -> TokenizerData:
    fields = {"add_space_prefix": True, "bos_token_id": 1, "eos_token_ids": (2,)}
    return TokenizerData(tokens=TOKENS, token_types=TYPES, scores=SCORES, **(fields | changes))


def sentence_piece_metadata() -> dict[str, Any]:
    """What a GGUF file says of a tiny model with it."""
    fields = {key: value for key, value in metadata("llama").items() if not key.startswith("tokenizer.")}
    return fields | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.scores": SCORES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }


def sentence_piece_json(scheme: str = "each") -> dict[str, Any]:
    """A tokenizer.json: with `each` as Llama 2's and Mistral's first ones are, else with Metaspace's prepend_scheme."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    steps = [{"type": "Prepend", "prepend": SPACE}, replace]
    by_normalizer = scheme == "each"
    meta = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    added = [
        {"id": TOKENS.index(text), "content": text, "special": True, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
        for text in ("<unk>", *CONTROL_TEXTS)
    ]
    model = {"type": "BPE", "vocab": {token: id for id, token in enumerate(TOKENS)}, "merges": _merges()}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": steps} if by_normalizer else None,
        "pre_tokenizer": None if by_normalizer else meta,
        "post_processor": None,
        "decoder": None,
        "model": model | {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"},
    }


def _merges() -> list[list[str]]:
    known = set(_TOKENS)
    pairs = ([token[:at], token[at:]] for token in _TOKENS for at in range(1, len(token)))
    return [pair for pair in pairs if known.issuperset(pair)]
