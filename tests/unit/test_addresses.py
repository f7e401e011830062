"""Which addresses are taken for one client."""

from __future__ import annotations

import pytest

from antiphon.http.edge.addresses import network_of


@pytest.mark.parametrize(
    ("client", "network"),
    [
        (("192.0.2.7", 5000), "192.0.2.7"),
        (("::ffff:192.0.2.7", 5000), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 5000), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::9", 5001), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5000), "fe80::/64"),
        (("testclient", 5000), ""),
        (None, ""),
    ],
)
def test_an_ipv6_network_is_one_client(client, network):
    assert network_of({"client": client}) == network
