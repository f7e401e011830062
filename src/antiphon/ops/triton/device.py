"""What the GPU backend needs of a device: memory, copies, launches and graphs. The only module that uses torch.

Kernels compiled into the wheel and a bare driver could take its place: nothing else in this package allocates,
launches, captures or waits. Arrays are torch's; the kernels only see their addresses.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from antiphon.errors import ConfigError

Tensor: TypeAlias = torch.Tensor
TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
}


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch that the interpreter has captured. `arguments`: tensors and numbers."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


class CaptureFailed(Exception):
    """A CUDA graph could not be captured: why, in CUDA's words. The device can be used further."""


Recording: TypeAlias = "torch.cuda.CUDAGraph | list[Launch]"  # the latter in the interpreter


def require_cuda(name: str) -> None:
    """Raise ConfigError, saying what to do, unless PyTorch and Triton can use the device "cuda:N"."""
    if torch.version.cuda is None:
        raise ConfigError(
            f"--device {name}: PyTorch {torch.__version__} was built without CUDA; install its CUDA build"
        )
    try:
        torch.cuda.init()
        count = torch.cuda.device_count()
    except RuntimeError as error:  # such as: the driver is too old for this CUDA
        reason = str(error).splitlines()[0][:300]
        raise ConfigError(f"--device {name}: PyTorch cannot use the GPU: {reason}") from None
    if int(name.partition(":")[2]) >= count:
        raise ConfigError(f"--device {name}: PyTorch sees {count} GPUs (is CUDA_VISIBLE_DEVICES set?)")
    if not (os.environ.get("CC") or any(map(shutil.which, ("gcc", "clang", "cc")))):
        raise ConfigError(f"--device {name}: Triton needs a C compiler; install gcc")


class Device:
    """A CUDA device, or the interpreter in this process' memory.

    `name`: "cuda:0", or "interpreter", which needs `interpreter.use_interpreter` first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_interpreter = name == "interpreter"
        self._torch = torch.device("cpu" if self.is_interpreter else name)
        self.allocated_bytes = 0
        self._captured: list[Launch] | None = None  # while the interpreter captures

    @property
    def model(self) -> str:
        """The GPU's name, such as "NVIDIA H100 80GB HBM3"; empty in the interpreter."""
        return "" if self.is_interpreter else str(torch.cuda.get_device_properties(self._torch).name)

    @property
    def uuid(self) -> str:
        """The GPU's UUID without a prefix; empty in the interpreter."""
        return "" if self.is_interpreter else str(torch.cuda.get_device_properties(self._torch).uuid)

    def memory(self) -> tuple[int, int] | None:
        """Bytes of the GPU that are used, by any process, and that it has; None in the interpreter."""
        if self.is_interpreter:
            return None
        free, total = torch.cuda.mem_get_info(self._torch)
        return total - free, total

    def zeros(self, shape: Sequence[int], type: str) -> Tensor:
        """Memory of zeros. Raises MemoryError where there is not enough."""
        self._check_not_capturing()
        try:
            tensor = torch.zeros(tuple(shape), dtype=TYPES[type], device=self._torch)
        except torch.OutOfMemoryError:
            raise MemoryError(f"no {np.prod(shape, dtype=int):,} values of {type} on {self.name}") from None
        self.allocated_bytes += tensor.nbytes
        return tensor

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """A copy of a host array."""
        self._check_not_capturing()
        try:
            # Always a copy: of an array in the interpreter's memory torch would make a view.
            tensor = torch.from_numpy(np.array(array, order="C")).to(self._torch)
        except torch.OutOfMemoryError:
            raise MemoryError(f"no {array.nbytes:,} bytes on {self.name}") from None
        self.allocated_bytes += tensor.nbytes
        return tensor

    def fill(self, tensor: Tensor, array: npt.NDArray[Any]) -> None:
        """Copy a host array over the beginning of `tensor`, of the same type."""
        self._check_not_capturing()
        flat = np.ascontiguousarray(array).reshape(-1)
        tensor.view(-1)[: flat.size].copy_(torch.from_numpy(flat))

    def pinned(self, size: int, type: str) -> Tensor:
        """Host memory of zeros, [size], that copies to and from the device can run beside."""
        return torch.zeros(size, dtype=TYPES[type], pin_memory=not self.is_interpreter)

    def send(self, tensor: Tensor, pinned: Tensor, count: int) -> None:
        """Copy the first values of pinned memory over those of `tensor`, after all that was launched before.

        The host does not wait: the pinned memory must stay as it is until then.
        """
        self._check_not_capturing()
        tensor.view(-1)[:count].copy_(pinned[:count], non_blocking=True)

    def fetch(self, pinned: Tensor, tensor: Tensor, count: int) -> Any:
        """Copy the first values of `tensor` to pinned memory; returns what `wait` takes."""
        self._check_not_capturing()
        pinned[:count].copy_(tensor.view(-1)[:count], non_blocking=True)
        if self.is_interpreter:
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._torch))
        return event

    def wait(self, event: Any) -> None:
        """Wait until a `fetch` is done."""
        if event is not None:
            event.synchronize()

    def download(self, tensor: Tensor) -> npt.NDArray[Any]:
        """A copy on the host; waits for what was launched."""
        self._check_not_capturing()
        return np.array(tensor.cpu().numpy())

    def launch(
        self, kernel: Any, grid: Sequence[int], *arguments: Any, warps: int = 4, stages: int = 3, **constants: Any
    ) -> None:
        """Run `kernel` on a grid of programs, after all that was launched before; an empty grid is nothing."""
        if not all(grid):
            return
        if self._captured is not None:
            self._captured.append(Launch(kernel, tuple(grid), arguments, constants))
        elif self.is_interpreter:
            _interpret(Launch(kernel, tuple(grid), arguments, constants))
        else:
            with torch.cuda.device(self._torch):
                kernel[tuple(grid)](*arguments, num_warps=warps, num_stages=stages, enable_fp_fusion=False, **constants)

    def capture(self, body: Callable[[], None]) -> Recording:
        """What `body` launches, for `replay`; nothing of it runs.

        `body` may only launch kernels, all of which have run before: compiling one or copying fails.

        Raises CaptureFailed if CUDA cannot do it, such as for want of memory.
        """
        if self.is_interpreter:
            self._captured = launches = list[Launch]()
            try:
                body()
            finally:
                self._captured = None
            return launches
        stream = torch.cuda.current_stream(self._torch)
        try:
            graph = torch.cuda.CUDAGraph()
            # Another thread may use CUDA meanwhile, such as for the memory in metrics.
            with torch.cuda.device(self._torch), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                body()
        except RuntimeError as error:  # torch's own are of this kind
            torch.cuda.set_stream(stream)  # a failed capture leaves its own
            raise CaptureFailed(str(error).partition("\n")[0][:300]) from error
        return graph

    def replay(self, recording: Recording) -> None:
        """Launch again what was captured, with the same arguments, after all that was launched before."""
        if isinstance(recording, list):
            for launch in recording:
                _interpret(launch)
        else:
            with torch.cuda.device(self._torch):
                recording.replay()

    def _check_not_capturing(self) -> None:
        """In the interpreter, fails where CUDA would: a graph has neither memory nor copies of its own."""
        if self._captured is not None:
            raise RuntimeError("only kernels can be launched while a graph is captured")


def _interpret(launch: Launch) -> None:
    with np.errstate(all="ignore"), warnings.catch_warnings():  # not-a-number is silent on a GPU
        warnings.simplefilter("ignore", RuntimeWarning)
        launch.kernel[launch.grid](*launch.arguments, **launch.constants)
