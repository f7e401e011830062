"""Thirty-two people with thirty-two ways of asking, and everything each of them is told.

Half of the voices are greedy, half sample with a seed of their own; between them they use every sampling field. What a
voice is told (`Said`) holds the text, each token with its bytes, log-probability and rivals, and how it ended, so that
`==` between two of them means bit for bit the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI
from real_server import RealServer

_QUESTIONS = (
    "What is the capital of France?",
    "Name three colours and say where you see them.",
    "Why is the sky blue?",
    "Write a haiku about rain.",
    "How do you say 'good morning' in Spanish?",
    "What is seven times eight?",
    "Tell me one thing about bees.",
    "How long should I boil an egg?",
    "Make up a name for a small boat.",
    "What does a lighthouse do?",
    "List the days of the week.",
    "Is a tomato a fruit?",
    "Continue the story.",
    "What would you ask the keeper?",
    "Write one line of Python that prints hello.",
    "Wie heißt die Hauptstadt von Österreich?",
)
_STORY = (
    "The keeper had counted the ships since spring, and the book was nearly full.",
    "On clear days he could see the other shore, thin as a pencil line.",
    "His daughter kept bees behind the wall, where the wind could not reach them.",
    "Every evening she carried up the oil and he carried down the empty cans.",
    "They rarely spoke while they worked, because the stairs took all their breath.",
    "One night the lamp went out at eleven, and the whole bay seemed to lean in and listen.",
    "He lit it again with his last dry match and wrote the time in the margin.",
    "In the morning a stranger stood at the door and asked who had saved her boat.",
    "Nobody had ever asked that before, and neither of them knew what to say.",
)
_LONGEST_TOP = 20


@dataclass(frozen=True)
class Voice:
    """One request."""

    content: str
    fields: dict[str, Any]  # of the official client
    more: dict[str, Any] = field(default_factory=dict)  # fields beyond OpenAI's

    def asking(self, model: str) -> dict[str, Any]:
        """Arguments of `client.chat.completions.create`."""
        messages = [{"role": "user", "content": self.content}]
        return {"model": model, "messages": messages, **self.fields, "extra_body": self.more}


@dataclass(frozen=True)
class Said:
    """All that came back."""

    text: str
    tokens: list[dict[str, Any]]  # token, bytes, logprob, top_logprobs
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = field(compare=False)  # load may change how much was known already, and nothing else


def _greedy(number: int) -> Voice:
    fields: dict[str, Any] = {"temperature": 0.0}
    more: dict[str, Any] = {"ignore_eos": number % 4 == 0}
    if number % 8 == 2:
        more["repetition_penalty"] = 1.15
    if number % 6 == 4:
        fields["logit_bias"] = {"260": -100, str(number): 2.5}
    return _voice(number, fields, more)


def _sampled(number: int) -> Voice:
    turn = number // 2
    fields = {
        "temperature": (0.3, 0.7, 1.0, 1.6)[turn % 4],
        "top_p": (1.0, 0.95, 0.6)[turn % 3],
        "presence_penalty": (0.0, 0.7)[turn // 2 % 2],
        "frequency_penalty": (0.0, 0.4, -0.3)[turn // 3 % 3],
        "seed": 7919 * number,
    }
    if number % 5 == 0:
        fields["logit_bias"] = {"198": -3.0, "28": 1.5}
    more = {"top_k": (0, 40, 7)[turn // 2 % 3], "min_p": (0.0, 0.05)[turn // 4 % 2], "min_tokens": turn % 5}
    return _voice(number, fields, more)


def _voice(number: int, fields: dict[str, Any], more: dict[str, Any]) -> Voice:
    told = _STORY[: number * 3 % (len(_STORY) + 1)]
    question = _QUESTIONS[number // 2 % len(_QUESTIONS)]
    scores = {"logprobs": True, "top_logprobs": number * 3 % (_LONGEST_TOP + 1)}
    length = 8 + number * 7 % 33 + (32 if number % 2 == 0 else 0)  # half need another block, at least
    return Voice(" ".join((*told, question)), {"max_tokens": length, **scores, **fields}, more)


VOICES = [_sampled(number) if number % 2 else _greedy(number) for number in range(32)]


def said_briefly(voice: Voice, max_tokens: int) -> Voice:
    """The same question, answered with so few tokens."""
    return Voice(voice.content, {**voice.fields, "max_tokens": max_tokens}, {**voice.more, "min_tokens": 0})


# For kernels that take their time: short questions, a few tokens.
WHISPERS = [said_briefly(voice, 3) for voice in sorted(VOICES, key=lambda voice: len(voice.content))[:4]]

# For what must strike in the middle of an answer: none of these ends before its eightieth token.
SPEECHES = [
    Voice(voice.content, {**voice.fields, "max_tokens": 80}, {**voice.more, "ignore_eos": True}) for voice in VOICES[:8]
]


async def ask(client: AsyncOpenAI, model: str, voice: Voice) -> Said:
    """Ask for a stream and read it to its end."""
    usage_too = {"stream": True, "stream_options": {"include_usage": True}}
    text, tokens, reasons = "", [], []
    async for chunk in await client.chat.completions.create(**voice.asking(model), **usage_too):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            tokens += [score.model_dump() for score in (choice.logprobs.content or [] if choice.logprobs else [])]
            reasons += [choice.finish_reason] if choice.finish_reason else []
        usage = chunk.usage
    (reason,) = reasons
    assert usage is not None
    cached = usage.prompt_tokens_details.cached_tokens
    return Said(text, tokens, reason, usage.prompt_tokens, usage.completion_tokens, cached)


async def ask_at_once(server: RealServer, voices: Sequence[Voice]) -> list[Said]:
    """All voices at the same time."""
    async with server.openai() as client:
        return await asyncio.gather(*(ask(client, server.model, voice) for voice in voices))


async def ask_in_turn(server: RealServer, voices: Sequence[Voice]) -> list[Said]:
    """Each voice alone, after the one before has been answered."""
    async with server.openai() as client:
        return [await ask(client, server.model, voice) for voice in voices]
