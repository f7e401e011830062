"""Thoughts of earlier assistant turns, and of one that is to be continued, in the form that a chat template expects.

Clients send a thought apart from its answer (`reasoning_content`, `reasoning`) or in front of it, in think tags. Some
templates take it apart, and write the tags themselves; others look for `</think>` in the content, most of them to cut
off all that is before it. For those, thought and answer are marked each for itself and joined by a real tag, so that a
tag that a user quoted is not taken for one. Line breaks behind the tag belong to neither part: where the template
drops the tag, they are dropped too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from antiphon.text.marking import THINK_CLOSE, THINK_OPEN, Marker

_GAP = "\n\n"  # between the closing tag and the answer, as models are trained to see it


@dataclass(frozen=True, slots=True)
class Thought:
    """A thought, as text from outside."""

    opening: str  # what is before it: a tag and a line break, a tag, or nothing
    text: str
    gap: str = ""  # line breaks between the closing tag and the answer
    is_open: bool = False  # it has no end yet: the model is to continue it
    proof: str = ""  # a noncharacter in front, which shows whether the template lets the thought through

    @property
    def alone(self) -> str:
        """The thought without blanks around it."""
        return self.text.strip()


def has_thought_apart(message: Mapping[str, Any]) -> bool:
    """Whether a thought was sent in a field of its own."""
    return bool(message.get("reasoning_content") or message.get("reasoning"))


def split_message(message: Mapping[str, Any]) -> tuple[Thought | None, str]:
    """An assistant's thought, if there is one, and its answer."""
    content: str = message.get("content") or ""
    if has_thought_apart(message):
        apart: str = message.get("reasoning_content") or message["reasoning"]
        return Thought(f"{THINK_OPEN}\n", f"{apart}\n", _GAP), content
    before, tag, behind = content.partition(THINK_CLOSE)  # the first, since a model's thought ends there too
    if not tag:
        return None, content
    opening = _opening(before)
    answer = behind.lstrip("\r\n")
    return Thought(opening, before.removeprefix(opening), behind.removesuffix(answer)), answer


def split_unfinished(message: Mapping[str, Any]) -> tuple[Thought | None, str]:
    """The same of a message that is to be continued, inside its thought if that has no end or no answer follows."""
    thought, answer = split_message(message)
    if thought is None and (opening := _opening(answer)):
        return Thought(f"{THINK_OPEN}\n", answer.removeprefix(opening).lstrip("\n"), is_open=True), ""
    if thought is not None and has_thought_apart(message) and not answer:
        return Thought(thought.opening, thought.text.removesuffix("\n"), is_open=True), ""
    return thought, answer


def _opening(text: str) -> str:
    """The tag at the beginning of `text`, with the blanks in front of it; nothing if there is none."""
    begun = text.lstrip()
    return text[: len(text) - len(begun)] + THINK_OPEN if begun.startswith(THINK_OPEN) else ""


@dataclass(frozen=True, slots=True)
class ThoughtWriter:
    """Puts thoughts back into the marked messages of one prompt."""

    marker: Marker
    gap: str  # a noncharacter for both sides of a gap
    close: str  # another in place of a closing tag which the template must not see
    apart: bool  # whether the template takes thoughts apart

    def message(self, message: Mapping[str, Any], thought: Thought, *, hidden: bool = False) -> dict[str, Any]:
        """A message as the template takes it. With `hidden`, a template that would cut the thought off does not see
        where that ends.
        """
        content: str = message["content"]
        text = thought.proof + self.marker.mark_text(thought.text)
        if self.apart and not hidden and thought.is_open:
            return {**message, "content": "", "reasoning_content": text + content}
        if self.apart and not hidden:
            alone = thought.proof + self.marker.mark_text(thought.alone)
            return {**message, "reasoning_content": alone} if thought.alone else dict(message)
        if not thought.is_open:
            tag = self.close if hidden else THINK_CLOSE
            content = tag + self.gap + thought.gap + self.gap + content
        return {**message, "content": thought.opening + text + content}

    def finished(self, rendered: str) -> str:
        """A rendered prompt without what was put in: gaps stay only where their tags are."""
        text = rendered.replace(self.close, THINK_CLOSE)
        # It begins with the gap, so that a long text is searched for one letter and not tried at each of its own.
        text = re.sub(f"{self.gap}(?<!{THINK_CLOSE}{self.gap})[\r\n]*{self.gap}", "", text)
        return text.replace(self.gap, "")
