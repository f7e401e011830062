"""Routes that clients of llama-server and vLLM know, and paths without `/v1`."""

from __future__ import annotations

import json

import pytest
from http_server import Served, serving
from running_server import MODEL

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def complete(served: Served, **fields):
    return await served.http.post("/completion", json={"prompt": "Hello", "n_predict": 8, "seed": 1, **fields})


async def test_a_completion_is_that_of_openais_api(served: Served):
    expected = (await served.complete("Hello", max_tokens=8, seed=1, logprobs=2)).json()["choices"][0]
    answer = (await complete(served, n_probs=2, return_tokens=True)).json()
    assert answer["content"] == expected["text"]
    assert (answer["stop"], answer["stop_type"], answer["tokens_predicted"]) == (True, "limit", 8)
    assert [each["logprob"] for each in answer["completion_probabilities"]] == expected["logprobs"]["token_logprobs"]
    assert len(answer["tokens"]) == 8
    ids = served.text.encode_prompt("Hello")
    assert (await complete(served, prompt=ids)).json()["content"] == expected["text"]


async def test_a_stream_adds_up_and_has_no_done(served: Served):
    whole = (await complete(served)).json()
    reply = await complete(served, stream=True)
    assert "[DONE]" not in reply.text
    parts = [json.loads(line.removeprefix("data: ")) for line in reply.text.splitlines() if line.startswith("data: ")]
    assert "".join(part["content"] for part in parts) == whole["content"]
    assert [part["stop"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1]["timings"]["predicted_n"] == 8


async def test_how_an_answer_stopped(tmp_path):
    async with serving(tmp_path, script="one two three<｜end▁of▁sentence｜>") as server:
        whole = (await complete(server, n_predict=-1)).json()
        assert (whole["content"], whole["stop_type"]) == ("one two three", "eos")
        cut = (await complete(server, n_predict=-1, stop=["two"])).json()
        assert (cut["content"], cut["stop_type"], cut["stopping_word"]) == ("one ", "word", "two")


async def test_forms_and_biases(tmp_path):
    async with serving(tmp_path, grammars=True) as server:
        reply = (await complete(server, n_predict=50, grammar='root ::= "yes" | "no"')).json()
        assert reply["content"] in ("yes", "no")
        reply = (await complete(server, n_predict=50, json_schema={"enum": [1]})).json()
        assert reply["content"] == "1"
        body = {"max_tokens": 50, "seed": 1}
        for fields in (
            {"grammar": 'root ::= "yes" | "no"'},
            {"json_schema": {"enum": ["yes", "no"]}},
            {"response_format": {"type": "json_object", "schema": {"enum": ["yes", "no"]}}},
            {"response_format": {"type": "json_schema", "schema": {"enum": ["yes", "no"]}}},
        ):
            content = (await server.chat(**body, **fields)).json()["choices"][0]["message"]["content"]
            assert content.strip('"') in ("yes", "no")
        assert (await complete(server, logit_bias=[[5, False], [6, -0.5]])).status_code == 200
        refused = await complete(server, logit_bias=[[5, "x"]])
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logit_bias")


async def test_what_the_server_is(served: Served):
    props = (await served.http.get("/props")).json()
    assert props["chat_template"] == served.text.template.source
    assert props["default_generation_settings"]["n_ctx"] == 4096
    slots = (await served.http.get("/slots")).json()
    assert len(slots) == props["total_slots"]
    assert not any(slot["is_processing"] for slot in slots)
    assert (await served.http.get("/load")).json() == {"server_load": 0}
    for method in ("GET", "POST"):
        assert (await served.http.request(method, "/ping")).status_code == 200
    root = (await served.http.get("/")).json()
    assert (root["name"], root["model"], root["state"]) == ("antiphon", MODEL, "ready")


async def test_openais_paths_without_v1(served: Served):
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "seed": 1}
    for path in ("/chat/completions", "/messages"):
        short, long = await served.http.post(path, json=body), await served.http.post(f"/v1{path}", json=body)
        assert short.status_code == long.status_code == 200
        assert short.json().get("choices") == long.json().get("choices")
    assert (await served.http.get("/models")).json() == (await served.http.get("/v1/models")).json()
    assert (await served.http.get(f"/models/{MODEL}")).status_code == 200
    assert (await served.http.post("/responses", json={"input": "Hello", "max_output_tokens": 2})).status_code == 200
    assert (await served.http.post("/completions", json={"prompt": "a", "max_tokens": 2})).status_code == 200
