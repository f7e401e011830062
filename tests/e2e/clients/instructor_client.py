"""Instructor: structured output by a forced tool and by a JSON schema, whole and as it grows.

Usage: instructor_client.py URL MODEL. Prints what came back as JSON on its last line.
"""

import json
import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    """A city whose weather is asked for."""

    city: str


def main(url: str, model: str) -> None:
    asked = {
        "model": model,
        "response_model": Weather,
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "temperature": 0,
        "max_tokens": 100,
    }
    said = {"structured": [], "partial": []}
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(OpenAI(base_url=f"{url}/v1", api_key="unused"), mode=mode)
        said["structured"].append(client.chat.completions.create(**asked, max_retries=0).model_dump())
        partial = [each.city for each in client.chat.completions.create_partial(**asked)]
        said["partial"].append(partial)
    print(json.dumps(said))


main(*sys.argv[1:])
