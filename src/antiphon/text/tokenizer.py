"""Text to token ids and back. Owns the rule that control ids never come from text that a user typed.

`encode` is for what people write: whatever it looks like, it becomes ordinary tokens. `encode_with_control` is for text
that may contain control tokens: a rendered template, or the raw prompt of a completion. Ids equal llama.cpp's for a
GGUF file and the `tokenizers` library's for a tokenizer.json, which tests check id by id.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers.normalizers import NFC

from antiphon.checkpoint import TokenizerData
from antiphon.errors import ContextLengthExceeded, InvalidRequest
from antiphon.panics import panics_as
from antiphon.text.byte_level import Leading, Vocabulary, vocabulary_from_merges
from antiphon.text.control import ControlTokens
from antiphon.text.sentence_piece import SPACE, spell, vocabulary_from_scores
from antiphon.text.slices import slices
from antiphon.text.tokenizer_json import vocabulary_from_json

_SHORT = 16  # letters; a token of so many has 64 bytes at most
_NFC_SHRINKS = 3  # Unicode's composition leaves at least a third of the bytes: of three Hangul letters one syllable


class Tokenizer:
    """One checkpoint's tokenizer. Immutable after construction, so any thread may use it.

    Raises CheckpointError if `data` cannot be turned into an equivalent tokenizer.
    """

    def __init__(self, data: TokenizerData) -> None:
        vocabulary = _vocabulary(data)
        self._encoder = vocabulary.encoder
        self._tokens = vocabulary.tokens
        self._hidden = vocabulary.hidden
        self._spell = vocabulary.spell
        self._leading = vocabulary.leading
        self._can_be_sliced = vocabulary.can_be_sliced
        # Bytes that it does not spell have ids from `num_ids` on.
        self._spells_all_bytes = vocabulary.encoder.id_to_token(vocabulary.num_ids) is None
        self._is_sentence_piece = vocabulary.spell is spell
        self._shown: dict[int, bytes] = {}  # cached per id
        self._control_ids = frozenset(vocabulary.control.values())
        self.control = ControlTokens(vocabulary.control, vocabulary.matching)
        self.vocab_size = vocabulary.num_ids  # ids from here on have no token, though a model may have rows for them
        self.beyond = vocabulary.beyond
        self.bos_token_id = data.bos_token_id
        self.eos_token_ids = data.eos_token_ids
        self.add_bos = data.add_bos
        self._most_bytes = self._most_bytes_of_a_token()

    def encode(self, text: str, *, param: str | None = None, first: bool = True, limit: int | None = None) -> list[int]:
        """Ordinary tokens for `text`, without BOS; never the id of a control or user-defined token. `first`: nothing
        stands before it, else a control token does. With `limit` a text that has so many tokens may be encoded to that
        point only; the result then has at least `limit` ids, of which only the number means anything.

        Raises InvalidRequest, naming `param`, for a lone surrogate: half a character, which no byte sequence spells.
        """
        check_encodable(text, param)
        return self._encode(self._spaced(text, first=first), limit)

    def encode_inside(self, text: str) -> list[int]:
        """Ordinary tokens for `text` that follows other plain text."""
        return self._encode(text)

    def encode_with_control(self, text: str, *, param: str | None = None, limit: int | None = None) -> list[int]:
        """Tokens for `text` in which a control token's text becomes that token. Adds no BOS; `limit` and what is raised
        are as for `encode`.
        """
        check_encodable(text, param)
        ids: list[int] = []
        for piece in self.control.split(text):
            if limit is not None and len(ids) >= limit:
                break
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += self._encode(self._spaced(piece, first=not ids), limit and limit - len(ids))
        return ids

    def check_room(self, text: str, limit: int, param: str) -> None:
        """Refuse `text` where it is certain to have `limit` tokens or more: where even its bytes, in the longest tokens
        there are, make as many. Counting the tokens of a few megabytes would take seconds.

        Raises ContextLengthExceeded.
        """
        if self._most_bytes is None:
            return
        fewest = -(-len(text.encode("utf-8", "surrogatepass")) // self._most_bytes)
        if fewest >= limit:
            raise ContextLengthExceeded(fewest, limit, param=param, at_least=True)

    def id_to_bytes(self, id: int) -> bytes:
        """The bytes of a token: for a control token its name in UTF-8, for an id beyond the vocabulary none."""
        token = self._tokens.get(id, "")
        if id in self._control_ids or id in self._hidden:
            return token.encode()
        return self._spell(token)

    def text_of(self, ids: Iterable[int]) -> str:
        """The text that tokens spell, control tokens by their names; U+FFFD in place of what is no UTF-8."""
        return b"".join(self.id_to_bytes(id) for id in ids).decode("utf-8", "replace")

    def shown_bytes(self, id: int) -> bytes:
        """What a token adds to the text that people read: nothing if it is a control token. Called for every token."""
        shown = self._shown.get(id)
        if shown is None:
            is_silent = self.is_control(id) or id in self.eos_token_ids
            shown = self._shown[id] = b"" if is_silent else self.id_to_bytes(id)
        return shown

    def is_control(self, id: int) -> bool:
        """Whether a token is not part of the text: end of sequence and the like, unused and unknown ids.

        User-defined tokens, such as R1's `</think>`, are part of it: their text is shown unless it is parsed.
        """
        return id in self._hidden or id not in self._tokens

    def is_special(self, id: int) -> bool:
        """Whether a token is not ordinary text: a control or user-defined one, or an id without a token."""
        return id in self._control_ids or self.is_control(id)

    def control_token_id(self, text: str) -> int | None:
        """The id of the control or user-defined token with this text, if there is one."""
        return self.control.ids.get(text)

    def _most_bytes_of_a_token(self) -> int | None:
        """How many bytes of a text a token may stand for; None where what the text goes through first may make it
        shorter by any measure.
        """
        long = (id for id, token in self._tokens.items() if len(token) > _SHORT)
        longest = max((len(self.id_to_bytes(id)) for id in long), default=4 * _SHORT)
        match self._encoder.normalizer:
            case None:
                return longest
            case NFC():
                return _NFC_SHRINKS * longest
            case _:
                return None

    def _spaced(self, text: str, *, first: bool) -> str:
        """The text with the leading space that the model expects."""
        leading = self._leading
        if not text or leading is Leading.NONE or (leading is Leading.FIRST and not first):
            return text
        return text if leading is not Leading.EACH and text.startswith((" ", SPACE)) else " " + text

    def _encode(self, text: str, limit: int | None = None) -> list[int]:
        ids: list[int] = []
        for part in slices(text) if self._can_be_sliced else (text,):
            ids += self._encode_at_once(part, limit and limit - len(ids))
            if limit is not None and len(ids) >= limit:
                break
        return ids

    def _encode_at_once(self, text: str, limit: int | None = None) -> list[int]:
        if self._is_sentence_piece:
            text = text.replace(" ", SPACE)
        # The batch call releases the interpreter lock; the single one holds it for the whole prompt.
        with panics_as(_cannot_be_cut):
            (encoding,) = self._encoder.encode_batch_fast([text], add_special_tokens=False)
        if limit is not None and len(encoding) >= limit and self._spells_all_bytes:
            return [0] * limit  # only their number matters now, and handing millions over takes long
        ids: list[int] = encoding.ids
        return ids if max(ids, default=0) < self.vocab_size else [id for id in ids if id < self.vocab_size]


def _cannot_be_cut(reason: str) -> InvalidRequest:
    """The library's regular expressions give up on some texts, such as millions of blanks in a row."""
    return InvalidRequest(
        f"The model's tokenizer cannot cut this text into tokens ({reason}); shorten long runs of one letter."
    )


def _vocabulary(data: TokenizerData) -> Vocabulary:
    if data.tokenizer_json is not None:
        return vocabulary_from_json(data.tokenizer_json, data.num_rows)
    return vocabulary_from_scores(data) if data.scores else vocabulary_from_merges(data)


def check_encodable(text: str, param: str | None = None) -> None:
    """Raise InvalidRequest, naming `param`, unless `text` can be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"The text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which is half "
            "a character; send the whole one.",
            param=param,
        ) from None
