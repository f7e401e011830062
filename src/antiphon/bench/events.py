"""Server-sent events, read as they come: any split of the bytes gives the same events.

Source: the HTML standard, "Server-sent events", 9.2.6. Only the data of events is kept, since OpenAI's streams use
nothing else.
"""

from __future__ import annotations

MAX_EVENT = 1 << 22  # bytes


class EventTooLarge(ValueError):
    """An event is larger than MAX_EVENT."""


class EventReader:
    """Takes bytes, gives the data of each event that has become complete."""

    def __init__(self) -> None:
        self._rest = b""  # of a line that has not ended
        self._lines: list[bytes] = []  # of data, of an event that has not ended

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that these bytes complete.

        Raises:
            EventTooLarge: an event does not end.
        """
        if self._rest:
            data = self._rest + data
        if b"\r" in data:
            data = _with_line_feeds(data)
        lines = data.split(b"\n")
        self._rest = lines.pop()
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._lines:
                    events.append(b"\n".join(self._lines))
                    self._lines = []
            elif line.startswith(b"data:"):
                self._lines.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line == b"data":
                self._lines.append(b"")
        if (self._lines or len(self._rest) > MAX_EVENT) and self._num_waiting > MAX_EVENT:
            raise EventTooLarge(f"an event of the stream has more than {MAX_EVENT >> 20} MiB")
        return events

    @property
    def _num_waiting(self) -> int:
        """Bytes of the event that has not ended."""
        return len(self._rest) + sum(map(len, self._lines))


def _with_line_feeds(data: bytes) -> bytes:
    """Lines may end with CR LF, LF or CR. A CR at the end stays, since an LF may follow it."""
    last = b"\r" if data.endswith(b"\r") else b""
    return data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n") + last
