"""The served model, as clients see it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from antiphon.text import TextModel


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """Properties of the checkpoint, for display."""

    format: str = "gguf"  # or "safetensors"
    architecture: str = ""
    num_parameters: int = 0
    num_bytes: int = 0  # of its tensors, as stored
    stored_type: str = ""  # the type of most of its weights: "Q4_0", "BF16" …


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The served model, as clients see it."""

    name: str
    text: TextModel
    # temperature, top_p, top_k … that the publisher recommends, for requests that set none
    generation_defaults: Mapping[str, float | int] = field(default_factory=dict)
    aliases: frozenset[str] = frozenset()  # other names that requests may use
    created: int = field(default_factory=lambda: int(time.time()))
    details: ModelDetails = ModelDetails()


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The engine's information about the model it runs."""

    context_length: int  # tokens, prompt and answer
    vocab_size: int
