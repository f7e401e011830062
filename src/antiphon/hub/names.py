"""What people type for a model that is not on this disk: a repository, a GGUF type or file in it, or a short name.

Owns the grammar and the short names. Uses neither disk nor network, so that a name without meaning is refused at once,
with suggestions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from antiphon.config import HUBS
from antiphon.errors import HubError

HUGGING_FACE, MODEL_SCOPE = HUBS
DEFAULT_TYPE = "Q4_K_M"  # llama.cpp's and Ollama's

# Prefixes of a repository, as in other tools → the hub that they name.
_PREFIXES = {
    "hf://": HUGGING_FACE,
    "https://huggingface.co/": HUGGING_FACE,
    "huggingface.co/": HUGGING_FACE,
    "hf.co/": HUGGING_FACE,
    "ms://": MODEL_SCOPE,
    "https://modelscope.cn/models/": MODEL_SCOPE,
    "https://www.modelscope.cn/models/": MODEL_SCOPE,
    "modelscope.cn/": MODEL_SCOPE,
}
_WORD = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(
    rf"(?P<repo>{_WORD}/{_WORD})"
    rf"(?:@(?P<revision>refs/\w+/\d+|[\w.-]+))?"
    rf"(?::(?P<type>[\w.-]+)|/(?P<file>[\w./-]+\.gguf))?",
    re.IGNORECASE,
)

# DeepSeek's distillations of R1, by size. Others made the GGUF files.
_R1_SIZES = {
    "1.5b": "DeepSeek-R1-Distill-Qwen-1.5B",
    "7b": "DeepSeek-R1-Distill-Qwen-7B",
    "8b": "DeepSeek-R1-Distill-Llama-8B",
    "14b": "DeepSeek-R1-Distill-Qwen-14B",
    "32b": "DeepSeek-R1-Distill-Qwen-32B",
    "70b": "DeepSeek-R1-Distill-Llama-70B",
}
_R1 = re.compile(r"deepseek-r1:(?P<size>[\d.]+b)(?:-(?:qwen|llama)-distill)?(?:-(?P<type>\w+))?", re.IGNORECASE)
_R1_PUBLISHER = "deepseek-ai"
_R1_GGUF_PUBLISHERS = {HUGGING_FACE: "bartowski", MODEL_SCOPE: "unsloth"}
SHORT_NAMES = ("demo", *(f"deepseek-r1:{size}" for size in _R1_SIZES))


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model on a hub."""

    hub: str
    repo: str  # owner/name
    revision: str | None = None  # branch, tag or commit; None: the hub's default branch
    type: str | None = None  # of the GGUF file: Q4_K_M and so on
    file: str | None = None  # the path of the GGUF file

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        rest = f":{self.type}" if self.type else f"/{self.file}" if self.file else ""
        return f"{self.repo}{revision}{rest}"


def parse_name(typed: str, hub: str) -> ModelName | None:
    """The model that `typed` names, on `hub` unless a prefix names another; None if it does not look like a name.

    Raises:
        HubError: it looks like a short name, but there is no such short name.
    """
    for prefix, named_hub in _PREFIXES.items():
        if typed.lower().startswith(prefix):
            typed, hub = typed[len(prefix) :], named_hub
            break
    else:
        if short := _short_name(typed, hub):
            return short
    match = _NAME.fullmatch(typed.rstrip("/"))
    if match is None:
        return None
    return ModelName(hub, match["repo"], match["revision"], match["type"], match["file"])


def near_names(typed: str, known: Iterable[str] = ()) -> list[str]:
    """Names similar to `typed`, most similar first, out of `known` and the short names."""
    by_lower = {name.lower(): name for name in (*SHORT_NAMES, *known)}
    return [by_lower[name] for name in get_close_matches(typed.lower(), by_lower, n=4, cutoff=0.6)]


def _short_name(typed: str, hub: str) -> ModelName | None:
    """What short names mean: `deepseek-r1:1.5b`, `deepseek-r1:1.5b-q8_0`, `deepseek-r1:1.5b-bf16`."""
    family = typed.lower().partition(":")[0]
    if family != "deepseek-r1":
        return None
    match = _R1.fullmatch(typed)
    model = _R1_SIZES.get(match["size"].lower()) if match else None
    if match is None or model is None:
        raise HubError(
            f"{typed!r} is not one of the sizes; there are "
            f"{', '.join(name for name in SHORT_NAMES if ':' in name)}, and each with a type: deepseek-r1:1.5b-q8_0"
        )
    kind = (match["type"] or DEFAULT_TYPE).upper().replace("FP16", "F16")
    if kind == "BF16":  # as published, in a Hugging Face folder
        return ModelName(hub, f"{_R1_PUBLISHER}/{model}")
    return ModelName(hub, f"{_R1_GGUF_PUBLISHERS[hub]}/{model}-GGUF", type=kind)
