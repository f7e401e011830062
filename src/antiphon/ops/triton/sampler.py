"""Draws the tokens of a step: on the device those that its kernels can draw, the others on the host.

A row that the native sampler has to draw (`drawing.is_drawable`) is copied to pinned memory after the step, and drawn
when the step is collected. So `submit` never waits, and the next step can run meanwhile, without that row's sequence:
its token is not on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from antiphon import _native
from antiphon.footprint import DRAW_FIELDS
from antiphon.ops.triton.device import Device, Tensor
from antiphon.ops.triton.drawing import Drawing, Drawn, drawn, is_drawable, kind_of, row_parameters
from antiphon.ops.triton.graphs import MOST_DRAW_GRAPHS, Graphs
from antiphon.ops.triton.inputs import StepInputs
from antiphon.ops.triton.tiles import Tiles
from antiphon.step import SampleSpec

Outcome: TypeAlias = "_native.SampleOutcome | Drawn"
_FEWEST_HOST_ROWS = 4  # for which memory is allocated


@dataclass(slots=True)
class SubmittedStep:
    """A step whose kernels were launched.

    `outcomes`: one for each sample; None: not fetched yet. The rest belongs to the outcomes from `first` on.
    """

    outcomes: list[Outcome | None] = field(default_factory=list)
    first: int = 0
    event: Any = None
    tokens: Tensor | None = None  # int32 [samples], where the device's tokens are copied to
    logits: Tensor | None = None  # float32 [rows × vocabulary], where the host's rows are copied to
    host_places: list[int] = field(default_factory=list)  # of those rows
    host_requests: list[_native.SampleRequest] = field(default_factory=list)


class Sampler:
    """The draw of up to `max_sequences` tokens at a time, from `logits` on the device."""

    def __init__(
        self,
        device: Device,
        host: _native.Device,
        tiles: Tiles,
        inputs: StepInputs,
        sizes: tuple[int, int],
        on_progress: Callable[[], None],
    ) -> None:
        """`sizes`: the most tokens that are drawn at a time, and the vocabulary. `host`: the native sampler's threads.

        `on_progress` is called after each wait.
        """
        max_sequences, self._vocabulary = sizes
        self._device, self._host, self._inputs, self._on_progress = device, host, inputs, on_progress
        self.logits = device.zeros(sizes, "float32")
        self.tokens = device.zeros((max_sequences,), "int32")  # that were drawn last
        self.places: dict[int, int] = {}  # of sequences in `tokens`
        self._drawing = Drawing(device, tiles, self.logits, inputs["parameters"], self.tokens)
        self._graphs = Graphs(device, MOST_DRAW_GRAPHS)
        # In pairs that take turns: two steps may be submitted and not collected.
        self._fetched = [device.pinned(max_sequences, "int32") for _ in range(2)]
        self._host_logits = [device.pinned(0, "float32") for _ in range(2)]

    def submit(
        self, step: SubmittedStep, specs: Sequence[tuple[int, SampleSpec]], requests: Sequence[_native.SampleRequest]
    ) -> None:
        """Draw from the first rows of `logits`, each for a sequence's id and SampleSpec, or its request on the host."""
        parameters = np.full((len(specs), DRAW_FIELDS), -1, np.int32)
        self.places, host_places = {}, []
        for place, (sequence_id, spec) in enumerate(specs):
            if is_drawable(spec, self._vocabulary):
                parameters[place] = row_parameters(spec, self._vocabulary)
                self.places[sequence_id] = place
            else:
                host_places.append(place)
        step.first = len(step.outcomes)
        step.outcomes += [None] * len(specs)
        if len(host_places) < len(specs):
            self._launch(parameters)
            self._fetched.reverse()
            step.tokens = self._fetched[0]
            step.event = self._device.fetch(step.tokens, self.tokens, len(specs))
        if host_places:
            self._fetch_rows(step, host_places)
            step.host_places, step.host_requests = host_places, [requests[place] for place in host_places]
        self._on_progress()

    def _launch(self, parameters: npt.NDArray[np.int32]) -> None:
        """Draw on the device by parameters [rows, 16]; rows of -1 are left out."""
        rows, kind = self._inputs.num_drawn, kind_of(parameters)
        self._inputs.put("parameters", parameters, rows)
        if self._inputs.bucket:
            self._graphs.run((rows, kind), lambda: self._drawing.launch(rows, kind))
        else:
            self._drawing.launch(rows, kind)

    def _fetch_rows(self, step: SubmittedStep, places: Sequence[int]) -> None:
        """Copy rows of logits to the host, after all that was launched."""
        self._host_logits.reverse()
        size = self._vocabulary
        if len(self._host_logits[0]) < len(places) * size:
            rows = max(_FEWEST_HOST_ROWS, 1 << (len(places) - 1).bit_length())
            self._host_logits[0] = self._device.pinned(rows * size, "float32")
        step.logits = self._host_logits[0]
        for number, place in enumerate(places):
            step.event = self._device.fetch(step.logits[number * size :], self.logits[place], size)

    def collect(self, step: SubmittedStep) -> list[Outcome]:
        """Wait for the tokens of a step, and draw those that are left to the host."""
        if step.event is not None:
            self._device.wait(step.event)
            self._on_progress()
        if step.logits is not None:
            rows = step.logits.numpy()[: len(step.host_places) * self._vocabulary].reshape(-1, self._vocabulary)
            for place, outcome in zip(
                step.host_places, _native.sample_rows(self._host, rows, step.host_requests), strict=True
            ):
                step.outcomes[step.first + place] = outcome
        if step.tokens is not None:
            for place, token in enumerate(step.tokens.numpy()[: len(step.outcomes) - step.first].tolist(), step.first):
                step.outcomes[place] = step.outcomes[place] or drawn(token)
        step.event = step.tokens = step.logits = None
        return [outcome for outcome in step.outcomes if outcome is not None]
