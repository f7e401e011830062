"""Readers for small text files of the kernel, and for its notation of number lists. Nothing here raises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

NODES = "sys/devices/system/node"  # a folder for each NUMA node: node0, node1 …


def read(path: Path) -> str:
    """The file's text; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def number_list(text: str) -> frozenset[int]:
    """The numbers in a list like "0-3,8"; other parts are ignored."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def sizes(path: Path) -> Mapping[str, int]:
    """Name → bytes, from lines like "MemFree:  123 kB", with or without "Node 0 " in front."""
    found = {}
    for line in read(path).splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name.split()[-1]] = int(words[0]) * 1024
    return found
