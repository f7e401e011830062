"""What an engine will hold in memory, decided once: precision of float weights, size of the KV cache, context length.

The front makes the plan when it opens a model, and every engine that it starts gets the same one, so that an engine
that replaces another computes the same bits for contexts of the same length, whatever memory is free at that moment.
`inspect` shows the plan that `serve` would make. A leaf: arithmetic on a checkpoint's settings and sizes; how much
memory is available is the caller's to find out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from antiphon.checkpoint import Checkpoint
from antiphon.config import EngineConfig
from antiphon.errors import ConfigError
from antiphon.footprint import (
    KV_BLOCK_SIZE,
    WeightBytes,
    default_kv_tokens,
    kv_bytes_per_token,
    kv_capacity,
    weight_bytes,
)
from antiphon.quantization import Quantization, as_quantized, choose_quantization

_AS_STORED = "w8"  # changes nothing where no float matrix is left to quantize


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The sizes that one model is served with; bytes and tokens."""

    available: int  # bytes that the decision was made on
    quantization: Quantization
    weights: WeightBytes
    kv_cache_type: str
    kv_bytes_per_token: int
    kv_capacity: int  # tokens that the KV cache could have beside the weights
    kv_cache_tokens: int  # that it has: whole blocks
    full_context_length: int  # tokens a sequence was to have: what was asked for, as far as the model goes
    context_length: int  # that it may have: no more than the KV cache holds
    problem: str = ""  # why the model cannot be served like this; then there is no KV cache

    @property
    def kv_cache_bytes(self) -> int:
        return self.kv_cache_tokens * self.kv_bytes_per_token

    def applied_to(self, config: EngineConfig) -> EngineConfig:
        """The settings with nothing left to choose by memory; what an engine is sent.

        Raises:
            ConfigError: there is no room for the KV cache that was asked for, or for any at all.
        """
        if self.problem:
            raise ConfigError(self.problem)
        return replace(
            config,
            quantization=self.quantization.name or _AS_STORED,
            kv_cache_tokens=self.kv_cache_tokens,
            # Stretched positions depend on the length that was asked for; the KV cache cuts it again the same way.
            context_length=self.full_context_length,
        )


def plan_memory(checkpoint: Checkpoint, config: EngineConfig, available: int) -> MemoryPlan:
    """Decide how to serve a checkpoint under `config` in `available` bytes of memory."""
    settings = checkpoint.settings
    quantization = choose_quantization(
        config.quantization, checkpoint, available, config.kv_cache_type, config.kv_cache_tokens
    )
    loaded = as_quantized(checkpoint, quantization.name).tensors.values()
    weights = weight_bytes(loaded, tied=bool(settings.get("tie_word_embeddings")))
    per_token = kv_bytes_per_token(settings, config.kv_cache_type)
    capacity = kv_capacity(available, weights, per_token)
    longest = int(settings["max_position_embeddings"])
    context = min(config.context_length or longest, longest)
    tokens = config.kv_cache_tokens or default_kv_tokens(available, weights, per_token, context)
    tokens = tokens // KV_BLOCK_SIZE * KV_BLOCK_SIZE
    problem = _problem(config.kv_cache_tokens, tokens, capacity, per_token)
    return MemoryPlan(
        available=available,
        quantization=quantization,
        weights=weights,
        kv_cache_type=config.kv_cache_type,
        kv_bytes_per_token=per_token,
        kv_capacity=capacity,
        kv_cache_tokens=0 if problem else tokens,
        full_context_length=context,
        context_length=0 if problem else min(context, tokens),
        problem=problem,
    )


def _problem(asked: int, tokens: int, capacity: int, per_token: int) -> str:
    """Why a KV cache of `tokens` cannot be; `asked` is the setting it comes from, 0 if from none."""
    if asked and tokens > capacity:  # memory is taken when a token first needs it, so it would fail amid the work
        size = f"{tokens * per_token / 2**30:.1f} GiB"
        return (
            f"--kv-cache-tokens {asked:,} would take {size}; beside the model this machine has memory for "
            f"{capacity:,} tokens"
        )
    if asked and not tokens:
        return f"--kv-cache-tokens {asked}: the KV cache must hold at least one block of {KV_BLOCK_SIZE} tokens"
    if not tokens:
        return "there is no memory left for a KV cache beside the weights; serve a smaller model or free some memory"
    return ""
