"""Quantizes a whole checkpoint: all errors are measured first, so that matrices with a large one can get 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from antiphon import _native
from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.errors import CheckpointError
from antiphon.ops.native import stored_matrix
from antiphon.quantizer.importance import Importance
from antiphon.quantizer.types import FINE, is_outer, sensitive

OnTensor = Callable[[str], None]  # called with the name of each tensor that is done


@dataclass(frozen=True, slots=True)
class Plan:
    """The type that each tensor gets."""

    types: Mapping[str, str]  # tensor → type
    errors: Mapping[str, float]  # quantized matrix → its relative squared error
    kept_finer: tuple[str, ...]  # matrices whose error in the target's type is too large


def planned_tensors(checkpoint: Checkpoint, types: Mapping[str, str]) -> list[Tensor]:
    """The tensors as they will be written; their data cannot be read."""
    return [replace(tensor, type=types[name], source=None) for name, tensor in checkpoint.tensors.items()]


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Quantizes the tensors of one checkpoint; `importance` may be missing for some or all of them."""

    checkpoint: Checkpoint
    device: _native.Device
    importance: Importance

    def plan(self, types: Mapping[str, str], on_tensor: OnTensor = lambda name: None) -> Plan:
        """Quantize everything once to measure the errors, and choose the matrices that need 8 bits."""
        errors, inner = {}, {}
        for name, tensor in self.checkpoint.tensors.items():
            if tensor.type != types[name]:
                errors[name] = self._blocks(tensor, types[name])[1]
                if types[name] != FINE and not is_outer(name):
                    inner[name] = errors[name]
            on_tensor(name)
        finer = sensitive(inner)
        for name in finer:
            errors[name] = self._blocks(self.checkpoint.tensors[name], FINE)[1]
        return Plan({**types, **dict.fromkeys(finer, FINE)}, errors, tuple(finer))

    def tensors(
        self, types: Mapping[str, str], on_tensor: OnTensor = lambda name: None
    ) -> Iterator[tuple[Tensor, memoryview]]:
        """Every tensor in its new type, and its bytes."""
        for (name, tensor), planned in zip(
            self.checkpoint.tensors.items(), planned_tensors(self.checkpoint, types), strict=True
        ):
            data = tensor.read() if tensor.type == planned.type else self._blocks(tensor, planned.type)[0]
            yield planned, data
            tensor.release()
            on_tensor(name)

    def _blocks(self, tensor: Tensor, type: str) -> tuple[memoryview, float]:
        """The tensor's blocks and its relative squared error."""
        weights = self.importance.get(tensor.name)
        try:
            blocks, error, norm = self.device.quantize(
                stored_matrix(tensor), type, [] if weights is None else weights.tolist()
            )
        except ValueError as wrong:
            raise CheckpointError(f"tensor {tensor.name}: {wrong}") from None
        return blocks.data, error / norm if norm else 0.0
