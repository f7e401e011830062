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

_ANY = r"(?s:.+)"
_NONE = r"(?!)"  # matches nothing
_NUMBER = r"-?\d+(\.\d+)?"
_NUMBERS = rf"{_NUMBER}(,{_NUMBER})*"
# How vLLM's JSON asks for drafts from the text, on one line or several.
_FROM_TEXT = r"ngram|ngram_gpu|suffix"
_CONFIG_FROM_TEXT = rf'(?s:\{{.*"(method|model)"\s*:\s*"({_FROM_TEXT}|\[ngram\])".*)'


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


def _refused(names: str, instead: str) -> ForeignFlag:
    return ForeignFlag(tuple(names.split()), "a value", _NONE, "", instead)


_ONE_DEVICE = "the whole model is on one device, which --device chooses"
_CUDA_GRAPHS = "answers are the same with and without CUDA graphs"
_ONE_ENGINE = "the model is not divided; --engines serves copies of it"
_FROM_TEMPLATE = "it is found in the model's chat template"
_FROM_MODEL = "it is found in the model's files"
_ALWAYS = "this is always so"
_MEMORY_MAP = "weights are read into memory when the model is loaded, and are not locked there"
_FITTED = "the KV cache is always fitted to free memory"
_FROM_THE_TEXT = "drafts come from the text itself"
_MODEL_DRAFTS = "--speculation auto needs no draft model"
_CACHE = "what prompts share is kept in the KV cache, whose size is --kv-cache-tokens"
_LOG = "the log never holds prompts or answers; --access-log off turns off the line for each request"

