"""Turns panics of libraries written in Rust into ordinary errors. A leaf.

pyo3 raises a panic as `PanicException`. It derives from BaseException so that it is not caught by accident, and
`except Exception` does not catch it. If text or files from outside can cause a panic, it must be caught explicitly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


def is_panic(error: BaseException) -> bool:
    """Whether a Rust library panicked. Each library has its own PanicException, which none of them exports."""
    kind = type(error)
    return kind.__name__ == "PanicException" and kind.__module__ == "pyo3_runtime"


@contextmanager
def panics_as(make: Callable[[str], Exception]) -> Iterator[None]:
    """Raise `make(reason)` in place of a panic; `reason` is the first line of the library's message."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise make(_first_line(error)) from None


@contextmanager
def faults_as(make: Callable[[str], Exception]) -> Iterator[None]:
    """Raise `make(reason)` in place of a panic or of any exception, for libraries that raise bare `Exception`s."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise make(_first_line(error)) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
