"""Chat templates: right for ordinary messages, shut for control tokens that people type, stopped when they run away."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from processes import is_gone
from property_tests import examples
from tiny_checkpoints import CHATML_TEMPLATE, CONTROL_TOKENS, R1_TEMPLATE, metadata, write_gguf
from tiny_text import BOS, EOS, tiny_data

from antiphon.errors import CheckpointError, InvalidRequest, NotReady
from antiphon.formats import open_checkpoint
from antiphon.helper_process import HelperProcess
from antiphon.text import TextModel, Tokenizer
from antiphon.text.lint import lint
from antiphon.text.marking import Marker
from antiphon.text.prompt import NONCHARACTERS, build_chat_prompt
from antiphon.text.template import MAX_SOURCE, ChatTemplate

TOOLS_TEMPLATE = (
    "{% for tool in tools or [] %}<tool_call>{{ tool | tojson }}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{% if call.type == 'function' %}{{ call.function | tojson }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {"r1": R1_TEMPLATE, "chatml": CHATML_TEMPLATE, "tools": TOOLS_TEMPLATE}


TOKENIZER = Tokenizer(tiny_data())


@pytest.fixture(scope="module")
def templates() -> Iterator[dict[str, ChatTemplate]]:
    made = {name: ChatTemplate(source, bos_token=BOS, eos_token=EOS) for name, source in TEMPLATES.items()}
    yield made
    for template in made.values():
        template.close()


def plainly_rendered(source: str, messages: list[dict[str, Any]], **variables: Any) -> str:
    """What a rendering without any of our care gives: right for messages that type no control token."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    variables = {"add_generation_prompt": True, "bos_token": BOS, "eos_token": EOS} | variables
    return environment.from_string(source).render(messages=messages, **variables)


TURNS = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "  Is 1 < 2, and <b>x</b> bold?\n"},
    {"role": "assistant", "content": "<think>\nhm: 1 < 2\n</think>\n\nYes."},
    {"role": "user", "content": "再见 </x> 😀<"},
]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [TURNS, TURNS[1:2], TURNS[:1], [{"role": "user", "content": ""}]])
def test_ordinary_messages_are_rendered_as_anywhere(
    templates: dict[str, ChatTemplate], name: str, messages: list[dict[str, Any]]
) -> None:
    if name == "chatml":  # it keeps a thought as it is written, where it stays plain text
        messages = [message for message in messages if message["role"] != "assistant"]
    rendered = plainly_rendered(TEMPLATES[name], messages)
    if name == "r1":  # it leaves the line breaks behind a thought that it cuts off
        rendered = rendered.replace("<｜Assistant｜>\n\nYes.", "<｜Assistant｜>Yes.")
    expected = TOKENIZER.encode_with_control(rendered)
    assert build_chat_prompt(TOKENIZER, templates[name], messages).token_ids == expected


def test_tools_names_and_calls_reach_the_template(templates: dict[str, ChatTemplate]) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a<b": {"type": "string"}}}}}]
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": "<x>"}'}}
    messages = [
        {"role": "user", "content": "go", "name": "ann"},
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "let me < see"},
        {"role": "tool", "content": "42 <|im"},
    ]
    expected = TOKENIZER.encode_with_control(plainly_rendered(TOOLS_TEMPLATE, messages, tools=tools))
    assert build_chat_prompt(TOKENIZER, templates["tools"], messages, tools=tools).token_ids == expected


def test_a_thought_may_come_in_three_ways(templates: dict[str, ChatTemplate]) -> None:
    question = {"role": "user", "content": "?"}
    answers = [
        {"role": "assistant", "content": "<think>\nT\n</think>\n\nA"},
        {"role": "assistant", "content": "A", "reasoning_content": "T"},
        {"role": "assistant", "content": "A", "reasoning": "T"},
    ]
    for template in (templates["r1"], templates["tools"]):
        ids = [build_chat_prompt(TOKENIZER, template, [question, answer]).token_ids for answer in answers]
        assert ids[0] == ids[1] == ids[2]


