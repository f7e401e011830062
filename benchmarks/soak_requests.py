"""The requests of the soak test: every API, streamed and whole, and how to read their answers.

Owns what is sent, when an answer is complete, and what its text is. Every request has a seed, so its text is the same
whenever it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from antiphon.bench.client import Reply

WORDS = (
    "river",
    "stone",
    "lamp",
    "winter",
    "paper",
    "garden",
    "train",
    "copper",
    "music",
    "window",
    "salt",
    "engine",
    "forest",
    "letter",
    "bridge",
    "harbour",
)


@dataclass(frozen=True)
class Request:
    """One request; `body` as bytes is sent as it is."""

    path: str
    body: dict[str, Any] | bytes

    @property
    def is_streamed(self) -> bool:
        return isinstance(self.body, dict) and bool(self.body.get("stream"))

    def is_complete(self, reply: Reply) -> bool:
        """Whether a streamed answer has its last event and no error; a whole one has been read to its end."""
        if not self.is_streamed:
            return True
        tail = reply.body[-2000:]
        if b'"error":{' in tail or b"response.failed" in tail:
            return False
        return any(
            mark in tail for mark in (b"data: [DONE]", b"event: message_stop", b"event: response.", b'"done":true')
        )

    def text(self, reply: Reply) -> str:
        """Everything that was generated, as one string."""
        if not self.is_streamed:
            return "".join(_texts(reply.json()))
        if self.path == "/api/chat":
            return "".join(part for line in reply.body.splitlines() for part in _texts(json.loads(line)))
        return "".join(part for event in reply.events() for part in _deltas(event))


def random_request(draw: Random) -> Request:
    """A request of a random kind with a random prompt."""
    (kind,) = draw.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])
    return kind(draw)


def _words(draw: Random, number: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(number))


def _sampling(draw: Random) -> dict[str, Any]:
    return {"max_tokens": draw.randint(1, 16), "seed": draw.randrange(1 << 31), "temperature": 0.8}


def _chat(draw: Random, num_words: int = 0, **fields: Any) -> Request:
    content = _words(draw, num_words or draw.randint(1, 30))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    return Request("/v1/chat/completions", {"messages": messages, **_sampling(draw), **fields})


def _streamed_chat(draw: Random) -> Request:
    return _chat(draw, stream=True, stream_options={"include_usage": True})


def _long_prompt(draw: Random) -> Request:
    return _chat(draw, draw.randint(300, 900), stream=True)


def _two_choices(draw: Random) -> Request:
    return _chat(draw, n=2, logprobs=True, top_logprobs=2)


def _long_answer(draw: Random) -> Request:
    return _chat(draw, stream=True, max_tokens=150, stop=["zzzz"])


def _structured(draw: Random) -> Request:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2, draw.randint(3, 20)]}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return _chat(draw, response_format=form, max_tokens=40)


def _completion(draw: Random) -> Request:
    body = {"prompt": _words(draw, draw.randint(1, 40)), "stream": draw.random() < 0.7, **_sampling(draw)}
    return Request("/v1/completions", body)


def _response(draw: Random) -> Request:
    sampling = _sampling(draw)
    limit = {"max_output_tokens": max(16, sampling.pop("max_tokens"))}
    body = {"input": _words(draw, 10), "stream": draw.random() < 0.5, "store": draw.random() < 0.5, **limit, **sampling}
    return Request("/v1/responses", body)


def _message(draw: Random) -> Request:
    messages = [{"role": "user", "content": _words(draw, 10)}]
    sampling = {"max_tokens": draw.randint(1, 16), "temperature": 0.0, "stream": draw.random() < 0.7}
    return Request("/v1/messages", {"model": "", "messages": messages, **sampling})


def _ollama(draw: Random) -> Request:
    messages = [{"role": "user", "content": _words(draw, 10)}]
    options = {"num_predict": draw.randint(1, 16), "seed": 1, "temperature": 0.8}
    return Request("/api/chat", {"messages": messages, "stream": True, "options": options})


KINDS: tuple[tuple[Callable[[Random], Request], int], ...] = (
    (_streamed_chat, 34),
    (_chat, 20),
    (_completion, 12),
    (_response, 10),
    (_message, 10),
    (_ollama, 4),
    (_two_choices, 4),
    (_long_answer, 2),
    (_structured, 2),
    (_long_prompt, 2),
)

BAD_REQUESTS = (
    Request("/v1/chat/completions", b'{"messages": [{"role": "user"'),
    Request("/v1/chat/completions", {"messages": []}),
    Request("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "temperature": 9}),
    Request("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "model": "another-model"}),
    Request("/v1/completions", {"prompt": "so long " * 40_000}),
    Request("/v1/responses", {"input": "Hi", "previous_response_id": "resp_unknown"}),
    Request("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}]}),
)


def _deltas(event: Any) -> Iterable[str]:
    """The text that one event of a stream adds."""
    if isinstance(event.get("delta"), str):  # of Responses
        yield event["delta"]
    elif isinstance(event.get("delta"), dict):  # of Messages
        yield event["delta"].get("text") or ""
    for choice in event.get("choices", ()):
        yield choice.get("text") or choice.get("delta", {}).get("content") or ""


def _texts(answer: Any) -> Iterable[str]:
    """The text of a whole answer of any API."""
    for choice in answer.get("choices", ()):
        yield choice.get("text") or choice.get("message", {}).get("content") or ""
    for item in answer.get("output", ()):
        yield from (part.get("text") or "" for part in item.get("content", ()))
    if isinstance(answer.get("content"), list):
        yield from (part.get("text") or "" for part in answer["content"])
    if isinstance(answer.get("message"), dict):
        yield answer["message"].get("content") or ""
