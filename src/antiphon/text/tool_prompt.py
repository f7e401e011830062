"""Puts tools, calls and their results into a prompt.

A template that knows tools, and writes calls in a shape that can be read back, does all of it itself; whether it does
is tried once. For any other the tools are described in the system message, calls are written into the assistant's turns
as the model will be asked to write them, and results go into the user's turn, so nothing of a conversation is lost.
Everything here works on texts whose control tokens were marked before, and adds the shape's own tags.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from antiphon.errors import InvalidRequest
from antiphon.text.template import ChatTemplate
from antiphon.text.tool_shapes import SHAPES, ToolShape, shape_in, write_calls

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolStyle:
    """How tools are put into one model's prompts."""

    shape: ToolShape
    in_template: bool  # the template does all of it
    arguments_are_text: bool = True  # whether it wants a call's arguments as JSON text, not as what that means


def tool_style(template: ChatTemplate, parser: str = "auto") -> ToolStyle:
    """What `template` can do, with the shape that `parser` names, or `auto`: the template's own, else Hermes'."""
    own = shape_in(template.source)
    shape = SHAPES.get(parser) or own or SHAPES["hermes"]
    if shape is own:
        for arguments_are_text in (True, False):
            if _shows_tools(template, arguments_are_text):
                return ToolStyle(shape, in_template=True, arguments_are_text=arguments_are_text)
    return ToolStyle(shape, in_template=False)


def _shows_tools(template: ChatTemplate, arguments_are_text: bool) -> bool:
    """Whether a tool, a call and its result all show in what the template renders."""
    shown = '{"where": "NEEDLE"}'
    arguments = shown if arguments_are_text else json.loads(shown)
    call = {"id": "call_1", "type": "function", "function": {"name": "seek", "arguments": arguments}}
    messages: list[Message] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "RESULT", "tool_call_id": "call_1"},
    ]
    try:
        text = template.render(messages, tools=[_tool("DESCRIBED")], add_generation_prompt=True)
    except InvalidRequest:
        return False
    return all(part in text for part in ("DESCRIBED", shown, "RESULT"))


def _tool(description: str) -> Message:
    parameters = {"type": "object", "properties": {"where": {"type": "string"}}}
    return {"type": "function", "function": {"name": "seek", "description": description, "parameters": parameters}}


def with_arguments(messages: Sequence[Mapping[str, Any]], style: ToolStyle) -> list[Mapping[str, Any]]:
    """Unmarked messages with the arguments of their calls as the template wants them."""
    if not style.in_template or style.arguments_are_text:
        return list(messages)
    return [
        {**message, "tool_calls": [_parsed(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _parsed(call: Mapping[str, Any]) -> Message:
    """A call with its arguments as a value; broken ones, and those of a call that was cut off, stay text."""
    arguments = call["function"]["arguments"] or "{}"
    with suppress(ValueError, RecursionError):
        arguments = json.loads(arguments)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def spelled_out(messages: Sequence[Message], tools: Sequence[Any], style: ToolStyle) -> list[Message]:
    """Messages for a template that knows no tools."""
    turns: list[Message] = []
    role_before = ""
    for message in messages:
        if message["role"] == "tool":
            result = f"{style.shape.result_open}{message['content']}{style.shape.result_close}"
            if role_before == "tool":  # one turn for all of them: many templates want the roles to alternate
                turns[-1]["content"] += "\n" + result
            else:
                turns.append({"role": "user", "content": result})
        elif message.get("tool_calls"):
            turns.append(_with_calls(message, style.shape))
        else:
            turns.append(message)
        role_before = message["role"]
    return _described(turns, tools, style.shape) if tools else turns


def _with_calls(message: Message, shape: ToolShape) -> Message:
    made = [(call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
    calls = write_calls(shape, made)
    others = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**others, "content": f"{message['content']}\n{calls}" if message["content"] else calls}


def _described(messages: Sequence[Message], tools: Sequence[Any], shape: ToolShape) -> list[Message]:
    """With the tools behind the last system message, which is the one that R1's template keeps; else in one more."""
    described = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = _DESCRIPTION.format(tools=described, call=write_calls(shape, [("NAME", "{…}")]))
    places = [index for index, message in enumerate(messages) if message["role"] == "system"]
    if not places:
        return [{"role": "system", "content": text}, *messages]
    told = messages[places[-1]]
    changed = list(messages)
    changed[places[-1]] = {**told, "content": f"{told['content']}\n\n{text}" if told["content"] else text}
    return changed


_DESCRIPTION = """You can call functions. Each line between <tools> and </tools> describes one of them:
<tools>
{tools}
</tools>
To call a function, write its name and its arguments, a JSON object, exactly like this:
{call}
You may write several calls one after another. Then stop: what the functions return comes in the next turn. Where no \
function is needed, just answer."""
