"""Between text and token ids: tokenizer, chat template, detokenizer, stop strings, the thought, tool calls.

`TextModel` is what the front builds from a checkpoint; everything else is reached through it.
"""

from antiphon.text.model import TextModel
from antiphon.text.prompt import ChatPrompt, PromptTimes
from antiphon.text.stop_strings import StopStrings
from antiphon.text.stream import TextDelta, TextStream
from antiphon.text.tokenizer import Tokenizer
from antiphon.text.tool_calls import CallPart, ToolReading

__all__ = [
    "CallPart",
    "ChatPrompt",
    "PromptTimes",
    "StopStrings",
    "TextDelta",
    "TextModel",
    "TextStream",
    "Tokenizer",
    "ToolReading",
]
