"""The description of each route in `/openapi.json`: the types of its answers, and examples that work as they are.

Request bodies are described by their schemas, answers by the types that write them. A new route needs an entry here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from fastapi import FastAPI

from antiphon.api import status, tokens
from antiphon.api.chat import request as chat_bodies
from antiphon.api.chat import shapes as chat
from antiphon.api.completions import request as completion_bodies
from antiphon.api.completions import shapes as completions
from antiphon.api.llama_cpp import request as llama_bodies
from antiphon.api.llama_cpp import shapes as llama
from antiphon.api.messages import request as anthropic_bodies
from antiphon.api.messages import shapes as anthropic
from antiphon.api.ollama import request as ollama_bodies
from antiphon.api.ollama import shapes as ollama
from antiphon.api.responses import request as response_bodies
from antiphon.api.responses import shapes as response_shapes
from antiphon.api.simple import request as simple_bodies
from antiphon.api.simple import shapes as simple
from antiphon.http.administration import Operation
from antiphon.http.openapi import Described, Json, describe
from antiphon.http.routes import admin, models
from antiphon.peers import UsageReport

_BODIES = (
    chat_bodies.ChatCompletionRequest,
    completion_bodies.CompletionRequest,
    response_bodies.ResponseRequest,
    response_bodies.InputTokensRequest,
    anthropic_bodies.MessagesRequest,
    anthropic_bodies.CountTokensRequest,
    simple_bodies.SimpleRequest,
    simple_bodies.BatchRequest,
    ollama_bodies.OllamaChatRequest,
    ollama_bodies.OllamaGenerateRequest,
    ollama_bodies.OllamaShowRequest,
    llama_bodies.LlamaCompletionRequest,
    tokens.TokenizeRequest,
    tokens.DetokenizeRequest,
)


def _object(required: list[str], **properties: object) -> Json:
    return {"type": "object", "properties": properties, "required": required}


_TEXT: Json = {"type": "string"}
_ERRORS = {
    "Error": _object(
        ["error"],
        error=_object(
            ["message", "type", "param", "code"],
            message=_TEXT,
            type=_TEXT,
            param={"type": ["string", "null"]},
            code={"type": ["string", "null"]},
        ),
    ),
    "OllamaError": _object(["error"], error=_TEXT),
    "AnthropicError": _object(
        ["type", "error"],
        type={"const": "error"},
        error=_object(["type", "message"], type=_TEXT, message=_TEXT),
    ),
}
_RESPONSE_EVENTS = [
    response_shapes.Created,
    response_shapes.Queued,
    response_shapes.InProgress,
    response_shapes.Completed,
    response_shapes.Incomplete,
    response_shapes.Failed,
    response_shapes.Progress,
    response_shapes.ItemAdded,
    response_shapes.ItemDone,
    response_shapes.PartAdded,
    response_shapes.PartDone,
    response_shapes.TextDelta,
    response_shapes.TextDone,
    response_shapes.ReasoningDelta,
    response_shapes.ReasoningDone,
    response_shapes.ArgumentsDelta,
    response_shapes.ArgumentsDone,
]
_HELLO = [{"role": "user", "content": "What is the capital of France?"}]
_CHAT: Json = {"messages": _HELLO, "max_tokens": 100}
_PROMPT: Json = {"prompt": "The capital of France is", "max_tokens": 8}
_RESULTS = _object(
    ["results", "latency_ms"],
    results={"type": "array", "items": {"anyOf": [simple.BatchAnswer, simple.BatchFault]}},
    latency_ms={"type": "number"},
)

REFERENCE = {
    ("POST", "/v1/chat/completions"): Described(
        chat.ChatCompletion,
        {"whole": _CHAT, "streamed": {**_CHAT, "stream": True, "stream_options": {"include_usage": True}}},
        event=chat.ChatCompletionChunk,
    ),
    ("POST", "/v1/completions"): Described(
        completions.Completion,
        {"whole": _PROMPT, "streamed": {**_PROMPT, "stream": True}},
        event=completions.Completion,
    ),
    ("POST", "/v1/responses"): Described(
        response_shapes.ResponseBody,
        {
            "whole": {"input": "Hello"},
            "streamed": {"input": _HELLO, "stream": True, "store": False},
            "in the background": {"input": "Hello", "background": True, "max_output_tokens": 100},
        },
        event={"anyOf": _RESPONSE_EVENTS},
    ),
    ("GET", "/v1/responses/{response_id}"): Described(
        response_shapes.ResponseBody, event={"anyOf": _RESPONSE_EVENTS}, query=response_bodies.StoredResponseQuery
    ),
    ("GET", "/v1/responses/{response_id}/input_items"): Described(
        response_shapes.ItemList, query=response_bodies.InputItemsQuery
    ),
    ("POST", "/v1/responses/input_tokens"): Described(response_shapes.InputTokens, {"text": {"input": "Hello"}}),
    ("POST", "/v1/responses/{response_id}/cancel"): Described(response_shapes.ResponseBody),
    ("DELETE", "/v1/responses/{response_id}"): Described(response_shapes.Deleted),
    ("POST", "/v1/messages"): Described(
        anthropic.Message,
        {"whole": _CHAT, "streamed": {**_CHAT, "stream": True}},
        event={"anyOf": list(get_args(anthropic.Event))},
        error="AnthropicError",
        codes=("529",),
    ),
    ("POST", "/v1/messages/count_tokens"): Described(
        anthropic.TokenCount, {"messages": {"messages": _HELLO}}, error="AnthropicError", codes=("529",)
    ),
    ("POST", "/generate"): Described(simple.Answer, {"question": _PROMPT}, query=simple_bodies.SimpleRequest),
    ("POST", "/generate-batch"): Described(
        _RESULTS, {"object": {"requests": [{"id": "a", "prompt": "Who are you?", "max_tokens": 8}]}}
    ),
    ("POST", "/tokenize"): Described(tokens.Tokens, {"prompt": {"prompt": "Hello"}, "messages": {"messages": _HELLO}}),
    ("POST", "/detokenize"): Described(tokens.Text, {"tokens": {"tokens": [1, 2, 3]}}),
    ("GET", "/tokenizer_info"): Described(tokens.TokenizerInfo),
    ("POST", "/api/chat"): Described(
        ollama.ChatLine,
        {"streamed": {"messages": _HELLO}, "whole": {"messages": _HELLO, "stream": False}},
        event=ollama.ChatLine,
        stream_type="application/x-ndjson",
        error="OllamaError",
    ),
    ("POST", "/api/generate"): Described(
        ollama.GenerateLine,
        {"streamed": {"prompt": "Hello"}, "whole": {"prompt": "Hello", "stream": False}},
        event=ollama.GenerateLine,
        stream_type="application/x-ndjson",
        error="OllamaError",
    ),
    ("GET", "/api/tags"): Described(ollama.Models, error="OllamaError"),
    ("GET", "/api/ps"): Described(ollama.Models, error="OllamaError"),
    ("POST", "/api/show"): Described(ollama.Shown, {"any": {"model": ""}}, error="OllamaError"),
    ("GET", "/api/version"): Described(ollama.Version, error="OllamaError"),
    ("POST", "/completion"): Described(
        llama.Completion, {"whole": {"prompt": "Hello", "n_predict": 8}}, event=llama.Completion
    ),
    ("GET", "/props"): Described(llama.Props),
    ("GET", "/slots"): Described({"type": "array", "items": llama.Slot}),
    ("GET", "/ping"): Described(_TEXT, media_type="text/plain"),
    ("POST", "/ping"): Described(_TEXT, media_type="text/plain"),
    ("GET", "/load"): Described(_object(["server_load"], server_load={"type": "integer"})),
    ("GET", "/"): Described(_object(["name", "version", "model", "state"])),
    ("GET", "/v1/status"): Described(status.Status),
    ("GET", "/v1/models"): Described(models.ModelList),
    ("GET", "/v1/models/{name}"): Described(models.Model),
    ("GET", "/health"): Described(_object(["status"], status={"const": "ok"})),
    ("GET", "/ready"): Described(_object(["status", "model"], status={"const": "ready"}, model=_TEXT)),
    ("GET", "/metrics"): Described(_TEXT, media_type="text/plain"),
    ("GET", "/version"): Described(_object(["version"], version=_TEXT)),
}


_OPERATION = Described(Operation, is_operation=True, codes=("409",))

ADMIN_REFERENCE = {
    ("GET", "/admin/engines"): Described(admin.EngineList),
    ("GET", "/admin/usage"): Described(UsageReport),
    ("GET", "/admin/operations/{operation_id}"): Described(Operation),
    ("POST", "/admin/engines"): replace(_OPERATION, query=admin.NewEngine),
    ("POST", "/admin/engines/restart"): _OPERATION,
    ("DELETE", "/admin/engines/{engine_id}"): _OPERATION,
    ("POST", "/admin/engines/{engine_id}/drain"): _OPERATION,
    ("POST", "/admin/engines/{engine_id}/resume"): _OPERATION,
    ("POST", "/admin/engines/{engine_id}/restart"): _OPERATION,
    ("POST", "/admin/reload"): _OPERATION,
}


def describe_routes(app: FastAPI) -> None:
    """Add the descriptions of all routes to `app`'s document."""
    describe(app, _BODIES, _ERRORS, REFERENCE | ADMIN_REFERENCE)
