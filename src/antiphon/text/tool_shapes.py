"""The shapes in which models write tool calls: how a call is written, how one is read, how results are handed back.

Owns the tags. Hermes' shape, which Qwen shares, is JSON between `<tool_call>` tags; DeepSeek's is between tokens of
its own, in two versions. Reading is strict: what is not exactly one call with a JSON object of arguments is None, and
the caller keeps the text, so that nothing a model wrote is dropped. Knows no streams, prompts or grammars.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

BETWEEN = "\n"  # calls that follow one another
# With no other keys than these, a call without arguments is one of none. Any other key may hold some.
_SAY_NOTHING = {"name", "id", "type"}
_BLANKS = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model has written."""

    name: str
    arguments: str  # a JSON object, as it was written


class ToolShape(Protocol):
    """One way of writing calls. A call is text, perhaps a JSON object, and text, between `open` and `close`."""

    name: str
    open: str  # the tag before a call
    close: str  # the tag behind it
    inside: tuple[str, ...]  # tags between the two
    around: tuple[str, ...]  # the two tags around all calls, which mean nothing by themselves, or none
    result_open: str
    result_close: str
    before_arguments: re.Pattern[str]  # any part of what may be between `open` and the JSON
    behind_arguments: re.Pattern[str]  # any part of what may be between the JSON and `close`

    @property
    def tags(self) -> tuple[str, ...]:
        """Every tag that a model writes."""
        ...

    def read(self, body: str) -> ToolCall | None:
        """The call that `body`, the text between the tags, is; None where it is none."""
        ...

    def frame(self, name: str) -> tuple[str, str]:
        """What a model writes before and behind the arguments of a call of `name`, tags included."""
        ...


def write_calls(shape: ToolShape, calls: Sequence[tuple[str, str]]) -> str:
    """Calls, each a name and arguments, as the model would have written them."""
    opening, closing = shape.around or ("", "")
    frames = [(shape.frame(name), arguments) for name, arguments in calls]
    return opening + BETWEEN.join(before + arguments + behind for (before, behind), arguments in frames) + closing


class Hermes:
    """`<tool_call>{"name": …, "arguments": {…}}</tool_call>`; some models write `parameters` for `arguments`."""

    name = "hermes"
    open, close = "<tool_call>", "</tool_call>"
    inside: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    result_open, result_close = "<tool_response>\n", "\n</tool_response>"
    before_arguments = behind_arguments = _BLANKS
    tags: tuple[str, ...] = (open, close)

    def read(self, body: str) -> ToolCall | None:
        members = _members(body)
        if members is None:
            return None
        written = [members[key] for key in ("arguments", "parameters") if key in members]
        if len(written) > 1 or (not written and not members.keys() <= _SAY_NOTHING):
            return None
        # Some models write the object as a string of JSON.
        arguments = _text_of(written[0]) or written[0] if written else "{}"
        return _call(_text_of(members.get("name", "")), arguments)

    def frame(self, name: str) -> tuple[str, str]:
        return f'{self.open}\n{{"name": {_json(name)}, "arguments": ', f"}}\n{self.close}"


class DeepSeek:
    """R1's and V3's `function<｜tool▁sep｜>NAME` with the arguments in a fence, or V3.1's `NAME<｜tool▁sep｜>{…}`."""

    name = "deepseek"
    open, close = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
    separator = "<｜tool▁sep｜>"
    inside: tuple[str, ...] = (separator,)
    around: tuple[str, ...] = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
    result_open = "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>"
    result_close = "<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
    before_arguments = re.compile(rf"(?:[\w\s`-]|{separator})*", re.ASCII)
    behind_arguments = re.compile(r"[\s`]*")
    tags: tuple[str, ...] = (open, close, separator, *around)

    def read(self, body: str) -> ToolCall | None:
        before, separator, behind = body.partition(self.separator)
        if not separator:
            return None
        name, _, fenced = behind.strip().partition("\n")
        if name.startswith("{"):  # V3.1
            return _call(before.strip(), behind.strip())
        arguments = fenced.strip().removeprefix("```json").removesuffix("```").strip()
        return _call(name.strip(), arguments) if before.strip() == "function" else None

    def frame(self, name: str) -> tuple[str, str]:
        return f"{self.open}function{self.separator}{name}\n```json\n", f"\n```{self.close}"


SHAPES: dict[str, ToolShape] = {shape.name: shape for shape in (Hermes(), DeepSeek())}


def shape_in(source: str) -> ToolShape | None:
    """The shape that a chat template is written for, by its tags; None where it knows none that we do."""
    if "tool▁call▁begin" in source:
        return SHAPES["deepseek"]
    # Qwen3-Coder and GLM put XML between the same tags.
    if Hermes.open in source and "<function=" not in source and "<arg_key>" not in source:
        return SHAPES["hermes"]
    return None


def is_json_object(text: str) -> bool:
    """Whether `text` is one strict JSON object."""
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _members(text: str) -> dict[str, str] | None:
    """The members of a JSON object as they were written; None where it is none, or a key is there twice."""
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        pairs: Any = json.loads(text, object_pairs_hook=list, parse_int=str)  # str: numbers of any length
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return {key: bytes(value).decode() for key, value in members.items()} if len(pairs) == len(members) else None


def _text_of(value: str) -> str:
    """The string that some JSON is; nothing where it is none."""
    try:
        return msgspec.json.decode(value, type=str)
    except msgspec.DecodeError:
        return ""


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _call(name: str, arguments: str) -> ToolCall | None:
    arguments = arguments or "{}"
    return ToolCall(name, arguments) if name and is_json_object(arguments) else None