FOREIGN_FLAGS = (
    # Hardware.
    _value("--gpu-memory-utilization", _NUMBER, f"{_ONE_DEVICE}; --kv-cache-tokens sets the size of the KV cache"),
    _value("-ngl --gpu-layers --n-gpu-layers", rf"{_NUMBER}|auto|all", _ONE_DEVICE),
    _value("--kv-cache-memory-bytes", _ANY, "--kv-cache-tokens sets the size of the KV cache"),
    _value("-sm --split-mode", "none|layer|row", _ONE_DEVICE),
    _value("-mg --main-gpu", _NUMBER, _ONE_DEVICE),
    _value("-ts --tensor-split", _ANY, _ONE_DEVICE),
    _value("--swap-space --cpu-offload-gb", _NUMBER, _ONE_DEVICE),
    _value("--max-seq-len-to-capture --max-cudagraph-capture-size", _NUMBER, _CUDA_GRAPHS),
    _value("-cc --compilation-config", _ANY, "kernels are compiled the same way for all settings"),
    _value("--attention-backend", _ANY, "there is one implementation of attention"),
    _switch("-kvo --kv-offload -nkvo --no-kv-offload --disable-custom-all-reduce", _ONE_DEVICE),
    _switch("--op-offload --no-op-offload --no-host", _ONE_DEVICE),
    _switch("--repack --no-repack", "weights are always packed for the kernels"),
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
    _value("--prio --prio-batch --poll --poll-batch", _NUMBER, "threads are scheduled by the system"),
    _value("--numa", "distribute|isolate|numactl", "each engine stays on one NUMA node", "use --engines or numactl"),
    _refused("-C --cpu-mask -Cr --cpu-range", "start the server with taskset or numactl"),
    _switch("--mlock --mmap --no-mmap", _MEMORY_MAP),
    _value("-lm --load-mode", _ANY, _MEMORY_MAP),
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
    _refused("--tokenizer --chat-template --chat-template-file", f"{_FROM_MODEL}; leave it out"),
    _refused(
        "--rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --yarn-orig-ctx", f"{_FROM_MODEL}; leave it out"
    ),
    _refused("-hft --hf-token", "set the environment variable HF_TOKEN"),
    _value("--limit-mm-per-prompt", _ANY, "only text is supported"),
    _switch("--no-mmproj", "only text is supported"),
    # Thoughts, tools, structured answers.
    _value("--reasoning-parser", r"deepseek[_-]r1|qwen3", _FROM_TEMPLATE, "leave it out"),
    _value("--reasoning-format", "auto|deepseek", "thoughts are in reasoning_content", "leave it out"),
    _value("--reasoning-budget", "-1", "thoughts have no limit", "requests may set thinking_budget"),
    _value("-rea --reasoning", "auto", _FROM_TEMPLATE, "requests may set reasoning_effort"),
    _value("--reasoning-effort", "default", _FROM_TEMPLATE, "requests may set reasoning_effort"),
    _refused("--default-chat-template-kwargs --chat-template-kwargs", "requests may set chat_template_kwargs"),
    _switch("--enable-reasoning --enable-auto-tool-choice --jinja", _ALWAYS),
    _value("--chat-template-content-format", "auto|string|openai", _FROM_TEMPLATE, "leave it out"),
    _value("--guided-decoding-backend --structured-outputs-config", _ANY, "structured answers always use llguidance"),
    _value("--response-role", "assistant", _ALWAYS, "answers are from the assistant"),
    _value("--max-logprobs", r"\d|1\d|20", "requests may ask for up to 20", "requests may ask for up to 20"),
    # Scheduling and caching.
    _switch("--enable-chunked-prefill -cb --cont-batching --no-context-shift", _ALWAYS),
    _switch("-kvu --kv-unified -no-kvu --no-kv-unified", "conversations share one KV cache"),
    _value("--cache-reuse", _NUMBER, "--prefix-caching reuses what prompts share"),
    _value("-cram --cache-ram -ctxcp --ctx-checkpoints -sps --slot-prompt-similarity", _NUMBER, _CACHE),
    _switch("--cache-idle-slots --no-cache-idle-slots", _CACHE),
    _switch("--async-scheduling --no-async-scheduling", "on a GPU this is always so; on a CPU there is no gain"),
    _value("--stream-interval", "1", "each token is sent when it is there", "each token is sent when it is there"),
    _value(
        "--draft --draft-n --draft-max --draft-min --draft-n-min --draft-p-min --draft-p-split --spec-draft-n-max "
        "--spec-draft-n-min --spec-draft-p-min --spec-draft-p-split --spec-ngram-size-n --spec-ngram-size-m "
        "--spec-ngram-min-hits --spec-ngram-mod-n-match --spec-ngram-mod-n-min --spec-ngram-mod-n-max "
        "--spec-ngram-simple-size-n --spec-ngram-simple-size-m --spec-ngram-simple-min-hits --spec-ngram-map-k-size-n "
        "--spec-ngram-map-k-size-m --spec-ngram-map-k-min-hits --spec-ngram-map-k4v-size-n --spec-ngram-map-k4v-size-m "
        "--spec-ngram-map-k4v-min-hits --spec-tokens --num-speculative-tokens --ngram-prompt-lookup-max "
        "--ngram-prompt-lookup-min --speculative-config.num-speculative-tokens --speculative-config.prompt-lookup-max "
        "--speculative-config.prompt-lookup-min",
        _NUMBER,
        "how many tokens are drafted is decided at each step",
    ),
    _switch("--spec-default", _FROM_THE_TEXT),
    _value("-lcs --lookup-cache-static -lcd --lookup-cache-dynamic", _ANY, _FROM_THE_TEXT),
    _value("-sc --speculative-config", _CONFIG_FROM_TEXT, _FROM_THE_TEXT, _MODEL_DRAFTS),
    _value("--speculative-config.method", _FROM_TEXT, _FROM_THE_TEXT, _MODEL_DRAFTS),
    _value("--speculative-model", r"\[ngram\]", _FROM_THE_TEXT, _MODEL_DRAFTS),
    _refused(
        "-md --model-draft --spec-draft-model -hfd -hfrd --hf-repo-draft --spec-draft-hf --spec-model "
        "--speculative-config.model",
        _MODEL_DRAFTS,
    ),
    _value(
        "-td --threads-draft --spec-draft-threads -ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-ngl "
        "-devd --device-draft --spec-draft-device -ctkd --cache-type-k-draft --spec-draft-type-k "
        "-ctvd --cache-type-v-draft --spec-draft-type-v -cd --ctx-size-draft",
        _ANY,
        "there is no draft model",
    ),
    _value("-s --seed", "-1|0", "each request has a seed of its own", "requests may set seed"),
    _value("-n --predict --n-predict", "-1", "answers end with the context", "requests may set max_tokens"),
    _refused("--temp --temperature", "requests may set temperature"),
    _refused("--top-k", "requests may set top_k"),
    _refused("--top-p", "requests may set top_p"),
    _refused("--min-p", "requests may set min_p"),
    _refused("--repeat-penalty", "requests may set repetition_penalty"),
    _refused("--presence-penalty", "requests may set presence_penalty"),
    _refused("--frequency-penalty", "requests may set frequency_penalty"),
    _refused("--override-generation-config", "requests may set their own sampling"),
    _switch("--warmup --no-warmup", "the first request is as fast as the next"),
    ForeignFlag(("-fit", "--fit"), "perhaps a value", "on|off", _FITTED),
    _value("-fitt --fit-target -fitc --fit-ctx", _NUMBERS, _FITTED),
    # Routes and logs.
    _switch("--metrics --slots --props --no-slots --enable-prompt-tokens-details", "the routes are always the same"),
    _switch("--disable-log-requests --no-enable-log-requests --enable-log-requests", _LOG),
    _switch("--disable-log-stats", "figures are at /metrics"),
    _value("--collect-detailed-traces", _ANY, "traces always show the stages of a request, and /metrics the steps"),
    _switch("--log-disable -v --verbose --log-verbose", "--log-level sets what is logged"),
    _value("-lv --verbosity --log-verbosity --uvicorn-log-level", _ANY, "--log-level sets what is logged"),
    _switch("--log-prefix --no-log-prefix --log-timestamps --no-log-timestamps", "lines have a level and a time"),
    ForeignFlag(("--log-colors",), "perhaps a value", "on|off|auto", "NO_COLOR turns colors off"),
    _switch("--perf --no-perf", "answers have timings, and /metrics has the steps"),
    _value("--sse-ping-interval", _NUMBER, "a silent stream sends a comment every 10 seconds"),
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
