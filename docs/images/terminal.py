"""Draws docs/images/terminal.svg: a real server and a real conversation with it, as a terminal shows them.

    .venv/bin/python docs/images/terminal.py

What stands in the picture is what the commands print; long lines are folded.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE = Path(__file__).parent
ANTIPHON = [sys.executable, "-m", "antiphon"]
QUESTIONS = ("What is the capital of France?", "Name three primary colors.")
THEME = TerminalTheme(
    (24, 26, 31),
    (220, 223, 228),
    [(40, 44, 52), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194)],
    [(92, 99, 112), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194)],
)


def record() -> list[tuple[str, list[str]]]:
    """Commands and what they print."""
    server = subprocess.Popen(
        [*ANTIPHON, "serve", "demo", "--access-log", "off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line.rstrip())
            if "curl" in line:
                break
        answers = [
            subprocess.run([*ANTIPHON, "chat"], input=question, capture_output=True, text=True, check=True).stdout
            for question in QUESTIONS
        ]
    finally:
        server.terminate()
        server.wait()
    asked = [
        (f'echo "{question}" | antiphon chat', answer.strip().splitlines())
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]
    return [("antiphon serve demo &", [line for line in said if line.strip()]), *asked]


def draw(session: list[tuple[str, list[str]]]) -> str:
    """The session as SVG, without a font that a reader would have to load from elsewhere."""
    console = Console(record=True, width=100, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for command, lines in session:
        console.print(Text("$ ", "green bold") + Text(command, "bold"))
        for line in lines:
            console.print(Text(line), overflow="fold")
        console.print()
    svg = console.export_svg(title="antiphon", theme=THEME)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)


if __name__ == "__main__":
    (HERE / "terminal.svg").write_text(draw(record()), encoding="utf-8")
