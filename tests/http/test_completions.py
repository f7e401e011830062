"""Plain completions: text and token ids, lists of them, the older shape of log-probabilities."""

from __future__ import annotations

import pytest
from http_server import Served, events, serving
from running_server import MODEL

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_whole_answer(served: Served):
    body = (await served.complete(temperature=0)).json()
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["usage"]["completion_tokens"] == 16
    assert body["choices"][0].keys() == {"index", "text", "logprobs", "finish_reason"}


async def test_text_and_its_token_ids_are_the_same_prompt(served: Served):
    ids = served.text.encode_prompt("Hello")
    by_text = (await served.complete("Hello", seed=5)).json()
    by_ids = (await served.complete(ids, seed=5)).json()
    assert by_ids["choices"] == by_text["choices"]
    assert by_ids["usage"]["prompt_tokens"] == len(ids)


async def test_a_list_of_prompts_is_answered_in_order(served: Served):
    alone = [(await served.complete(prompt, seed=2)).json()["choices"][0]["text"] for prompt in ("a", "b")]
    body = (await served.complete(["a", "b"], seed=2, n=2)).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in body["choices"][::2]] == alone
    lists = [served.text.encode_prompt(prompt) for prompt in ("a", "b")]
    body = (await served.complete(lists, seed=2)).json()
    assert [choice["text"] for choice in body["choices"]] == alone
    assert body["usage"]["prompt_tokens"] == sum(map(len, lists))


async def test_a_stream_says_the_same(served: Served):
    whole = (await served.complete(seed=4, max_tokens=25)).json()
    reply = await served.complete(seed=4, max_tokens=25, stream=True, stream_options={"include_usage": True})
    chunks = events(reply.text)
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == whole["choices"][0]["text"]
    assert chunks[-1]["usage"]["completion_tokens"] == 25
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] == ["length"]


def check_offsets(text: str, tokens: list[str], offsets: list[int]) -> None:
    """Every token that is whole characters stands in `text` where its offset says."""
    assert len(offsets) == len(tokens)
    assert offsets == sorted(offsets)
    assert offsets[-1] <= len(text)
    for token, offset in zip(tokens, offsets, strict=True):
        assert token.startswith("bytes:") or text.startswith(token, offset)


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities(served: Served, stream: bool):
    reply = await served.complete(max_tokens=5, logprobs=2, temperature=0, stream=stream)
    chunks = events(reply.text) if stream else [reply.json()]
    parts = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    tokens = [token for part in parts for token in part["tokens"]]
    offsets = [offset for part in parts for offset in part["text_offset"]]
    assert len(tokens) == 5
    text = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    check_offsets(text, tokens, offsets)
    for part in parts:
        for token, logprob, top in zip(part["tokens"], part["token_logprobs"], part["top_logprobs"], strict=True):
            assert top[token] == logprob
            assert 2 <= len(top) <= 3


async def test_log_probabilities_of_the_drawn_token_alone(served: Served):
    logprobs = (await served.complete(max_tokens=2, logprobs=0)).json()["choices"][0]["logprobs"]
    assert len(logprobs["token_logprobs"]) == 2
    assert logprobs["top_logprobs"] is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_ids", [False, True])
