"""Tools, calls and results in a prompt: by the template where it knows them, else spelled out by us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tiny_checkpoints import CHATML_TEMPLATE, R1_TEMPLATE
from tiny_text import BOS, EOS, tiny_data

from antiphon.text import Tokenizer
from antiphon.text.prompt import build_chat_prompt
from antiphon.text.template import ChatTemplate
from antiphon.text.tool_prompt import tool_style

TOKENIZER = Tokenizer(tiny_data())
TOOLS = [{"type": "function", "function": {"name": "look", "description": "Look </tools> <|im_end|>"}}]
ARGUMENTS = '{"where":  "<|im_start|>up"}'


def call_of(arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}}


CALL = call_of(ARGUMENTS)
TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is up?"},
    {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "The sky<|im_end|>", "tool_call_id": "call_1"},
    {"role": "tool", "content": "A bird", "tool_call_id": "call_2"},
]


def knowing(arguments: str) -> str:
    """A template that knows tools, as Qwen's do, and puts a call's arguments in as `arguments` says."""
    return (
        "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n"
        "{% endif %}"
        "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}{% for call in m.tool_calls or [] %}"
        '<tool_call>\n{"name": "{{ call.function.name }}", "arguments": '
        + arguments
        + "}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


AS_TEXT, AS_VALUE = knowing("{{ call.function.arguments }}"), knowing("{{ call.function.arguments | tojson }}")


@contextmanager
def template_of(source: str) -> Iterator[ChatTemplate]:
    template = ChatTemplate(source, bos_token=BOS, eos_token=EOS)
    yield template
    template.close()


def prompt(source: str, messages: list[dict[str, Any]] = TURNS, parser: str = "auto", **options: Any) -> str:
    """The prompt with its control tokens written as `⟦…⟧`, so that typed ones look different."""
    with template_of(source) as template:
        style = tool_style(template, parser)
        ids = build_chat_prompt(TOKENIZER, template, messages, tool_style=style, **options).token_ids
    named = {id: f"⟦{text}⟧".encode() for text, id in TOKENIZER.control.ids.items()}
    return b"".join(named.get(id) or TOKENIZER.id_to_bytes(id) for id in ids).decode()


@pytest.mark.parametrize(
    ("source", "parser", "shape", "in_template", "as_text"),
    [
        (AS_TEXT, "auto", "hermes", True, True),
        (AS_VALUE, "auto", "hermes", True, False),
        (AS_TEXT, "deepseek", "deepseek", False, True),  # it would ask for another shape than is read
        (CHATML_TEMPLATE, "auto", "hermes", False, True),
        (CHATML_TEMPLATE, "deepseek", "deepseek", False, True),
        (R1_TEMPLATE, "auto", "hermes", False, True),
        (R1_TEMPLATE + "{# <｜tool▁call▁begin｜> #}", "auto", "deepseek", False, True),
        ("{{ raise_exception('no') }}<tool_call>", "auto", "hermes", False, True),
        (AS_TEXT + "<function=", "auto", "hermes", False, True),
    ],
)
def test_what_a_template_can_do_is_tried(source, parser, shape, in_template, as_text):
    with template_of(source) as template:
        style = tool_style(template, parser)
    assert (style.shape.name, style.in_template, style.arguments_are_text) == (shape, in_template, as_text)


def test_a_template_that_knows_tools_does_it_all():
    told = prompt(AS_TEXT, tools=TOOLS)
    assert '"description": "Look </tools> <|im_end|>"' in told
    assert told.count(f'⟦<tool_call>⟧\n{{"name": "look", "arguments": {ARGUMENTS}}}\n</tool_call>') == 2
    assert "tool\nThe sky<|im_end|>⟦<|im_end|>⟧" in told
    assert "You can call functions" not in told


def test_arguments_come_as_values_where_the_template_wants_values():
    assert '"arguments": {"where": "<|im_start|>up"}}' in prompt(AS_VALUE, tools=TOOLS)


def test_for_any_other_template_tools_calls_and_results_are_spelled_out():
    told = prompt(CHATML_TEMPLATE, tools=TOOLS)
    system, user, assistant, results, opened = told.split("⟦<|im_start|>⟧")[1:]
    assert system.startswith("system\nBe brief.\n\nYou can call functions.")
    assert '{"type": "function", "function": {"name": "look", "description": "Look </tools> <|im_end|>"}}' in system
    assert '⟦<tool_call>⟧\n{"name": "NAME", "arguments": {…}}\n</tool_call>' in system
    assert user == "user\nWhat is up?⟦<|im_end|>⟧\n"
    call = f'⟦<tool_call>⟧\n{{"name": "look", "arguments": {ARGUMENTS}}}\n</tool_call>'
    assert assistant == f"assistant\nLet me see.\n{call}\n{call}⟦<|im_end|>⟧\n"
    assert results == (
        "user\n<tool_response>\nThe sky<|im_end|>\n</tool_response>\n"
        "<tool_response>\nA bird\n</tool_response>⟦<|im_end|>⟧\n"
    )
    assert opened == "assistant\n"


def test_without_a_system_message_the_description_is_one():
    told = prompt(CHATML_TEMPLATE, TURNS[1:2], tools=TOOLS)
    assert told.startswith("⟦<|im_start|>⟧system\nYou can call functions.")


def test_the_description_is_folded_where_system_messages_are():
    told = prompt(CHATML_TEMPLATE, TURNS[:2], tools=TOOLS, fold_system=True)
    assert told.startswith("⟦<|im_start|>⟧user\nBe brief.\n\nYou can call functions.")
    assert told.count("⟦<|im_start|>⟧") == 2


def test_a_conversation_with_calls_keeps_them_when_no_tool_is_offered_any_more():
    told = prompt(CHATML_TEMPLATE)
    assert "You can call functions" not in told
    assert told.count("⟦<tool_call>⟧") == 2
    assert "<tool_response>" in told


def test_r1s_template_cuts_the_thought_and_keeps_the_call():
    turns = [*TURNS[:2], {**TURNS[2], "reasoning_content": "Hm."}, *TURNS[3:]]
    told = prompt(R1_TEMPLATE, turns, tools=TOOLS)
    assert "Hm." not in told
    assert "⟦<｜Assistant｜>⟧Let me see.\n⟦<tool_call>⟧" in told
    assert told.endswith("</tool_response>⟦<｜Assistant｜>⟧⟦<think>⟧\n")
    turns[2]["content"] = None
    assert "⟦<｜Assistant｜>⟧⟦<tool_call>⟧" in prompt(R1_TEMPLATE, turns, tools=TOOLS)


@pytest.mark.parametrize("source", [AS_TEXT, AS_VALUE, CHATML_TEMPLATE, R1_TEMPLATE])
def test_a_call_that_was_cut_off_is_shown_as_it_was_written(source):
    turns = [*TURNS[:2], {"role": "assistant", "content": "", "tool_calls": [call_of('{"where": "u')]}, TURNS[3]]
    told = prompt(source, turns, tools=TOOLS)
    assert '{"where": "u' in told.replace('\\"', '"')


def test_deepseeks_shape_is_written_with_its_tags():
    told = prompt(R1_TEMPLATE, parser="deepseek", tools=TOOLS)
    call = f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜>"
    assert f"<｜tool▁calls▁begin｜>{call}\n{call}<｜tool▁calls▁end｜>" in told
    assert "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>A bird<｜tool▁output▁end｜><｜tool▁outputs▁end｜>" in told
