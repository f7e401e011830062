"""A model of a step: its parallel loops, their tasks, and what they cost on a machine with any number of cores.

It counts the same loops and tasks as the native program (native/work_split.h, native/program*.cpp); a test compares
the two. A loop takes as long as its busiest thread needs for its products, or as long as memory needs for its bytes,
and then the hand-over to the next loop. `scaling.py` measures what the model needs of a machine, and shows predicted
beside measured times.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

PANEL = 32  # output channels, as in native/kernels.h
ROW_CHUNK = 64
ATTENTION_TILE = 8  # query tokens
BLOCK = 32  # positions of a KV block
SEGMENT = 256  # positions
HALF_COST = PART_COST = 0.05  # as in native/work_split.cpp
LEAST_PART_ROWS = 16
CORRECTED_PANELS = 64  # of the head
ATTENTION_TASKS = 4  # for each thread: with fewer, sequences are cut into parts
ATTENTION_PARTS = 16  # for each thread, then
PARTS = ("linear", "attention", "head", "sampling", "rest")


@dataclass(frozen=True)
class Sizes:
    """A model's sizes. Activations have one plane. `*_bytes`: all layers' matrices; the head; the KV of one token."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    layer_bytes: float
    head_bytes: float
    kv_bytes: int

    @property
    def qkv(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim


@dataclass(frozen=True)
class Step:
    """`users` sequences that compute `tokens` tokens each after `context` others, and draw one."""

    users: int
    context: int
    tokens: int = 1

    @property
    def rows(self) -> int:
        return self.users * self.tokens


@dataclass(frozen=True)
class Loop:
    """A parallel loop. `weights`: the relative work of its tasks, in order; `rows`: of its products, for `Machine`."""

    part: str
    name: str
    weights: tuple[float, ...]
    bytes: float = 0.0
    products: float = 0.0
    rows: int = 0
    tiles: int = 0  # of attention: query tokens of a sequence that share a walk over K and V

    def busiest(self, threads: int) -> float:
        """The share of the loop that the busiest thread computes, 1 / threads at best."""
        return _busiest(self.weights, threads)

    def idle(self, threads: int) -> float:
        """The share of the threads' time, while the loop runs, in which a thread has no task."""
        return 1 - 1 / (threads * self.busiest(threads))


@cache
def _busiest(weights: tuple[float, ...], threads: int) -> float:
    if len(set(weights)) == 1:
        return -(-len(weights) // threads) / len(weights)
    ends = [0.0] * threads  # tasks are taken one by one
    for weight in weights:
        heapq.heapreplace(ends, ends[0] + weight)
    return max(ends) / sum(weights)


def split_panels(panels: int, tokens: int, planes: int, may_halve: bool, threads: int) -> tuple[int, int]:
    """Halves of a panel and parts of the tokens, as native/work_split.cpp chooses them."""

    def cost(halves: int, parts: int) -> float:
        tasks = panels * halves * parts
        more = 1.0 + (HALF_COST if halves > 1 else 0.0) + (PART_COST if parts > 1 else 0.0)
        return more * -(-tasks // threads) / tasks

    best, parts = (1, 1), 1
    if threads == 1:
        return best
    while parts == 1 or tokens * planes // parts >= LEAST_PART_ROWS:
        for halves in (1, 2) if may_halve else (1,):
            if cost(halves, parts) < cost(*best):
                best = halves, parts
        if panels * parts >= 16 * threads:
            break
        parts *= 2
    return best


def tasks_of_items(items: int, most: int, threads: int, tasks_per_thread: int) -> int:
    per_task = min(max(items // (threads * tasks_per_thread), 1), most)
    return -(-items // per_task)


def _even(count: int) -> tuple[float, ...]:
    return (1.0,) * count


def row_tasks(rows: int, threads: int) -> int:
    """Tasks of a loop over rows."""
    return 1 if rows <= 4 else tasks_of_items(rows, 4, threads, 1)


def attention_tasks(step: Step, kv_heads: int, threads: int) -> tuple[float, ...]:
    """Segments of each task of attention."""
    tiles = [
        (step.context + min(step.tokens, begin + ATTENTION_TILE) - 1) // SEGMENT + 1
        for _ in range(step.users)
        for begin in range(0, step.tokens, ATTENTION_TILE)
    ]
    wanted, segments = ATTENTION_TASKS * threads, kv_heads * sum(tiles)
    is_few = threads > 1 and len(tiles) * kv_heads < wanted
    part = -(-segments // (ATTENTION_PARTS * threads)) if is_few else segments
    tasks: list[float] = []
    for count in tiles:
        parts = -(-count // part) if count > part else 1
        tasks += [count * (i + 1) // parts - count * i // parts for i in range(parts)] * kv_heads
    return tuple(tasks)


def _product(name: str, sizes: Sizes, columns: int, outputs: int, step: Step, threads: int) -> Loop:
    """A matrix product of the layers."""
    is_pair = name == "gate_up"
    panels = -(-outputs // PANEL) // (2 if is_pair else 1)
    halves, parts = split_panels(panels, step.rows, 1, not is_pair, threads)
    weights = sizes.hidden * (sizes.qkv + sizes.heads * sizes.head_dim + 3 * sizes.intermediate) * sizes.layers
    share = columns * outputs / weights
    return Loop(
        "linear",
        name,
        _even(panels * halves * parts),
        share * sizes.layer_bytes,
        step.rows * columns * outputs,
        step.rows,
    )


def _layer(sizes: Sizes, step: Step, threads: int) -> Iterator[Loop]:
    hidden, attended = sizes.hidden, sizes.heads * sizes.head_dim
    rows = _even(row_tasks(step.rows, threads))
    tiles = [min(step.tokens, begin + ATTENTION_TILE) for begin in range(0, step.tokens, ATTENTION_TILE)]
    walked = [-(-(step.context + end) // BLOCK) * BLOCK for end in tiles]  # whole blocks of positions
    heights = [min(ATTENTION_TILE, step.tokens - begin) for begin in range(0, step.tokens, ATTENTION_TILE)]
    seen = step.users * sum(height * positions for height, positions in zip(heights, walked, strict=True))
    kv = step.users * step.context * sizes.kv_bytes / sizes.layers
    yield Loop("rest", "norm", rows, rows=step.rows)
    yield _product("qkv", sizes, hidden, sizes.qkv, step, threads)
    yield Loop("attention", "rope", rows, rows=step.rows)
    tasks = attention_tasks(step, sizes.kv_heads, threads)
    num_tiles = step.users * len(tiles) * sizes.kv_heads
    yield Loop("attention", "attention", tasks, kv, 2.0 * attended * seen, step.rows, num_tiles)
    yield _product("o", sizes, attended, hidden, step, threads)
    yield Loop("rest", "norm", rows, rows=step.rows)
    yield _product("gate_up", sizes, hidden, 2 * sizes.intermediate, step, threads)
    yield _product("down", sizes, sizes.intermediate, hidden, step, threads)


def _head(sizes: Sizes, step: Step, threads: int) -> Iterator[Loop]:
    panels, users = -(-sizes.vocabulary // PANEL), step.users
    corrected = min(CORRECTED_PANELS, panels)
    products = float(users * sizes.hidden)
    yield Loop(
        "head",
        "head",
        _even(tasks_of_items(panels, 16, threads, 16)),
        sizes.head_bytes,
        products * sizes.vocabulary,
        users,
    )
    yield Loop("head", "choose", _even(users), rows=users)
    tasks = tasks_of_items(users * corrected, 16, threads, 16)
    read = users * corrected * PANEL / sizes.vocabulary * sizes.head_bytes  # rows rarely choose the same panels
    yield Loop("head", "correct", _even(tasks), read, products * corrected * PANEL, 1)
    yield Loop("head", "summarize", _even(users), rows=users)


@cache
def loops(sizes: Sizes, step: Step, threads: int) -> tuple[Loop, ...]:
    """All parallel loops of a step, in order."""
    return tuple(_loops(sizes, step, threads))


def _loops(sizes: Sizes, step: Step, threads: int) -> Iterator[Loop]:
    yield Loop("rest", "embed", _even(row_tasks(step.rows, threads)), rows=step.rows)
    yield from list(_layer(sizes, step, threads)) * sizes.layers
    drawn = _even(row_tasks(step.users, threads))
    yield Loop("rest", "select", drawn, rows=step.users)
    yield Loop("rest", "norm", drawn, rows=step.users)
    yield from _head(sizes, step, threads)
    yield Loop("sampling", "sample", _even(step.users), rows=step.users)


@dataclass(frozen=True)
class Machine:
    """What the model needs of a machine, of which `scaling.py` measures or fits every number.

    `bytes` and `products` per second are those of one thread; `most_bytes` is what all threads together can read.
    `memory_share` is what products of one row reach of the rate of memory, `product_share` what products of many rows
    reach of the peak. `attention_products` is attention's rate in one thread, softmax included. The seconds are one
    thread's for a row of a small loop and of the rotary loop, for what a tile of attention costs beside its products,
    and for the hand-over from one loop to the next.
    """

    bytes: float
    products: float
    most_bytes: float
    loop_seconds: float = 0.0
    memory_share: float = 1.0
    product_share: float = 1.0
    attention_products: float = math.inf
    row_seconds: float = 0.0
    rope_seconds: float = 0.0
    tile_seconds: float = 0.0

    def seconds(self, loop: Loop, threads: int) -> float:
        """The time of a loop and of the hand-over after it."""
        busiest = loop.busiest(threads)
        rate = self.attention_products if loop.name == "attention" else self.products * self.product_share
        compute = (loop.products / rate + loop.tiles * self.tile_seconds) * busiest
        if loop.products == 0.0:
            compute = (self.rope_seconds if loop.name == "rope" else self.row_seconds) * loop.rows * busiest
        read = loop.bytes / self.memory_share
        memory = max(read * busiest / self.bytes, read / self.most_bytes)
        is_shared = threads > 1 and len(loop.weights) > 1
        # Products and reads overlap, but not all of the time where both take long.
        return math.hypot(memory, compute) + (self.loop_seconds if is_shared else 0.0)

    def step(self, sizes: Sizes, step: Step, threads: int) -> dict[str, float]:
        """Seconds of each part of a step."""
        parts = dict.fromkeys(PARTS, 0.0)
        for loop in loops(sizes, step, threads):
            parts[loop.part] += self.seconds(loop, threads)
        return parts


def loop_table(sizes: Sizes, step: Step, threads: list[int]) -> str:
    """Tasks of each loop and the share of idle threads, in Markdown."""
    named = {n: {loop.name: loop for loop in loops(sizes, step, n)} for n in threads}  # layers are alike
    lines = ["| loop | " + " | ".join(f"{n} threads" for n in threads) + " |", "|---|" + "---|" * len(threads)]
    for name in named[threads[0]]:
        cells = [f"{len(named[n][name].weights)} tasks, {named[n][name].idle(n):.0%} idle" for n in threads]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def counted(sizes: Sizes, step: Step, threads: int) -> list[tuple[str, int]]:
    """The loops as `_native.Program.last_loops` gives them."""
    return [(loop.part, len(loop.weights)) for loop in loops(sizes, step, threads)]
