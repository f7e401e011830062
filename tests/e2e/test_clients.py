"""Clients that people use, as their own documentation has them used, against the real model on one server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai import BadRequestError, OpenAI
from patience import PATIENCE
from pydantic import BaseModel, Field
from real_server import RealServer

if TYPE_CHECKING:  # their imports take seconds, which every process that collects tests would need
    from anthropic import Anthropic
    from langchain_openai import ChatOpenAI

pytestmark = [pytest.mark.model, pytest.mark.slow]

QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
# A question, the model's calls, and what came of them, which is how every framework sends a tool's results.
CALLED: list[Any] = [
    {"role": "user", "content": "What is the weather in Paris and in Rome?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": f"call_{city}", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
            for city, arguments in (("paris", '{"city": "Paris"}'), ("rome", '{"city": "Rome"}'))
        ],
    },
    {"role": "tool", "tool_call_id": "call_paris", "content": "Rain"},
    {"role": "tool", "tool_call_id": "call_rome", "content": "Sun"},
]


@pytest.fixture(scope="module")
def openai(server: RealServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic(server: RealServer) -> Iterator[Anthropic]:
    from anthropic import Anthropic

    with Anthropic(base_url=server.url, api_key="unused", max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def langchain(server: RealServer) -> ChatOpenAI:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        base_url=f"{server.url}/v1",
        api_key="unused",
        model=server.model,
        temperature=0,
        max_retries=0,
        timeout=PATIENCE,
    )


# --- openai


def test_openai_chat(openai: OpenAI, server: RealServer):
    whole = openai.chat.completions.create(model=server.model, messages=ASKED, temperature=0)
    assert whole.choices[0].message.content == ANSWER
    with openai.chat.completions.create(model=server.model, messages=ASKED, temperature=0, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ANSWER
    with openai.chat.completions.stream(model=server.model, messages=ASKED, temperature=0) as events:
        assert events.get_final_completion().choices[0].message.content == ANSWER


async def test_openai_chat_from_asyncio(server: RealServer):
    async with server.openai() as client:
        whole = await client.chat.completions.create(model=server.model, messages=ASKED, temperature=0)
        assert whole.choices[0].message.content == ANSWER
        stream = await client.chat.completions.create(model=server.model, messages=ASKED, temperature=0, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER


def test_openai_completions(openai: OpenAI, server: RealServer):
    fields: Any = {"model": server.model, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4}
    whole = openai.completions.create(**fields, echo=True, logprobs=1)
    assert whole.choices[0].text.startswith("The capital of France is Paris")
    logprobs = whole.choices[0].logprobs
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert "".join(logprobs.tokens).startswith(whole.choices[0].text)
    streamed = "".join(chunk.choices[0].text for chunk in openai.completions.create(**fields, stream=True))
    assert fields["prompt"] + streamed == whole.choices[0].text


def test_scores_of_a_prompt_are_those_that_its_tokens_had_when_they_were_drawn(openai: OpenAI, server: RealServer):
    """Scored or drawn, the same arithmetic: bit for bit."""
    fields: Any = {"model": server.model, "temperature": 0, "logprobs": 1}
    drawn = openai.completions.create(prompt="One, two,", max_tokens=12, **fields).choices[0]
    scored = openai.completions.create(prompt="One, two," + drawn.text, max_tokens=0, echo=True, **fields).choices[0]
    assert scored.logprobs.tokens[-12:] == drawn.logprobs.tokens
    assert scored.logprobs.token_logprobs[-12:] == drawn.logprobs.token_logprobs


def test_openai_responses(openai: OpenAI, server: RealServer):
    first = openai.responses.create(model=server.model, input=QUESTION, temperature=0)
    assert first.output_text == ANSWER
    second = openai.responses.create(model=server.model, input="And of Italy?", previous_response_id=first.id)
    assert second.status in ("completed", "incomplete")
    with openai.responses.stream(model=server.model, input=QUESTION, temperature=0) as events:
        assert events.get_final_response().output_text == ANSWER


def test_openai_tools(openai: OpenAI, server: RealServer):
    tools: Any = [{"type": "function", "function": WEATHER}]
    offered = openai.chat.completions.create(model=server.model, messages=ASKED, tools=tools, temperature=0)
    plain = openai.chat.completions.create(model=server.model, messages=ASKED, temperature=0)
    assert offered.usage.prompt_tokens > plain.usage.prompt_tokens
    answered = openai.chat.completions.create(
        model=server.model, messages=CALLED, tools=tools, tool_choice="none", temperature=0, max_tokens=30
    )
    assert answered.choices[0].message.content
    assert not answered.choices[0].message.tool_calls


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_openai_forced_tools(openai: OpenAI, server: RealServer, choice: Any):
    """A model that was never trained to call tools calls one, and the same streamed."""
    asked: Any = {
        "model": server.model,
        "messages": CALLED[:1],
        "tools": [{"type": "function", "function": WEATHER}],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "temperature": 1.0,
        "seed": 1,
    }
    (call,) = openai.chat.completions.create(**asked).choices[0].message.tool_calls
    assert json.loads(call.function.arguments).keys() == {"city"}
    with openai.chat.completions.stream(**asked) as events:
        (streamed,) = events.get_final_completion().choices[0].message.tool_calls
    assert streamed.function.arguments == call.function.arguments


async def test_openai_responses_from_asyncio(server: RealServer):
    tool: Any = {"type": "function", "strict": False, **WEATHER}
    async with server.openai() as client:
        asked: Any = {"model": server.model, "input": QUESTION, "temperature": 0}
        stream = await client.responses.create(**asked, stream=True)
        assert "".join([event.delta async for event in stream if event.type == "response.output_text.delta"]) == ANSWER
        forced = await client.responses.create(
            **asked, tools=[tool], tool_choice={"type": "function", "name": WEATHER["name"]}
        )
        assert [item.type for item in forced.output] == ["function_call"]


def test_openai_errors(openai: OpenAI, server: RealServer):
    with pytest.raises(BadRequestError, match="less than or equal to 2") as caught:
        openai.chat.completions.create(model=server.model, messages=ASKED, temperature=3)
    assert caught.value.param == "temperature"


# --- anthropic


def test_anthropic_messages(anthropic: Anthropic, server: RealServer):
    fields: Any = {"model": server.model, "messages": ASKED, "max_tokens": 50}
    # The demo model's own advice is temperature 0, so nothing need be said of it.
    whole = anthropic.messages.create(**fields)
    assert whole.content[0].text == ANSWER
    assert whole.stop_reason == "end_turn"
    with anthropic.messages.stream(**fields) as stream:
        assert "".join(stream.text_stream) == ANSWER
    counted = anthropic.messages.count_tokens(model=server.model, messages=ASKED)
    assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens


def test_anthropic_tools(anthropic: Anthropic, server: RealServer):
    tool: Any = {"name": "get_weather", "input_schema": WEATHER["parameters"]}
    calls = [{"type": "tool_use", "id": name, "name": "get_weather", "input": {"city": name}} for name in "ab"]
    results = [{"type": "tool_result", "tool_use_id": name, "content": "Rain"} for name in "ab"]
    messages: Any = [
        {"role": "user", "content": "What is the weather in a and b?"},
        {"role": "assistant", "content": calls},
        {"role": "user", "content": results},
    ]
    answer = anthropic.messages.create(model=server.model, messages=messages, tools=[tool], max_tokens=30)
    assert answer.content
    assert answer.stop_reason in ("end_turn", "max_tokens", "tool_use")


def test_anthropic_forced_tools(anthropic: Anthropic, server: RealServer):
    tool: Any = {"name": "get_weather", "input_schema": WEATHER["parameters"]}
    asked: Any = {"model": server.model, "messages": CALLED[:1], "tools": [tool], "max_tokens": 200}
    with anthropic.messages.stream(**asked, tool_choice={"type": "tool", "name": "get_weather"}) as stream:
        answer = stream.get_final_message()
    assert answer.stop_reason == "tool_use"
    assert [block.input.keys() for block in answer.content] == [{"city"}]


# --- langchain


class Weather(BaseModel):
    """A city whose weather is asked for."""

    city: str = Field(max_length=30)


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_langchain_structured_output(langchain: ChatOpenAI, method: Any):
    found = langchain.with_structured_output(Weather, method=method).invoke(CALLED[0]["content"])
    assert isinstance(found, Weather)


def test_langchain_chat(langchain: ChatOpenAI):
    whole = langchain.invoke(QUESTION)
    assert whole.content == ANSWER
    assert whole.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in langchain.stream(QUESTION)) == ANSWER
    assert [answer.content for answer in langchain.batch([QUESTION, QUESTION])] == [ANSWER, ANSWER]


async def test_langchain_from_asyncio(langchain: ChatOpenAI):
    assert (await langchain.ainvoke(QUESTION)).content == ANSWER


def test_langchain_tools(langchain: ChatOpenAI):
    bound = langchain.bind_tools([{"type": "function", "function": WEATHER}])
    answer = bound.invoke(CALLED, max_tokens=30)
    assert answer.content or answer.tool_calls


# --- llm, and LiteLLM


def test_the_llm_command(server: RealServer, tmp_path: Path):
    model = f"- model_id: antiphon\n  model_name: {server.model}\n  api_base: {server.url}/v1\n  api_key_name: none\n"
    (tmp_path / "extra-openai-models.yaml").write_text(model)
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path)}
    llm = [sys.executable, "-m", "llm", "-m", "antiphon", "--key", "unused", "-o", "temperature", "0"]
    finished = subprocess.run(
        [*llm, QUESTION], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert finished.stdout.strip() == ANSWER, finished.stderr


# LiteLLM in a process of its own, as its proxy is: it keeps threads and sessions open, and warns of what it imports.
LITELLM = """
import asyncio, json, sys
import litellm

