"""Converts Ollama's requests to chat requests, or to completion requests for raw prompts."""

from __future__ import annotations

import json
from typing import Any

from antiphon.api.ollama.request import GenerationRequest, Message, OllamaChatRequest, OllamaGenerateRequest
from antiphon.api.translation import Translation

_NAMES = {
    "max_tokens": "options.num_predict",
    "temperature": "options.temperature",
    "top_p": "options.top_p",
    "top_k": "options.top_k",
    "min_p": "options.min_p",
    "seed": "options.seed",
    "stop": "options.stop",
    "repetition_penalty": "options.repeat_penalty",
    "reasoning_effort": "think",
    "enable_thinking": "think",
    "chat_template_kwargs": "think",
    "response_format": "format",
}
_SAME = ("temperature", "top_k", "top_p", "min_p", "seed", "presence_penalty", "frequency_penalty")


def translate_chat(request: OllamaChatRequest) -> Translation:
    """A conversation as a chat request.

    Raises:
        InvalidRequest: chat does not accept it. The error names the field that was sent.
    """
    messages = [_message(message, f"call_{index}") for index, message in enumerate(request.messages)]
    fields: dict[str, Any] = {"messages": messages}
    if request.tools:
        fields["tools"] = [tool.model_dump(exclude_none=True) for tool in request.tools]
    origins = [f"messages[{index}]" for index in range(len(messages))]
    return Translation(fields | sampling_fields(request) | _thought(request), origins, _NAMES)


def translate_prompt(request: OllamaGenerateRequest) -> Translation:
    """A prompt as a chat request with one user message. Raises the same errors as `translate_chat`."""
    system = [{"role": "system", "content": request.system}] if request.system else []
    fields: dict[str, Any] = {"messages": [*system, {"role": "user", "content": request.prompt}]}
    origins = ["system"] * len(system) + ["prompt"]
    return Translation(fields | sampling_fields(request) | _thought(request), origins, _NAMES)


def completion_fields(request: OllamaGenerateRequest) -> dict[str, Any]:
    """A raw prompt as the fields of a completion request."""
    sampling = sampling_fields(request)
    if isinstance(sampling.get("max_tokens"), int):
        return {"prompt": request.prompt, **sampling}
    return {"prompt": request.prompt, "max_tokens": 1 << 31, **sampling}  # reduced to what fits in the context


def sampling_fields(request: GenerationRequest) -> dict[str, Any]:
    """The request's sampling, format and `stream`, as chat fields. Fields that were not sent are left out."""
    fields: dict[str, Any] = {"stream": request.is_streamed}
    fields |= {"max_wait": request.max_wait, "timeout": request.timeout, "degrade": request.degrade}
    options = request.options
    if options is not None:
        fields |= {name: getattr(options, name) for name in _SAME}
        fields |= {"max_tokens": options.num_predict, "repetition_penalty": options.repeat_penalty}
        fields["stop"] = options.stop or None
    if isinstance(request.format, dict):
        fields["structured_outputs"] = {"json": request.format}
    elif request.format == "json":
        fields["response_format"] = {"type": "json_object"}
    return {name: value for name, value in fields.items() if value is not None}


def _thought(request: GenerationRequest) -> dict[str, Any]:
    if request.think is None:
        return {}
    if isinstance(request.think, str):
        return {"reasoning_effort": request.think}
    # Not as chat's `enable_thinking`, which is refused if the model does not think.
    return {"chat_template_kwargs": {"enable_thinking": True}} if request.think else {"enable_thinking": False}


def _message(message: Message, call_id: str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.thinking:
        turn["reasoning_content"] = message.thinking
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id or f"{call_id}_{index}",
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": json.dumps(call.function.arguments, ensure_ascii=False),
                },
            }
            for index, call in enumerate(message.tool_calls)
        ]
    if message.role == "tool":
        turn["tool_call_id"] = message.tool_call_id or message.tool_name or call_id
    return turn