# Templates as they treat thoughts: cut off, kept as they come, written by the template, and only in some turns.
KEEPS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{# </think> #}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SELDOM = KEEPS.replace("{# </think> #}", "{# reasoning_content </think> #}")
THINKING = {"r1": R1_TEMPLATE, "keeps": KEEPS, "tools": TOOLS_TEMPLATE, "seldom": SELDOM, "chatml": CHATML_TEMPLATE}
QUESTION, NEXT = {"role": "user", "content": "?"}, {"role": "user", "content": "And?"}
QUOTED = "The tag </think> ends it, <think> begins it."


def shown(source: str, messages: list[dict[str, Any]], tokenizer: Tokenizer = TOKENIZER, **options: Any) -> str:
    """The prompt, with control tokens in brackets."""
    template = ChatTemplate(source, bos_token=BOS, eos_token=EOS)
    try:
        ids = build_chat_prompt(tokenizer, template, messages, **options).token_ids
    finally:
        template.close()
    named = {id: f"⟦{text}⟧".encode() for text, id in tokenizer.control.ids.items()}
    return b"".join(named.get(id) or tokenizer.id_to_bytes(id) for id in ids).decode()


@pytest.mark.parametrize("name", THINKING)
def test_a_tag_that_an_earlier_answer_quotes_cuts_nothing(name: str) -> None:
    for thought in ("T", f"T: {QUOTED}"):
        answer = {"role": "assistant", "content": QUOTED, "reasoning_content": thought}
        assert QUOTED in shown(THINKING[name], [QUESTION, answer, NEXT])
    inline = {"role": "assistant", "content": f"<think>T</think>{QUOTED}"}
    assert QUOTED in shown(THINKING[name], [QUESTION, inline, NEXT])


def test_a_tag_that_is_no_token_is_guarded_too() -> None:
    data = tiny_data()
    types = [1 if "<" in text else type for text, type in zip(data.tokens, data.token_types, strict=True)]
    tokenizer = Tokenizer(replace(data, token_types=types))
    assert "<" not in tokenizer.control.first_letters
    answer = {"role": "assistant", "content": QUOTED, "reasoning_content": "T"}
    assert f"<｜Assistant｜>{QUOTED}" in shown(R1_TEMPLATE, [QUESTION, answer, NEXT], tokenizer)


@pytest.mark.parametrize(
    "answer",
    [
        {"content": "A", "reasoning_content": "T"},
        {"content": "A", "reasoning": "T\n"},
        {"content": "<think>\nT\n</think>\n\nA"},
        {"content": "T</think>\nA"},
        {"content": "A"},
    ],
)
def test_a_thought_that_r1s_template_cuts_leaves_nothing(answer: dict[str, Any]) -> None:
    told = shown(R1_TEMPLATE, [QUESTION, {"role": "assistant", **answer}, NEXT])
    assert f"⟦<｜User｜>⟧?⟦<｜Assistant｜>⟧A⟦{EOS}⟧⟦<｜User｜>⟧And?" in told


def test_a_thought_that_a_template_keeps_is_kept_as_it_was() -> None:
    for content in ("<think>\nT\n</think>\n\nA", "<think>T</think>A", "<think>T</think>\nA", "T</think>\n\n\nA"):
        told = shown(KEEPS, [QUESTION, {"role": "assistant", "content": content}, NEXT])
        assert content in told.replace("⟦", "").replace("⟧", "")
        assert told.count("⟦</think>⟧") == 1


@pytest.mark.parametrize("name", THINKING)
@pytest.mark.parametrize(
    ("last", "end"),
    [
        ({"content": "A so", "reasoning_content": "T"}, "⟦<think>⟧\nT\n⟦</think>⟧\n\nA so"),
        ({"content": QUOTED, "reasoning_content": QUOTED}, f"⟦<think>⟧\n{QUOTED}\n⟦</think>⟧\n\n{QUOTED}"),
        ({"content": "<think>\nT\n</think>\n\nA so"}, "⟦<think>⟧\nT\n⟦</think>⟧\n\nA so"),
        ({"content": "", "reasoning_content": "T so"}, "⟦<think>⟧\nT so"),
        ({"content": "<think>\nT so"}, "⟦<think>⟧\nT so"),
        ({"content": "A so"}, "A so"),
    ],
)
def test_a_message_is_continued_with_its_thought(name: str, last: dict[str, Any], end: str) -> None:
    if name == "chatml" and "reasoning_content" not in last:  # it knows no thoughts, so what is typed is text
        end = last["content"]
    message = {"role": "assistant", **last}
    options = {"continue_final_message": True, "add_generation_prompt": False}
    assert shown(THINKING[name], [QUESTION, message], **options).endswith(end)
    template = ChatTemplate(THINKING[name])
    prompt = build_chat_prompt(TOKENIZER, template, [QUESTION, message], continue_final_message=True)
    assert prompt.starts_in_thought == (end.endswith("T so") and "⟦" in end)
    template.close()


CONTROL_TEXTS = [text for text, _ in CONTROL_TOKENS]
PIECES = sorted(
    {text[:cut] for text in CONTROL_TEXTS for cut in range(1, len(text) + 1)} | {t[1:] for t in CONTROL_TEXTS}
)
TYPED = st.lists(st.one_of(st.sampled_from([*CONTROL_TEXTS, *PIECES, " ", "\n"]), st.text(max_size=3)), max_size=5).map(
    "".join
)


def control_ids(ids: list[int]) -> list[int]:
    return [id for id in ids if id in set(TOKENIZER.control.ids.values())]


@pytest.mark.parametrize("name", TEMPLATES)
@given(system=TYPED, user=TYPED, assistant=TYPED, last=TYPED, tool=TYPED)
@settings(max_examples=examples(60))
def test_typed_control_tokens_stay_text(
    templates: dict[str, ChatTemplate], name: str, system: str, user: str, assistant: str, last: str, tool: str
) -> None:
    def ids(texts: list[str], tool: str) -> list[int]:
        roles = ("system", "user", "assistant", "user")
        messages = [{"role": role, "content": text, "name": text} for role, text in zip(roles, texts, strict=True)]
        tools = [{"function": {"name": tool, "parameters": {tool + "_": [tool]}}}]
        return build_chat_prompt(TOKENIZER, templates[name], messages, tools=tools).token_ids

    # The thought of an assistant's turn is cut off by R1's template, and written with real tags by others.
    answer = assistant.replace("</think>", "")
    typed = ids([system, user, answer, last], tool)
    assert control_ids(typed) == control_ids(ids(["x", "x", "x", "x"], "x"))
    text = b"".join(map(TOKENIZER.id_to_bytes, typed)).decode()
    shown = (text, system, user, answer, last) if name == "tools" else (text, user, last)
    assert all(part.strip() in shown[0] for part in shown[1:])


SEAM = "{% for m in messages %}<|im_{{ m.content }}|>{{ m.content | trim }}{% endfor %}"


@pytest.mark.parametrize("content", ["end", " end", "end|><|im_end|>", "start|>\n<|im_start", "start"])
def test_no_control_token_grows_across_a_seam(content: str) -> None:
    template = ChatTemplate(SEAM)
    try:
        prompt = build_chat_prompt(TOKENIZER, template, [{"role": "user", "content": content}])
    finally:
        template.close()
    assert control_ids(prompt.token_ids) == []
    assert b"".join(map(TOKENIZER.id_to_bytes, prompt.token_ids)).decode() == f"<|im_{content}|>{content.strip()}"


def test_a_sentinel_in_the_text_is_text(templates: dict[str, ChatTemplate]) -> None:
    content = "".join(NONCHARACTERS[:-5]) + "<｜User｜>"
    ids = build_chat_prompt(TOKENIZER, templates["r1"], [{"role": "user", "content": content}]).token_ids
    assert content.encode() in b"".join(map(TOKENIZER.id_to_bytes, ids))
    with pytest.raises(InvalidRequest, match="noncharacters"):
        build_chat_prompt(TOKENIZER, templates["r1"], [{"role": "user", "content": "".join(NONCHARACTERS)}])


def test_r1_begins_inside_the_thought_with_one_bos(tmp_path: Path) -> None:
    model = TextModel.from_checkpoint(open_checkpoint(write_gguf(tmp_path / "m.gguf", metadata())))
    try:
        assert model.thinks
        prompt = model.chat_prompt([{"role": "user", "content": "hi"}])
        assert prompt.starts_in_thought
        assert model.tokenizer.add_bos
        assert prompt.token_ids.count(model.tokenizer.bos_token_id) == 1
        assert prompt.token_ids[0] == model.tokenizer.bos_token_id
        assert not model.chat_prompt([{"role": "user", "content": "hi"}], add_generation_prompt=False).starts_in_thought
        assert (
            model.encode_prompt("hi")
            == model.encode_prompt(BOS + "hi")
            == [prompt.token_ids[0], *TOKENIZER.encode("hi")]
        )
    finally:
        model.close()


def test_the_demo_models_prompt(demo_model: Path) -> None:
    model = TextModel.from_checkpoint(open_checkpoint(demo_model))
    try:
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        source = open_checkpoint(demo_model).chat_template
        assert source is not None
        prompt = model.chat_prompt(messages)
        assert prompt.token_ids == model.tokenizer.encode_with_control(plainly_rendered(source, messages))
        assert not prompt.starts_in_thought
        assert not model.thinks
    finally:
        model.close()


def test_a_model_without_template_cannot_chat(tmp_path: Path) -> None:
    model = TextModel.from_checkpoint(open_checkpoint(write_gguf(tmp_path / "m.gguf", metadata(template=""))))
    with pytest.raises(InvalidRequest, match="no chat template"):
        model.chat_prompt([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("source", ["{% for %}", "{% frobnicate %}", "x" * (MAX_SOURCE + 1)])
def test_a_template_that_cannot_be_used_leaves_completions_alone(tmp_path: Path, source: str) -> None:
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", metadata(template=source)))
    model = TextModel.from_checkpoint(checkpoint)
    try:
        with pytest.raises(
            InvalidRequest, match=r"cannot chat: the chat template .*Send its prompt to /v1/completions"
        ):
            model.chat_prompt([{"role": "user", "content": "hi"}])
        assert model.encode_prompt("hi")
        (finding,) = [each for each in lint(model, {"temperature": 0.6}) if "template" in each.wrong]
        assert finding.wrong == model.template_fault
        assert "/v1/completions works" in finding.done
    finally:
        model.close()


def test_a_template_whose_process_cannot_be_started_is_not_blamed_on_the_sender(monkeypatch) -> None:
    template = ChatTemplate("ok")
    template.close()

    def refuse(*_: object) -> None:
        raise OSError("no processes left")

    monkeypatch.setattr("antiphon.text.template.HelperProcess", refuse)
    with pytest.raises(NotReady, match="could not be started"):
        template.render([])
    monkeypatch.undo()
    assert template.render([]) == "ok"
    template.close()


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "boss", "content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content"),
        ([{"role": "user", "content": "ok"}, {"role": "user", "content": "\ud800"}], "messages[1].content"),
        ([{"role": "user", "content": "ok", "name": "\udc00"}], "messages[0].name"),
    ],
)
def test_unsound_messages_are_named(
    templates: dict[str, ChatTemplate], messages: list[dict[str, Any]], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build_chat_prompt(TOKENIZER, templates["r1"], messages)
    assert caught.value.param == param


def rendered(source: str, **variables: Any) -> str:
    template = ChatTemplate(source)
    try:
        return template.render([], **variables)
    finally:
        template.close()


def test_the_tag_that_marks_what_the_model_writes_shows_it() -> None:
    source = (
        "{% for m in ['a', 'b'] %}<{% generation %}\n{{ m }}{% set m = 'c' %}{% endgeneration %}{{ m }}>{% endfor %}"
    )
    assert rendered(source) == "<aa><bb>"
    with pytest.raises(CheckpointError, match="endgeneration"):
        rendered("{% generation %}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", '{"b": "é<", "a": [1]}'),
        ("(indent=1)", '{\n "b": "é<",\n "a": [\n  1\n ]\n}'),
        ("(True)", '{"b": "\\u00e9<", "a": [1]}'),
        ("(ensure_ascii=true)", '{"b": "\\u00e9<", "a": [1]}'),
        ("(separators=(',', ':'))", '{"b":"é<","a":[1]}'),
        ("(sort_keys=true)", '{"a": [1], "b": "é<"}'),
        ("(sort_keys=true, indent=none, separators=[',', ':'])", '{"a":[1],"b":"é<"}'),
    ],
)
def test_tojson_has_the_arguments_that_transformers_gives_it(arguments: str, expected: str) -> None:
    assert rendered("{{ value | tojson" + arguments + " }}", value={"b": "é<", "a": [1]}) == expected


