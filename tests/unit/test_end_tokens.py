"""An answer ends at every token that a checkpoint names for that, and at those whose text says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import (
    CHATML_TEMPLATE,
    CONTROL,
    NORMAL,
    metadata,
    tiny_vocabulary,
    tokenizer_json,
    write_gguf,
    write_hugging_face,
)

from antiphon.checkpoint import Checkpoint
from antiphon.formats import open_checkpoint
from antiphon.text import Tokenizer

TOKENS, TYPES, _ = tiny_vocabulary()
EOS, IM_END = TOKENS.index("<｜end▁of▁sentence｜>"), TOKENS.index("<|im_end|>")


def gguf_with(folder: Path, *more: tuple[str, int], **fields: Any) -> Checkpoint:
    """A GGUF file with more tokens (text, type), and fields named behind `tokenizer.ggml.`."""
    named = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
    tokens = {
        "tokenizer.ggml.tokens": [*TOKENS, *(text for text, _ in more)],
        "tokenizer.ggml.token_type": [*TYPES, *(type for _, type in more)],
    }
    return open_checkpoint(write_gguf(folder / "m.gguf", metadata() | tokens | named))


def test_a_gguf_that_names_the_wrong_token_still_ends_its_turns(tmp_path: Path):
    checkpoint = gguf_with(tmp_path, eos_token_id=5)
    assert checkpoint.tokenizer.eos_token_ids == (5, EOS, IM_END)


def test_every_id_that_a_gguf_names_ends_an_answer(tmp_path: Path):
    names = ("eot", "eom", "fim_pad", "fim_rep", "fim_sep")
    ids = {f"{name}_token_id": 10 + n for n, name in enumerate(names)}
    assert gguf_with(tmp_path, **ids).tokenizer.eos_token_ids == (EOS, 10, 11, 12, 13, 14, IM_END)


@pytest.mark.parametrize("text", ["<|eot_id|>", "<|endoftext|>", "<end_of_turn>", "</s>", "<|eom_id|>", "<|file_sep|>"])
def test_a_control_token_whose_text_says_so_ends_an_answer(tmp_path: Path, text: str):
    assert gguf_with(tmp_path, (text, CONTROL)).tokenizer.eos_token_ids == (EOS, IM_END, len(TOKENS))


def test_an_ordinary_word_ends_nothing(tmp_path: Path):
    """`</s>` strikes text through in HTML."""
    checkpoint = gguf_with(tmp_path, ("</s>", NORMAL))
    assert checkpoint.tokenizer.eos_token_ids == (EOS, IM_END)
    assert checkpoint.notes == ()


def test_an_end_token_that_the_file_gives_as_text_is_a_control_token_with_a_note(tmp_path: Path):
    checkpoint = gguf_with(tmp_path, ("<|eot_id|>", NORMAL))
    (note,) = checkpoint.notes
    assert str(note.wrong) == "<|eot_id|> is not marked as a control token"
    tokenizer = Tokenizer(checkpoint.tokenizer)
    assert tokenizer.encode_with_control("<|eot_id|>") == [len(TOKENS)]
    assert len(TOKENS) not in tokenizer.encode("<|eot_id|>")
    assert len(TOKENS) in tokenizer.eos_token_ids


def test_a_folder_whose_files_name_one_end_alone(tmp_path: Path):
    folder = write_hugging_face(tmp_path / "m", eos_token_id=EOS)
    (folder / "generation_config.json").write_text("{}")
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": CHATML_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert open_checkpoint(folder).tokenizer.eos_token_ids == (EOS, IM_END)


def test_an_added_token_without_a_row_ends_nothing(tmp_path: Path):
    folder = write_hugging_face(tmp_path / "m")
    tree = tokenizer_json()
    tree["added_tokens"].append(tree["added_tokens"][0] | {"id": 5000, "content": "<|eot_id|>"})
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    assert 5000 not in open_checkpoint(folder).tokenizer.eos_token_ids


@pytest.mark.parametrize("names", [["rag", "tool_use"], ["tool_use"]])
def test_of_several_gguf_templates_without_a_default_the_first_is_used_with_a_note(tmp_path: Path, names: list[str]):
    fields = {key: value for key, value in metadata().items() if key != "tokenizer.chat_template"}
    fields |= {f"tokenizer.chat_template.{name}": f"of {name}" for name in names}
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", fields))
    assert checkpoint.chat_template == f"of {names[0]}"
    assert checkpoint.notes[0].done == f"'{names[0]}' is used"
