"""Tells systemd how the server is: ready, reloading, stopping, and still alive (`Type=notify`, `WatchdogSec=`).

Does nothing where systemd did not ask for it. The protocol is `sd_notify(3)`: lines of NAME=VALUE in a datagram to the
socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress


class Systemd:
    """The service manager's socket, if there is one.

    Takes the variables out of `environment`, so that the server's own child processes do not speak for it.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        is_for_us = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds: float | None = None  # it must hear from us this often; None: it does not listen
        if self._address and is_for_us and microseconds.isdigit() and int(microseconds):
            self.watchdog_seconds = int(microseconds) / 1e6
        self._status = ""

    @property
    def listens(self) -> bool:
        """Whether systemd listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Starting, or reloading, is done."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Reloading has begun; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The server has begun to shut down."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Reset the watchdog."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """A line for `systemctl status`, sent when it changes."""
        if text != self._status:
            self._status = text
            self._send("STATUS=" + " ".join(text.split()))

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # In Linux's abstract namespace a name begins with a zero byte, written as @.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A manager that is gone or busy must not harm the server.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(message.encode(), address)
