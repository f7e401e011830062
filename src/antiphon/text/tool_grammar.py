"""The grammar of an answer that is nothing but tool calls, for requests in which the model must call a tool.

Owns the way from a shape of calls and the tools that may be called to one Grammar: around the arguments of each tool
stands what the shape puts there, with the tags that are tokens of their own as those tokens. It promises that whatever
fits the grammar is read as calls by `tool_calls`. It must not know how a grammar is followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from antiphon.request import Grammar, GrammarKind
from antiphon.text.tokenizer import Tokenizer
from antiphon.text.tool_shapes import BETWEEN, ToolShape

MAX_FORCED_CALLS = 8  # of one answer: a small model that must call again and again would never come to an end

Pieces = list[str | int]  # texts, and ids of tokens that no text becomes


def tool_call_grammar(
    shape: ToolShape,
    tokenizer: Tokenizer,
    tools: Mapping[str, dict[str, Any]],
    *,
    several: bool,
    otherwise: str | None = None,
) -> Grammar:
    """Calls of `tools`, each a name with the JSON Schema of its arguments: one, or `several`; or an answer that fits
    `otherwise`, a grammar in Lark, where there is one.
    """

    def pieces(text: str) -> Pieces:
        return list(tokenizer.control.split(text))

    frames = {name: shape.frame(name) for name in tools}
    opening, closing = shape.around or ("", "")
    spelled = {
        "calls": [
            {"before": pieces(before), "arguments": tools[name], "behind": pieces(behind)}
            for name, (before, behind) in frames.items()
        ],
        "most": MAX_FORCED_CALLS if several else 1,
        "between": pieces(BETWEEN),
        "opening": pieces(opening),
        "closing": pieces(closing),
        "otherwise": otherwise,
    }
    return Grammar(GrammarKind.TOOL_CALLS, msgspec.json.encode(spelled).decode())
