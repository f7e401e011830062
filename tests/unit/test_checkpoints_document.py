"""docs/checkpoints.md has a row for every format that is tried, and what tries them works."""

from __future__ import annotations

import re

import pytest
from checkpoint_formats import ARCHITECTURES, FORMATS, LLAMA_CPP, Format
from checkpoints import DOCUMENT, EVERY_FORMAT, SMOLLM2, tiny_error

PERCENT, NUMBER = re.compile(r"\d+\.\d\d%"), re.compile(r"\d[\d.]*( MB| s)?")


def rows_of(name: str) -> list[list[str]]:
    """The cells of the table that is written under a name, its header first."""
    text = DOCUMENT.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")[1].split("<!-- end -->")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line] for line in lines]


def test_every_format_has_a_row_for_every_architecture() -> None:
    header, *rows = rows_of(EVERY_FORMAT)
    assert header[1:] == list(ARCHITECTURES)
    assert [row[0] for row in rows] == [form.name for form in FORMATS]
    assert all(PERCENT.fullmatch(cell) for row in rows for cell in row[1:])
    assert all(float(cell.rstrip("%")) < 4 for row in rows for cell in row[1:] if "4 bits" not in row[0])


def test_smollm2_has_a_row_for_every_format_that_can_be_written() -> None:
    header, demo, *rows = rows_of(SMOLLM2)
    assert "the demo model" in demo[0]
    assert [row[0] for row in rows] == [form.name for form in (*FORMATS, *LLAMA_CPP) if form.on_smollm2]
    for row in (demo, *rows):
        assert len(row) == len(header)
        assert row[3] in ("W4", "W8", "W4+W8")
        assert all(NUMBER.fullmatch(cell) for cell in (*row[1:3], *row[4:]))


@pytest.mark.parametrize("form", FORMATS[::6], ids=lambda form: form.name)
def test_a_row_is_what_a_model_in_that_format_does(form: Format) -> None:
    assert tiny_error(form, "Qwen2") < (0.3 if form.quantization == "w4" else 0.04)
