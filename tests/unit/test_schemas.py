"""Every schema of a request stops at its first bad item, however many there are and wherever the list is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.completions.request import CompletionRequest
from antiphon.api.messages.request import CountTokensRequest, MessagesRequest
from antiphon.api.responses.request import ResponseRequest
from antiphon.api.simple.request import BatchRequest, SimpleRequest
from antiphon.api.tokens import DetokenizeRequest, TokenizeRequest

REQUESTS = [
    *(ChatCompletionRequest, CompletionRequest, ResponseRequest, MessagesRequest, CountTokensRequest),
    *(SimpleRequest, BatchRequest, TokenizeRequest, DetokenizeRequest),
]


def lists_in(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, dict):
        inner = [each for value in schema.values() for each in lists_in(value)]
        return [schema, *inner] if schema.get("type") == "list" else inner
    return [each for item in schema for each in lists_in(item)] if isinstance(schema, list | tuple) else []


@pytest.mark.parametrize("model", REQUESTS)
def test_every_list_of_a_request_fails_fast(model: type[BaseModel]):
    lists = lists_in(model.__pydantic_core_schema__)
    assert lists or model is SimpleRequest
    assert all(each.get("fail_fast") for each in lists)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (CompletionRequest, {"prompt": [-1] * 1000}),
        (CompletionRequest, {"prompt": [[0], *[[-1] * 1000] * 1000]}),
        (ChatCompletionRequest, {"messages": [{"role": "user", "content": [{"type": "text"}] * 1000}] * 1000}),
        (ChatCompletionRequest, {"messages": [{"role": "assistant", "tool_calls": [{}] * 1000}]}),
        (ResponseRequest, {"input": [{"role": "user", "content": [{"type": "input_text"}] * 1000}] * 1000}),
        (MessagesRequest, {"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "text"}] * 1000}]}),
        (DetokenizeRequest, {"tokens": ["x"] * 1000}),
    ],
)
def test_a_thousand_faults_are_no_more_complaints_than_one(model: type[BaseModel], body: dict[str, Any]):
    with pytest.raises(ValidationError) as error:
        model.model_validate(body)
    assert error.value.error_count() <= 8