def test_marks_are_taken_out_of_escaped_text_too() -> None:
    message = {"role": "user", "content": "<|im_end|> é 😀 \ufddf"}
    told = shown("{% for m in messages %}{{ m.content | tojson(ensure_ascii=true) }}{% endfor %}", [message])
    assert told == '"<|im_end|> \\u00e9 \\ud83d\\ude00 \ufddf"'


def test_a_template_may_refuse_messages() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidRequest, match="refuses these messages: roles must alternate"):
        template.render([])
    template.close()


def test_the_date_and_loop_controls_are_there() -> None:
    template = ChatTemplate(
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ strftime_now('%Y') }}{% endfor %}"
    )
    assert template.render([]) == time.strftime("%Y") * 2
    template.close()


@pytest.mark.parametrize("source", ["{% for %}", "{{ 'x' ", "x" * (MAX_SOURCE + 1), "{{ " + "(" * 5000 + " }}"])
def test_what_is_no_template_is_refused_at_start(source: str) -> None:
    with pytest.raises(CheckpointError, match="chat template"):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ 10 ** (10 ** (10 * messages | length)) }}",
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ '%2000000000d' % 1 }}",
        "{{ 'x' | center(10**10) }}",
        "{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{{ range(10**9) | list }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
    ],
)
def test_a_template_that_runs_away_is_stopped(source: str) -> None:
    template = ChatTemplate(source, time_limit=0.3)
    with pytest.raises(InvalidRequest) as caught:
        template.render([{"role": "user", "content": "x"}])
    assert caught.value.param == "messages"
    template.close()


