"""Every kind of grammar in one language: Lark, as llguidance understands it.

Owns the translation (`json_schema` and `gbnf` do the larger parts), and what is the same for all: tokens are never
forced, so the model spells what must come as it is used to, and JSON comes on one line, since small models lose
themselves in blanks and indentation costs tokens. Grammars come from strangers: the caller limits their size and the
time that this may take.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llguidance import LLMatcher, regex_to_lark

from antiphon.grammar import gbnf
from antiphon.grammar.json_schema import has_open_keys, prepared
from antiphon.grammar.messages import in_plain_words, without_place
from antiphon.grammar.unique_keys import OPEN_KEYS
from antiphon.request import Grammar, GrammarKind

# A blank behind a comma or a colon, or none; no other whitespace. A schema's own `x-guidance` may say otherwise.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}

_OPTIONS = '\n%llguidance {"no_forcing": true}\n'  # at the end, so that line numbers in errors are the sender's
_JSON_START = "start: %json"
_ASCII = "d"  # \\d is 0 to 9, not the digits of every script


def to_lark(grammar: Grammar) -> str:
    """`grammar` in Lark. Raises GrammarError for what cannot be translated; other faults show when it is compiled."""
    return _rules(grammar) + (f"\n{OPEN_KEYS}" if _has_open_keys(grammar) else "") + _OPTIONS


def is_lark(grammar: Grammar) -> bool:
    """Whether it is Lark already, so that places in it are the sender's."""
    return grammar.kind is GrammarKind.LARK and not gbnf.is_gbnf(grammar.text)


def _rules(grammar: Grammar) -> str:
    text = grammar.text
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return f"{_JSON_START} {_json(json.loads(text))}"
        case GrammarKind.REGEX:
            return f"start: /{regex_to_lark(text, _ASCII)}/"
        case GrammarKind.CHOICE:
            return "start: " + " | ".join(map(_literal, json.loads(text)))
        case GrammarKind.TOOL_CALLS:
            return _tool_calls(json.loads(text))
    return gbnf.to_lark(text) if gbnf.is_gbnf(text) else text


def _has_open_keys(grammar: Grammar) -> bool:
    """Whether this is JSON, or calls, with objects whose keys are not all named."""
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return has_open_keys(json.loads(grammar.text))
        case GrammarKind.TOOL_CALLS:
            spelled = json.loads(grammar.text)
            otherwise: str = spelled["otherwise"] or ""
            is_json = not otherwise or otherwise.startswith(_JSON_START)
            calls_have = any(has_open_keys(call["arguments"]) for call in spelled["calls"])
            return is_json and (calls_have or OPEN_KEYS in otherwise)
    return False


def _json(schema: Any) -> str:  # noqa: ANN401
    """`schema` for `%json`, with our style."""
    options = schema.get("x-guidance", {}) if isinstance(schema, dict) else None
    if isinstance(options, dict):
        schema = schema | {"x-guidance": JSON_STYLE | options}
    return f"{json.dumps(prepared(schema, _pattern_fault), ensure_ascii=False)}"


def _pattern_fault(pattern: str) -> str:
    """What is wrong with a regular expression; nothing if it can be used."""
    fault = LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(pattern))
    return without_place(in_plain_words(fault)).removeprefix("invalid regex: ") if fault else ""


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _tool_calls(spelled: dict[str, Any]) -> str:
    """Calls as `text.tool_grammar` has them; where it has other Lark too, an answer that fits that, or calls."""
    others = spelled["most"] - 1
    more = f" ({_pieces(spelled['between'])} call){{0,{others}}}" if others else ""
    rules = [
        f"calls: {_pieces(spelled['opening'])} call{more} {_pieces(spelled['closing'])}",
        "call: " + " | ".join(f"call_{number}" for number in range(len(spelled["calls"]))),
    ]
    for number, call in enumerate(spelled["calls"]):
        before, behind = _pieces(call["before"]), _pieces(call["behind"])
        rules.append(f"call_{number}: {before} %json {_json(call['arguments'])} {behind}")
    if spelled["otherwise"] is None:
        return "\n".join(["start: calls", *rules])
    return "\n".join(["start: calls | otherwise", *rules, f"otherwise: %lark {{\n{spelled['otherwise']}\n}}"])


def _pieces(pieces: Sequence[str | int]) -> str:
    """Texts, and tokens that are named by their ids, one behind the other."""
    return " ".join(f"<[{piece}]>" if isinstance(piece, int) else _literal(piece) for piece in pieces)
