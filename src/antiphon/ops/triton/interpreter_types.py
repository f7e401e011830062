"""Types of values in Triton's interpreter, made once: making them again for every operation takes half its time.

Owns replacements of four functions of Triton 3.6, which return what the originals return. They are installed by
`interpreter.use_interpreter`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shape = tuple[int, ...]


def make_types_once() -> None:
    """Replace the functions; Triton's interpreter is imported by now."""
    from triton.language import core
    from triton.runtime import interpreter

    core._unwrap_if_constexpr = _quick_unwrap(core._unwrap_if_constexpr, core.constexpr)
    core.block_type.__init__ = _block_type(core)
    core.tensor.__init__ = _tensor(core)
    interpreter._get_np_dtype = _numpy_type(interpreter._get_np_dtype)


def _quick_unwrap(unwrap: Callable[[Any], Any], constant: Any) -> Callable[[Any], Any]:
    def unwrapped(value: Any) -> Any:
        if value.__class__ is int:
            return value
        return value.value if value.__class__ is constant else unwrap(value)

    return unwrapped


def _block_type(core: Any) -> Callable[[Any, Any, Any], None]:
    initialize = core.block_type.__init__
    known: dict[Shape, tuple[Any, int, str]] = {}  # the shape as Triton's tuple, its elements, its text

    def of_elements(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = tuple(size.value if size.__class__ is core.constexpr else size for size in shape)
        if sizes not in known:
            initialize(self, element_ty, shape)
            known[sizes] = self.shape, self.numel, str(self.shape)
        self.element_ty = element_ty
        self.shape, self.numel, text = known[sizes]
        self.name = f"<{text}, {element_ty}>"

    return of_elements


def _tensor(core: Any) -> Callable[[Any, Any, Any], None]:
    known: dict[Shape, tuple[Any, Any]] = {}  # the shape and the number of elements, as constants

    def with_type(self: Any, handle: Any, type: Any) -> None:
        sizes = tuple(type.shape) if type.is_block() else ()
        if sizes not in known:
            count = 1
            for size in sizes:
                count *= size
            known[sizes] = core.tuple([core.constexpr(size) for size in sizes]), core.constexpr(count)
        self.shape, self.numel = known[sizes]
        self.handle, self.type, self.dtype = handle, type, type.scalar

    return with_type


def _numpy_type(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[str, Any] = {}

    def found(type: Any) -> Any:
        name = type.scalar.name
        if name not in known:
            known[name] = find(type)
        return known[name]

    return found