def test_rendering_goes_on_after_one_was_stopped() -> None:
    source = "{% for m in messages %}{% for i in range(99999) %}{{ 'x' * m.n }}{% endfor %}{% endfor %}ok"
    template = ChatTemplate(source, time_limit=0.2)
    with pytest.raises(InvalidRequest, match="was stopped"):
        template.render([{"n": 0}] * 1000)
    assert template.render([]) == "ok"
    template.close()


def test_rendering_goes_on_after_the_worker_was_killed_from_outside() -> None:
    template = ChatTemplate("ok")
    template._worker._process.kill()
    template._worker._process.wait()
    assert template.render([]) == "ok"
    template.close()
    assert template.render([]) == "ok"
    template.close()


def test_the_worker_ends_with_its_parent() -> None:
    """Nothing is left when the front is killed, as the end of the pipe is all it takes."""
    template = ChatTemplate("ok")
    process = template._worker._process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    template.close()


def test_a_long_text_is_marked_part_by_part_as_if_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.text.marking._PART", 3)
    marker = Marker("\ufdd0", Tokenizer(tiny_data()).control)
    text = "a<b<|im_start|></think><" * 5
    marked = marker.mark_text(text)
    assert marker.unmark(marked) == text
    monkeypatch.undo()
    assert marker.mark_text(text) == marked


