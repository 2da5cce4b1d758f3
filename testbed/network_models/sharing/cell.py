"""A live cell: the air of its two directions, and the links that share it."""

from __future__ import annotations

import simpy

from testbed.core.registry import DISCIPLINES
from testbed.network_models.channel import Channel
from testbed.network_models.sharing.air import Air
from testbed.network_models.sharing.collisions import Collisions
from testbed.network_models.sharing.port import CellPort
from testbed.network_models.transfer import Direction
from testbed.scenarios.cells import Cells


class Cell:
    """One of a group of equal cells. With half duplex both directions share one."""

    def __init__(self, env: simpy.Environment, config: Cells, name: str) -> None:
        self._env = env
        self._config = config
        self.name = name
        up = self._air()
        down = up if config.duplex == "half" else self._air()
        self.air = {Direction.UP: up, Direction.DOWN: down}

    @property
    def needs_packets(self) -> str:
        """Why its links can't be computed message by message; "" where they can."""
        return self._config.needs_packets

    def port(self, channel: Channel, weight: int) -> CellPort:
        """One link's way to the air, in one direction."""
        origin = channel.origin
        member = self.air[origin.direction].join(channel.rate, weight)
        return CellPort(self._env, channel, member, Collisions(self._config.collision, origin))

    def _air(self) -> Air:
        discipline = self._config.discipline
        return Air(self._env, DISCIPLINES.load(discipline.kind)(discipline))
