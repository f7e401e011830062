"""The model of a step counts the loops and tasks that the native program computes, whatever the number of threads."""

from __future__ import annotations

import pytest
from step_model import Loop, Machine, Sizes, Step, attention_tasks, counted, loops, split_panels
from tiny_models import SETTINGS, cpu_runner, scheduled, tiny_model

from antiphon.step import StepPlan

SIZES = Sizes(
    hidden=SETTINGS["hidden_size"],
    intermediate=SETTINGS["intermediate_size"],
    layers=SETTINGS["num_hidden_layers"],
    heads=SETTINGS["num_attention_heads"],
    kv_heads=SETTINGS["num_key_value_heads"],
    head_dim=SETTINGS["head_dim"],
    vocabulary=SETTINGS["vocab_size"],
    layer_bytes=1e6,
    head_bytes=1e5,
    kv_bytes=1000,
)
R1 = Sizes(1536, 8960, 28, 12, 2, 128, 151936, 0.74e9, 0.13e9, 14848)
EVEN = Machine(
    bytes=10e9,
    products=100e9,
    most_bytes=20e9,
    loop_seconds=2e-6,
    memory_share=0.8,
    product_share=0.7,
    attention_products=50e9,
    row_seconds=1e-9,
)


@pytest.mark.parametrize("threads", [1, 2, 7, 16])
def test_tasks_are_those_of_the_program(threads: int) -> None:
    runner = cpu_runner(tiny_model(), threads=threads)
    for step in (Step(1, 0), Step(1, 70), Step(4, 0), Step(7, 3), Step(1, 0, 40), Step(2, 0, 33)):
        blocks = -(-(step.context + step.tokens) // 32)
        sequences = [
            scheduled([1] * step.tokens, list(range(user * blocks, (user + 1) * blocks)), start=step.context, id=user)
            for user in range(step.users)
        ]
        runner.execute(StepPlan(sequences))
        assert runner.last_loops() == counted(SIZES, step, threads), step


def test_panels_stay_whole_while_there_are_enough_of_them() -> None:
    assert split_panels(48, 1, 1, True, 1) == (1, 1)
    assert split_panels(48, 32, 1, True, 2) == (1, 1)
    assert split_panels(48, 1, 1, True, 32) == (2, 1)  # 3 halves instead of 2 panels
    assert split_panels(48, 32, 1, True, 64) == (2, 2)  # 3 quarters instead of 1 panel
    assert split_panels(48, 8, 1, True, 64) == (1, 1)  # halves would not help
    assert split_panels(48, 512, 1, True, 64) == (1, 4)
    assert split_panels(280, 1, 1, False, 64) == (1, 1)


def test_a_long_context_has_tasks_for_every_thread() -> None:
    one_user = Step(1, 16_000)
    for threads in (2, 8, 32, 64):
        tasks = attention_tasks(one_user, 2, threads)
        assert sum(tasks) == 2 * 63
        assert Loop("attention", "attention", tasks).busiest(threads) < 1.1 / min(threads, 63)


def test_the_last_part_of_a_long_context_ends_soon_after_the_others() -> None:
    for threads in (2, 4):
        tasks = attention_tasks(Step(1, 16_000), 2, threads)
        assert max(tasks) <= sum(tasks) / threads / 12


def test_idle_threads_are_those_without_a_task() -> None:
    assert Loop("linear", "o", (1.0,) * 48).idle(64) == 0.25
    assert Loop("linear", "o", (1.0,) * 48).idle(16) == 0.0
    assert Loop("rest", "norm", (1.0,)).idle(4) == 0.75
    assert Loop("attention", "attention", (1.0, 1.0, 2.0)).busiest(2) == 0.75  # in order, the last alone


def test_bytes_and_products_of_all_loops_are_those_of_the_model() -> None:
    step = Step(3, 100)
    for threads in (1, 64):
        all_loops = list(loops(R1, step, threads))
        linear = [loop for loop in all_loops if loop.part == "linear"]
        assert sum(loop.bytes for loop in linear) == pytest.approx(R1.layer_bytes)
        assert sum(loop.products for loop in linear) == 3 * 28 * (1536 * 2048 + 1536 * 1536 + 3 * 1536 * 8960)
        attention = [loop for loop in all_loops if loop.name == "attention"]
        assert sum(loop.bytes for loop in attention) == pytest.approx(3 * 100 * R1.kv_bytes)


def test_more_threads_help_until_memory_or_hand_overs_limit() -> None:
    one = {threads: sum(EVEN.step(R1, Step(1, 100), threads).values()) for threads in (1, 2, 4, 64)}
    many = {threads: sum(EVEN.step(R1, Step(32, 100), threads).values()) for threads in (1, 2, 4, 64)}
    assert one[1] > 1.9 * one[2]
    assert one[2] < 1.05 * one[64]  # memory is exhausted
    assert many[1] > 3.5 * many[4]
