"""How a checkpoint scales its rotary positions: the fields of both formats as one mapping of plain numbers.

The result has Hugging Face's names, with every default filled in. `models.rope` computes with it: nothing, `linear`,
`llama3`, `yarn`, `dynamic`, or `divisors` (the numbers by which some GGUF files divide each frequency). Any other kind
is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from antiphon.checkpoint import Tensor
from antiphon.formats.fields import MAX_CONTEXT, Fields, shown
from antiphon.portable_math import natural_logarithm

HUGGING_FACE_KINDS = ("default", "linear", "llama3", "yarn", "dynamic")
GGUF_KINDS = ("none", "linear", "yarn")
DIVISORS = "rope_freqs.weight"
MAX_DYNAMIC_FACTOR = 1 << 20
MIN_DIVISOR = 0.5  # so that angles stay within what the rotary tables are computed for (native/elementary.h)
# Fields of GGUF that tools interpret differently → the only value on which they agree.
GGUF_ONLY_VALUES = {"yarn_ext_factor": 1.0, "yarn_attn_factor": 1.0, "yarn_log_multiplier": 0.0}

Settings = dict[str, Any]  # rope_theta, rope_scaling, max_position_embeddings


def hugging_face_rope(config: Fields) -> Settings:
    """Read `rope_scaling`, or `rope_parameters` of newer files, which has `rope_theta` too."""
    fields, prefix = _parameters(config)
    own_theta = fields.has(prefix + "rope_theta")
    theta = (
        fields.number(prefix + "rope_theta", least=1.0)
        if own_theta
        else config.number("rope_theta", 10_000.0, least=1.0)
    )
    context = config.integer("max_position_embeddings", most=MAX_CONTEXT)
    settings = {"rope_theta": float(theta), "rope_scaling": None, "max_position_embeddings": context}
    kind = fields.string(prefix + ("rope_type" if fields.has(prefix + "rope_type") else "type"), "default")
    original = fields.integer(prefix + "original_max_position_embeddings", context, most=MAX_CONTEXT)
    match kind:
        case "default":
            return settings
        case "dynamic":
            return settings | _dynamic(fields, prefix, min(context, original), context)
        case "linear":
            return settings | {"rope_scaling": _linear(fields, prefix + "factor")}
        case "llama3":
            return settings | {"rope_scaling": _llama3(fields, prefix, original)}
        case "yarn":
            factor = float(fields.number(prefix + "factor", max(1.0, context / original), least=1.0))
            attention = _attention_factor(fields, prefix, factor)
            return settings | _yarn(fields, prefix, factor, original, attention, settings)
    config.fail(f"rotary scaling {kind!r} is not supported; supported are {', '.join(HUGGING_FACE_KINDS)}")


def _parameters(config: Fields) -> tuple[Fields, str]:
    """The mapping's fields, with full names so that an error says where they are, and the prefix of those names."""
    source = "rope_scaling" if config.has("rope_scaling") else "rope_parameters"
    parameters = config.values.get(source) or {}
    if not isinstance(parameters, Mapping):
        config.fail(f"field {source!r} must be a mapping, not {shown(parameters)}")
    if any(isinstance(value, Mapping) for value in parameters.values()):
        config.fail(f"field {source!r} differs among layers, which is not supported; one for all layers is")
    fields = Fields(config.path, {f"{source}.{key}": value for key, value in parameters.items()})
    if fields.number(f"{source}.partial_rotary_factor", 1.0) != 1:
        config.fail(f"field '{source}.partial_rotary_factor' is not 1; such models are not supported")
    return fields, source + "."


def gguf_rope(fields: Fields, architecture: str, tensors: Mapping[str, Tensor], head_dim: int) -> Settings:
    """Read `ARCHITECTURE.rope.…` and the tensor that holds Llama 3's scaling, if the file has it."""
    prefix = f"{architecture}.rope.scaling."
    context = fields.integer(f"{architecture}.context_length", most=MAX_CONTEXT)
    settings = {
        "rope_theta": float(fields.number(f"{architecture}.rope.freq_base", 10_000.0, least=1.0)),
        "rope_scaling": None,
        "max_position_embeddings": context,
    }
    factor_key = prefix + "factor" if fields.has(prefix + "factor") else f"{architecture}.rope.scale_linear"
    is_scaled = fields.number(factor_key, 1.0) not in (0, 1)  # in this format, zero means not set
    kind = fields.string(prefix + "type", "linear" if is_scaled else "none")
    if kind not in GGUF_KINDS:
        fields.fail(f"rotary scaling {kind!r} is not supported; supported are {', '.join(GGUF_KINDS)}")
    if DIVISORS in tensors:
        if kind != "none":
            fields.fail(f"has both rotary scaling {kind!r} and tensor {DIVISORS!r}; one of them is supported")
        return settings | {"rope_scaling": _divisors(fields, tensors[DIVISORS], head_dim)}
    if kind == "yarn":
        return settings | _gguf_yarn(fields, prefix, settings)
    if kind == "linear" and is_scaled:
        return settings | {"rope_scaling": _linear(fields, factor_key)}
    return settings


