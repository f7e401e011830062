"""Both READMEs say the same, and their speeds are those that were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
RESULTS = ROOT / "benchmarks" / "results" / "r1-zen4"
SERVERS = ("antiphon", "llama.cpp Q4_0", "vLLM W8A8")


def measured(result: str, users: int, rate: str, answer: int | None = None) -> list[float]:
    """Of the servers in the order of the table."""
    cases: list[dict[str, Any]] = json.loads((RESULTS / result).read_text())["cases"]
    found = {case["server"]: case for case in cases if case["users"] == users and answer in (None, case["answer"])}
    return [found[server][rate] for server in SERVERS]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_speeds_are_those_in_the_results(path: Path) -> None:
    found = re.search(r"(\| \| Antiphon \|.*\n\|---.*\n)((?:\|.*\n)+)", path.read_text())
    assert found
    head, table = found.groups()
    rows = [[float(cell) for cell in line.strip("| \n").split(" | ")[1:]] for line in table.splitlines()]
    assert head.count("|") == 2 * (len(SERVERS) + 2)
    expected = [
        *([f"{rate:.0f}" for rate in measured("side-by-side.json", users, "decode", 128)] for users in (1, 8, 32)),
        [f"{rate:.0f}" for rate in measured("side-by-side-long.json", 32, "decode")],
        [f"{size / 2**30:.1f}" for size in measured("side-by-side-long.json", 32, "memory_bytes")],
        [f"{rate:.0f}" for rate in measured("side-by-side.json", 1, "throughput", 1)],
    ]
    assert rows == [[float(cell) for cell in row] for row in expected]


def test_the_translation_has_the_same_sections_tables_and_code() -> None:
    english, chinese = (path.read_text() for path in READMES)
    assert len(re.findall("^##+ ", english, re.M)) == len(re.findall("^##+ ", chinese, re.M))
    assert re.findall(r"^    \S.*?(?=  #|$)", english, re.M) == re.findall(r"^    \S.*?(?=  #|$)", chinese, re.M)
    assert re.findall(r"```.*?```", english, re.S) == re.findall(r"```.*?```", chinese, re.S)
    assert table_shapes(english) == table_shapes(chinese)
    assert set(re.findall(r"\((docs/[^)#]*)", english)) == set(re.findall(r"\((docs/[^)#]*)", chinese))


def table_shapes(text: str) -> list[int]:
    """How many rows each table has."""
    return [block.count("\n") for block in re.findall(r"(?:^\|.*\n)+", text, re.M)]
