"""Each thing that looks wrong in a template or in advice is said once, with what is done; what is right is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_checkpoints import (
    CHATML_TEMPLATE,
    R1_TEMPLATE,
    metadata,
    tiny_vocabulary,
    tokenizer_json,
    write_gguf,
    write_hugging_face,
)

from antiphon.formats import open_checkpoint
from antiphon.text import TextModel
from antiphon.text.lint import R1_SAMPLING, completed_advice, lint

GOOD = {"temperature": 0.6}
QUIET = {"tokenizer.ggml.add_bos_token": False}  # so that only the thing in question is said


@contextmanager
def text_model(folder: Path, **fields: object) -> Iterator[TextModel]:
    """A model of which these metadata differ; None leaves one out."""
    changed = metadata() | {name: value for name, value in fields.items() if value is not None}
    for name, value in fields.items():
        if value is None:
            del changed[name]
    text = TextModel.from_checkpoint(open_checkpoint(write_gguf(folder / "m.gguf", changed)))
    try:
        yield text
    finally:
        text.close()


@pytest.mark.parametrize(
    ("template", "wrong", "done"),
    [
        ("{{ bos_token }}" + R1_TEMPLATE, "writes <｜begin▁of▁sentence｜> twice", "used as it is"),
        (CHATML_TEMPLATE.partition("{% if add")[0], "no generation prompt", "used as it is"),
        (R1_TEMPLATE.replace("<think>\\n", ""), "does not open the thought", "used as it is"),
        ("{{ raise_exception('never') }}", "a plain question does not go through", "refused"),
        (None, "no chat template", "/v1/completions works"),
    ],
)
def test_what_is_wrong_with_a_template(tmp_path, template, wrong, done):
    with text_model(tmp_path, **QUIET, **{"tokenizer.chat_template": template}) as text:
        (finding,) = lint(text, GOOD)
    assert wrong in finding.wrong
    assert done in finding.done


def test_two_who_put_bos_first(tmp_path):
    with text_model(tmp_path) as text:
        (finding,) = lint(text, GOOD)
        assert str(finding) == (
            "the chat template and the tokenizer both put <｜begin▁of▁sentence｜> first; one is kept"
        )
        prompt = text.chat_prompt([{"role": "user", "content": "x"}])
        assert prompt.token_ids.count(text.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("template", [R1_TEMPLATE, CHATML_TEMPLATE], ids=["r1", "chatml"])
def test_nothing_is_said_of_what_is_right(tmp_path, template):
    with text_model(tmp_path, **QUIET, **{"tokenizer.chat_template": template}) as text:
        assert lint(text, GOOD) == []


@pytest.mark.parametrize(
    ("end", "shown"),
    [("<｜User｜>", "<｜User｜>"), ("<|stop|>", "<|stop|>"), ("", "<|im_start|>"), ("\x1b[2J", "\\x1b[2J")],
    ids=["another token", "text", "nothing", "control characters"],
)
def test_turns_that_end_with_what_is_no_end(tmp_path, end, shown):
    template = CHATML_TEMPLATE.replace("<|im_end|>\n", end)
    with text_model(tmp_path, **QUIET, **{"tokenizer.chat_template": template}) as text:
        (finding,) = lint(text, GOOD)
    assert finding.wrong.startswith(f"the chat template ends turns with {shown}")
    assert finding.wrong.endswith("which is not an end-of-sequence token of the model")
    assert finding.done == "answers may run on; a stop string ends them"


def test_a_model_that_cannot_end(tmp_path):
    tokens = [token.replace("<|im_end|>", "<|x|>").replace("end▁of▁sentence", "x") for token in tiny_vocabulary()[0]]
    fields = {"tokenizer.ggml.eos_token_id": None, "tokenizer.ggml.tokens": tokens}
    with text_model(tmp_path, **QUIET, **fields) as text:
        assert [finding.wrong for finding in lint(text, GOOD)] == ["the checkpoint names no end-of-sequence token"]


def test_tokens_without_a_row(tmp_path):
    folder = write_hugging_face(tmp_path / "m")
    tree = tokenizer_json()
    tree["added_tokens"].append(tree["added_tokens"][0] | {"id": 5000, "content": "[pad]"})
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    text = TextModel.from_checkpoint(open_checkpoint(folder))
    assert "no row for ([pad])" in lint(text, GOOD)[0].wrong
    text.close()


def test_advice_for_r1(tmp_path):
    with text_model(tmp_path, **QUIET) as text:
        (finding,) = lint(text, {"top_k": 7})
        assert "temperature 0.6, top_p 0.95" in finding.done
        assert completed_advice(text, {"top_k": 7}) == {**R1_SAMPLING, "top_k": 7}
        for temperature in (0.0, 1.0):
            (finding,) = lint(text, {"temperature": temperature})
            assert f"temperature {temperature:g}" in finding.wrong
            assert completed_advice(text, {"temperature": temperature}) == {"temperature": temperature}
        for temperature in (0.5, 0.7):
            assert lint(text, {"temperature": temperature}) == []


def test_other_models_are_advised_by_their_publishers_alone(tmp_path):
    with text_model(tmp_path, **QUIET, **{"tokenizer.chat_template": CHATML_TEMPLATE}) as text:
        assert lint(text, {}) == lint(text, {"temperature": 1.0}) == []
        assert completed_advice(text, {}) == {}
