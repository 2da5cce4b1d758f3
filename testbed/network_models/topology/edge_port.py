"""One direction of a shared edge: a queue that is drained at its rate, then the wire."""

from __future__ import annotations

import simpy

from testbed.core.cast import EdgeEnd
from testbed.core.registry import LOSSES, RATES
from testbed.network_models.channel import Channel, Loss
from testbed.network_models.framing import Framing
from testbed.network_models.jitter import Jitter
from testbed.network_models.origin import Origin
from testbed.network_models.ports.fifo import FifoPort
from testbed.network_models.ports.flight import Trains
from testbed.network_models.ports.packet import Packet, Port, PortUsage
from testbed.network_models.rates.segments import Rate
from testbed.network_models.topology.failures import Failures
from testbed.network_models.transfer import Direction
from testbed.scenarios.topology import Edge

Way = tuple[str, str]


class EdgePort:
    """The two stages of a direction, and its account. Every packet offered is dropped, lost, failed, passed or here."""

    def __init__(self, env: simpy.Environment, edge: Edge, way: Way, *, failures: Failures | None, seed: int) -> None:
        self.way = way
        origin = Origin(seed=seed, direction=Direction.UP, entity=0, place=f"edge.{way[0]}.{way[1]}")
        rate: Rate = RATES.load(edge.rate.kind)(edge.rate, origin)
        self._queue = FifoPort(env, _bare_channel(edge, origin, rate))
        self._wire = Wire(env, edge, origin, rate, failures)
        self._counter = _Counter(env, self._queue)
        self.stages: tuple[Port, ...] = (self._counter, self._wire)

    def end(self, now_ns: int) -> EdgeEnd:
        """Its account now."""
        usage, wire, counter = self._queue.usage(now_ns), self._wire, self._counter
        return EdgeEnd(
            source=self.way[0],
            target=self.way[1],
            offered_packets=counter.packets,
            offered_bytes=counter.bytes,
            dropped_packets=counter.packets - counter.taken_packets,
        )