def _gguf_yarn(fields: Fields, prefix: str, settings: Settings) -> Settings:
    for key, only in GGUF_ONLY_VALUES.items():
        if fields.number(prefix + key, only) != only:
            fields.fail(f"field {prefix + key!r} is not {only:g}, which is not supported")
    factor = float(fields.number(prefix + "factor", least=1.0))
    context = settings["max_position_embeddings"]
    original = fields.integer(prefix + "original_context_length", context, most=MAX_CONTEXT)
    attention = _mscale(factor) * fields.number(prefix + "attn_factor", 1.0, least=1e-3)
    return _yarn(fields, prefix + "yarn_", factor, original, attention, settings)


def _linear(fields: Fields, factor_key: str) -> Settings:
    return {"rope_type": "linear", "factor": float(fields.number(factor_key, least=1.0))}


def _dynamic(fields: Fields, prefix: str, original: int, context: int) -> Settings:
    """Dynamic NTK, and its context: the trained one times the factor."""
    factor = float(fields.number(prefix + "factor", least=1.0, most=MAX_DYNAMIC_FACTOR))
    return {
        "max_position_embeddings": max(context, int(min(original * factor, MAX_CONTEXT))),
        "rope_scaling": {
            "rope_type": "dynamic",
            "factor": factor,
            "original_max_position_embeddings": original,
        },
    }


def _llama3(fields: Fields, prefix: str, original: int) -> Settings:
    low = float(fields.number(prefix + "low_freq_factor", least=1e-3))
    high = float(fields.number(prefix + "high_freq_factor", least=1e-3))
    if high <= low:
        fields.fail(f"field {prefix + 'high_freq_factor'!r} is {high:g}; it must be above low_freq_factor, {low:g}")
    return {
        "rope_type": "llama3",
        "factor": float(fields.number(prefix + "factor", least=1.0)),
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _yarn(
    fields: Fields, prefix: str, factor: float, original: int, attention_factor: float, settings: Settings
) -> Settings:
    """YaRN's numbers and the scaled context: publishers often leave the original one in the file."""
    if settings["rope_theta"] <= 1:
        fields.fail("rotary scaling 'yarn' needs a base (rope_theta) above 1")
    context = int(min(original * factor, MAX_CONTEXT))
    return {
        "max_position_embeddings": max(settings["max_position_embeddings"], context),
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            "beta_fast": float(fields.number(prefix + "beta_fast", 32.0, least=1e-3)),
            "beta_slow": float(fields.number(prefix + "beta_slow", 1.0, least=1e-3)),
            "attention_factor": attention_factor,
            "truncate": fields.flag(prefix + "truncate", True),
        },
    }


def _attention_factor(fields: Fields, prefix: str, factor: float) -> float:
    """The factor of Q and K: as given, or by the paper's rule, modified by `mscale` and `mscale_all_dim`.

    `attn_factor` multiplies the rule's result, as in the paper's own code: DeepSeek-R1-0528-Qwen3-8B uses it to undo
    the rule. `transformers` ignores it.
    """
    if fields.has(prefix + "attention_factor"):
        return float(fields.number(prefix + "attention_factor", least=1e-3))
    mscale, all_dims = (fields.number(prefix + key, 0.0) for key in ("mscale", "mscale_all_dim"))
    ruled = _mscale(factor, mscale) / _mscale(factor, all_dims) if mscale and all_dims else _mscale(factor)
    return ruled * fields.number(prefix + "attn_factor", 1.0, least=1e-3)


def _mscale(factor: float, weight: float = 1.0) -> float:
    """Attention gets sharper as the context grows (Peng et al., YaRN, 2023, section 3.4)."""
    return 0.1 * weight * natural_logarithm(factor) + 1.0


def _divisors(fields: Fields, tensor: Tensor, head_dim: int) -> Settings:
    if tensor.type != "F32" or tensor.shape != (head_dim // 2,):
        fields.fail(f"tensor {DIVISORS!r} must hold {head_dim // 2} weights in F32, one for each frequency")
    divisors = tensor.read().cast("f").tolist()
    if not all(math.isfinite(divisor) and divisor >= MIN_DIVISOR for divisor in divisors):
        fields.fail(f"tensor {DIVISORS!r} holds a divisor that is not a finite number of at least {MIN_DIVISOR}")
    return {"rope_type": "divisors", "divisors": divisors}
