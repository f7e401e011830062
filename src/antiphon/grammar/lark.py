"""Every kind of grammar in one language: Lark, as llguidance understands it.

Owns the translation, and what is the same for all: tokens are never forced, so that the model spells what must come as
it is used to, and JSON comes on one line, since small models lose themselves in blanks and indentation costs tokens.
What is handed in is a stranger's: the caller bounds its size, and the time that this may take.
"""

from __future__ import annotations

import json
import re

from llguidance import regex_to_lark
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from antiphon.grammar.nouns import GrammarError
from antiphon.request import Grammar, GrammarKind

# A blank behind a comma or a colon, or none; no other whitespace. A schema's own `x-guidance` may say otherwise.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}

_OPTIONS = '\n%llguidance {"no_forcing": true}\n'  # at the end, so that line numbers in errors are the sender's
_ASCII = "d"  # \\d is 0 to 9, not the digits of every script
_GBNF = re.compile(r"(?m)^\s*root\s*::=")


def to_lark(grammar: Grammar) -> str:
    """`grammar` in Lark. Raises GrammarError for GBNF that cannot be read; other faults show when it is compiled."""
    return _rules(grammar) + _OPTIONS


def _rules(grammar: Grammar) -> str:
    text = grammar.text
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return f"start: %json {_styled(text)}"
        case GrammarKind.REGEX:
            return f"start: /{regex_to_lark(text, _ASCII)}/"
        case GrammarKind.CHOICE:
            return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in json.loads(text))
    return _from_gbnf(text) if _GBNF.search(text) else text


def _styled(schema: str) -> str:
    tree = json.loads(schema)
    options = tree.get("x-guidance", {}) if isinstance(tree, dict) else None
    if isinstance(options, dict):
        tree["x-guidance"] = JSON_STYLE | options
    return json.dumps(tree, ensure_ascii=False)


def _from_gbnf(text: str) -> str:
    try:
        return str(gbnf_to_lark(text))
    except GbnfToLarkError as error:
        raise GrammarError(f"the GBNF grammar cannot be read: {error}") from None
    except Exception as error:  # it raises bare Exceptions too
        raise GrammarError(f"the GBNF grammar cannot be used: {error}") from None
