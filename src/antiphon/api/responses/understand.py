"""Converts items to chat messages, and a responses request to a chat request.

A thought, the answer after it and the calls after that are one turn of the assistant. For each chat message it records
the item that it comes from, so that errors can name it. This module does not know where earlier items are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from antiphon.api.responses.request import (
    AllowedFunctions,
    FunctionCall,
    FunctionCallOutput,
    InputItem,
    InputMessage,
    JsonSchemaFormat,
    NamedFunction,
    Reasoning,
    ResponseRequest,
)
from antiphon.api.translation import Translation

_NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
    "logprobs": "include",
}

# fields that mean the same in chat
_SAME = (
    *("model", "stream", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "cache_salt", "service_tier"),
    *("return_progress", "max_wait", "timeout", "degrade"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "parallel_tool_calls", "continue_final_message"),
    *("thinking_token_budget", "max_thinking_tokens", "thinking_budget", "enable_thinking", "loop_guard"),
)

_INSTRUCTING = ("system", "developer")

Message = dict[str, Any]


def items_of(request: ResponseRequest) -> Sequence[InputItem]:
    """The new items of a request, also if `input` is a string."""
    if isinstance(request.input, str):
        return [InputMessage(type="message", role="user", content=request.input)]
    return request.input


def translate(request: ResponseRequest, earlier: Sequence[InputItem]) -> Translation:
    """The request as a chat request, after the `earlier` items of its conversation.

    Raises:
        InvalidRequest: chat does not accept it. The error names the field that was sent.
    """
    messages: list[Message] = []
    origins: list[str] = []
    if request.instructions:
        messages.append({"role": "developer", "content": request.instructions})
        origins.append("instructions")
    named = [(item, "previous_response_id") for item in earlier]
    named += [(item, f"input[{index}]") for index, item in enumerate(items_of(request))]
    for item, origin in named:
        if _joins(item, messages):
            messages[-1]["content"] += f"\n\n{item.text}"
        elif _continues(messages, item):
            _extend(messages[-1], item)
        else:
            messages.append(_begin(item))
            origins.append("input" if isinstance(request.input, str) else origin)
    tools = {f"tools[{index}].function": f"tools[{index}]" for index in range(len(request.tools or ()))}
    return Translation(_fields(request) | {"messages": messages}, origins, _NAMES | tools)


def _begin(item: InputItem) -> Message:
    if isinstance(item, InputMessage):
        return {"role": item.role, "content": item.text}
    if isinstance(item, FunctionCallOutput):
        return {"role": "tool", "tool_call_id": item.call_id, "content": item.text}
    message: Message = {"role": "assistant"}
    _extend(message, item)
    return message


def _joins(item: InputItem, messages: Sequence[Message]) -> TypeGuard[InputMessage]:
    """Whether `item` is another instruction at the beginning. Many templates only support one system message."""
    if not isinstance(item, InputMessage) or item.role not in _INSTRUCTING:
        return False
    return len(messages) == 1 and messages[0]["role"] in _INSTRUCTING


def _continues(messages: Sequence[Message], item: InputItem) -> bool:
    """Whether `item` belongs to the same turn as the last message."""
    if not messages or messages[-1]["role"] != "assistant":
        return False
    if isinstance(item, InputMessage):
        return item.role == "assistant" and not {"content", "tool_calls"} & messages[-1].keys()
    return isinstance(item, FunctionCall)


def _extend(message: Message, item: InputItem) -> None:
    if isinstance(item, Reasoning):
        message["reasoning_content"] = item.text
    elif isinstance(item, InputMessage):
        message["content"] = item.text
    elif isinstance(item, FunctionCall):
        function = {"name": item.name, "arguments": item.arguments}
        message.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})


def _fields(request: ResponseRequest) -> dict[str, Any]:
    """All fields except the messages. Fields that were not sent are left out, so that chat's defaults apply."""
    fields: dict[str, Any] = {name: getattr(request, name) for name in _SAME}
    fields["max_completion_tokens"] = request.max_output_tokens
    fields["reasoning_effort"] = request.reasoning.effort if request.reasoning else None
    if request.wants_logprobs or request.wants_thought_logprobs:
        fields |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if request.tools:
        fields["tools"] = [
            {"type": "function", "function": tool.model_dump(exclude_none=True, exclude={"type"})}
            for tool in request.tools
        ]
    fields["tool_choice"] = _tool_choice(request)
    fields["response_format"] = _response_format(request)
    return {name: value for name, value in fields.items() if value is not None}


def _tool_choice(request: ResponseRequest) -> str | dict[str, Any] | None:
    choice = request.tool_choice
    if isinstance(choice, NamedFunction):
        return _named(choice)
    if isinstance(choice, AllowedFunctions):
        allowed = {"mode": choice.mode, "tools": [_named(tool) for tool in choice.tools]}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    return choice


def _named(tool: NamedFunction) -> dict[str, Any]:
    return {"type": "function", "function": {"name": tool.name}}


def _response_format(request: ResponseRequest) -> dict[str, Any] | None:
    format = request.text.format if request.text else None
    if isinstance(format, JsonSchemaFormat):
        schema = format.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
        return {"type": "json_schema", "json_schema": schema}
    return {"type": format.type} if format else None
