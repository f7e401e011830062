"""What a kernel's machine code says of its speed: registers, shared memory and the instructions of its loop."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it turns Triton's interpreter off, so it is imported where something is compiled
    from compile import Launch


@dataclass(frozen=True)
class Loop:
    """The loop with the tensor instructions, of one warp and turn; all zero where there is none."""

    instructions: int = 0
    tensor: int = 0
    loads: int = 0  # from global memory, used in the turn that issues them
    copies: int = 0  # to shared memory, ahead of their use


@dataclass(frozen=True)
class Code:
    """A compiled kernel."""

    registers: int
    shared: int
    loop: Loop


@cache
def code_of(launch: Launch, target: str) -> Code:
    from compile import build

    compiled = build(launch, target)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        sass = _printed("nvdisasm", "-c", file.name)
        usage = _printed("cuobjdump", "-res-usage", file.name)
    found = re.search(r"REG:(\d+)", usage)
    assert found, usage
    return Code(int(found[1]), compiled.metadata.shared, main_loop(sass))


def _printed(tool: str, *arguments: str) -> str:
    from compile import _TOOLS

    return subprocess.run([_TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def main_loop(sass: str) -> Loop:
    """The innermost loop with tensor instructions, in the text of nvdisasm."""
    labels: dict[str, int] = {}
    instructions: list[str] = []
    loops: list[list[str]] = []
    for line in sass.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?\s*([A-Z][A-Z0-9_.]*)(.*)", line):
            instructions.append(found[1])
            to = re.search(r"\.L_x_\d+", found[2])
            if found[1].startswith("BRA") and to and to[0] in labels:  # a label that was seen: backwards
                loops.append(instructions[labels[to[0]] :])
    with_products = [body for body in loops if _count(body, "IMMA", "IGMMA")]
    if not with_products:
        return Loop()
    body = min(with_products, key=len)
    return Loop(len(body), _count(body, "IMMA", "IGMMA"), _count(body, "LDG."), _count(body, "LDGSTS", "UTMALDG"))


def _count(body: Sequence[str], *names: str) -> int:
    return sum(instruction.startswith(names) for instruction in body)
