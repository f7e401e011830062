"""The addresses of clients, as far as they tell clients apart."""

from __future__ import annotations

import ipaddress

from starlette.types import Scope

_IPV6_PREFIX = 64  # bits; a single client usually has all addresses of such a network


def network_of(scope: Scope) -> str:
    """The client's IPv4 address or IPv6 network; empty if it is not known, as for a Unix socket."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), _IPV6_PREFIX), strict=False))
    return str(address)
