"""Divides the machine's cores among engines.

Each engine gets a *seat*: cores of one NUMA node, and a number of threads. Engines on the same node get different cores
as long as there are enough. A single engine gets none: it chooses a node when it starts (`choose_threads`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from antiphon.machine.processors import Node, Processors

THREADS_BESIDE_GPU = 2  # of the process of an engine on a GPU, where engines on the CPU have all cores


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one engine computes."""

    cpus: tuple[int, ...] = ()  # logical CPUs; none: it chooses by itself
    threads: int = 0  # 0: it chooses by itself


def default_engines(processors: Processors, threads: int = 0) -> int:
    """One engine for each NUMA node, if the CPU quota has room for all of them; `threads` as in `divide`.

    If each engine is to have more threads than a node has cores, it needs several nodes, so there is only one engine.
    """
    nodes, quota = processors.nodes, processors.quota
    if threads > min(node.num_cores for node in nodes):
        return 1
    if quota is not None and quota.cpus < processors.num_cores:
        return 1
    return len(nodes)


def divide(processors: Processors, num_engines: int, threads: int = 0) -> tuple[Seat, ...]:
    """A seat for each engine; `threads`: of each engine, or 0 for one on each of its cores."""
    if num_engines <= 1:
        return (Seat((), threads),)
    on_node = _engines_on_nodes(processors.nodes, num_engines)
    most = int(processors.quota.cpus / num_engines) if processors.quota else processors.num_cores
    seats = []
    for node, count in zip(processors.nodes, on_node, strict=True):
        for part in _parts(node.cores, count):
            wanted = threads or max(1, min(len(part), most))
            # More threads than the part has cores would share them while others are idle.
            cpus = node.cpus if wanted > len(part) else frozenset[int]().union(*part)
            seats.append(Seat(tuple(sorted(cpus)), wanted))
    return tuple(seats)


def _engines_on_nodes(nodes: Sequence[Node], num_engines: int) -> list[int]:
    """How many engines each node gets: one after the other goes where it leaves the most cores for each."""
    counts = [0] * len(nodes)
    for _ in range(num_engines):
        at = max(range(len(nodes)), key=lambda index: (nodes[index].num_cores / (counts[index] + 1), -index))
        counts[at] += 1
    return counts


def _parts(cores: Sequence[frozenset[int]], count: int) -> list[Sequence[frozenset[int]]]:
    """The cores in so many parts of almost equal size; if there are too few, parts share a core."""
    if count > len(cores):
        return [[cores[index % len(cores)]] for index in range(count)]
    edges = [index * len(cores) // count for index in range(count + 1)]
    return [cores[begin:end] for begin, end in pairwise(edges)]
