"""Addresses of engines on Ray are read in one form, and an error says what would work."""

from __future__ import annotations

import pytest

from antiphon.commands.engine_places import EnginePlaces
from antiphon.config import ServerConfig
from antiphon.engine.remote.address import parse_engines
from antiphon.engine.remote.ray_address import RayAddress, parse_ray_address
from antiphon.errors import ConfigError


def test_an_address_is_read_and_written_in_one_form():
    text = "ray://10.0.0.1:6379?count=3&memory=4.5&num_cpus=8&resource=big:1&resource=fast:0.5&placement_timeout=60"
    address, count = parse_ray_address(text)
    assert count == 3
    assert address == RayAddress("10.0.0.1:6379", 8, 4.5, (("big", 1.0), ("fast", 0.5)), 60.0)
    assert address.memory_bytes == 4.5 * (1 << 30)
    assert parse_ray_address(str(address)) == (address, 1)
    assert str(parse_ray_address("ray://auto?num_cpus=2")[0]) == "ray://auto?num_cpus=2"


def test_one_item_may_ask_for_several_engines_beside_others():
    assert parse_engines("2,ray://auto?num_cpus=8&count=2,tcp://a:1") == (
        2,
        (),
        ("ray://auto?num_cpus=8", "ray://auto?num_cpus=8", "tcp://a:1"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ray://auto", "does not say how many CPUs"),
        ("ray://?num_cpus=1", "one is like ray://auto"),
        ("ray:auto", "one is like ray://auto"),
        ("ray://user@auto?num_cpus=1", "one is like ray://auto"),
        ("ray://auto/path?num_cpus=1", "one is like ray://auto"),
        ("ray://auto?num_cpus=0", "num_cpus is '0'; it must be a whole number from 1"),
        ("ray://auto?num_cpus=9999999999", "whole number"),
        ("ray://auto?num_cpus=1.5", "whole number"),
        ("ray://auto?num_cpus=1&count=65", "count is '65'; it must be a whole number from 1 to 64"),
        ("ray://auto?num_cpus=1&memory=nan", "memory is 'nan'; it must be a number above 0"),
        ("ray://auto?num_cpus=1&memory=", "memory is ''; it must be a number above 0"),
        ("ray://auto?num_cpus=1&resource=big", "write NAME:AMOUNT"),
        ("ray://auto?num_cpus=1&cpus=2", "there is no 'cpus'; after the question mark may come num_cpus"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(text: str, words: str):
    with pytest.raises(ConfigError) as raised:
        parse_ray_address(text)
    assert words in str(raised.value)
    with pytest.raises(ConfigError):
        parse_engines(f"2,{text}")


def test_without_ray_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("antiphon.ray.cluster.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'antiphon\[ray\]'"):
        EnginePlaces(ServerConfig).launchers("ray://auto?num_cpus=1")
