"""Reads one answer of an OpenAI-compatible server as it comes: a stream of events, or one JSON object.

Owns what counts as a token's arrival, where a thought ends and the answer begins, how tokens are counted, and when an
answer is complete. It knows nothing of connections: it gets bytes and the time of their arrival.

A *part* is an event with text. Servers may put several tokens into a part, or hold one back until its character is
complete, so parts are not tokens: times are those of parts, and tokens are counted from the `usage` that the server
sends at the end. Only a server that sends none has its parts counted instead (`tokens_estimated`). Where `usage` does
not say how many tokens the thought had, they are divided in proportion to the parts of both (`split_estimated`).

A thought is what comes in `reasoning_content` or `reasoning` (Antiphon, vLLM, llama.cpp, Ollama), or text up to
`</think>`; templates may put `<think>` into the prompt, so a thought need not begin with it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from antiphon.bench.events import EventReader

_OPEN, _CLOSE = "<think>", "</think>"
# start: blanks, or what may become `<think>`. thought: after `<think>`. text: there was none, so this seems to be the
# answer, unless `</think>` comes. closed: nothing but blanks after `</think>`. answer: more than that.
_Phase = Literal["start", "thought", "text", "closed", "answer"]
MAX_BODY = 1 << 26  # bytes of an answer in one piece


class BadAnswer(ValueError):
    """What came is not what the API describes."""


class Incomplete(BadAnswer):
    """The answer ended, in good order, before it was complete."""


class _Part(msgspec.Struct):
    """`delta` of a stream, `message` of a whole answer."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    delta: _Part | None = None
    message: _Part | None = None
    text: str | None = None
    finish_reason: str | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    completion_tokens_details: _CompletionDetails | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    degraded: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Event)


