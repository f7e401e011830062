"""`/tokenize` and `/detokenize` say what a generation would be charged, and what token ids spell."""

from __future__ import annotations

import pytest
from http_server import Served

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_prompt_has_the_tokens_that_a_completion_is_charged(served: Served):
    counted = (await served.http.post("/tokenize", json={"prompt": "Hello there", "return_token_strs": True})).json()
    charged = (await served.complete("Hello there", max_tokens=1)).json()["usage"]["prompt_tokens"]
    assert counted["count"] == len(counted["tokens"]) == len(counted["token_strs"]) == charged
    assert counted["max_model_len"] == 4096
    bare = (await served.http.post("/tokenize", json={"prompt": "Hello there", "add_special_tokens": False})).json()
    assert bare["tokens"] == counted["tokens"][1:]
    assert bare["token_strs"] is None


async def test_messages_have_the_tokens_that_a_chat_is_charged(served: Served):
    messages = [{"role": "user", "content": "Hello"}]
    counted = (await served.http.post("/tokenize", json={"messages": messages})).json()
    assert counted["count"] == (await served.chat("Hello", max_tokens=1)).json()["usage"]["prompt_tokens"]


async def test_tokens_spell_the_text_they_came_from(served: Served):
    text = "Grüße, <|im_start|> 你好"
    tokens = (await served.http.post("/tokenize", json={"prompt": text, "add_special_tokens": False})).json()["tokens"]
    assert (await served.http.post("/detokenize", json={"tokens": tokens})).json() == {"prompt": text}
    assert (await served.http.post("/detokenize", json={"tokens": []})).json() == {"prompt": ""}


REFUSED = [
    ("/tokenize", {}, "prompt", "either"),
    ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, "prompt", "either"),
    (
        "/tokenize",
        {"prompt": "x", "chat_template_kwargs": {}},
        "chat_template_kwargs",
        "is only allowed with 'messages'",
    ),
    ("/tokenize", {"prompt": 5}, "prompt", "string"),
    ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content", "needs 'content'"),
    ("/detokenize", {}, "tokens", "Missing"),
    ("/detokenize", {"tokens": [10**6]}, "tokens", "not in the vocabulary"),
    ("/detokenize", {"tokens": ["a"]}, "tokens[0]", "integer"),
]


@pytest.mark.parametrize(("url", "body", "param", "said"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_is_wrong_is_named(served: Served, url, body, param, said):
    reply = await served.http.post(url, json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param)
    assert said in error["message"]


async def test_another_model_is_404(served: Served):
    for url, body in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]})):
        assert (await served.http.post(url, json=body | {"model": "other"})).status_code == 404


async def test_what_the_tokenizer_is(served: Served):
    info = (await served.http.get("/tokenizer_info")).json()
    assert info["chat_template"] == served.text.template.source
    ids = (await served.http.post("/tokenize", json={"prompt": info["eos_token"], "add_special_tokens": False})).json()
    assert ids["tokens"][0] in served.text.tokenizer.eos_token_ids
    assert info["model_max_length"] == ids["max_model_len"]