def worker_pid(template: ChatTemplate) -> int:
    return template._worker._process.pid


@pytest.mark.parametrize("length", [10, 2 << 20], ids=["short", "longer than a pipe"])
def test_a_stopped_worker_is_replaced(length: int) -> None:
    """It neither answers nor reads, and would keep every conversation waiting."""
    template = ChatTemplate("{{ messages[0].content }}")
    stopped = worker_pid(template)
    os.kill(stopped, signal.SIGSTOP)
    assert template.render([{"content": "x" * length}]) == "x" * length
    assert worker_pid(template) != stopped
    assert is_gone(stopped)
    template.close()


def test_a_worker_that_is_killed_while_it_renders_is_replaced_and_the_sender_is_not_blamed() -> None:
    template = ChatTemplate(
        "{% for i in range(messages | length) %}{% for j in range(9999) %}{% endfor %}{% endfor %}ok", time_limit=60.0
    )
    first = worker_pid(template)
    killer = threading.Timer(0.1, os.kill, (first, signal.SIGKILL))
    killer.start()
    assert template.render([{}] * 500) == "ok"
    killer.join()
    assert template.render([]) == "ok"
    assert worker_pid(template) != first
    template.close()


def test_a_worker_that_is_always_killed_is_no_fault_of_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("ok")
    start = template._start

    def start_and_stop() -> HelperProcess:
        worker = start()
        os.kill(worker._process.pid, signal.SIGSTOP)
        return worker

    monkeypatch.setattr(template, "_start", start_and_stop)
    os.kill(worker_pid(template), signal.SIGSTOP)
    with pytest.raises(NotReady, match="killed or stopped twice"):
        template.render([])
    template.close()
