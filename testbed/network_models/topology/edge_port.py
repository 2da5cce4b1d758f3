"""One direction of a shared edge: a queue that is drained at the edge's rate, then the wire."""

from __future__ import annotations

import simpy

from testbed.core.cast import EdgeEnd
from testbed.core.errors import ScenarioError
from testbed.core.registry import LOSSES, RATES
from testbed.network_models.build import port_of
from testbed.network_models.channel import Channel, Loss
from testbed.network_models.framing import Framing
from testbed.network_models.jitter import Jitter
from testbed.network_models.origin import Origin
from testbed.network_models.ports.flight import Trains
from testbed.network_models.ports.packet import OneByOne, Packet, Port, PortUsage
from testbed.network_models.rates.segments import Rate
from testbed.network_models.topology.failures import Failures
from testbed.network_models.transfer import Direction
from testbed.scenarios.topology import Edge, Way

_MTU = Framing(mtu_bytes=1500, header_bytes=0)  # packets come as their senders cut them


class NoLoss:
    """Nothing is lost."""

    def lost(self, packets: object, attempt: int) -> list[int]:
        return []

    def is_lost(self, packet: int, attempt: int, time_ns: int) -> bool:
        return False


class EdgePort:
    """The stages of one direction of an edge, and its account."""

    def __init__(self, env: simpy.Environment, edge: Edge, way: Way, *, failures: Failures | None, seed: int) -> None:
        origin = Origin(seed=seed, direction=Direction.UP, entity=0, place=f"edge.{way[0]}.{way[1]}")
        rate: Rate = RATES.load(edge.rate.kind)(edge.rate, origin)
        self.way = way
        self._failures = failures
        self._queue = _Entry(port_of(env, _queue_alone(edge, origin, rate)))
        self._wire = Wire(env, edge, origin, rate, failures)
        self.stages: tuple[Port, ...] = (self._queue, self._wire)

    def end(self, now_ns: int) -> EdgeEnd:
        """Its account until now: what was offered was dropped, lost, failed or carried, or is waiting."""
        queue, wire, usage = self._queue, self._wire, self._queue.usage(now_ns)
        return EdgeEnd(
            source=self.way[0],
            target=self.way[1],
            offered_packets=queue.offered_packets,
            offered_bytes=queue.offered_bytes,
            carried_packets=wire.carried_packets,
            carried_bytes=wire.carried_bytes,
            dropped_packets=usage.dropped_packets,
            lost_packets=wire.lost_packets,
            failed_packets=wire.failed_packets,
            waiting_bytes=usage.backlog_bytes,
            peak_backlog_bytes=usage.peak_backlog_bytes,
            busy_ns=usage.busy_ns,
            down_ns=0 if self._failures is None else self._failures.total_ns(now_ns),
        )


def check_edge(edge: Edge) -> None:
    """Raise ScenarioError, with the key of the edge, for a file that a piece can't read."""
    origin, piece = Origin(seed=0, direction=Direction.UP, entity=0), edge.rate
    try:
        rate: Rate = RATES.load(piece.kind)(piece, origin)
    except ScenarioError as error:
        raise error.below("rate") from None
    try:
        if edge.loss is not None:
            LOSSES.load(edge.loss.kind)(edge.loss, origin, rate)
    except ScenarioError as error:
        raise error.below("loss") from None


def _queue_alone(edge: Edge, origin: Origin, rate: Rate) -> Channel:
    """The channel of a port that only queues and clocks out: loss and delay come after it."""
    return Channel(
        framing=_MTU,
        rate=rate,
        loss=NoLoss(),
        duplication=None,
        corruption=None,
        jitter=Jitter(None, origin),
        keeps_order=False,
        propagation_ns=0,
        queue=edge.queue,
    )


class _Entry(OneByOne):
    """Counts what comes to the queue."""

    __slots__ = ("_queue", "offered_bytes", "offered_packets", "propagation_ns", "usage")

    def __init__(self, queue: Port) -> None:
        self._queue = queue
        self.usage = queue.usage
        self.propagation_ns = 0
        self.offered_packets = self.offered_bytes = 0

    def offer(self, packet: Packet) -> None:
        self.offered_packets += 1
        self.offered_bytes += packet.size_bytes
        self._queue.offer(packet)


class Wire(Trains):
    """From a packet's last bit to its arrival: loss, with draws of the sender's own, failure, and delay."""

    __slots__ = (
        "_edge",
        "_failures",
        "_losses",
        "_origin",
        "_rate",
        "carried_bytes",
        "carried_packets",
        "failed_packets",
        "lost_packets",
        "propagation_ns",
    )

    def __init__(
        self, env: simpy.Environment, edge: Edge, origin: Origin, rate: Rate, failures: Failures | None
    ) -> None:
        super().__init__(env)
        self._rate = rate
        self._edge = edge
        self._origin = origin
        self.propagation_ns = edge.propagation_ns
        self._failures = failures
        self._losses: dict[int, Loss] = {}  # by the sender's entity
        self.carried_packets = self.carried_bytes = self.lost_packets = self.failed_packets = 0

    def offer(self, packet: Packet) -> None:
        """Its last bit has just left the queue."""
        now_ns = int(self._env.now)
        out_ns = now_ns + self.propagation_ns
        failures = self._failures
        if failures is not None and (failures.is_down(now_ns) or failures.next_failure_ns(now_ns) < out_ns):
            self.failed_packets += 1
            packet.end.lost(packet, out_ns)
        elif self._edge.loss is not None and self._loss_of(packet).is_lost(packet.number, packet.attempt, now_ns):
            self.lost_packets += 1
            packet.end.lost(packet, out_ns)
        else:
            self.carried_packets += 1
            self.carried_bytes += packet.size_bytes
            packet.propagate_ns += self.propagation_ns
            self._bring(packet, out_ns)

    def _loss_of(self, packet: Packet) -> Loss:
        found = self._losses.get(packet.entity)
        if found is None:
            found = self._losses[packet.entity] = self._new_loss(packet.entity)
        return found

    def _new_loss(self, entity: int) -> Loss:
        config = self._edge.loss
        assert config is not None, "asked for on lossy edges only"
        loss: Loss = LOSSES.load(config.kind)(config, self._origin.of(entity), self._rate)
        return loss

    def usage(self, now_ns: int) -> PortUsage:
        """It holds no queue."""
        return PortUsage(0, 0, 0, 0)
