"""Where messages become token ids: renders the chat template so that control tokens come from the template alone.

A rendered prompt is one string in which the template's `<|im_end|>` and a user's look the same. So before rendering,
what people wrote is marked: a sentinel, a noncharacter that occurs nowhere in the messages or the template, goes after
every letter that a control token can begin with, and before a text that could be the rest of one. Whatever a user
typed, alone or together with the template's text on either side, then reads as no control token. The rendered string
is split at the control tokens that remain, the sentinels are taken out of the pieces between them, and the pieces are
encoded as plain text. The sentinel is not blank and stands after leading blanks, so a template's `trim` works as ever.

Thoughts in earlier assistant turns are cut off before marking, since templates look for `</think>` in them: thought and
answer are marked each for itself and joined by a real tag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.errors import InvalidRequest
from antiphon.text.control import ControlTokens
from antiphon.text.system_prompt import folded
from antiphon.text.template import ChatTemplate
from antiphon.text.tokenizer import Tokenizer, check_encodable
from antiphon.text.tool_prompt import ToolStyle, spelled_out, with_arguments

ROLES = ("system", "developer", "user", "assistant", "tool")
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
EMPTY_THOUGHT = f"{THINK_OPEN}\n\n{THINK_CLOSE}\n\n"  # as models are trained to see it
# Unicode's noncharacters: no text for interchange holds them, and if one does, another is taken.
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
MAX_DEPTH = 64  # of lists and mappings in a message or tool


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The tokens a conversation has become."""

    token_ids: list[int]
    starts_in_thought: bool  # the template opened the thought, so the model's first token is already part of it


def build_chat_prompt(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    tool_style: ToolStyle | None = None,
    fold_system: bool = False,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    close_thought: bool = False,
    limit: int | None = None,
    **variables: Any,  # noqa: ANN401
) -> ChatPrompt:
    """Render and encode. `content` of a message is a string or None; an assistant's `reasoning_content` or `reasoning`
    is its thought. `variables` (enable_thinking …) reach the template, marked like any text from outside. Tools and
    calls do as `tool_style` says, or as they are. With `fold_system`, system messages go into the users' turns; with
    `close_thought` the prompt ends behind an empty thought; with `continue_final_message` it ends where the last
    message does, so that the model goes on with it. A prompt that is certain to have `limit` tokens is not encoded.

    Raises InvalidRequest, naming the field, for what cannot be rendered: see `ChatTemplate.render`.
    """
    _check_messages(messages)
    sentinel, end = _free_noncharacters([messages, tools, variables, template.source])
    marker = _Marker(sentinel, tokenizer.control)
    turns = with_arguments(messages, tool_style) if tool_style else messages
    marked = [_marked_message(message, marker, template) for message in turns]
    thought_is_open = False
    if continue_final_message:
        add_generation_prompt = False
        thought_is_open = _leave_open(messages[-1], marked[-1], marker, template.source, end)
    if tool_style and not tool_style.in_template:
        marked = spelled_out(marked, marker.mark(tools), tool_style)
    elif tools:
        variables["tools"] = tools
    text = template.render(
        folded(marked) if fold_system else marked,
        add_generation_prompt=add_generation_prompt,
        **{name: marker.mark(value) for name, value in variables.items()},
    )
    if close_thought and add_generation_prompt:
        text = _close_thought(text, template.source)
    if continue_final_message:
        text, found, _ = text.rpartition(end)
        if not found:
            raise InvalidRequest(
                "The model's chat template does not show the last message, so it cannot be continued.",
                param="continue_final_message",
            )
    if limit is not None:
        tokenizer.check_room(marker.unmark(text), limit, param="messages")
    ids: list[int] = []
    for piece in tokenizer.control.split(text):
        if isinstance(piece, int):
            ids.append(piece)
        else:
            ids += tokenizer.encode(marker.unmark(piece), param="messages", first=not ids)
    if tokenizer.add_bos and tokenizer.bos_token_id is not None and ids[:1] != [tokenizer.bos_token_id]:
        ids.insert(0, tokenizer.bos_token_id)
    opened = add_generation_prompt and text.rstrip().endswith(THINK_OPEN)
    return ChatPrompt(ids, starts_in_thought=opened or thought_is_open)


def _leave_open(message: Mapping[str, Any], marked: dict[str, Any], marker: _Marker, source: str, end: str) -> bool:
    """Put `end` where the message is to be continued; returns whether that is inside its thought."""
    if message["role"] != "assistant" or message.get("tool_calls"):
        raise InvalidRequest(
            "Only a last message of role 'assistant' without tool calls can be continued.",
            param="continue_final_message",
        )
    content: str = message.get("content") or ""
    thought: str = message.get("reasoning_content") or message.get("reasoning") or ""
    if content.startswith(THINK_OPEN) and THINK_CLOSE not in content:
        thought, content = content.removeprefix(THINK_OPEN).lstrip("\n"), ""
    if content or not thought or THINK_CLOSE not in source:
        marked["content"] += end
        return False
    if "reasoning_content" in source:
        marked |= {"content": "", "reasoning_content": marker.mark_text(thought) + end}
    else:
        marked["content"] = f"{THINK_OPEN}\n{marker.mark_text(thought)}{end}"
    return True


