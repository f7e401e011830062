"""What looks wrong in a model's tokenizer, template or sampling defaults. Checked once at start, and by the doctor.

Models get blamed for answers that a bad template or temperature spoiled: a second BOS, a missing generation prompt.
Each finding says what is done about it; only what is safe to repair is repaired. Most also say why it matters and how
to fix it, for `antiphon doctor`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from antiphon.errors import InvalidRequest, printable
from antiphon.text.model import TextModel
from antiphon.text.prompt import THINK_OPEN
from antiphon.text.template import ChatTemplate

# What DeepSeek recommends for R1 and its distillations: outside this range they repeat themselves or ramble.
R1_COLDEST, R1_HOTTEST = 0.5, 0.7
R1_SAMPLING = {"temperature": 0.6, "top_p": 0.95}
_R1_TURN = "<｜Assistant｜>"

Advice = Mapping[str, float | int]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that looks wrong."""

    wrong: str
    done: str
    why: str = ""  # it matters
    fix: str = ""  # a command, or what to change

    def __str__(self) -> str:
        return f"{self.wrong}; {self.done}"


def lint(text: TextModel, advice: Advice) -> list[Finding]:
    """All that looks wrong in a model's text side and in the sampling that its checkpoint recommends."""
    return [*_tokenizer_findings(text), *_template_findings(text), *_sampling_findings(text, advice)]


def completed_advice(text: TextModel, advice: Advice) -> Advice:
    """The checkpoint's advice; for R1, the publisher's if the file lost it, as GGUF files often do."""
    return R1_SAMPLING | dict(advice) if is_r1(text) and "temperature" not in advice else advice


def is_r1(text: TextModel) -> bool:
    """Whether this is R1 or one of its distillations, judged by its template."""
    return text.thinks and text.template is not None and _R1_TURN in text.template.source


def _tokenizer_findings(text: TextModel) -> Iterator[Finding]:
    if not text.tokenizer.eos_token_ids:
        yield Finding(
            "the checkpoint names no end-of-sequence token",
            "answers go on until max_tokens or a stop string",
            why="No answer ends by itself, and no answer can follow a grammar.",
            fix="gguf-new-metadata --special-token eos TOKEN IN OUT  # of a folder: eos_token_id in config.json",
        )
    if text.tokenizer.beyond:
        names = printable(", ".join(sorted(text.tokenizer.beyond)[:3]))
        yield Finding(
            f"the tokenizer has tokens that the model has no row for ({names[:80]})",
            "they are read as plain text",
            why="A template or a client that uses them as control tokens has no effect.",
            fix="antiphon pull MODEL  # from another upload, whose tokenizer fits its weights",
        )


def _template_findings(text: TextModel) -> Iterator[Finding]:
    if text.template is None:
        wrong = text.template_fault or "the checkpoint has no chat template"
        yield Finding(
            wrong,
            "chat is refused, /v1/completions works",
            why="Requests to /v1/chat/completions and the like get an error.",
            fix=_OTHER_TEMPLATE,
        )
        return
    question = [{"role": "user", "content": "Hello"}]
    try:
        prompt = text.template.render(question, add_generation_prompt=True)
        bare = text.template.render(question, add_generation_prompt=False)
    except InvalidRequest as error:
        yield Finding(
            f"a plain question does not go through: {error.message}",
            "such conversations are refused",
            why="The simplest chat request fails, so no client works.",
            fix=_OTHER_TEMPLATE,
        )
        return
    yield from _bos_findings(text, prompt)
    yield from _turn_findings(text, text.template)
    if prompt == bare:
        yield Finding(
            "the chat template has no generation prompt, so the model does not know that it is its turn",
            _AS_IS,
            why="The model may continue the user's message instead of answering it.",
            fix=_OTHER_TEMPLATE,
        )
    elif is_r1(text) and not prompt.rstrip().endswith(THINK_OPEN):
        yield Finding(
            f"the chat template does not open the thought with {THINK_OPEN}, without which R1 may skip it",
            _AS_IS,
            why="Answers without a thought are worse, and the thought may be missing in some answers only.",
            fix=_OTHER_TEMPLATE,
        )


_AS_IS = "it is used as it is"
_OTHER_TEMPLATE = (
    "gguf-new-metadata --chat-template-file chat_template.jinja IN OUT  # the publisher's; of a folder: edit "
    "chat_template.jinja"
)


def _bos_findings(text: TextModel, prompt: str) -> Iterator[Finding]:
    tokenizer = text.tokenizer
    bos = (
        "" if tokenizer.bos_token_id is None else tokenizer.id_to_bytes(tokenizer.bos_token_id).decode(errors="replace")
    )
    if bos and prompt.startswith(bos + bos):
        yield Finding(
            f"the chat template writes {bos} twice",
            _AS_IS,
            why="Models were trained with one. Answers get worse with two.",
            fix=_OTHER_TEMPLATE,
        )
    elif bos and prompt.startswith(bos) and tokenizer.add_bos:
        yield Finding(
            f"the chat template and the tokenizer both put {bos} first",
            "one is kept",
            why="Other servers may keep both, so they may answer differently.",
            fix="none is needed here; other servers: tokenizer.ggml.add_bos_token = false",
        )


def _turn_findings(text: TextModel, template: ChatTemplate) -> Iterator[Finding]:
    """Whether what the template puts after an answer is something at which generation ends."""
    turns = [("user", "Hello"), ("assistant", _ANSWER), ("user", _NEXT)]
    try:
        prompt = template.render([{"role": role, "content": content} for role, content in turns])
    except InvalidRequest:
        return  # it takes no such conversation
    tokenizer = text.tokenizer
    _, found, after = prompt.rpartition(_ANSWER)
    pieces = list(tokenizer.control.split(after.partition(_NEXT)[0].strip()))
    if not found or not tokenizer.eos_token_ids or any(piece in tokenizer.eos_token_ids for piece in pieces):
        return
    end = pieces[0] if pieces else "nothing"
    name = tokenizer.id_to_bytes(end).decode(errors="replace") if isinstance(end, int) else end.strip()
    yield Finding(
        f"the chat template ends turns with {printable(name)[:80]}, which is not an end-of-sequence token of the model",
        "answers may run on; a stop string ends them",
        why="After its answer the model does not stop; often it invents the user's next turn.",
        fix="gguf-new-metadata --special-token eot TOKEN IN OUT  # of a folder: add it to eos_token_id in "
        "generation_config.json",
    )


_ANSWER, _NEXT = "Bonjour.", "Merci!"


def _sampling_findings(text: TextModel, advice: Advice) -> Iterator[Finding]:
    if not is_r1(text):
        return
    temperature = advice.get("temperature")
    if temperature is None:
        defaults = ", ".join(f"{name} {value}" for name, value in R1_SAMPLING.items())
        yield Finding(
            "the checkpoint advises no temperature",
            f"requests that name none get R1's: {defaults}",
            why="At OpenAI's default of 1, R1 rambles.",
            fix="none is needed here; clients of other servers: temperature 0.6, top_p 0.95",
        )
    elif not R1_COLDEST <= temperature <= R1_HOTTEST:
        yield Finding(
            f"the checkpoint advises temperature {temperature:g}, R1's publisher {R1_COLDEST:g} to {R1_HOTTEST:g}",
            "requests that name none get the checkpoint's",
            why="Colder, R1 repeats itself; hotter, it rambles.",
            fix='edit "temperature" in generation_config.json, or send temperature 0.6 in requests',
        )
