"""Plans an engine's memory once: the precision of float weights, the size of the KV cache, the context length.

The front makes the plan when it opens a model, and all its engines get the same plan. So a replacement engine computes
the same bits, with the same context length, however much memory is free at that moment. `inspect` shows the plan that
`serve` would make. This module only does arithmetic; the caller finds out how much memory is available.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from antiphon.checkpoint import Checkpoint
from antiphon.config import EngineConfig
from antiphon.errors import CheckpointError, ConfigError
from antiphon.footprint import (
    KV_BLOCK_SIZE,
    PROCESS_BYTES,
    WeightBytes,
    default_kv_tokens,
    kv_bytes_per_token,
    kv_capacity,
    weight_bytes,
)
from antiphon.gpu_footprint import HOST_BYTES, GpuFootprint, default_gpu_tokens, gpu_footprint
from antiphon.quantization import Quantization, as_quantized, choose_quantization

_AS_STORED = "w8"  # has no effect if there is no float matrix to quantize


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The sizes with which each engine serves a model, in bytes and tokens."""

    available: int  # bytes of memory for each engine, for which the plan was made
    quantization: Quantization
    weights: WeightBytes
    kv_cache_type: str
    kv_bytes_per_token: int
    kv_capacity: int  # tokens for which the KV cache would have room in addition to the weights
    kv_cache_tokens: int  # the size of the KV cache: whole blocks
    full_context_length: int  # the context length that was requested, limited to the model's
    context_length: int  # the same, limited to the size of the KV cache
    problem: str = ""  # why the model cannot be served; then there is no KV cache
    num_engines: int = 1  # that share the memory equally
    gpu: GpuFootprint | None = None  # what an engine takes on a GPU, whose memory is planned; None: on the CPU

    @property
    def kv_cache_bytes(self) -> int:
        return self.kv_cache_tokens * self.kv_bytes_per_token

    @property
    def engine_bytes(self) -> int:
        """What one engine takes of the planned memory when its KV cache is full."""
        if self.gpu is not None:
            return self.gpu.engine(self.context_length) + self.kv_cache_bytes
        return self.weights.resident + self.kv_cache_bytes + PROCESS_BYTES

    @property
    def host_bytes(self) -> int:
        """What one engine takes of this machine's memory."""
        return self.engine_bytes if self.gpu is None else HOST_BYTES + self.weights.embedding

    @property
    def reserve(self) -> int:
        """Bytes that stay available when all engines' KV caches are full."""
        return self.num_engines * self.engine_reserve

    @property
    def engine_reserve(self) -> int:
        """An engine's part of `reserve`."""
        return max(0, self.available - self.engine_bytes)

    def applied_to(self, config: EngineConfig) -> EngineConfig:
        """The settings for the engine, with all choices that depend on memory already made.

        Raises:
            ConfigError: there is no room for the requested KV cache, or for any.
        """
        if self.problem:
            raise ConfigError(self.problem)
        return replace(
            config,
            quantization=self.quantization.name or _AS_STORED,
            kv_cache_tokens=self.kv_cache_tokens,
            engines=self.num_engines,
            memory_bytes=self.host_bytes,
            gpu_bytes=config.gpu_bytes if self.gpu is None else self.engine_bytes,
            memory_reserve=0 if self.gpu is None else config.memory_reserve or self.engine_reserve,
            # RoPE scaling depends on the requested length. The size of the KV cache limits it again in the engine.
            context_length=self.full_context_length,
        )


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What depends on the device."""

    quantization: Quantization
    weights: WeightBytes
    capacity: int  # tokens
    default_tokens: int  # the KV cache that is planned if none is asked for
    gpu: GpuFootprint | None = None


def plan_memory(checkpoint: Checkpoint, config: EngineConfig, available: int) -> MemoryPlan:
    """Plan how to serve a checkpoint with `config` in `available` bytes of memory: the GPU's, for an engine on a GPU.

    Each of `config.engines` engines gets an equal share of it, and has weights and a KV cache of its own.
    """
    num_engines = max(1, config.engines)
    available //= num_engines
    longest = int(checkpoint.settings["max_position_embeddings"])
    context = min(config.context_length or longest, longest)
    per_token = kv_bytes_per_token(checkpoint.settings, config.kv_cache_type)
    problem = ""
    try:
        plan_sizes = _sizes_on_gpu if config.device.startswith("cuda") else _sizes_on_cpu
        sizes = plan_sizes(checkpoint, config, available, context, per_token)
    except CheckpointError as error:  # the kernels' layouts are only known for models that can be served
        sizes, problem = _sizes_on_cpu(checkpoint, config, available, context, per_token), error.message
    tokens = (config.kv_cache_tokens or sizes.default_tokens) // KV_BLOCK_SIZE * KV_BLOCK_SIZE
    problem = problem or _problem(config, tokens, sizes, per_token, available)
    return MemoryPlan(
        available=available,
        quantization=sizes.quantization,
        weights=sizes.weights,
        kv_cache_type=config.kv_cache_type,
        kv_bytes_per_token=per_token,
        kv_capacity=sizes.capacity,
        kv_cache_tokens=0 if problem else tokens,
        full_context_length=context,
        context_length=0 if problem else min(context, tokens),
        problem=problem,
        num_engines=num_engines,
        gpu=sizes.gpu,
    )


def _sizes_on_cpu(checkpoint: Checkpoint, config: EngineConfig, available: int, context: int, per_token: int) -> _Sizes:
    quantization = choose_quantization(
        config.quantization, checkpoint, available, config.kv_cache_type, config.kv_cache_tokens
    )
    weights = _weight_bytes(as_quantized(checkpoint, quantization.name))
    capacity = kv_capacity(available, weights, per_token)
    default = default_kv_tokens(available, weights, per_token, context, max(1, config.engines))
    return _Sizes(quantization, weights, capacity, default)


def _sizes_on_gpu(checkpoint: Checkpoint, config: EngineConfig, available: int, context: int, per_token: int) -> _Sizes:
    """As on the CPU; raises CheckpointError for a model that cannot be served."""

    def room_beside(checkpoint: Checkpoint) -> int:
        return gpu_footprint(checkpoint, config).kv_capacity(available, context, per_token)

    quantization = choose_quantization(
        config.quantization, checkpoint, available, config.kv_cache_type, config.kv_cache_tokens, room_beside
    )
    served = as_quantized(checkpoint, quantization.name)
    gpu = gpu_footprint(served, config)
    weights = replace(_weight_bytes(served), w4=gpu.w4, w8=gpu.w8, vectors=gpu.vectors + gpu.key_bias)
    capacity = gpu.kv_capacity(available, context, per_token)
    return _Sizes(quantization, weights, capacity, default_gpu_tokens(capacity, config, context), gpu)


def _weight_bytes(checkpoint: Checkpoint) -> WeightBytes:
    return weight_bytes(checkpoint.tensors.values(), tied=bool(checkpoint.settings.get("tie_word_embeddings")))


def plan_engines(checkpoint: Checkpoint, config: EngineConfig, available: int, most: int) -> MemoryPlan:
    """Plan for `config.engines` engines or, if that is 0, for as many as have room in memory, at most `most`."""
    if config.engines:
        return plan_memory(checkpoint, config, available)
    plans = (plan_memory(checkpoint, replace(config, engines=count), available) for count in range(most, 0, -1))
    return next(plan for plan in plans if not plan.problem or plan.num_engines == 1)


def _problem(config: EngineConfig, tokens: int, sizes: _Sizes, per_token: int, available: int) -> str:
    """Why a KV cache of `tokens` is not possible, or ""."""
    asked, num_engines, gpu = config.kv_cache_tokens, max(1, config.engines), sizes.gpu
    if asked and tokens > sizes.capacity:  # on the CPU memory is only allocated when it is used: it would fail later
        size = f"{tokens * per_token / 2**30:.1f} GiB"
        each = f" for each of {num_engines} engines" if num_engines > 1 else ""
        where = "this machine" if gpu is None else config.device
        return (
            f"--kv-cache-tokens {asked:,} would take {size}; in addition to the model, {where} has memory for "
            f"{sizes.capacity:,} tokens{each}"
        )
    if asked and not tokens:
        return f"--kv-cache-tokens {asked}: the KV cache must hold at least one block of {KV_BLOCK_SIZE} tokens"
    if not tokens and gpu is not None:
        needed = gpu.engine(KV_BLOCK_SIZE) + KV_BLOCK_SIZE * per_token
        return (
            f"there is not enough memory on {config.device}: the model and its buffers take {needed / 2**30:.1f} GiB, "
            f"and a tenth of the {available / 2**30:.1f} GiB that are free must stay free; try --quantization w4, a "
            "lower --max-num-seqs, --max-batch-tokens or --context-length, or a smaller model"
        )
    if not tokens and num_engines > 1:
        return (
            f"there is not enough memory for the weights and a KV cache of each of {num_engines} engines; "
            "lower --engines, serve a smaller model or free some memory"
        )
    if not tokens:
        return "there is not enough memory for the weights and a KV cache; serve a smaller model or free some memory"
    return ""
