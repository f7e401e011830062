"""What can be set of a proxy's configuration. Checks everything before it is written into a file.

The servers' own limits are fields here too, with the defaults of `ServerConfig`: a proxy must not refuse earlier, wait
shorter or keep connections longer than they do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from antiphon.config import ServerConfig
from antiphon.errors import ConfigError
from antiphon.proxies.addresses import Address, file_path

AFFINITIES = ("none", "prefix")
MAX_BACKENDS = 256
# Who may read the proxy's own metrics: this machine and private networks (RFC 1918, RFC 4193, RFC 4291).
PRIVATE_NETWORKS = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1", "fc00::/7", "fe80::/10")
# For TLS 1.2: forward secrecy and authenticated encryption. Source: Mozilla's intermediate configuration, version 5.7.
TLS_CIPHERS = ":".join(
    f"ECDHE-{kind}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for kind in ("ECDSA", "RSA")
)
HSTS = "max-age=15768000"  # half a year: browsers then use HTTPS for this name (RFC 6797)
_DEFAULTS = ServerConfig()
_PATH = re.compile(r"/([A-Za-z0-9._~-]+/)*")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_MAX_SECONDS = 7 * 24 * 3600
_MAX_BYTES = 1 << 40
_SPARE_CONNECTIONS = 16  # of each server, for health checks, scrapes and operators


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The settings of one proxy."""

    backends: tuple[Address, ...]
    listen: tuple[Address, ...]
    server_names: tuple[str, ...] = ()  # accepted in the Host header; none: all
    certificate: str = ""  # PEM; empty: plain HTTP
    key: str = ""  # empty: the key is in the certificate's file
    path: str = "/"  # the servers' `/` is here
    affinity: str = "none"  # or "prefix": requests with the same beginning go to the same server
    nameserver: Address | None = None  # that is asked again and again for the backends' names; None: once, at start
    answer_timeout: float = 3600.0  # seconds without a byte from a server; a whole answer arrives at once
    drain_seconds: float = 3600.0  # that streams may go on after a reload or a stop of the proxy
    metrics_listen: Address | None = field(default_factory=lambda: Address("127.0.0.1", 8404))
    runtime_dir: str = ""  # for the process id, sockets and temporary files; empty: the distribution's
    user: str = ""  # that the proxy's processes run as, if root starts it; empty: not changed
    access_log: str = ""  # a file; empty: none, as the servers have one
    max_body_bytes: int = _DEFAULTS.max_body_bytes
    max_connections: int = _DEFAULTS.max_connections  # of each server
    max_wait: float = _DEFAULTS.max_wait
    network_timeout: float = _DEFAULTS.network_timeout
    keep_alive_timeout: float = _DEFAULTS.keep_alive_timeout

    def __post_init__(self) -> None:
        self._check_addresses()
        self._check_files()
        for flag, value, least in (
            ("--answer-timeout", self.answer_timeout, 1),
            ("--drain-seconds", self.drain_seconds, 1),
            ("--max-wait", self.max_wait, 0),
            ("--network-timeout", self.network_timeout, 1),
            ("--keep-alive-timeout", self.keep_alive_timeout, 2),
        ):
            if not least <= value <= _MAX_SECONDS:
                raise ConfigError(f"{flag} is {value:g}; it must be from {least} to {_MAX_SECONDS} seconds")
        if self.answer_timeout <= self.max_wait:
            raise ConfigError(
                f"--answer-timeout is {self.answer_timeout:g}; it must be above --max-wait, {self.max_wait:g} seconds, "
                "or requests that wait their turn are cut"
            )
        if not 1 <= self.max_body_bytes <= _MAX_BYTES:
            raise ConfigError(f"--max-body-bytes is {self.max_body_bytes}; it must be from 1 to {_MAX_BYTES}")
        if not 2 <= self.max_connections <= 1_000_000:
            raise ConfigError(f"--max-connections is {self.max_connections}; it must be from 2 to 1000000")
        if self.affinity not in AFFINITIES:
            raise ConfigError(f"--affinity is {self.affinity!r}; choose one of {', '.join(AFFINITIES)}")

    def _check_addresses(self) -> None:
        if not self.backends:
            raise ConfigError("--backend is missing; give the address of each server, such as 10.0.0.5:8000")
        if len(self.backends) > MAX_BACKENDS:
            raise ConfigError(f"--backend is given {len(self.backends)} times; it may be at most {MAX_BACKENDS}")
        for flag, addresses in (("--backend", self.backends), ("--listen", self.listen)):
            for address in addresses:
                if addresses.count(address) > 1:
                    raise ConfigError(f"{flag} has {address.text} twice")
        if not self.listen:
            raise ConfigError("--listen is missing; give an address such as 127.0.0.1:8080")
        if self.nameserver and (self.nameserver.path or self.nameserver.is_name or self.nameserver.is_any):
            raise ConfigError(f"--nameserver is {self.nameserver.text!r}; give an IP address and port, as 10.0.0.1:53")
        if self.nameserver and not any(backend.is_name for backend in self.backends):
            raise ConfigError("--nameserver is for names, but every --backend is an IP address or a socket")
        if self.metrics_listen in self.listen:
            raise ConfigError(f"--metrics-listen is {self.metrics_listen.text}, which --listen has too")

    def _check_files(self) -> None:
        if self.key and not self.certificate:
            raise ConfigError("--key needs --certificate")
        for flag, path in (
            ("--certificate", self.certificate),
            ("--key", self.key),
            ("--runtime-dir", self.runtime_dir),
            ("--access-log", self.access_log),
        ):
            if path:
                file_path(flag, path)
        if not _PATH.fullmatch(self.path) or {".", ".."} & set(self.path.split("/")):
            raise ConfigError(f"--path is {self.path!r}; it must begin and end with /, as /chat/")
        if self.user and not _USER.fullmatch(self.user):
            raise ConfigError(f"--user is {self.user!r}; give the name of a user of this machine, such as www-data")

    @property
    def server_connections(self) -> int:
        """Connections to each server: a few less than it accepts."""
        return max(1, self.max_connections - _SPARE_CONNECTIONS)

    @property
    def client_connections(self) -> int:
        """Connections of clients: as many as all servers accept, and at least 1,000."""
        return max(1000, self.max_connections * len(self.backends))

    @property
    def idle_seconds(self) -> int:
        """How long an idle connection to a server is kept: the server must not be the first to close it."""
        return max(1, int(self.keep_alive_timeout * 0.75))
