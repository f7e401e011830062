"""The tiny vocabulary as a tokenizer, and ways of cutting text into pieces."""

from dataclasses import replace
from itertools import pairwise

from tiny_checkpoints import tiny_vocabulary

from antiphon.checkpoint import TokenizerData
from antiphon.text import Tokenizer

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


def tiny_data(pre: str = "qwen2") -> TokenizerData:
    """Tokenizer data of the tiny vocabulary, with R1's BOS and EOS; plain text gets no BOS."""
    tokens, types, merges = tiny_vocabulary()
    data = TokenizerData(tokens=tokens, token_types=types, merges=merges, pre_tokenizer=pre)
    return replace(data, bos_token_id=tokens.index(BOS), eos_token_ids=(tokens.index(EOS),))


def bytes_to_ids(tokenizer: Tokenizer, data: bytes) -> list[int]:
    """One token a byte, as no encoder would have it but a model may."""
    of = {tokenizer.id_to_bytes(id): id for id in range(256)}
    return [of[bytes([byte])] for byte in data]


def cut(text: str, cuts: list[int]) -> list[str]:
    """The text in pieces, cut at these places."""
    return [text[start:end] for start, end in pairwise([0, *sorted(min(at, len(text)) for at in cuts), len(text)])]
