"""OpenAI's Agents SDK, over chat completions and over Responses: answers, streams, a tool that is run, a typed output.

Usage: openai_agents_client.py URL MODEL. Prints what came back as JSON on its last line.
"""

import asyncio
import json
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

QUESTION, ASKED_FOR_WEATHER = "What is the capital of France?", "What is the weather in Paris?"
called_with: list[str] = []


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    called_with.append(city)
    return "Rain"


class Weather(BaseModel):
    """A city whose weather is asked for."""

    city: str


async def main(url: str, name: str) -> None:
    set_tracing_disabled(True)  # it would send traces to OpenAI
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="unused")
    greedy = ModelSettings(temperature=0)
    forced = ModelSettings(temperature=0, max_tokens=100, tool_choice="required", parallel_tool_calls=False)
    said = {"answers": [], "after_a_call": [], "structured": []}
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        model = kind(model=name, openai_client=client)
        plain = Agent(name="plain", model=model, model_settings=greedy)
        said["answers"].append((await Runner.run(plain, QUESTION)).final_output)
        streamed = Runner.run_streamed(plain, QUESTION)
        async for _ in streamed.stream_events():
            pass
        said["answers"].append(streamed.final_output)
        calling = Agent(name="calling", model=model, model_settings=forced, tools=[get_weather])
        said["after_a_call"].append((await Runner.run(calling, ASKED_FOR_WEATHER)).final_output)
        typed = Agent(name="typed", model=model, model_settings=greedy, output_type=Weather)
        said["structured"].append((await Runner.run(typed, ASKED_FOR_WEATHER)).final_output.model_dump())
    print(json.dumps(said | {"called_with": called_with}))


asyncio.run(main(*sys.argv[1:]))