url, model, asked, weather = json.loads(sys.argv[1])
fields = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "unused", "messages": asked, "temperature": 0}
whole = litellm.completion(**fields)
stream = litellm.completion(**fields, stream=True)
later = asyncio.run(litellm.acompletion(**fields))
named = {"type": "function", "function": {"name": weather["name"]}}
tools = {"tools": [{"type": "function", "function": weather}], "tool_choice": named}
(call,) = litellm.completion(**fields, **tools).choices[0].message.tool_calls
try:
    litellm.completion(**fields | {"temperature": 3})
except litellm.BadRequestError as error:
    refusal = str(error)
print(json.dumps([
    whole.choices[0].message.content,
    "".join(chunk.choices[0].delta.content or "" for chunk in stream),
    later.choices[0].message.content,
    json.loads(call.function.arguments),
    refusal,
]))
"""


def test_litellm(server: RealServer):
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it would fetch one
    asked = json.dumps([server.url, server.model, ASKED, WEATHER])
    finished = subprocess.run(
        [sys.executable, "-c", LITELLM, asked],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    *answers, arguments, refusal = json.loads(finished.stdout.splitlines()[-1])
    assert answers == [ANSWER] * 3
    assert isinstance(arguments["city"], str)
    assert "less than or equal to 2" in refusal
