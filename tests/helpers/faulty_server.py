"""`antiphon`, with faults that nothing from outside can cause. Run as `python faulty_server.py serve …`.

Environment:

- STEP_SECONDS: how long a step of the fake engine takes.
- GPU: the UUID of a GPU that the fake engine pretends to use.
- LOSE_ENDS: while this file exists, the ends of requests are not counted: a defect that a server must not have.
- MACHINE_ROOT: where /proc and the control groups are read from for the metrics, if not from this machine.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from antiphon import cli
from antiphon.commands import serve
from antiphon.config import EngineConfig, FakeSettings
from antiphon.metrics import account, resources

GPU_BYTES = 24 << 30  # all free when the engine starts


def slow_engine(step_seconds: float) -> None:
    gpu = os.environ.get("GPU", "")
    settings = FakeSettings(step_seconds=step_seconds, gpu=gpu, gpu_memory=(0, GPU_BYTES) if gpu else (0, 0))
    serve.EngineConfig = partial(EngineConfig, fake_settings=settings)  # type: ignore[misc, assignment]


def losing_ends(flag: Path) -> None:
    count_end = account.RequestAccount.end

    def end(self: account.RequestAccount, outcome: account.Outcome) -> None:
        if flag.exists():
            self.outcome = outcome
            self._metrics.running.labels(self._endpoint).dec()
        else:
            count_end(self, outcome)

    account.RequestAccount.end = end  # type: ignore[method-assign]


def another_machine(root: Path) -> None:
    resources.memory_usage = partial(resources.memory_usage, root=root)
    resources.cpu_usage = partial(resources.cpu_usage, root=root)


if __name__ == "__main__":
    slow_engine(float(os.environ["STEP_SECONDS"]))
    losing_ends(Path(os.environ["LOSE_ENDS"]))
    if "MACHINE_ROOT" in os.environ:
        another_machine(Path(os.environ["MACHINE_ROOT"]))
    cli.main()
