"""Small files that the kernel writes for people: read without ever raising, and lists of numbers in its notation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

NODES = "sys/devices/system/node"  # a folder for each NUMA node: node0, node1 …


def read(path: Path) -> str:
    """The file's text; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def number_list(text: str) -> frozenset[int]:
    """A list like "0-3,8"; parts that are none are left out."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def sizes(path: Path) -> Mapping[str, int]:
    """Lines like "MemFree:  123 kB", also with "Node 0 " in front, as name → bytes."""
    found = {}
    for line in read(path).splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name.split()[-1]] = int(words[0]) * 1024
    return found
