"""Converts content blocks to chat messages, and a messages request to a chat request.

A user's turn may contain the results of several tool calls before its text, and an assistant's turn may contain
thought, text and calls. For each chat message it records which of the sender's messages it comes from.
"""

from __future__ import annotations

import json
from typing import Any

from antiphon.api.messages.request import (
    AssistantMessage,
    ConversationRequest,
    MessagesRequest,
    OutputConfig,
    TextBlock,
    ThinkingBlock,
    ThinkingDisabled,
    ThinkingEnabled,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
    text_of,
)
from antiphon.api.translation import Translation

_NAMES = {
    "stop": "stop_sequences",
    "continue_final_message": "messages",
    "thinking_token_budget": "thinking.budget_tokens",
    "enable_thinking": "thinking.type",
    "reasoning_effort": "output_config.effort",
    "response_format": "output_config.format",
    "response_format.json_schema.schema": "output_config.format.schema",
}

Message = dict[str, Any]


def translate(request: ConversationRequest) -> Translation:
    """The request as a chat request.

    Raises:
        InvalidRequest: chat does not accept it. The error names the field that was sent.
    """
    messages: list[Message] = []
    origins: list[str] = []
    if request.system:
        messages.append({"role": "system", "content": text_of(request.system)})
        origins.append("system")
    for index, message in enumerate(request.messages):
        turns = _user_turns(message) if isinstance(message, UserMessage) else [_assistant_turn(message)]
        messages += turns
        origins += [f"messages[{index}]"] * len(turns)
    names = dict(_NAMES)
    for index in range(len(request.tools or ())):
        names[f"tools[{index}].function"] = f"tools[{index}]"
        names[f"tools[{index}].function.parameters"] = f"tools[{index}].input_schema"
    fields = _fields(request) | (_sampling(request) if isinstance(request, MessagesRequest) else {})
    if messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        fields["continue_final_message"] = True  # what Anthropic calls a prefill
    fields = {name: value for name, value in fields.items() if value is not None}
    return Translation(fields | {"messages": messages}, origins, names)


def _user_turns(message: UserMessage) -> list[Message]:
    """A message for each tool result, and for the text between and after them."""
    if isinstance(message.content, str):
        return [{"role": "user", "content": message.content}]
    turns: list[Message] = []
    texts: list[TextBlock] = []

    def say() -> None:
        if texts:
            turns.append({"role": "user", "content": text_of(texts)})
            texts.clear()

    for block in message.content:
        if isinstance(block, ToolResultBlock):
            say()
            turns.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": block.text})
        else:
            texts.append(block)
    say()
    return turns or [{"role": "user", "content": ""}]


def _assistant_turn(message: AssistantMessage) -> Message:
    if isinstance(message.content, str):
        return {"role": "assistant", "content": message.content}
    blocks = message.content
    turn: Message = {"role": "assistant"}
    if texts := [block for block in blocks if isinstance(block, TextBlock)]:
        turn["content"] = text_of(texts)
    if thoughts := [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]:
        turn["reasoning_content"] = "\n".join(thoughts)
    if calls := [block for block in blocks if isinstance(block, ToolUseBlock)]:
        turn["tool_calls"] = [_call(block) for block in calls]
    return turn


def _call(block: ToolUseBlock) -> dict[str, Any]:
    arguments = json.dumps(block.input, ensure_ascii=False)
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _fields(request: ConversationRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": request.model}
    if request.tools:
        fields["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "parameters": tool.input_schema,
                    **tool.model_dump(include={"description", "strict"}, exclude_none=True),
                },
            }
            for tool in request.tools
        ]
    if choice := request.tool_choice:
        named = {"type": "function", "function": {"name": choice.name}}
        fields["tool_choice"] = named if choice.type == "tool" else _CHOICES[choice.type]
        if choice.disable_parallel_tool_use is not None:
            fields["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    return fields | _thought(request) | _output(request.output_config)


_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def _thought(request: ConversationRequest) -> dict[str, Any]:
    if isinstance(request.thinking, ThinkingDisabled):
        return {"enable_thinking": False}
    if isinstance(request.thinking, ThinkingEnabled):
        # Not as chat's `enable_thinking`, which is refused if the model does not think: some clients always send this.
        return {
            "chat_template_kwargs": {"enable_thinking": True},
            "thinking_token_budget": request.thinking.budget_tokens,
        }
    return {}


def _output(config: OutputConfig | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if config and config.effort:
        fields["reasoning_effort"] = config.effort
    if config and config.format:
        schema = {"name": "output", "schema": config.format.schema_, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


def _sampling(request: MessagesRequest) -> dict[str, Any]:
    same = ("max_tokens", "stream", "temperature", "top_p", "top_k", "seed", "max_wait", "timeout", "degrade")
    return {"stop": request.stop_sequences or None, **{name: getattr(request, name) for name in same}}
