"""Where messages become token ids: renders the chat template so that control tokens come from the template alone.

A rendered prompt is one string in which the template's `<|im_end|>` and a user's look the same. So what people wrote is
marked before rendering (`marking`). The rendered string is split at the control tokens that remain, the marks are taken
out of the pieces between them, and the pieces are encoded as plain text. What becomes of thoughts in earlier turns is
in `earlier_thoughts`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from antiphon.errors import ContextLengthExceeded, InvalidRequest
from antiphon.text.earlier_thoughts import Thought, ThoughtWriter, has_thought_apart, split_message, split_unfinished
from antiphon.text.marking import NONCHARACTERS, THINK_CLOSE, THINK_OPEN, Marker, free_noncharacters, texts_in
from antiphon.text.slices import SLICE
from antiphon.text.system_prompt import folded
from antiphon.text.template import ChatTemplate
from antiphon.text.tokenizer import Tokenizer, check_encodable
from antiphon.text.tool_prompt import ToolStyle, spelled_out, with_arguments

ROLES = ("system", "developer", "user", "assistant", "tool")
EMPTY_THOUGHT = f"{THINK_OPEN}\n\n{THINK_CLOSE}\n\n"  # as models are trained to see it
_THOUGHT = "_thought"  # where a marked message keeps its thought until it is joined with the content
_ELSEWHERE = ("role", "reasoning", "reasoning_content", _THOUGHT)

__all__ = ["EMPTY_THOUGHT", "NONCHARACTERS", "ROLES", "THINK_CLOSE", "THINK_OPEN", "ChatPrompt", "build_chat_prompt"]


@dataclass(frozen=True, slots=True)
class PromptTimes:
    """When a prompt was rendered and encoded, in seconds of `time.monotonic()`."""

    begun_at: float
    rendered_at: float
    encoded_at: float


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The tokens a conversation has become."""

    token_ids: list[int]
    starts_in_thought: bool  # the template opened the thought, so the model's first token is already part of it
    times: PromptTimes | None = None  # when it was made


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
    message does, so that the model continues it. A prompt that is certain to have `limit` tokens is not encoded, and
    one that turns out to have them not to its end.

    Raises InvalidRequest, naming the field, for what cannot be rendered (see `ChatTemplate.render`), and
    ContextLengthExceeded for a prompt that was not encoded to its end.
    """
    begun_at = time.monotonic()
    _check_messages(messages)
    sentinel, end, proof, gap, close = free_noncharacters([messages, tools, variables, template.source], 5)
    marker = Marker(sentinel, tokenizer.control)
    writer = ThoughtWriter(marker, gap, close, apart="reasoning_content" in template.source)
    turns = with_arguments(messages, tool_style) if tool_style else messages
    knows_thoughts = THINK_CLOSE in template.source
    marked = [_marked_message(message, marker, knows_thoughts=knows_thoughts) for message in turns]
    if continue_final_message:
        may_think = knows_thoughts or (
            has_thought_apart(messages[-1]) and tokenizer.control_token_id(THINK_CLOSE) is not None
        )
        marked[-1] = _left_open(messages[-1], marker, end, proof, may_think=may_think)
    if tool_style and not tool_style.in_template:
        marked = spelled_out(marked, marker.mark(tools), tool_style)
    elif tools:
        variables["tools"] = tools
    opens_turn = add_generation_prompt and not continue_final_message
    variables = {name: marker.mark(value) for name, value in variables.items()}
    text = _rendered(
        template,
        folded(marked) if fold_system else marked,
        writer,
        end if continue_final_message else None,
        add_generation_prompt=opens_turn,
        **variables,
    )
    if close_thought and opens_turn:
        text = _close_thought(text, template.source)
    rendered_at = time.monotonic()
    if limit is not None:
        tokenizer.check_room(marker.unmark(text), limit, param="messages")
    opened = opens_turn and text.rstrip().endswith(THINK_OPEN)
    continued: Thought | None = marked[-1].get(_THOUGHT) if continue_final_message else None
    in_thought = continued is not None and continued.is_open
    token_ids = _encoded(tokenizer, text, marker, limit)
    times = PromptTimes(begun_at, rendered_at, time.monotonic())
    return ChatPrompt(token_ids, starts_in_thought=opened or in_thought, times=times)


def _rendered(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    writer: ThoughtWriter,
    end: str | None,
    **variables: Any,  # noqa: ANN401
) -> str:
    """The prompt with its marks, up to `end` where there is one: the end of a message that is to be continued."""
    text = template.render(_with_thoughts(messages, writer), **variables)
    if end is None:
        return writer.finished(text)
    thoughts = [message[_THOUGHT] for message in messages if _THOUGHT in message]
    proof = "".join(thought.proof for thought in thoughts)
    if proof not in text:
        text = template.render(_with_thoughts(messages, writer, hidden=end), **variables)
    text, found, _ = writer.finished(text).replace(proof, "").rpartition(end)
    if not found:
        raise InvalidRequest(
            "The model's chat template does not show the last message, so it cannot be continued.",
            param="continue_final_message",
        )
    return text


def _with_thoughts(
    messages: Sequence[Mapping[str, Any]], writer: ThoughtWriter, hidden: str | None = None
) -> list[dict[str, Any]]:
    """Marked messages with their thoughts as the template takes them, but for the one that has `hidden` in it."""
    turns = []
    for message in messages:
        turn = {key: value for key, value in message.items() if key != _THOUGHT}
        if thought := message.get(_THOUGHT):
            turn = writer.message(turn, thought, hidden=hidden is not None and hidden in turn["content"])
        turns.append(turn)
    return turns


def _left_open(message: Mapping[str, Any], marker: Marker, end: str, proof: str, *, may_think: bool) -> dict[str, Any]:
    """The message that is to be continued, marked, with `end` where it ends and `proof` in front of its thought."""
    if message["role"] != "assistant" or message.get("tool_calls"):
        raise InvalidRequest(
            "Only a last message of role 'assistant' without tool calls can be continued.",
            param="continue_final_message",
        )
    marked = _marked_message(message, marker, knows_thoughts=False)
    thought, answer = split_unfinished(message) if may_think else (None, message.get("content") or "")
    marked["content"] = marker.mark_text(answer) + end
    return marked | ({_THOUGHT: replace(thought, proof=proof if thought.alone else "")} if thought else {})


def _encoded(tokenizer: Tokenizer, text: str, marker: Marker, limit: int | None) -> list[int]:
    """The tokens of a rendered prompt. Raises ContextLengthExceeded for one that was not encoded to its end."""
    if len(text) <= SLICE:
        limit = None  # a short text is counted to its end, for a better message
    ids: list[int] = []
    for piece in tokenizer.control.split(text):
        if limit is not None and len(ids) >= limit:
            break
        if isinstance(piece, int):
            ids.append(piece)
        else:
            rest = None if limit is None else limit - len(ids)
            ids += tokenizer.encode(marker.unmark(piece), param="messages", first=not ids, limit=rest)
    if limit is not None and len(ids) >= limit:
        raise ContextLengthExceeded(len(ids), limit, param="messages", at_least=True)
    if tokenizer.add_bos and tokenizer.bos_token_id is not None and ids[:1] != [tokenizer.bos_token_id]:
        ids.insert(0, tokenizer.bos_token_id)
    return ids


def _close_thought(text: str, source: str) -> str:
    """A rendered prompt with the thought over before it began; templates that know how to do that have done it."""
    opened = text.rstrip()
    if opened.endswith(THINK_OPEN):
        return opened + EMPTY_THOUGHT.removeprefix(THINK_OPEN)
    return text if "enable_thinking" in source or opened.endswith(THINK_CLOSE) else text + EMPTY_THOUGHT


def _marked_message(message: Mapping[str, Any], marker: Marker, *, knows_thoughts: bool) -> dict[str, Any]:
    """A message with its texts marked, and an assistant's thought apart where the template knows thoughts."""
    plain = {key: value for key, value in message.items() if key not in _ELSEWHERE}
    thought, content = None, message.get("content") or ""
    if message["role"] == "assistant" and knows_thoughts:
        thought, content = split_message(message)
    marked = {"role": message["role"], **marker.mark(plain), "content": marker.mark_text(content)}
    return marked | ({_THOUGHT: thought} if thought else {})


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
            for text in texts_in(value):
                check_encodable(text, param=f"messages[{index}].{name}")
