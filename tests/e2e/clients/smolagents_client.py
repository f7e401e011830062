"""smolagents: an answer, the same streamed, a forced call of a tool.

Usage: smolagents_client.py URL MODEL. Prints what came back as JSON on its last line. Its agents need a model that was
trained for tools; what they send is what `generate` sends here.
"""

import json
import sys

from smolagents import OpenAIServerModel, tool

QUESTION, ASKED_FOR_WEATHER = "What is the capital of France?", "What is the weather in Paris?"


@tool
def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: Its name.
    """
    return f"Rain in {city}"


def asked(text: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


def main(url: str, name: str) -> None:
    model = OpenAIServerModel(model_id=name, api_base=f"{url}/v1", api_key="unused", temperature=0, max_tokens=100)
    named = {"type": "function", "function": {"name": "get_weather"}}
    called = model.generate(asked(ASKED_FOR_WEATHER), tools_to_call_from=[get_weather], tool_choice=named)
    said = {
        "answers": [
            model.generate(asked(QUESTION)).content,
            "".join(delta.content or "" for delta in model.generate_stream(asked(QUESTION))),
        ],
        "called": [call.function.name for call in called.tool_calls],
    }
    print(json.dumps(said))


main(*sys.argv[1:])
