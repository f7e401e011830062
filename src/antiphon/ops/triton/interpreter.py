"""Triton's interpreter, made exact: kernels run in NumPy without a GPU, and compute the bits that a GPU computes.

Owns corrections of Triton 3.6's interpreter, installed once by `use_interpreter`, before any kernel is defined:
`tl.fma` rounds twice there; int8 products go through NumPy's slow integers; every call of a function patches the
language again; loops fail with NumPy 2.4, which no longer takes an array of one element for a number.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.errors import ConfigError
from antiphon.ops.triton.interpreter_types import make_types_once

Array = npt.NDArray[Any]
_BELOW_FLOAT, _HALFWAY = (1 << 29) - 1, 1 << 28  # the bits of a float64 that a float32 has not, and half of one it has
_LEAST_NORMAL = 2.0**-126


def use_interpreter() -> None:
    """Make kernels run in the interpreter; called before Triton is imported, which decides it then.

    Raises ConfigError if Triton was imported for a GPU: a process has one or the other.
    """
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError("the interpreter and a GPU cannot be used in one process")
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    if getattr(interpreter, "_antiphon_is_exact", False):
        return
    interpreter._antiphon_is_exact = True
    interpreter.InterpreterBuilder.create_fma = _create_fma
    interpreter.InterpreterBuilder.create_dot = _exact_dot(interpreter.InterpreterBuilder.create_dot)
    interpreter.InterpretedFunction.__call__ = _call_in_kernel
    interpreter._patch_lang_tensor = _with_indices(interpreter._patch_lang_tensor)
    interpreter._patch_lang = _patch_once(interpreter._patch_lang)
    # A GPU does not look for integers that overflow, and it is a fifth of the time.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
    make_types_once()


def fused_multiply_add(x: Array, y: Array, z: Array) -> Array:
    """x * y + z of float32 arrays, rounded once.

    In float64 the product is exact. Rounding the float64 sum again is wrong only where it is halfway between two
    float32 numbers or has fewer bits than usual; there the sum is rounded to odd first (Boldo and Melquiond, Emulation
    of FMA and correctly rounded sums, 2008), with the error that Knuth's TwoSum gives.
    """
    product = x.astype(np.float64) * y.astype(np.float64)
    addend = z.astype(np.float64)
    total = product + addend
    is_doubtful = (total.view(np.int64) & _BELOW_FLOAT) == _HALFWAY
    is_doubtful |= np.abs(total) < _LEAST_NORMAL
    if is_doubtful.any():
        part = total - product
        error = (product - (total - part)) + (addend - part)
        inexact = np.isfinite(total) & (error != 0) & ((total.view(np.int64) & 1) == 0)
        total = np.where(inexact, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)
    fused: Array = total.astype(np.float32)
    return fused


def _create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
    from triton.runtime.interpreter import TensorHandle

    assert z.data.dtype == np.float32, "kernels fuse float32 alone"
    return TensorHandle(fused_multiply_add(*np.broadcast_arrays(x.data, y.data, z.data)), z.dtype.scalar)


def _exact_dot(create_dot: Any) -> Any:
    def create(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        from triton.runtime.interpreter import TensorHandle

        if a.data.dtype != np.int8:
            return create_dot(self, a, b, d, input_precision, max_num_imprecise_acc)
        assert a.data.shape[-1] <= 1024, "sums below 2^24 are exact in float32"
        product = np.matmul(a.data.astype(np.float32), b.data.astype(np.float32)).astype(np.int32)
        return TensorHandle(product + d.data, d.dtype.scalar)

    return create


def _call_in_kernel(self: Any, *arguments: Any, **named: Any) -> Any:
    """A function that a kernel calls; the launch has patched the language for it."""
    return self.rewrite()(*arguments, **named)


def _patch_once(patch: Any) -> Any:
    """Patches the language for good at the first launch, instead of at each launch and each call."""
    done = False

    class _Nothing:
        def restore(self) -> None: ...

    def patched(kernel: Any) -> _Nothing:
        nonlocal done
        if not done:
            import triton.language as tl

            done = True
            patch(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
        return _Nothing()

    return patched


def _with_indices(patch: Any) -> Any:
    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(np.asarray(self.handle.data).item()))

    return patched
