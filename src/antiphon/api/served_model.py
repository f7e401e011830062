"""The model as clients know it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from antiphon.text import TextModel


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model as clients know it."""

    name: str
    text: TextModel
    # temperature, top_p, top_k … that the publisher advises, for requests that name none
    generation_defaults: Mapping[str, float | int] = field(default_factory=dict)
    aliases: frozenset[str] = frozenset()  # other names that requests may use
    created: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the engine says of the model it runs."""

    context_length: int  # tokens, prompt and answer
    vocab_size: int
