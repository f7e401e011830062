"""Checks of what is between a client and a running server: limits and time-outs of proxies, streams held back.

Two requests are sent: a large body that every server refuses, and a short answer, streamed. Sources: nginx's
documentation of ngx_http_proxy_module and ngx_http_core_module.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from antiphon.doctor.findings import Finding, note, ok, problem, warning
from antiphon.doctor.streaming import Stream, judge, read_stream
from antiphon.doctor.visit import Visit, error_message, json_of

_LARGE_BODY = 3 << 19  # bytes, 1.5 MiB: more than nginx allows by default, less than Antiphon does
_QUESTION = "Count from one to fifty in words."
_TOKENS = (32, 512)  # of the streamed answer; the second if the first came too fast to tell anything


def proxy(visit: Visit) -> Iterator[Finding]:
    """Which proxy answers, and what its defaults mean."""
    if not visit.is_up:
        return
    name = visit.proxy_name
    if not name:
        yield ok("no proxy shows")
        return
    yield note(
        f"answers come through {name}",
        why="By default many proxies give up after 60 s without a byte, Cloudflare after 100 s. A long prompt, or an "
        "answer that is not streamed, may take longer.",
        fix="antiphon proxy-config nginx --backend 127.0.0.1:8000  # proxy_read_timeout 1h",
    )


def large_bodies(visit: Visit) -> Iterator[Finding]:
    """Whether a body of 1.5 MiB gets through to the server."""
    if not visit.is_up:
        return
    body = {"messages": [], "padding": "x" * _LARGE_BODY}
    reply = visit.client.post("/v1/chat/completions", json=body, headers=visit.headers)
    if reply.status_code != 413 or (visit.is_antiphon and error_message(reply)):
        yield ok(f"a body of {_LARGE_BODY / 2**20:.1f} MiB reaches the server")
    else:
        yield warning(
            f"a body of {_LARGE_BODY / 2**20:.1f} MiB is refused before it reaches the server",
            why="Long documents and conversations get a 413. The server itself allows 4 MiB (--max-body-bytes).",
            fix="client_max_body_size 8m;  # nginx; Kubernetes: nginx.ingress.kubernetes.io/proxy-body-size: 8m",
        )


def streams(visit: Visit) -> Iterator[Finding]:
    """Whether an answer arrives as it is generated."""
    if (ready := visit.get("/ready")) is None or ready.status_code >= 500:
        return  # as another check has reported
    models = visit.get("/v1/models")
    names = [each["id"] for each in json_of(models).get("data", ())] if models and models.status_code == 200 else []
    if not names:
        return
    for tokens in _TOKENS:
        stream, refusal = _streamed(visit, names[0], tokens)
        if refusal or (stream and stream.is_conclusive):
            break
    if refusal:
        yield problem(
            f"a short question is refused: {refusal}",
            why="A client gets no answer now.",
            fix=f"antiphon chat --url {visit.url}  # asks again",
        )
    elif stream:
        yield from judge(stream)


def _streamed(visit: Visit, model: str, tokens: int) -> tuple[Stream | None, str]:
    """A streamed answer, or why there is none."""
    messages = [{"role": "user", "content": _QUESTION}]
    body = {"model": model, "messages": messages, "max_tokens": tokens, "stream": True}
    if visit.is_antiphon:
        body["ignore_eos"] = True  # so that the answer is long enough
    headers = {**visit.headers, "Accept-Encoding": "gzip"}
    sent = time.perf_counter()
    with visit.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as reply:
        if reply.status_code != 200:
            reply.read()
            return None, error_message(reply) or f"status {reply.status_code}"
        encoding = reply.headers.get("content-encoding", "")
        stream = read_stream(reply.iter_bytes(), sent)
        stream.content_encoding = encoding
    return stream, ""
