"""Structured answers of the real model, over real HTTP: valid whatever is drawn, and the same under any load."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field
from real_server import RealServer
from schemas import problem, random_schema

pytestmark = pytest.mark.model

SEEDS = (1, 2, 4, 5, 7, 8, 10)  # of schemas in which so small a model comes to an end


class City(BaseModel):
    name: str = Field(max_length=30)
    country: Literal["France", "Japan", "Kenya"]
    population: int = Field(ge=0, le=50_000_000)


async def ask(server: RealServer, question: str, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": question}], "temperature": 1.0, "seed": 1, **fields}
    async with server.http() as client:
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


async def of_schema(server: RealServer, seed: int) -> str:
    schema = random_schema(seed)
    format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    choice = await ask(server, "Fill in some data.", response_format=format, seed=seed, max_tokens=300)
    assert choice["finish_reason"] == "stop", schema
    assert problem(schema, choice["message"]["content"]) is None
    return str(choice["message"]["content"])


async def test_schemas_alone_and_all_at_once(server):
    alone = [await of_schema(server, seed) for seed in SEEDS[:3]]
    others = [ask(server, "Tell me a story.", seed=seed, max_tokens=60) for seed in range(8)]
    together = await asyncio.gather(*(of_schema(server, seed) for seed in SEEDS), *others)
    assert list(together[:3]) == alone


async def test_the_official_clients_parse_a_pydantic_model(server):
    async with server.openai() as client:
        parsed = await client.chat.completions.parse(
            model=server.model,
            messages=[{"role": "user", "content": "Describe a city as JSON: name, country, population."}],
            response_format=City,
            max_tokens=300,
        )
        assert isinstance(parsed.choices[0].message.parsed, City)
        answered = await client.responses.parse(
            model=server.model, input="Describe a city as JSON.", text_format=City, max_output_tokens=300
        )
        assert isinstance(answered.output_parsed, City)


async def test_choices_patterns_and_grammars(server):
    choice = await ask(server, "Is Paris in France?", structured_outputs={"choice": ["yes", "no"]})
    assert choice["message"]["content"] in ("yes", "no")
    date = await ask(server, "When did Apollo 11 land?", guided_regex=r"\d{4}-\d\d-\d\d")
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", date["message"]["content"])
    total = 'start: sum\nsum: /[0-9]{1,3}/ " + " /[0-9]{1,3}/ " = " /[0-9]{1,4}/'
    added = await ask(server, "What is 17 and 25?", guided_grammar=total)
    assert re.fullmatch(r"\d{1,3} \+ \d{1,3} = \d{1,4}", added["message"]["content"])


async def test_a_bomb_is_refused_and_others_go_on(server):
    steep = "start: A\nA: " + " & ".join(f"/(.*[a-f].{{{n}}}g.*)*/" for n in range(5, 30))
    async with server.http() as client:
        body = {"messages": [{"role": "user", "content": "Go."}], "guided_grammar": steep, "max_tokens": 20}
        bomb, other = await asyncio.gather(
            client.post("/v1/chat/completions", json=body), ask(server, "Tell me a story.", max_tokens=40)
        )
    assert bomb.status_code == 400
    assert bomb.json()["error"]["param"] == "guided_grammar"
    assert other["message"]["content"]
