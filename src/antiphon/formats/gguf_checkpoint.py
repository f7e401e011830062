"""What a GGUF file's metadata means: architecture, settings, tokenizer, chat template. `gguf` reads the bytes.

GGUF's keys (`llama.embedding_length`) are translated to Hugging Face's names (`hidden_size`), so that the format makes
no difference later. What cannot be served exactly is refused here by name: other architectures, experts, vocabularies
that are not BPE.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from antiphon.checkpoint import Checkpoint, Note, TokenizerData
from antiphon.formats.end_tokens import UNMISTAKABLE, end_token_ids
from antiphon.formats.fields import Fields, check_heads, head_dim_of, no_default_template, shown, shown_name
from antiphon.formats.gguf import GgufFile
from antiphon.formats.gguf_split import read_whole_gguf
from antiphon.formats.rope_scaling import gguf_rope
from antiphon.formats.sampling_advice import sampling_advice
from antiphon.model_files import ModelFiles

ARCHITECTURES = ("llama", "qwen2", "qwen3")
TOKENIZERS = ("gpt2", "llama")
PRE_TOKENIZERS_WITH_BOS = ("llama-bpe", "llama3", "llama-v3", "tekken")
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # GGUF's token types
CONTROL_TYPES = (CONTROL, USER_DEFINED)
MAX_TOKEN_TYPE = 6  # byte
END_TOKENS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")  # llama.cpp's; the first is the tokenizer's own
TEMPLATE = "tokenizer.chat_template"

# Fields that would change the arithmetic → the values that are served. The zeros mean "off".
ONLY_VALUES: dict[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "embedding_scale": (0, 1),
    "use_parallel_residual": (False,),
}

# Our name for a sampling parameter → GGUF's.
SAMPLING_KEYS = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


def open_gguf(path: Path, files: ModelFiles) -> Checkpoint:
    """Open a GGUF file, or the split model that it is a part of.

    Raises CheckpointError for one that is damaged or cannot be served.
    """
    file = read_whole_gguf(path, files)
    fields = Fields(file.path, file.metadata)
    architecture = fields.string("general.architecture")
    if architecture not in ARCHITECTURES:
        fields.fail(f"architecture {architecture!r} is not supported; supported are {', '.join(ARCHITECTURES)}")
    tokenizer, token_notes = _tokenizer(fields)
    template, template_notes = _chat_template(fields)
    advice, advice_notes = sampling_advice(fields, SAMPLING_KEYS)
    return Checkpoint(
        path=path,
        format="gguf",
        name=shown_name(fields.string("general.name", "")) or path.stem,
        architecture=architecture,
        settings=_settings(fields, architecture, file, len(tokenizer.tokens)),
        tensors=file.tensors,
        tokenizer=tokenizer,
        chat_template=template,
        generation_defaults=advice,
        notes=(*token_notes, *template_notes, *advice_notes),
        files=files,
    )


def _settings(fields: Fields, architecture: str, file: GgufFile, num_tokens: int) -> dict[str, Any]:
    prefix = f"{architecture}."
    for key, only in ONLY_VALUES.items():
        value = fields.values.get(prefix + key)
        if value is not None and value not in only:
            fields.fail(f"field {prefix + key!r} is {shown(value)}, which is not supported")
    if fields.integer(prefix + "expert_count", 0, least=0):
        fields.fail("mixtures of experts are not supported; dense models are")
    heads = fields.integer(prefix + "attention.head_count")
    hidden_size = fields.integer(prefix + "embedding_length")
    key_length = prefix + "attention.key_length"
    head_dim = fields.integer(key_length) if fields.has(key_length) else head_dim_of(fields, hidden_size, heads)
    for key in (prefix + "attention.value_length", prefix + "rope.dimension_count"):
        if fields.integer(key, head_dim) != head_dim:
            fields.fail(f"field {key!r} is not the heads' {head_dim} dimensions; such models are not supported")
    settings = {
        "hidden_size": hidden_size,
        "intermediate_size": fields.integer(prefix + "feed_forward_length"),
        "num_hidden_layers": fields.integer(prefix + "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.integer(prefix + "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": _vocab_size(fields, prefix + "vocab_size", num_tokens),
        "rms_norm_eps": fields.number(prefix + "attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **gguf_rope(fields, architecture, file.tensors, head_dim),
    }
    check_heads(fields, settings)
    return settings


def _vocab_size(fields: Fields, key: str, num_tokens: int) -> int:
    size = fields.integer(key, num_tokens)
    if size < num_tokens:
        fields.fail(f"field {key!r} is {size}, but 'tokenizer.ggml.tokens' has {num_tokens} tokens; convert it again")
    return size


def _tokenizer(fields: Fields) -> tuple[TokenizerData, list[Note]]:
    model = fields.string("tokenizer.ggml.model")
    if model not in TOKENIZERS:
        fields.fail(f"tokenizer {model!r} is not supported; byte-level BPE ('gpt2') and SentencePiece's ('llama') are")
    tokens = fields.strings("tokenizer.ggml.tokens")
    if not tokens:
        fields.fail("field 'tokenizer.ggml.tokens' is empty")
    by_scores = model == "llama"
    pre = fields.string("tokenizer.ggml.pre", "")
    types, notes = _marked_ends(tokens, _token_types(fields, len(tokens)))
    control = {tokens[id]: id for id, type in enumerate(types) if type in CONTROL_TYPES}
    ends = [_token_id(fields, f"tokenizer.ggml.{name}_token_id", len(tokens)) for name in END_TOKENS]
    return TokenizerData(
        tokens=tokens,
        token_types=types,
        merges=[] if by_scores else fields.strings("tokenizer.ggml.merges"),
        scores=_scores(fields, len(tokens)) if by_scores else [],
        add_space_prefix=fields.flag("tokenizer.ggml.add_space_prefix", by_scores),
        pre_tokenizer=pre,
        bos_token_id=_token_id(fields, "tokenizer.ggml.bos_token_id", len(tokens)),
        eos_token_ids=end_token_ids(ends, control, len(tokens)),
        # As in llama.cpp: text in these vocabularies starts with BOS by default, in other BPE ones it does not.
        add_bos=fields.flag("tokenizer.ggml.add_bos_token", by_scores or pre in PRE_TOKENIZERS_WITH_BOS),
    ), notes


def _marked_ends(tokens: list[str], types: list[int]) -> tuple[list[int], list[Note]]:
    """The types, with end tokens marked as control tokens: some files have them as ordinary text."""
    wrong = {id for id, token in enumerate(tokens) if token in UNMISTAKABLE and types[id] == NORMAL}
    if not wrong:
        return types, []
    names = sorted({tokens[id] for id in wrong})
    notes = [Note(f"{name} is not marked as a control token", "it is read as one") for name in names]
    return [CONTROL if id in wrong else type for id, type in enumerate(types)], notes


def _chat_template(fields: Fields) -> tuple[str | None, list[Note]]:
    """The template. Of several named ones without a default, the first, with a note."""
    default = fields.string(TEMPLATE, "") or None
    named = [key for key in fields.values if key.startswith(TEMPLATE + ".") and fields.string(key)]
    if default is not None or not named:
        return default, []
    name = named[0].removeprefix(TEMPLATE + ".")
    return fields.string(named[0]), [no_default_template(name)]


def _token_id(fields: Fields, key: str, num_tokens: int) -> int | None:
    return fields.integer(key, least=0, most=num_tokens - 1) if fields.has(key) else None


def _scores(fields: Fields, num_tokens: int) -> list[float]:
    key = "tokenizer.ggml.scores"
    view = fields.values.get(key)
    if not isinstance(view, memoryview) or view.format != "f" or len(view) != num_tokens:
        fields.fail(f"field {key!r} must hold one number for each of the {num_tokens} tokens")
    scores: list[float] = list(view)
    if not all(math.isfinite(score) for score in scores):
        fields.fail(f"field {key!r} holds a score that is not a finite number")
    return scores


def _token_types(fields: Fields, num_tokens: int) -> list[int]:
    key = "tokenizer.ggml.token_type"
    view = fields.values.get(key)
    if not isinstance(view, memoryview) or view.format not in ("i", "I") or len(view) != num_tokens:
        fields.fail(f"field {key!r} must hold one 32-bit whole number for each of the {num_tokens} tokens")
    types: list[int] = view.tolist()
    if not 0 <= min(types) <= max(types) <= MAX_TOKEN_TYPE:
        fields.fail(f"field {key!r} holds a type outside 0 to {MAX_TOKEN_TYPE}")
    return types
