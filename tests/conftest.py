"""Fixtures that tests of every room share."""

import os
import signal
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

from antiphon.demo import demo_path

# A busy machine makes single examples slow, so none has a deadline. Tests try the same examples in each run, so that a
# change is not blamed for a bug that was there before it; `make search` tries others, ten times as many.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, derandomize=False, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile("repeatable")

# Triton decides when it is imported, by whatever test is first, whether its kernels run in its interpreter.
os.environ["TRITON_INTERPRET"] = "1"

# A shell's background jobs ignore SIGINT and hand that on to the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take a minute or more where processes share the work, in the order in which they begin. Those that mostly
# wait, for servers, browsers and clocks, are spread among those that compute.
LONGEST = (
    "faults/test_alerts_fire.py",
    "e2e/test_same_under_any_load.py",
    "on_ray/test_engines_on_ray.py",
    "proxies/test_streams.py",
    "page/test_faults.py",
    "ops/test_native_sanitizers.py",
    "page/test_build.py",
    "http/test_responsiveness.py",
    "fidelity/test_smollm2.py",
    "http/test_serve_command.py",
    "page/test_streaming.py",
    "ops/gpu/test_served.py",
    "packaging/test_wheel.py",
    "page/test_looks.py",
    "ops/gpu/test_compiled.py",
    "faults/test_real_model.py",
    "proxies/test_servers.py",
    "ops/test_sampler.py",
    "page/test_safety.py",
    "ops/test_tiny_models.py",
    "http/test_bench.py",
    "fidelity/test_loglikelihoods.py",
    "page/test_thoughts.py",
    "e2e/test_thinking.py",
    "ops/gpu/test_models.py",
    "proxies/test_several_fronts.py",
    "e2e/test_hugging_face_folder.py",
    "offline/test_batch.py",
    "page/test_places.py",
    "e2e/test_clients.py",
    "http/test_bench_results.py",
    "hub/test_commands.py",
    "faults/test_running_server.py",
    "page/test_extras.py",
    "engine/test_scheduler.py",
    "http/test_forced_calls.py",
    "faults/test_reloaded_models.py",
    "faults/test_engine_deaths.py",
    "http/test_reload.py",
    "faults/test_several_engines.py",
    "page/test_library.py",
    "ops/gpu/test_kernels.py",
    "http/test_overload.py",
    "ops/gpu/test_check.py",
    "page/test_talking.py",
    "ops/test_attention.py",
    "http/test_dashboard.py",
    "ops/gpu/test_step_time.py",
)


HERE = Path(__file__).parent


def pytest_sessionstart(session: pytest.Session) -> None:
    """A file of LONGEST that was renamed is an error, in the process that has a terminal."""
    missing = [name for name in LONGEST if not (HERE / name).is_file()]
    if missing and not hasattr(session.config, "workerinput"):
        raise pytest.UsageError(f"LONGEST in {__file__} names files that are not there: {', '.join(missing)}")


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's file: SmolLM2-135M-Instruct, from ANTIPHON_DEMO_MODEL or from where `make demo` puts it."""
    path = Path(os.environ.get("ANTIPHON_DEMO_MODEL") or demo_path()).expanduser()
    if not path.is_file():
        pytest.fail(f"the demo model is not at {path}; run `make demo`, or set ANTIPHON_DEMO_MODEL to its file")
    return path


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the demo model is marked as needing it."""
    for item in items:
        if "demo_model" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.model)


@pytest.hookimpl(tryfirst=True)  # before xdist tells the order
def pytest_collection_finish(session: pytest.Session) -> None:
    """Where processes share the files of tests, long ones go first; else one process is left with one at the end.

    xdist hands files out in this order, given `--no-loadscope-reorder`: first LONGEST, then files with slow tests, then
    those with many.
    """
    if not hasattr(session.config, "workerinput"):
        return
    places = {HERE / name: place for place, name in enumerate(LONGEST)}
    counts = Counter(item.path for item in session.items)
    slow = {item.path for item in session.items if item.get_closest_marker("slow")}
    session.items.sort(  # stable
        key=lambda item: (places.get(item.path, len(places)), item.path not in slow, -counts[item.path])
    )
