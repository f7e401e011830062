"""Every request field is in docs/api.md, and every field there exists."""

from __future__ import annotations

import re
from pathlib import Path

from antiphon import strict_json
from antiphon.api import limits, tokens
from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.completions.request import CompletionRequest
from antiphon.api.generation_request import GenerationRequest
from antiphon.api.messages.request import CountTokensRequest, MessagesRequest
from antiphon.api.responses.request import ResponseRequest
from antiphon.api.simple import request as generate

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def section(title: str) -> str:
    return re.split(r"^## ", TEXT.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def named_in_first_column(text: str) -> set[str]:
    cells = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    return {name.partition(".")[0] for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


def test_every_field_is_documented_and_nothing_else_is():
    common = set(GenerationRequest.model_fields)
    assert named_in_first_column(section("Fields of chat and plain completions")) == common
    chat = set(ChatCompletionRequest.model_fields) - common - {"messages"}
    assert named_in_first_column(section("Chat")) == chat
    plain = set(CompletionRequest.model_fields) - common - {"prompt"}
    assert named_in_first_column(section("Plain completions")) - {"max_tokens"} == plain


def test_every_field_of_the_other_routes_is_documented_and_nothing_else_is():
    responses = section("Responses").partition("| field |")[2]
    assert named_in_first_column(responses) == set(ResponseRequest.model_fields) - {"input"}
    messages = set(MessagesRequest.model_fields)
    assert named_in_first_column(section("Messages")) == messages - {"messages"}
    counted = re.findall(r"`(\w+)`", section("Messages").partition("decide on the prompt (")[2].partition(")")[0])
    assert set(counted) == set(CountTokensRequest.model_fields)
    assert named_in_first_column(section("Small scripts")) == set(generate.BatchItem.model_fields)
    tokenized = set(tokens.TokenizeRequest.model_fields) | set(tokens.DetokenizeRequest.model_fields)
    assert named_in_first_column(section("Tokens")) == tokenized


def test_caps_are_those_of_the_code():
    assert f"1–{limits.MAX_CHOICES} |" in TEXT
    assert f"up to {limits.MAX_STOPS}, {limits.MAX_STOP_LENGTH} characters" in TEXT
    assert f"up to {limits.MAX_PROMPTS} prompts, and {limits.MAX_SEQUENCES} choices" in TEXT
    assert f"(0–{limits.MAX_LOGPROBS})" in TEXT
    assert f"{strict_json.MAX_JSON_DEPTH} levels" in TEXT
    assert f"{limits.MAX_LOGIT_BIASES:,} entries" in TEXT
    assert f"({limits.MAX_METADATA} entries)" in TEXT
    assert f"1 to {limits.MAX_BATCH:,} such items" in TEXT
    assert f"at most {limits.MAX_MESSAGES:,})" in TEXT
