"""What a server prints when it is ready: one line of what was chosen, notes, and a command to try it with."""

from __future__ import annotations

import json
from collections.abc import Sequence

from antiphon.api_keys import SHORT_KEY, ApiKey
from antiphon.checkpoint import Checkpoint
from antiphon.commands.tables import megabytes, weights_by_type
from antiphon.engine.wire import Ready
from antiphon.footprint import users_that_fit
from antiphon.machine import Machine
from antiphon.quantization import Quantization

_TYPICAL_USER = 1024  # tokens: a conversation of average length


def startup_line(
    info: Ready, checkpoint: Checkpoint, machine: Machine, num_engines: int = 1, num_elsewhere: int = 0
) -> str:
    """What was chosen: instruction set, threads, format and size of the weights, KV capacity in tokens and in users.

    `machine` gives the reasons: the limits that were seen before the model was loaded. `num_engines` are on this
    machine, and `num_elsewhere` on others.
    """
    capacity = info.num_blocks * info.block_size
    users = users_that_fit(capacity, _TYPICAL_USER)
    parts = [
        *(_machine(info.runner, machine, num_engines) if num_engines else ()),
        *_elsewhere(num_elsewhere),
        _weights(info.runner, checkpoint),
        f"context {info.context_length:,} tokens",
        f"KV cache {info.runner.get('kv_cache_type', '')} {capacity:,} tokens = {users:,} users of {_TYPICAL_USER:,}"
        + (" in each engine" if num_engines + num_elsewhere > 1 else ""),
    ]
    return " · ".join(" ".join(part.split()) for part in parts)


def cut_note(wanted: int, info: Ready, checkpoint: Checkpoint) -> str | None:
    """A note where conversations get less than the `--context-length` that was asked for, or than the model's own."""
    own = int(checkpoint.settings["max_position_embeddings"])
    if not wanted and info.context_length < own:
        return (
            f"the model's context is {own:,} tokens, but there is only memory for {info.context_length:,}; that is used"
        )
    if wanted <= info.context_length:
        return None
    reason = "the model's own limit" if info.context_length == own else "the size of the KV cache"
    return f"--context-length is {wanted:,}, but {reason} is {info.context_length:,} tokens, which is used"


def open_note(host: str, *, has_keys: bool) -> str | None:
    """A note where other machines can reach the server, and it asks for no key."""
    if has_keys or host in ("localhost", "::1") or host.startswith("127."):
        return None
    return f"with --host {host} everyone who reaches this machine can use the server; --api-key-file asks for keys"


def short_keys_note(keys: Sequence[ApiKey]) -> str | None:
    """A note where keys could be guessed."""
    names = [key.name for key in keys if key.is_short]
    if not names:
        return None
    which = f"API key {names[0]} has" if len(names) == 1 else f"API keys {', '.join(names[:3])}{_more(names)} have"
    return f"{which} fewer than {SHORT_KEY} characters and can be guessed; `openssl rand -hex 24` makes a good one"


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""


def quantization_note(requested: str, chosen: Quantization) -> str | None:
    """A note on the precision of float weights: which was chosen, or that there was nothing to choose."""
    if not chosen.name:
        return f"--quantization {requested} has no effect: {chosen.reason}" if requested != "auto" else None
    return f"float weights are served as {chosen.name}: {chosen.reason}" if requested == "auto" else None


def curl_line(url: str, model_name: str, *, has_keys: bool = False) -> str:
    """A command to paste; with keys, the shell inserts the one in ANTIPHON_API_KEY."""
    question = {"role": "user", "content": "What is the capital of France?"}
    body = {"model": model_name, "messages": [question], "temperature": 0}
    quoted = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    key = ' -H "Authorization: Bearer $ANTIPHON_API_KEY"' if has_keys else ""
    return f"curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{quoted}'"


def _machine(runner: dict[str, str | int | float], machine: Machine, num_engines: int) -> list[str]:
    """What computes; the fake runner has no threads."""
    if "instruction_set" not in runner:
        kind = runner.get("runner", "unknown")
        return [f"{num_engines} {kind} engines" if num_engines > 1 else f"{kind} engine"]
    threads = machine.threads_line()
    if num_engines > 1:
        each = "thread" if runner["threads"] == 1 else "threads"
        threads = f"{num_engines} engines with {runner['threads']} {each}"
    return [str(runner["instruction_set"]), threads, machine.memory_line()]


def _elsewhere(num_engines: int) -> list[str]:
    if not num_engines:
        return []
    return [f"{num_engines} {'engine' if num_engines == 1 else 'engines'} on other machines"]


def _weights(runner: dict[str, str | int | float], checkpoint: Checkpoint) -> str:
    types = [kind for kind in weights_by_type(checkpoint.tensors.values()) if kind != "F32"]
    found = checkpoint.quantized_by or "/".join(types) or "F32"
    if "weight_bytes" not in runner:
        return f"weights {found}"
    return f"weights {found} as {runner['weight_format']}, {megabytes(int(runner['weight_bytes']))}"
