"""Flags of vLLM and llama.cpp that have no meaning here, accepted with a note so that their recipes work unchanged.

Owns the table of such flags and of the values that change nothing. A value that asks for something that is
not supported, such as `--tensor-parallel-size 4`, is refused with what to use instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import typer

_ANY = r".+"
_NONE = r"(?!)"  # matches nothing
_NUMBER = r"-?\d+(\.\d+)?"


@dataclass(frozen=True, slots=True)
class ForeignFlag:
    """One flag, under all its names."""

    names: tuple[str, ...]
    takes: Literal["nothing", "a value", "perhaps a value"]
    values: str  # a regular expression: those that are accepted
    reason: str  # why they have no effect, for the note
    instead: str = ""  # what works where another value was meant, for the refusal


def _switch(names: str, reason: str) -> ForeignFlag:
    return ForeignFlag(tuple(names.split()), "nothing", "", reason)


def _value(names: str, values: str, reason: str, instead: str = "") -> ForeignFlag:
    return ForeignFlag(tuple(names.split()), "a value", values, reason, instead)


_ONE_DEVICE = "the whole model is on one device, which --device chooses"
_CUDA_GRAPHS = "answers are the same with and without CUDA graphs"
_ONE_ENGINE = "the model is not divided; --engines serves copies of it"
_FROM_TEMPLATE = "it is found in the model's chat template"
_FROM_MODEL = "it is found in the model's files"
_ALWAYS = "this is always so"
_LOG = "the log never holds prompts or answers; --access-log off turns off the line for each request"

FOREIGN_FLAGS = (
    # Hardware.
    _value("--gpu-memory-utilization", _NUMBER, f"{_ONE_DEVICE}; --kv-cache-tokens sets the size of the KV cache"),
    _value("-ngl --gpu-layers --n-gpu-layers", rf"{_NUMBER}|auto|all", _ONE_DEVICE),
    _value("-sm --split-mode", "none|layer|row", _ONE_DEVICE),
    _value("-mg --main-gpu", _NUMBER, _ONE_DEVICE),
    _value("-ts --tensor-split", _ANY, _ONE_DEVICE),
    _value("--swap-space --cpu-offload-gb", _NUMBER, _ONE_DEVICE),
    _value("--max-seq-len-to-capture", _NUMBER, _CUDA_GRAPHS),
    _switch("-kvo --kv-offload -nkvo --no-kv-offload --disable-custom-all-reduce", _ONE_DEVICE),
    ForeignFlag(("-fa", "--flash-attn"), "perhaps a value", "on|off|auto", "there is one implementation of attention"),
    _value("-tp --tensor-parallel-size", "1", _ONE_ENGINE, "use --engines"),
    _value("-pp --pipeline-parallel-size", "1", _ONE_ENGINE, "use --engines"),
    _value(
        "--rpc", "none", _ONE_ENGINE, "antiphon engine-host runs whole engines there; use --engines tcp://HOST:8010"
    ),
    _value("-asc --api-server-count", "1", "there is one server process", "there is one; leave it out"),
    _value("--distributed-executor-backend", _ANY, _ONE_ENGINE),
    _value("-tb --threads-batch", _NUMBER, "--threads holds for prompts and answers alike"),
    _value("--threads-http", _NUMBER, "connections need no threads"),
    _value("--prio --poll", _NUMBER, "threads are scheduled by the system"),
    _switch(
        "--mlock --mmap --no-mmap", "weights are read into memory when the model is loaded, and are not locked there"
    ),
    # The model.
    _value("--dtype", "auto", "the types are those of the file", "use --quantization w8 or w4, --activations int16"),
    _value("--load-format", "auto|safetensors|gguf", _FROM_MODEL, "safetensors and GGUF can be loaded"),
    _value("--config-format", "auto|hf", _FROM_MODEL, "leave it out"),
    _value("--tokenizer-mode", "auto|hf|fast", _FROM_MODEL, "leave it out"),
    _value("--model-impl", "auto", "there is one implementation of each model", "leave it out"),
    _value("--task --runner", "auto|generate", "models generate text", "models can only generate text"),
    _value("--generation-config", "auto", "the model's advice is used", "requests may set their own sampling"),
    _switch("--trust-remote-code", "code from a model's folder is never run"),
    _value("--block-size", _NUMBER, "blocks of the KV cache have 32 tokens"),
    # Thoughts, tools, structured answers.
    _value("--reasoning-parser", r"deepseek[_-]r1|qwen3", _FROM_TEMPLATE, "leave it out"),
    _value("--reasoning-format", "auto|deepseek", "thoughts are in reasoning_content", "leave it out"),
    _value("--reasoning-budget", "-1", "thoughts have no limit", "requests may set thinking_budget"),
    _switch("--enable-reasoning --enable-auto-tool-choice --jinja", _ALWAYS),
    _value("--chat-template-content-format", "auto|string|openai", _FROM_TEMPLATE, "leave it out"),
    _value("--guided-decoding-backend", _ANY, "structured answers always use llguidance"),
    _value("--response-role", "assistant", _ALWAYS, "answers are from the assistant"),
    _value("--max-logprobs", r"\d|1\d|20", "requests may ask for up to 20", "requests may ask for up to 20"),
    # Scheduling and caching.
    _switch("--enable-chunked-prefill -cb --cont-batching --no-context-shift", _ALWAYS),
    _switch("-kvu --kv-unified", "conversations share one KV cache"),
    _value("--cache-reuse", _NUMBER, "--prefix-caching reuses what prompts share"),
    _value(
        "--draft --draft-n --draft-max --draft-min --draft-n-min --draft-p-min --draft-p-split --spec-draft-n-max "
        "--spec-draft-n-min --spec-draft-p-min --spec-draft-p-split --spec-ngram-size-n --spec-ngram-size-m "
        "--spec-ngram-mod-n-match --spec-ngram-mod-n-min --spec-ngram-mod-n-max",
        _NUMBER,
        "how much is drafted depends on what it is worth",
    ),
    _value(
        "--speculative-config",
        r".*\bngram\b.*",
        "drafts come from the text itself",
        "--speculation auto needs no draft model",
    ),
    _value(
        "-md --model-draft --spec-draft-model -hfd -hfrd --hf-repo-draft --spec-draft-hf",
        _NONE,
        "there is no draft model",
        "--speculation auto needs no draft model",
    ),
    _value("-s --seed", "-1|0", "each request has a seed of its own", "requests may set seed"),
    _value("-n --predict --n-predict", "-1", "answers end with the context", "requests may set max_tokens"),
    _switch("--warmup --no-warmup", "the first request is as fast as the next"),
    ForeignFlag(("--fit",), "perhaps a value", "on|off", "the KV cache is always fitted to free memory"),
    # Routes and logs.
    _switch("--metrics --slots --props --no-slots --enable-prompt-tokens-details", "the routes are always the same"),
    _switch("--disable-log-requests --no-enable-log-requests --enable-log-requests", _LOG),
    _switch("--disable-log-stats", "figures are at /metrics"),
    _value("--collect-detailed-traces", _ANY, "traces always show the stages of a request, and /metrics the steps"),
    _switch("--log-disable -v --verbose", "--log-level sets what is logged"),
    _value("-lv --verbosity --uvicorn-log-level", _ANY, "--log-level sets what is logged"),
    _switch("--disable-frontend-multiprocessing", "there is one server process"),
)

_BY_NAME = {name: flag for flag in FOREIGN_FLAGS for name in flag.names}


def without_foreign_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """`arguments` without such flags and their values, and a note on each that was there.

    Raises:
        typer.BadParameter: a value asks for something that is not supported.
    """
    kept: list[str] = []
    notes: dict[str, None] = {}
    rest = _Arguments(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument == "--":
            return [*kept, argument, *rest], list(notes)
        if (flag := _BY_NAME.get(name)) is None:
            kept.append(argument)
            continue
        if not equals:
            value = _value_of(flag, name, rest)
        _check(flag, name, value)
        notes[f"{f'{name} {value}'.strip()} has no effect here: {flag.reason}"] = None
    return kept, list(notes)


class _Arguments(Iterator[str]):
    """What was typed, with a look at what comes next."""

    def __init__(self, arguments: list[str]) -> None:
        self._left = list(reversed(arguments))

    def __next__(self) -> str:
        if not self._left:
            raise StopIteration
        return self._left.pop()

    @property
    def ahead(self) -> str | None:
        return self._left[-1] if self._left else None


def _value_of(flag: ForeignFlag, name: str, rest: _Arguments) -> str:
    ahead = rest.ahead
    if flag.takes == "nothing":
        return ""
    if flag.takes == "perhaps a value":
        return next(rest) if ahead is not None and re.fullmatch(flag.values, ahead) else ""
    if ahead is None:
        raise typer.BadParameter("it needs a value", param_hint=name)
    return next(rest)


def _check(flag: ForeignFlag, name: str, value: str) -> None:
    if value and flag.takes == "nothing":
        raise typer.BadParameter(f"it takes no value, but {value!r} was given", param_hint=name)
    if value and not re.fullmatch(flag.values, value):
        raise typer.BadParameter(f"{value!r} is not supported: {flag.instead or 'leave it out'}", param_hint=name)
