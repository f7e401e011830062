"""What a server says of itself when it is up: one line of choices, and a line to try it with."""

from __future__ import annotations

import json

from antiphon.checkpoint import Checkpoint
from antiphon.commands.tables import weights_by_type
from antiphon.engine.wire import Ready
from antiphon.footprint import users_that_fit, weight_bytes

_SOUND_USER = 1024  # tokens: a conversation of middling length


def startup_line(info: Ready, checkpoint: Checkpoint) -> str:
    """What was chosen: instruction set, threads, weights' formats and size, KV capacity in tokens and in users."""
    runner = info.runner
    capacity = info.num_blocks * info.block_size
    parts = [str(runner.get("runner", "engine"))]
    if "instruction_set" in runner:
        parts.append(str(runner["instruction_set"]))
    if "threads" in runner:
        parts.append(f"{runner['threads']} threads")
    types = "/".join(weights_by_type(checkpoint.tensors.values()))
    tied = bool(checkpoint.settings.get("tie_word_embeddings"))
    size = runner.get("weights_bytes", weight_bytes(checkpoint.tensors.values(), tied=tied).resident)
    parts.append(f"weights {types} → {runner.get('weight_formats', 'W4/W8')}, {int(size) / 1e9:.2f} GB")
    parts.append(
        f"context {info.context_length:,} tokens, KV cache {capacity:,} tokens = "
        f"{users_that_fit(capacity, _SOUND_USER):,} users of {_SOUND_USER:,}"
    )
    return " · ".join(parts)


def curl_line(url: str, model_name: str) -> str:
    """A command to paste."""
    body = {"model": model_name, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    quoted = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{quoted}'"
