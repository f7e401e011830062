"""The grammar of an answer that is nothing but tool calls, for requests in which the model must call a tool.

Makes one Grammar of a shape of calls and the tools that may be called: the arguments of each tool, with the text of the
shape around them; tags that are tokens of their own appear as those tokens. Whatever fits the grammar is read as calls
by `forced_calls`. How a grammar is followed is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from antiphon.request import Grammar, GrammarKind
from antiphon.text.tokenizer import Tokenizer
from antiphon.text.tool_shapes import BETWEEN, ToolShape

MAX_FORCED_CALLS = 8  # in one answer: a small model that may go on calling would never stop

Pieces = list[str | int]  # texts, and ids of tokens that no text becomes


def tool_call_grammar(
    shape: ToolShape,
    tokenizer: Tokenizer,
    tools: Mapping[str, dict[str, Any]],
    *,
    several: bool,
    otherwise: str | None = None,
) -> Grammar:
    """Calls of `tools` (names with the JSON Schemas of their arguments), one or `several`; or an answer that fits
    `otherwise`, a grammar in Lark, if there is one.
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
