"""Follows a grammar through a vocabulary: which tokens may come next, and what one token leads to.

A thin layer over llguidance. It owns the limits on what a grammar may cost, the same for the front's check and in the
engine: going over one of them is an error of that matcher alone. What a matcher says depends on the grammar and the
tokens taken alone. The library keeps errors as a state; here they are raised, in words for a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from antiphon.grammar.messages import in_plain_words
from antiphon.grammar.nouns import GrammarError, Vocabulary
from antiphon.grammar.unique_keys import OPEN_KEYS, Keys, KeyTokens, without

# In the library's units: about 20 ms to build the lexer, 7 ms for a mask, 50 MB or more for the lexer's states.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=100_000,
    step_max_items=50_000,
    max_lexer_states=250_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)


class MatcherFactory:
    """Compiles grammars for one vocabulary. Safe to use from any thread."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        wrapper = TokenizerWrapper(_Tokens(vocabulary))
        self._tokenizer = LLTokenizer(wrapper, len(vocabulary.tokens), eos_token=vocabulary.eos_token_ids)
        self._tokens = vocabulary.tokens

    def compile(self, lark: str, *, to_follow: bool = True) -> Matcher:
        """A matcher at the beginning of `lark`. Takes its time without Python's lock. Raises GrammarError.

        `to_follow`: whether the matcher will take tokens; without, it does not keep keys from being repeated.
        """
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(lark), log_level=0, limits=_LIMITS)
        keys = Keys(self._key_tokens) if to_follow and OPEN_KEYS in lark else None
        return Matcher(matcher, self._tokens, keys)

    @cached_property
    def _key_tokens(self) -> KeyTokens:
        return KeyTokens(self._tokens)


class Matcher:
    """The place in a grammar that one sequence has reached."""

    def __init__(self, matcher: LLMatcher, tokens: Sequence[bytes], keys: Keys | None) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._keys = keys  # None: no key can come twice
        self._check()

    def copy(self) -> Matcher:
        """Another one at the same place. It shares the lexer's memory and cap, so it is for the same sequence."""
        return Matcher(self._matcher.deep_copy(), self._tokens, self._keys.copy() if self._keys else None)

    def take(self, token_id: int) -> None:
        """Go on by a token. Raises GrammarError where it does not fit; the matcher is of no use then."""
        self._matcher.consume_token(token_id)
        self._check()
        if self._keys:
            self._keys.take(self._tokens[token_id])

    def bitmask(self) -> bytes:
        """A bit for each token, the lowest first, in words of 32: whether it may come next. Raises GrammarError."""
        bitmask = self._matcher.compute_bitmask()
        self._check()
        repeating = self._keys.repeating() if self._keys else []
        return without(bitmask, repeating) if repeating else bitmask

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(in_plain_words(self._matcher.get_error()))


class _Tokens:
    """What the library's wrapper asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.eos_token_ids[0]
        self.tokens = vocabulary.tokens
        self.special_token_ids = vocabulary.special_token_ids

    def __call__(self, text: object) -> list[int]:
        raise NotImplementedError  # only where tokens are forced, which our grammars never do
