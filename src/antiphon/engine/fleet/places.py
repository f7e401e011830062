"""Where the engines of a fleet run: on which machine, on which device, and on which of this machine's cores.

Owns the division of this machine's cores into *seats*, one for each engine that computes on them. It knows addresses
and settings; the fleet knows which places are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from antiphon.config import EngineConfig, is_device
from antiphon.engine.fleet.launching import HERE, Launchers, Place
from antiphon.machine import THREADS_BESIDE_GPU, Seat, divide, see_processors


class Places:
    """The places of one fleet's engines."""

    def __init__(self, launchers: Launchers) -> None:
        self._launchers = launchers
        self._seats: Sequence[Seat] = ()

    def for_all(self, config: EngineConfig) -> list[Place]:
        """A place for each engine that `config` asks for, after `divide` with it."""
        here, seats = self._launchers(HERE), count()
        local = [
            Place(here, next(seats) if _has_seat(config, device) else None, device) for device in config.local_devices
        ]
        return local + [Place(self._launchers(each)) for each in config.remote_engines]

    def another(self, address: str, config: EngineConfig, taken: Sequence[Place]) -> Place:
        """The place for one more engine at an address, or on a device of this machine.

        `taken`: the places of the other engines with this `config`. Raises ConfigError if engines cannot run there.
        """
        if address == HERE:  # on the device that the fewest engines have
            devices = dict.fromkeys(config.local_devices) or ("",)
            address = min(devices, key=[place.address for place in taken].count)
        if address != HERE and not is_device(address):
            return Place(self._launchers(address))
        seat = self._free_seat(taken) if _has_seat(config, address) else None
        return Place(self._launchers(HERE), seat, address)

    def divide(self, config: EngineConfig) -> Sequence[Seat]:
        """Divide the machine's cores as `config` asks, for engines that are started from now on.

        One engine alone chooses its cores by itself. Returns the seats so far, for `divide_as`.
        """
        num_engines = max(1, sum(_has_seat(config, device) for device in config.local_devices))
        before = self._seats
        alone = (Seat((), config.threads),)
        self._seats = divide(see_processors(), num_engines, config.threads) if num_engines > 1 else alone
        return before

    def divide_as(self, seats: Sequence[Seat]) -> None:
        """Use these seats again."""
        self._seats = seats

    def config_at(self, place: Place, config: EngineConfig) -> EngineConfig:
        """The settings of an engine at a place."""
        if not place.is_here:
            return config
        config = replace(config, device=place.device or config.device)
        if place.seat is None:
            return replace(config, threads=config.threads or THREADS_BESIDE_GPU)
        seat = self._seats[place.seat]
        return replace(config, cpus=seat.cpus, threads=seat.threads)

    def _free_seat(self, taken: Sequence[Place]) -> int:
        """The number of the seat that the fewest engines have."""
        seats = [place.seat for place in taken]
        return min(range(len(self._seats)), key=lambda seat: (seats.count(seat), seat))


def _has_seat(config: EngineConfig, device: str) -> bool:
    """Whether an engine on this device has a share of the cores: not a GPU engine beside engines that compute there."""
    devices = [each or config.device for each in config.local_devices]
    return "cpu" not in devices or (device or config.device) == "cpu"
