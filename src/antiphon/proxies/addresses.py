"""Addresses of servers and of the proxy itself, as they are typed: `host:port`, `[IPv6]:port`, `unix:/path`.

The results are written into configuration files, so only characters that mean nothing there are accepted.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from antiphon.errors import ConfigError

# Neither nginx nor HAProxy gives these characters a meaning inside a word.
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)
_FILE = re.compile(r"/[A-Za-z0-9._/@+=,~-]{1,255}")
_ANY = "*"  # every IPv4 interface; [::] is every IPv6 interface
_MAX_UNIX_PATH = 107  # bytes, see unix(7)
_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect: a host and a port, or the path of a Unix socket."""

    host: str = ""  # without brackets; `*`: every IPv4 interface, to listen on
    port: int = 0
    path: str = ""  # of a Unix socket

    @property
    def text(self) -> str:
        """The address as it is typed, an IPv6 address in brackets."""
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        """Whether this is an IPv6 address."""
        return ":" in self.host

    @property
    def is_name(self) -> bool:
        """Whether the host is a name, which has to be looked up."""
        return bool(self.host) and not self.is_any and not _is_ip(self.host)

    @property
    def is_any(self) -> bool:
        """Whether this means every IPv4 interface."""
        return self.host == _ANY


def backend_address(flag: str, text: str) -> Address:
    """The address of a server; see `_parse`."""
    address = _parse(flag, text)
    if address.is_any:
        raise ConfigError(f"{flag} is {text!r}; name the server's own address, such as 10.0.0.5:8000")
    return address


def listen_address(flag: str, text: str) -> Address:
    """An address to listen on; a port alone means every IPv4 interface. See `_parse`."""
    return _parse(flag, f"{_ANY}:{text}" if text.isdecimal() else text)


def server_name(flag: str, text: str) -> str:
    """A host name or address that clients use, or `*.` and a domain. Raises ConfigError if it is neither."""
    if _HOST_NAME.fullmatch(text.removeprefix("*.")):
        return text.lower()
    raise ConfigError(f"{flag} is {text!r}; a name is like chat.example.org, *.example.org or 10.0.0.5")


def file_path(flag: str, text: str) -> str:
    """An absolute path without characters that mean something in a configuration.

    Raises:
        ConfigError: it is relative, or has other characters than letters, digits and `._/@+=,~-`.
    """
    if _FILE.fullmatch(text):
        return text
    raise ConfigError(f"{flag} is {text!r}; give an absolute path of letters, digits and ._/@+=,~- alone")


def _parse(flag: str, text: str) -> Address:
    """The address that `text` is.

    Raises:
        ConfigError: it is none; the message names the flag and shows what would work.
    """
    if text.startswith(_UNIX):
        path = file_path(flag, text.removeprefix(_UNIX))
        if len(path) > _MAX_UNIX_PATH:
            raise ConfigError(f"{flag} is {text!r}; the path of a Unix socket has at most {_MAX_UNIX_PATH} characters")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536
    if not (colon and is_port and _is_host(host)):
        raise ConfigError(f"{flag} is {text!r}; an address is like 10.0.0.5:8000, [::1]:8000 or unix:/run/x.sock")
    return Address(host.strip("[]"), int(port))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            return not ipaddress.IPv6Address(host[1:-1]).scope_id
        except ValueError:
            return False
    return host == _ANY or _HOST_NAME.fullmatch(host) is not None
