"""Measures load for the ladder: how long requests wait, which deadlines were missed, how often engines died.

Pure: times are passed in, in seconds. Each client counts once in the predicted wait, so one client that floods the
server, or accepts no wait at all, does not make others' answers shorter. Old observations are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from statistics import median_low

RECENT = 60.0  # seconds; older observations do not count
LEAST_DEADLINE = 5.0  # seconds; shorter ones say more about the client than about the server
_MAX_CLIENTS = 256
_MAX_EVENTS = 256


class LoadSignals:
    """Collects observations, and computes the signals from them."""

    def __init__(self) -> None:
        # Client → when its last request came, the wait predicted then, and how long it waits.
        self._predicted: OrderedDict[str, tuple[float, float, float]] = OrderedDict()
        self._missed: deque[float] = deque(maxlen=_MAX_EVENTS)  # when, since the last deadline that was met
        self._deaths: deque[float] = deque(maxlen=_MAX_EVENTS)
        self._num_restarts = 0

    def note_prediction(self, now: float, client: str, wait: float, patience: float) -> None:
        """A request came: its predicted wait for the first token, and how long it would wait."""
        self._predicted[client] = (now, wait, patience)
        self._predicted.move_to_end(client)
        if len(self._predicted) > _MAX_CLIENTS:
            self._predicted.popitem(last=False)

    def note_missed(self, now: float, deadline: float) -> None:
        """A request missed its deadline of so many seconds."""
        if deadline >= LEAST_DEADLINE:
            self._missed.append(now)

    def note_met(self) -> None:
        """A request was answered in time."""
        self._missed.clear()

    def note_restarts(self, now: float, total: int) -> None:
        """How many engines have died so far."""
        self._deaths.extend([now] * min(_MAX_EVENTS, max(0, total - self._num_restarts)))
        self._num_restarts = total

    def wait(self, now: float) -> float:
        """The predicted wait as a share of what clients accept: the median of the clients that came lately.

        A prediction grows old: what was to be done first is done meanwhile.
        """
        while self._predicted and next(iter(self._predicted.values()))[0] <= now - RECENT:
            self._predicted.popitem(last=False)
        shares = [
            max(0.0, wait - (now - at)) / max(patience, LEAST_DEADLINE) if patience < inf else 0.0
            for at, wait, patience in self._predicted.values()
        ]
        return median_low(shares) if shares else 0.0

    def timeouts(self, now: float) -> int:
        """Deadlines missed in a row."""
        return _num_recent(self._missed, now)

    def engine_deaths(self, now: float) -> int:
        """Engines that died lately."""
        return _num_recent(self._deaths, now)


def _num_recent(times: deque[float], now: float) -> int:
    while times and times[0] <= now - RECENT:
        times.popleft()
    return len(times)
