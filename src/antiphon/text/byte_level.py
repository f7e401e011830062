"""Builds a byte-level BPE encoder for plain text from a GGUF file's vocabulary and merges.

The encoder knows the ordinary tokens only: control and user-defined tokens are left out of its vocabulary, so no text
can be encoded as one of their ids; `control` finds those where they are meant. Text is first cut into words by one of
the regular expressions below, which the checkpoint chooses; each follows llama.cpp's (no Unicode normalization,
contractions in ASCII). `tokenizer_json` reads the other format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache

from tokenizers import Regex
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from antiphon.checkpoint import TokenizerData
from antiphon.errors import CheckpointError
from antiphon.panics import faults_as
from antiphon.text.control import Matching

NORMAL = 1  # GGUF's token types
UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5  # those that are not ordinary text

_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"
# Of Mistral's newer models: words are cut before a capital letter.
_NO_SMALL, _NO_CAPITAL = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_NO_SMALL}*{_NO_CAPITAL}+|[^\r\n\p{{L}}\p{{N}}]?{_NO_SMALL}+{_NO_CAPITAL}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"

# GGUF's `tokenizer.ggml.pre` → the expressions that cut text, each applied to the pieces that the one before it left.
PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "smollm": (r"\p{N}", _GPT2),
    "qwen2": (_QWEN2,),
    "deepseek-r1-qwen": (_QWEN2,),
    "llama-bpe": (_LLAMA3,),
    "llama3": (_LLAMA3,),
    "llama-v3": (_LLAMA3,),
    "tekken": (_TEKKEN,),
}
# Words that are in the vocabulary become one token, whatever the merges say.
_IGNORE_MERGES = ("llama-bpe", "llama3", "llama-v3", "tekken")


class Leading(Enum):
    """Which plain text gets a space before it."""

    NONE = "none"
    FIRST = "the beginning of a prompt, if it has none"
    EACH_WITHOUT = "each text between control tokens that has none"
    EACH = "each text between control tokens, even if it has one"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """An encoder of ordinary text, and the meaning of every id."""

    encoder: Encoder
    tokens: dict[int, str]  # ordinary tokens in an alphabet of their own, the others as their own text
    control: dict[str, int]  # text → id of the tokens that text must never become
    hidden: frozenset[int]  # ids that are not part of the text that people read
    num_ids: int
    spell: Callable[[str], bytes]  # the bytes of an ordinary token
    leading: Leading = Leading.NONE
    beyond: frozenset[str] = frozenset()  # tokens that the model has no row for; their text is plain text
    matching: Mapping[str, Matching] = field(default_factory=dict)  # of control tokens
    can_be_sliced: bool = False  # whether `slices` keeps the tokens of a text


@cache
def _byte_of() -> dict[str, int]:
    return {letter: byte for byte, letter in byte_alphabet().items()}


def spell(token: str) -> bytes:
    """The bytes of a token in GPT-2's byte alphabet; a token outside it is its own text."""
    try:
        return bytes([_byte_of()[letter] for letter in token])
    except KeyError:
        return token.encode()


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself where it is printable, else the next letter from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def vocabulary_from_merges(data: TokenizerData) -> Vocabulary:
    """Raises CheckpointError, naming GGUF's field, if no equivalent vocabulary can be built."""
    pre = data.pre_tokenizer
    if pre not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise CheckpointError(f"pre-tokenizer {pre!r} (tokenizer.ggml.pre) is not supported; supported are {known}")
    special = {id: type for id, type in enumerate(data.token_types) if type in (UNKNOWN, CONTROL, USER_DEFINED, UNUSED)}
    ordinary = {token: id for id, token in enumerate(data.tokens) if id not in special}
    # Some vocabularies lack a byte. It is dropped from the result, but must separate its neighbours like any other, so
    # it gets an id beyond the last, which the tokenizer leaves out.
    missing = [letter for letter in byte_alphabet().values() if letter not in ordinary]
    num_ids = len(data.tokens)
    vocabulary = ordinary | {letter: num_ids + i for i, letter in enumerate(missing)}
    merges = _merges(data.merges, ordinary)
    encoder = bpe_encoder(vocabulary, merges, ignore_merges=pre in _IGNORE_MERGES)
    encoder.pre_tokenizer = Sequence([*_splits(PRE_TOKENIZERS[pre]), ByteLevel(False, use_regex=False)])
    control = {
        data.tokens[id]: id for id, type in special.items() if type in (CONTROL, USER_DEFINED) and data.tokens[id]
    }
    hidden = frozenset(id for id, type in special.items() if type != USER_DEFINED)
    return Vocabulary(encoder, dict(enumerate(data.tokens)), control, hidden, num_ids, spell, can_be_sliced=True)


def bpe_encoder(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    *,
    ignore_merges: bool = False,
    byte_fallback: bool = False,
) -> Encoder:
    """The library's encoder, without any step before or after the merging."""
    with faults_as(_unfit):
        return Encoder(BPE(vocabulary, merges, ignore_merges=ignore_merges, byte_fallback=byte_fallback))


def _unfit(reason: str) -> CheckpointError:
    return CheckpointError(f"the tokenizer's vocabulary and merges do not fit together: {reason}")


def _splits(expressions: Iterable[str]) -> list[Split]:
    return [Split(Regex(expression), "isolated") for expression in expressions]


def _merges(lines: list[str], ordinary: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs to merge, in order of rank, without those that would make a token outside the ordinary ones."""
    merges = []
    for rank, line in enumerate(lines):
        left, space, right = line.partition(" ")
        if not space or not left or not right:
            raise CheckpointError(f"merge {rank} (tokenizer.ggml.merges) is {line[:80]!r}; it must be two tokens")
        if left in ordinary and right in ordinary and left + right in ordinary:
            merges.append((left, right))
    return merges
