"""A Hugging Face folder: config.json, safetensors, tokenizer.json and the small files around them.

Reads data only: nothing in the folder is ever run, and of config.json only the fields listed here are used. A field
that would change the arithmetic in an unsupported way (another activation, a window) is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from antiphon.checkpoint import Checkpoint, Note, Tensor, TokenizerData
from antiphon.errors import CheckpointError
from antiphon.formats.block_folder import is_block_folder, with_blocks
from antiphon.formats.end_tokens import end_token_ids
from antiphon.formats.fields import (
    MAX_CONTEXT,
    Fields,
    check_heads,
    head_dim_of,
    no_default_template,
    shown,
    shown_name,
)
from antiphon.formats.json_file import fields_of, parse_json, read_capped
from antiphon.formats.quantization_config import read_quantization_config
from antiphon.formats.quantized_tensors import described, whole_matrices
from antiphon.formats.rope_scaling import hugging_face_rope
from antiphon.formats.safetensors import read_folder
from antiphon.formats.sampling_advice import sampling_advice
from antiphon.model_files import ModelFiles

CONFIG = "config.json"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MAX_CONFIG_BYTES = 4 << 20
MAX_TOKENIZER_BYTES = 64 << 20
NAMED = ("name", "template")  # of one among several chat templates
SLAB_BYTES = 1 << 20
# Our name for a sampling parameter → generation_config.json's.
SAMPLING_KEYS = {name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")}
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",  # the same decoder; a sliding window is refused
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
MISTRALS_OWN_WINDOW = 4096  # the default of its config.json
# Fields that would change the arithmetic → the only supported value besides null.
ONLY_VALUES: dict[str, object] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "is_causal": True,
    "use_bidirectional_attention": False,
}


def open_hugging_face(folder: Path, files: ModelFiles) -> Checkpoint:
    """Open a folder; raises CheckpointError if it is damaged or cannot be served."""
    config = fields_of(files, folder / CONFIG, MAX_CONFIG_BYTES)
    architecture = _architecture(config)
    settings = _settings(config)
    _refuse_windows(config, settings["max_position_embeddings"])
    quantization = None if is_block_folder(config) else read_quantization_config(config)
    tokenizer_config = fields_of(files, folder / "tokenizer_config.json", MAX_CONFIG_BYTES)
    generation_config = fields_of(files, folder / "generation_config.json", MAX_CONFIG_BYTES)
    tensors = read_folder(folder, files)
    if is_block_folder(config):
        tensors = with_blocks(folder, tensors, config)
    else:
        tensors = whole_matrices(folder, tensors, quantization)
    if settings["tie_word_embeddings"]:
        tensors = _without_copied_head(folder, tensors)
    template, template_notes = _chat_template(folder, files, tokenizer_config)
    advice, advice_notes = sampling_advice(generation_config, SAMPLING_KEYS)
    return Checkpoint(
        path=folder,
        format="safetensors",
        name=shown_name(folder.resolve().name),
        architecture=architecture,
        settings=settings,
        tensors=tensors,
        tokenizer=_tokenizer(folder, files, config, tokenizer_config, generation_config),
        chat_template=template,
        generation_defaults=advice,
        files=files,
        quantized_by=described(quantization, tensors) if quantization else None,
        notes=(*template_notes, *advice_notes),
    )


def _architecture(config: Fields) -> str:
    names = config.strings("architectures")
    for name in names:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    config.fail(f"architecture {', '.join(names)[:80]!r} is not supported; supported are {', '.join(ARCHITECTURES)}")


def _settings(config: Fields) -> dict[str, Any]:
    for key, only in ONLY_VALUES.items():
        value = config.values.get(key)
        if value is not None and value != only:
            config.fail(f"field {key!r} is {shown(value)}, which is not supported yet")
    heads = config.integer("num_attention_heads")
    hidden_size = config.integer("hidden_size")
    settings = {
        "hidden_size": hidden_size,
        "intermediate_size": config.integer("intermediate_size"),
        "num_hidden_layers": config.integer("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": config.integer("num_key_value_heads", heads),
        "head_dim": config.integer("head_dim") if config.has("head_dim") else head_dim_of(config, hidden_size, heads),
        "vocab_size": config.integer("vocab_size"),
        "rms_norm_eps": config.number("rms_norm_eps", 1e-6),
        "tie_word_embeddings": config.flag("tie_word_embeddings", False),
        **hugging_face_rope(config),
    }
    check_heads(config, settings)
    return settings


def _without_copied_head(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model whose head is its embedding. A second copy is left out; another head is refused."""
    rest = dict(tensors)
    head, embedding = rest.pop(HEAD, None), rest.get(EMBEDDING)
    if head is not None and embedding is not None and not _is_same(head, embedding):
        raise CheckpointError(
            f"{folder}: tensor {HEAD!r} differs from {EMBEDDING!r}, but config.json says that they are one "
            "(tie_word_embeddings); set it to false if the head is to be used, or remove the tensor"
        )
    return rest


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bytes, read a slab at a time."""
    if (one.type, one.shape) != (other.type, other.shape):
        return False
    ours, theirs = one.read(), other.read()
    try:
        return all(
            bytes(ours[start : start + SLAB_BYTES]) == bytes(theirs[start : start + SLAB_BYTES])
            for start in range(0, len(ours), SLAB_BYTES)
        )
    finally:
        one.release()
        other.release()


def _refuse_windows(config: Fields, context: int) -> None:
    """Refuse layers that see only the last tokens. A window as long as the context makes no difference."""
    layers = config.values.get("layer_types") or []
    if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
        config.fail("field 'layer_types' names layers other than 'full_attention', which are not supported")
    if "MistralForCausalLM" not in config.strings("architectures"):
        return  # other architectures have the field too, and `use_sliding_window` says whether it is used
    if config.values.get("sliding_window", MISTRALS_OWN_WINDOW) is None:
        return
    window = config.integer("sliding_window", MISTRALS_OWN_WINDOW, most=MAX_CONTEXT)
    if window < context:
        config.fail(f"field 'sliding_window' is {window}, below the context of {context}, which is not supported")


def _tokenizer(
    folder: Path, files: ModelFiles, config: Fields, tokenizer_config: Fields, generation_config: Fields
) -> TokenizerData:
    path = folder / "tokenizer.json"
    if not files.has(path):
        raise CheckpointError(f"{path}: is missing; save the tokenizer in the 'fast' format, which writes it")
    source = read_capped(files, path, MAX_TOKENIZER_BYTES)
    tree = parse_json(path, source)
    num_rows = config.integer("vocab_size")
    ids = {text: id for text, id in _token_ids(Fields(path, tree)).items() if id < num_rows}
    bos_text, eos_text = (_token_text(tokenizer_config, key) for key in ("bos_token", "eos_token"))
    # The tokenizer's own comes first: published config.json files have been wrong about it.
    ends = [ids.get(eos_text or ""), *_id_list(generation_config), *_id_list(config)]
    control = {token["content"]: token["id"] for token in tree.get("added_tokens") or []}
    return TokenizerData(
        tokenizer_json=source,
        num_rows=num_rows,
        bos_token_id=ids.get(bos_text or ""),
        eos_token_ids=end_token_ids(ends, control, num_rows),
        add_bos=tokenizer_config.flag("add_bos_token", bos_text is not None and _adds_first(tree, bos_text)),
    )


def _token_ids(tokenizer: Fields) -> dict[str, int]:
    """Text → id of every token of a tokenizer.json."""
    try:
        ids = dict(tokenizer.values["model"]["vocab"])
        ids.update({token["content"]: token["id"] for token in tokenizer.values.get("added_tokens") or []})
    except (KeyError, TypeError, ValueError):
        tokenizer.fail("its vocabulary is not a mapping of tokens to ids")
    if not all(type(id) is int and id >= 0 for id in ids.values()):
        tokenizer.fail("its vocabulary has ids that are not whole numbers from 0 up")
    return ids


def _token_text(tokenizer_config: Fields, key: str) -> str | None:
    """The text of a special token: the field itself, or the `content` of a mapping."""
    value = tokenizer_config.values.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _id_list(fields: Fields) -> Iterable[int]:
    value = fields.values.get("eos_token_id")
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(id) is int and id >= 0 for id in values):
        fields.fail("field 'eos_token_id' must be a token id or a list of them")
    return values


def _adds_first(tree: Any, bos: str) -> bool:  # noqa: ANN401
    """Whether tokenizer.json's post-processor puts this token before a text."""
    processor = tree.get("post_processor")
    if not isinstance(processor, dict):
        return False
    steps = processor.get("processors") or [processor]
    for step in steps if isinstance(steps, list) else ():
        single = step.get("single") if isinstance(step, dict) else None
        if isinstance(single, list) and single[:1] and single[0] == {"SpecialToken": {"id": bos, "type_id": 0}}:
            return True
    return False


def _chat_template(folder: Path, files: ModelFiles, tokenizer_config: Fields) -> tuple[str | None, list[Note]]:
    """The template. Of several named ones, the default or, with a note, the first."""
    path = folder / "chat_template.jinja"
    if files.has(path):
        try:
            return read_capped(files, path, MAX_CONFIG_BYTES).decode(), []
        except UnicodeDecodeError:
            raise CheckpointError(f"{path}: is not UTF-8") from None
    value = tokenizer_config.values.get("chat_template")
    if isinstance(value, list):
        named = [
            item for item in value if isinstance(item, dict) and all(isinstance(item.get(key), str) for key in NAMED)
        ]
        defaults = [item for item in named if item["name"] == "default"]
        if defaults or not named:
            return (defaults[-1]["template"] or None) if defaults else None, []
        return named[0]["template"] or None, [no_default_template(named[0]["name"])]
    if value is not None and not isinstance(value, str):
        tokenizer_config.fail("field 'chat_template' must be text")
    return value or None, []
