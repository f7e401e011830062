"""Checkpoints small enough for a test: a GGUF writer that can also lie, a tiny vocabulary, an R1-like template.

The writer packs bytes by hand, so that a test can write what no sound tool would. The vocabulary is a byte-level BPE of
about 1,500 tokens, trained across word boundaries so that a wrong cut shows in the ids, followed by DeepSeek's and
ChatML's control tokens in the shape that R1's tokenizer has them (think tags user-defined, the ends special).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
F32, F16, Q4_0, Q4_1, Q8_0, Q2_K, BF16 = 0, 1, 2, 3, 8, 10, 30

CONTROL_TOKENS = [
    ("<｜end▁of▁sentence｜>", CONTROL),
    ("<｜User｜>", USER_DEFINED),
    ("<｜Assistant｜>", USER_DEFINED),
    ("<｜begin▁of▁sentence｜>", CONTROL),
    ("<think>", USER_DEFINED),
    ("</think>", USER_DEFINED),
    ("<|im_start|>", CONTROL),
    ("<|im_end|>", CONTROL),
    ("<tool_call>", USER_DEFINED),
]

# Behaves as the published template of R1's distillations does: BOS first, the last system message bare, earlier
# thoughts dropped, generation inside the thought.
R1_TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- for m in messages if m['role'] == 'system' -%}{%- set ns.system = m['content'] -%}{%- endfor -%}"
    "{{- bos_token + ns.system -}}"
    "{%- for m in messages -%}"
    "{%- if m['role'] == 'user' -%}{{- '<｜User｜>' + m['content'] -}}"
    "{%- elif m['role'] == 'assistant' -%}"
    "{{- '<｜Assistant｜>' + m['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<｜Assistant｜><think>\\n' -}}{%- endif -%}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_vocabulary() -> tuple[list[str], list[int], list[str]]:
    """(tokens, token types, merges) of the tiny vocabulary, control tokens last."""
    tiny = json.loads((DATA / "tiny_bpe.json").read_text(encoding="utf-8"))
    tokens = [*tiny["tokens"], *(text for text, _ in CONTROL_TOKENS), "[PAD]"]
    types = [NORMAL] * len(tiny["tokens"]) + [type for _, type in CONTROL_TOKENS] + [UNUSED]
    return tokens, types, tiny["merges"]


def metadata(architecture: str = "qwen2", pre: str = "deepseek-r1-qwen", template: str = R1_TEMPLATE) -> dict[str, Any]:
    """What a GGUF file says of a decoder of two layers with four heads of 16."""
    tokens, types, merges = tiny_vocabulary()
    return {
        "general.architecture": architecture,
        "general.name": "Tiny",
        f"{architecture}.block_count": 2,
        f"{architecture}.context_length": 512,
        f"{architecture}.embedding_length": 64,
        f"{architecture}.feed_forward_length": 96,
        f"{architecture}.attention.head_count": 4,
        f"{architecture}.attention.head_count_kv": 2,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{architecture}.rope.freq_base": 10_000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokens.index("<｜begin▁of▁sentence｜>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<｜end▁of▁sentence｜>"),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": template,
    }


def write_gguf(
    path: Path,
    metadata: dict[str, Any] | list[tuple[str, Any]],
    tensors: list[tuple[str, tuple[int, ...], int, bytes]] | None = None,
    *,
    version: int = 3,
    alignment: int = 32,
    offsets: dict[str, int] | None = None,
) -> Path:
    """Write a GGUF file. Tensors are (name, row-major shape, ggml's type number, bytes); `offsets` overrules some."""
    items = list(metadata.items()) if isinstance(metadata, dict) else metadata
    tensors = tensors if tensors is not None else [("output_norm.weight", (4,), F32, bytes(16))]
    head = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(items))]
    head += [_string(key) + packed(value) for key, value in items]
    body = b""
    for name, shape, kind, data in tensors:
        offset = (offsets or {}).get(name, len(body))
        head.append(_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape)))
        head.append(struct.pack("<IQ", kind, offset))
        body += data + bytes(-len(data) % alignment)
    header = b"".join(head)
    path.write_bytes(header + bytes(-len(header) % alignment) + body)
    return path


def packed(value: Any) -> bytes:
    """A metadata value with its type in front. `bytes` go in as they are: how a test lies."""
    match value:
        case bytes():
            return value
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _string(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
        case [float(), *_]:
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
        case list():
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    raise TypeError(type(value))


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def write_safetensors(path: Path, header: dict[str, Any] | bytes, body: bytes) -> Path:
    """Write a safetensors file from any header, sound or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    return path


def tokenizer_json(pre: str = r"\p{N}|[^\p{N}]+") -> dict[str, Any]:
    """The tiny vocabulary as the `tokenizers` library writes it, in Hugging Face's form."""
    tokens, types, merges = tiny_vocabulary()
    ordinary = {token: id for id, token in enumerate(tokens) if types[id] == NORMAL}
    added = [
        {"id": tokens.index(text), "content": text, "special": type == CONTROL, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
        for text, type in CONTROL_TOKENS
    ]
    split = {"type": "Split", "pattern": {"Regex": pre}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": ordinary, "merges": merges},
    }


def write_hugging_face(folder: Path, **config: Any) -> Path:
    """A folder with one tensor and the small files; `config` overrules fields of config.json."""
    fields = {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000,
        "max_position_embeddings": 512,
        "vocab_size": len(tiny_vocabulary()[0]),
        "tie_word_embeddings": False,
        "eos_token_id": 0,
    }
    folder.mkdir(exist_ok=True)
    tokenizer_config = {
        "add_bos_token": True,
        "bos_token": {"content": "<｜begin▁of▁sentence｜>"},
        "eos_token": "<｜end▁of▁sentence｜>",
        "chat_template": R1_TEMPLATE,
    }
    defaults = {"temperature": 0.6, "top_p": 0.95, "top_k": 40, "eos_token_id": [7, 0], "do_sample": True}
    for name, tree in (
        ("config.json", fields | config),
        ("tokenizer.json", tokenizer_json()),
        ("tokenizer_config.json", tokenizer_config),
        ("generation_config.json", defaults),
    ):
        (folder / name).write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    header = {"model.norm.weight": {"dtype": "BF16", "shape": [64], "data_offsets": [0, 128]}}
    write_safetensors(folder / "model.safetensors", header, bytes(128))
    return folder
