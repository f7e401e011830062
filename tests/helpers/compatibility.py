"""The table in docs/api.md that says of each of OpenAI's fields what becomes of it here; `make tables` writes it anew.

The fields are those of the installed `openai` client, what becomes of them is read off our schemas, so that neither
side can change without the test that compares telling of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsStreaming as CompletionParams

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.completions.request import CompletionRequest
from antiphon.api.fields import is_ignored, is_refused
from antiphon.api.generation_request import GenerationRequest

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
BEGIN, END = "<!-- The table is written by `make tables`. -->\n", "<!-- The end of the table. -->\n"
SIDES: dict[type[GenerationRequest], frozenset[str]] = {
    ChatCompletionRequest: frozenset(ChatParams.__annotations__),
    CompletionRequest: frozenset(CompletionParams.__annotations__),
}


def verdict(schema: type[GenerationRequest], name: str) -> str:
    """What becomes of a field."""
    field = schema.model_fields.get(name)
    if field is None:
        return "refused: `unknown_parameter`"
    if is_refused(field):
        harmless = (field.description or "").removeprefix("Refused").strip(" .")
        return f"refused: `unsupported_parameter`, {harmless}"
    return "accepted, without effect" if is_ignored(field) else "supported"


def table() -> str:
    """The table itself."""
    names = sorted(frozenset().union(*SIDES.values()))
    rows = [
        [f"`{name}`", *(verdict(schema, name) if name in its else "" for schema, its in SIDES.items())]
        for name in names
    ]
    lines: list[list[Any]] = [["field", "chat", "completions"], ["---"] * 3, *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_table(text: str) -> str:
    """The document with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + table() + "\n" + END + after


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
