"""A live cell: the air of its two directions, and the links that share it."""

from __future__ import annotations

from typing import NamedTuple

import simpy

from testbed.core.cast import CellEnd
from testbed.core.registry import DISCIPLINES
from testbed.network_models.channel import Channel
from testbed.network_models.origin import Origin
from testbed.network_models.sharing.air import Air
from testbed.network_models.sharing.collisions import Collisions
from testbed.network_models.sharing.port import CellPort
from testbed.network_models.transfer import Direction
from testbed.scenarios.cells import Cells


class Cell:
    """One of a group of equal cells. With half duplex its two directions share one air."""

    def __init__(self, env: simpy.Environment, config: Cells, name: str) -> None:
        self.env = env
        self.config = config
        self.name = name
        up = self._air()
        down = up if config.duplex == "half" else self._air()
        self.air = {Direction.UP: up, Direction.DOWN: down}

    def ends(self, now_ns: int) -> list[CellEnd]:
        """The account of each air."""
        if self.config.duplex == "half":
            return [self._end("both", self.air[Direction.UP], now_ns)]
        return [self._end(str(direction), self.air[direction], now_ns) for direction in Direction]

    def _end(self, direction: str, air: Air, now_ns: int) -> CellEnd:
        return CellEnd(
            cell=self.name,
            direction=direction,
            num_links=air.num_members // len(self.air) if direction == "both" else air.num_members,
            carried_bytes=air.carried_bytes,
            busy_ns=air.busy_ns(now_ns),
            contending_ns=air.contending_ns(now_ns),
        )

    def _air(self) -> Air:
        discipline = self.config.discipline
        return Air(self.env, DISCIPLINES.load(discipline.kind)(discipline))


class Seat(NamedTuple):
    """One link's place in a cell."""

    cell: Cell
    weight: int = 1

    def port(self, channel: Channel, origin: Origin) -> CellPort:
        """The link's way to the air, in the direction of `origin`."""
        cell = self.cell
        member = cell.air[origin.direction].join(channel.rate, self.weight)
        return CellPort(cell.env, channel, member, Collisions(cell.config.collision, origin))