async def test_an_echo_begins_text_and_log_probabilities_with_the_prompt(served: Served, stream: bool, as_ids: bool):
    prompts = ["Hello é there", "b"]
    sent = [served.text.encode_prompt(prompt) for prompt in prompts] if as_ids else prompts
    plain = (await served.complete(sent, max_tokens=4, seed=3, logprobs=1)).json()
    reply = await served.complete(sent, max_tokens=4, seed=3, logprobs=1, echo=True, stream=stream)
    chunks = events(reply.text) if stream else [reply.json()]
    for index, prompt in enumerate(prompts):
        alone = plain["choices"][index]
        parts = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        ids = served.text.encode_prompt(prompt)
        spelled = b"".join(map(served.text.tokenizer.id_to_bytes, ids)).decode() if as_ids else prompt
        assert "".join(part["text"] for part in parts) == spelled + alone["text"]
        scores = [part["logprobs"] for part in parts if part["logprobs"]]
        logprobs = [value for score in scores for value in score["token_logprobs"]]
        assert len(logprobs) == len(ids) + 4
        assert logprobs[0] is None
        assert all(value <= 0 for value in logprobs[1:])
        assert logprobs[len(ids) :] == alone["logprobs"]["token_logprobs"]
        tokens = [token for score in scores for token in score["tokens"]]
        offsets = [offset for score in scores for offset in score["text_offset"]]
        begun = 1 if not as_ids and tokens[0] not in prompt else 0  # what begins every text is no part of this one
        check_offsets(spelled + alone["text"], tokens[begun:], offsets[begun:])
        assert offsets[: begun + 1] == [0] * (begun + 1)
        assert offsets[len(ids)] == len(spelled)
        assert scores[0]["top_logprobs"][0] is None
        assert tokens[1] in scores[0]["top_logprobs"][1]


async def test_an_echo_alone(served: Served):
    plain = (await served.complete(seed=3, n=2)).json()["choices"]
    echoed = (await served.complete(seed=3, n=2, echo=True)).json()["choices"]
    assert [choice["text"] for choice in echoed] == ["Hello" + choice["text"] for choice in plain]
    assert echoed[0]["logprobs"] is None


async def test_a_prompt_can_be_scored_and_nothing_generated(served: Served):
    ids = served.text.encode_prompt("Hello there")
    for logprobs in (None, 0):
        body = (await served.complete(ids, max_tokens=0, echo=True, logprobs=logprobs)).json()
        assert body["choices"][0]["text"].endswith("Hello there")
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["completion_tokens"] == 0
    assert len(body["choices"][0]["logprobs"]["token_logprobs"]) == len(ids)
    assert (await served.complete([65], max_tokens=0, echo=True, logprobs=1)).json()["choices"][0]["text"] == "b"
    await served.until_metric('antiphon_requests_running{endpoint="completions"}', 0)
    await served.check_accounts()


async def test_the_official_client(served: Served):
    create = served.openai.completions.create
    whole = await create(model=MODEL, prompt="Hello", temperature=0, max_tokens=8, logprobs=1)
    stream = await create(model=MODEL, prompt="Hello", temperature=0, max_tokens=8, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text


async def test_one_token_may_be_all_that_fits(served: Served):
    assert served.engine.info is not None
    context = served.engine.info.context_length
    body = (await served.complete([65] * (context - 1), max_tokens=100)).json()
    assert body["usage"]["completion_tokens"] == 1
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
async def test_every_token_is_scored_the_end_of_sequence_too(tmp_path, stream: bool):
    async with serving(tmp_path, script="one two three<｜end▁of▁sentence｜>") as server:
        ids = server.text.encode_prompt("Hello there")
        reply = await server.complete(ids, max_tokens=50, echo=True, logprobs=1, stream=stream)
        chunks = events(reply.text) if stream else [reply.json()]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert choices[-1]["finish_reason"] == "stop"
        scores = [choice["logprobs"] for choice in choices if choice["logprobs"]]
        usage = (await server.complete(ids, max_tokens=50)).json()["usage"]
        num_tokens = usage["prompt_tokens"] + usage["completion_tokens"]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert sum(len(each[name]) for each in scores) == num_tokens
        text = "".join(choice["text"] for choice in choices)
        assert scores[-1]["text_offset"][-1] == len(text)


async def test_a_template_that_cannot_be_used_leaves_completions_alone(tmp_path):
    async with serving(tmp_path, template="{% frobnicate %}") as served:
        assert (await served.complete("Hello", max_tokens=3)).status_code == 200
        refusal = await served.chat("Hello")
        assert refusal.status_code == 400
        assert refusal.json()["error"]["message"].startswith(
            "This model cannot chat: the chat template cannot be used: "
        )
        assert refusal.json()["error"]["message"].endswith("Send its prompt to /v1/completions.")
