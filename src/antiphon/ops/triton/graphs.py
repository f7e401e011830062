"""CUDA graphs: the launches of a decoding step, captured once for each bucket of rows and replayed afterwards.

Launching a kernel from Python costs the host microseconds, and a step has hundreds of launches. A decoding step is
padded to a bucket, so that its launches depend on the bucket alone. Other steps are launched kernel by kernel, and so
are all steps after a graph could not be captured.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from antiphon.ops.triton.device import CaptureFailed, Device, Recording

logger = logging.getLogger(__name__)

BUCKET_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256)
# Graphs that an engine keeps; the one that was not used for the longest time is dropped. Those of a step have hundreds
# of launches, and at start there is one for each bucket. Those of a draw have at most twenty.
MOST_STEP_GRAPHS, MOST_DRAW_GRAPHS = 32, 64


@dataclass(frozen=True, slots=True)
class Bucket:
    """The size that a decoding step is padded to.

    `rows`: of the step, one a sequence, and of the draw. `items`: attention's work items.
    """

    rows: int
    items: int


class Buckets:
    """The buckets of a program."""

    def __init__(self, max_sequences: int, max_items: int) -> None:
        most = min(max_sequences, BUCKET_ROWS[-1])
        self.rows = (*(rows for rows in BUCKET_ROWS if rows < most), most)
        self._max_items = max_items

    def of(self, rows: int, items: int) -> Bucket | None:
        """The smallest bucket for this number of rows and work items; None for more rows than any has.

        Items are the bucket's rows times a power of two, so that graphs remain few while contexts grow.
        """
        for padded_rows in self.rows:
            if rows <= padded_rows:
                padded_items = padded_rows
                while padded_items < items:
                    padded_items *= 2
                return Bucket(padded_rows, min(padded_items, self._max_items))
        return None


class Graphs:
    """The `most` graphs that were used last, by what their launches depend on."""

    def __init__(self, device: Device, most: int) -> None:
        self._device, self._most = device, most
        self._recordings: OrderedDict[Hashable, Recording | None] = OrderedDict()
        self._captures = True  # until one fails

    def run(self, key: Hashable, launch: Callable[[], None]) -> None:
        """Do what `launch` launches, which must depend on nothing but `key`.

        The first use of a key launches the kernels, since they may have to be compiled, which cannot be done while a
        graph is captured. The second use captures the graph. After a graph that could not be captured, kernels are
        launched for all keys that have none.
        """
        recording = self._recordings.get(key)
        if recording is None and key in self._recordings and self._captures:
            recording = self._captured(launch)
        if recording is None:
            launch()
        else:
            self._device.replay(recording)
        if recording is not None or self._captures:
            self._recordings[key] = recording
            self._recordings.move_to_end(key)
        if len(self._recordings) > self._most:
            self._recordings.popitem(last=False)

    def _captured(self, launch: Callable[[], None]) -> Recording | None:
        try:
            return self._device.capture(launch)
        except CaptureFailed as error:
            self._captures = False
            logger.warning(
                "a CUDA graph could not be captured (%s); steps without a graph launch their kernels one by one now, "
                "which is slower; answers are the same; --enforce-eager starts without graphs",
                error,
            )
            return None