class Answer:
    """One answer, as far as it has come. Times are those that were given with the bytes."""

    def __init__(self, *, stream: bool) -> None:
        self.first_token: float | None = None
        self.first_answer: float | None = None
        self.last_token: float | None = None
        self.gaps: list[float] = []  # seconds between parts
        self.finish_reason = ""
        self.degraded: dict[str, Any] | None = None
        self.error: tuple[str, str] | None = None  # code and message, from the stream
        self._is_done = False  # [DONE] has come
        self._is_stream = stream
        self._events = EventReader()
        self._body = bytearray()
        self._usage: _Usage | None = None
        self._thought_parts = self._answer_parts = 0
        self._thoughts: list[str] = []
        self._texts: list[str] = []
        self._tags = _Tags()

    def feed(self, data: bytes, at: float) -> None:
        """Take some bytes of the body.

        Raises:
            BadAnswer: they are not what the API describes.
        """
        if not self._is_stream:
            self._body += data
            if len(self._body) > MAX_BODY:
                raise BadAnswer(f"the answer has more than {MAX_BODY >> 20} MiB")
            return
        try:
            events = self._events.feed(data)
        except ValueError as error:
            raise BadAnswer(str(error)) from None
        for event in events:
            if event.startswith(b"[DONE]"):
                self._is_done = True
            else:
                self._take(event, at)

    def finish(self, at: float) -> None:
        """The body has ended.

        Raises:
            BadAnswer: it is not what the API describes; Incomplete: its end is missing.
        """
        if not self._is_stream:
            self._take(bytes(self._body), at)
            self._is_done = True
        if self.error is None and not (self._is_done and self.finish_reason):
            missing = "[DONE]" if not self._is_done else "finish_reason"
            raise Incomplete(f"the answer ended without {missing}")

    def _take(self, event: bytes, at: float) -> None:
        try:
            decoded = _decoder.decode(event)
        except msgspec.MsgspecError as error:
            raise BadAnswer(f"{error}: {event[:100].decode(errors='replace')!r}") from None
        if decoded.error is not None:
            self.error = error_of(decoded.error)
        self._usage = decoded.usage or self._usage
        self.degraded = decoded.degraded or self.degraded
        for choice in decoded.choices or ():
            self.finish_reason = choice.finish_reason or self.finish_reason
            self._take_text(choice, at)

    def _take_text(self, choice: _Choice, at: float) -> None:
        part = choice.delta or choice.message
        content = choice.text or ""
        thought, called = "", False
        if part is not None:
            thought = part.reasoning_content or part.reasoning or ""
            content = part.content or part.refusal or ""
            called = bool(part.tool_calls)
        if not (thought or content or called):
            return
        if self.first_token is None:
            self.first_token = at
        else:
            assert self.last_token is not None
            self.gaps.append(at - self.last_token)
        self.last_token = at
        if thought:
            self._thoughts.append(thought)
        if content:
            self._texts.append(content)
        if called or (content and self._is_answer(content)):
            self._answer_parts += 1
            if self.first_answer is None and (called or content.strip()):
                self.first_answer = at
        else:
            self._thought_parts += 1

    def _is_answer(self, content: str) -> bool:
        """Whether this text belongs to the answer. `</think>` says that all text before it did not."""
        if self._thoughts:  # the server takes thoughts apart, so a tag is text
            return True
        was_closed = self._tags.is_closed
        self._tags.feed(content)
        if self._tags.is_closed and not was_closed:
            self._thought_parts += self._answer_parts
            self._answer_parts, self.first_answer = 0, None
        return self._tags.phase in ("text", "answer")

    @property
    def thought(self) -> str:
        """The text of the thought."""
        return "".join(self._thoughts) + self._split()[0]

    @property
    def text(self) -> str:
        """The text of the answer, without the thought."""
        return self._split()[1]

    def _split(self) -> tuple[str, str]:
        content = "".join(self._texts)
        if self._thoughts:
            return "", content
        thought, close, answer = content.partition(_CLOSE)
        if close or content.lstrip().startswith(_OPEN):
            return thought.lstrip().removeprefix(_OPEN), answer
        return "", content

    @property
    def digest(self) -> str:
        """Of thought and answer: equal texts have equal digests."""
        both = f"{self.thought}\0{self.text}".encode(errors="surrogatepass")
        return hashlib.blake2b(both, digest_size=16).hexdigest()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; 0 if the server does not say."""
        return self._usage.prompt_tokens if self._usage else 0

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that the server took from a cache, as far as it says."""
        details = self._usage and self._usage.prompt_tokens_details
        return (details and details.cached_tokens) or 0

    @property
    def tokens_estimated(self) -> bool:
        """Whether the server told no usage."""
        return self._usage is None

    @property
    def split_estimated(self) -> bool:
        """Whether the tokens of thought and answer are in proportion to their parts."""
        if self._usage is None or not self._thought_parts:
            return False
        return not self._told_thought_tokens

    @property
    def _told_thought_tokens(self) -> int | None:
        """What `usage` says; None if it does not say or does not know the thought as such."""
        details = self._usage.completion_tokens_details if self._usage else None
        told = details.reasoning_tokens if details else None
        return told or (None if self._thought_parts else told)

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of the thought, and of the answer."""
        parts = self._thought_parts + self._answer_parts
        if self._usage is None:
            return self._thought_parts, self._answer_parts
        total, thought = self._usage.completion_tokens, self._told_thought_tokens
        if thought is None:
            thought = round(total * self._thought_parts / parts) if parts else 0
        return min(thought, total), max(0, total - thought)


class _Tags:
    """Finds where a thought ends that comes as text."""

    def __init__(self) -> None:
        self.phase: _Phase = "start"
        self._seen = ""  # what may be the beginning of a tag

    @property
    def is_closed(self) -> bool:
        """Whether `</think>` has come."""
        return self.phase in ("closed", "answer")

    def feed(self, text: str) -> None:
        """Take some text; `phase` is that at its end."""
        if self.phase == "answer":
            return
        seen = self._seen + text
        if self.phase == "start":
            begun = seen.lstrip()
            if len(begun) < len(_OPEN) and _OPEN.startswith(begun):
                self._seen = seen
                return
            self.phase = "thought" if begun.startswith(_OPEN) else "text"
        if self.phase in ("thought", "text"):
            _, close, after = seen.partition(_CLOSE)
            if not close:
                self._seen = seen[1 - len(_CLOSE) :]
                return
            self.phase, text = "closed", after
        if text.strip():
            self.phase = "answer"


def error_of(error: Any) -> tuple[str, str]:  # noqa: ANN401  # JSON
    """Code and message of an error in OpenAI's shape, or in whatever shape it has."""
    if isinstance(error, dict):
        code = error.get("code") or error.get("type") or ""
        return str(code), str(error.get("message") or error)
    return "", str(error)