def _close_thought(text: str, source: str) -> str:
    """A rendered prompt with the thought over before it began; templates that know how to do that have done it."""
    opened = text.rstrip()
    if opened.endswith(THINK_OPEN):
        return opened + EMPTY_THOUGHT.removeprefix(THINK_OPEN)
    return text if "enable_thinking" in source or opened.endswith(THINK_CLOSE) else text + EMPTY_THOUGHT


@dataclass(frozen=True, slots=True)
class _Marker:
    """Puts sentinels into text from outside, and takes them out again."""

    sentinel: str
    control: ControlTokens

    def mark_text(self, text: str) -> str:
        body = text.lstrip()
        if self.control.may_continue(body):
            text = text[: len(text) - len(body)] + self.sentinel + body
        for letter in self.control.first_letters:
            text = text.replace(letter, letter + self.sentinel)
        return text

    def mark(self, value: Any) -> Any:  # noqa: ANN401
        """Any JSON value with all its texts marked. A key is marked only where it could hold a control token."""
        if isinstance(value, str):
            return self.mark_text(value)
        if isinstance(value, Mapping):
            return {self._mark_key(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mark(item) for item in value]
        return value

    def _mark_key(self, key: str) -> str:
        return self.mark_text(key) if self.control.first_letters.intersection(key) else key

    def unmark(self, text: str) -> str:
        return text.replace(self.sentinel, "")


def _marked_message(message: Mapping[str, Any], marker: _Marker, template: ChatTemplate) -> dict[str, Any]:
    plain = {key: value for key, value in message.items() if key not in ("role", "reasoning", "reasoning_content")}
    marked = {"role": message["role"], **marker.mark(plain)}
    marked["content"] = marker.mark_text(message.get("content") or "")
    if message["role"] == "assistant":
        marked |= _marked_thought(message, marker, template.source)
    return marked


def _marked_thought(message: Mapping[str, Any], marker: _Marker, source: str) -> dict[str, str]:
    """An assistant's content, and thought, in the shape that the template is written for."""
    content: str = message.get("content") or ""
    thought: str = message.get("reasoning_content") or message.get("reasoning") or ""
    if "reasoning_content" in source:  # the template puts the tags itself
        if not thought and THINK_CLOSE in content:
            before, _, content = content.rpartition(THINK_CLOSE)
            thought, content = before.removeprefix(THINK_OPEN).strip("\n"), content.lstrip("\n")
        marked = {"content": marker.mark_text(content)}
        return marked | ({"reasoning_content": marker.mark_text(thought)} if thought else {})
    if THINK_CLOSE not in source:  # nor would the template know what to do with a thought
        return {}
    if thought:
        content = f"{THINK_OPEN}\n{thought}\n{THINK_CLOSE}\n\n{content}"
    before, tag, answer = content.rpartition(THINK_CLOSE)
    opening = THINK_OPEN if before.startswith(THINK_OPEN) else ""
    inside = marker.mark_text(before.removeprefix(THINK_OPEN))
    return {"content": opening + inside + tag + marker.mark_text(answer) if tag else marker.mark_text(content)}


def _check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    if not messages:
        raise InvalidRequest("There are no messages; send at least one.", param="messages")
    for index, message in enumerate(messages):
        role = message.get("role")
        if role not in ROLES:
            raise InvalidRequest(
                f"The role {str(role)[:40]!r} is not known; use one of {', '.join(ROLES)}.",
                param=f"messages[{index}].role",
            )
        for name in ("content", "reasoning_content", "reasoning"):
            if not isinstance(message.get(name) or "", str):
                raise InvalidRequest(f"{name} must be text.", param=f"messages[{index}].{name}")
        for name, value in message.items():
            for text in _texts(value):
                check_encodable(text, param=f"messages[{index}].{name}")


def _texts(value: Any, depth: int = 0) -> list[str]:  # noqa: ANN401
    """Every text in a JSON value, keys included."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"A message or tool is nested deeper than {MAX_DEPTH} levels.", param="messages")
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for item in pair for text in _texts(item, depth + 1)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item, depth + 1)]
    return []


def _free_noncharacters(values: Any) -> tuple[str, str]:  # noqa: ANN401
    """Two that occur nowhere."""
    used = set().union(*map(set, _texts(values)))
    free = [character for character in NONCHARACTERS if character not in used]
    if len(free) < 2:
        raise InvalidRequest("The messages hold all of Unicode's noncharacters U+FDD0 to U+FDEF.", param="messages")
    return free[0], free[1]
