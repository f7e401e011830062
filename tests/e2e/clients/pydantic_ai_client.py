"""Pydantic AI: an answer, the same streamed, structured output by a forced tool and by a JSON schema.

Usage: pydantic_ai_client.py URL MODEL. Prints what came back as JSON on its last line.
"""

import asyncio
import json
import sys

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

QUESTION, ASKED_FOR_WEATHER = "What is the capital of France?", "What is the weather in Paris?"


class Weather(BaseModel):
    """A city whose weather is asked for."""

    city: str


async def streamed(agent: Agent) -> str:
    async with agent.run_stream(QUESTION) as stream:
        return "".join([piece async for piece in stream.stream_text(delta=True)])


def main(url: str, name: str) -> None:
    model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="unused"))
    agent = Agent(model, model_settings={"temperature": 0})
    whole = agent.run_sync(QUESTION)
    said = {
        "answers": [whole.output, asyncio.run(streamed(agent))],
        "output_tokens": whole.usage.output_tokens,
        "structured": [],
    }
    for output in (ToolOutput(Weather), NativeOutput(Weather)):
        agent = Agent(model, output_type=output, model_settings={"temperature": 0, "max_tokens": 100})
        said["structured"].append(agent.run_sync(ASKED_FOR_WEATHER).output.model_dump())
    print(json.dumps(said))


main(*sys.argv[1:])
