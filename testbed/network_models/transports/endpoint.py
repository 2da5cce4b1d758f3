"""The two ends of a connection on the clock: engines, timers, packets, and the account of each direction."""

from __future__ import annotations

from collections.abc import Callable

import simpy

from testbed.network_models.clock import Delivery, Timer
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Packet, Path
from testbed.network_models.transfer import LinkSnapshot, Transfer
from testbed.network_models.transports.account import LinkAccount
from testbed.network_models.transports.engine import Engine, Outgoing
from testbed.network_models.transports.stream import Message, Segment
from testbed.network_models.transports.transport import Access


class Endpoint(LinkAccount):
    """One end: the link for messages that begin here. It tells the sender's engine what happens, and the reader's."""

    __slots__ = (
        "_alarm_ns",
        "_connection",
        "_engine",
        "_env",
        "_framing",
        "_latest",
        "_open",
        "_path",
        "peer",
    )

    def __init__(self, env: simpy.Environment, framing: Framing, path: Path, connection: Connection) -> None:
        super().__init__()
        self._env = env
        self._framing = framing
        self._path = path
        self._connection = connection
        self._engine: Engine | None = None  # made when there is something to say: idle links are many
        self.peer = self
        self._open: dict[int, tuple[Message, Delivery]] = {}  # messages that have not ended, oldest first
        self._latest = 0  # message sent from here: what carries no message has its jitter
        self._alarm_ns = -1  # of the timer that will come first

    @property
    def engine(self) -> Engine:
        """The half of the connection that is here, as it is now."""
        if self._engine is None:
            self._engine = self._connection.make_engine()
        return self._engine

    # --- messages ----------------------------------------------------------------------------------------------------

    def send(self, payload_bytes: int) -> simpy.Event:
        """Hand over one message now; the event succeeds with its `Transfer` when it is delivered or given up."""
        self._count_message(payload_bytes)
        now_ns, num_packets = int(self._env.now), self._framing.num_packets(payload_bytes)
        message = Message(
            number=self._path.numbers.message(),
            payload_bytes=payload_bytes,
            num_packets=num_packets,
            sent_ns=now_ns,
            missing=num_packets,
        )
        done = Delivery(self._env)
        done.callbacks.append(self.count_end)
        self._open[message.number] = message, done
        self._latest = message.number
        self._packets += num_packets
        self.engine.write(now_ns, message)
        self.run()
        return done

    def deliver(self, message: Message) -> None:
        """The other end has read it."""
        if message.number not in self._open:
            return  # arrived after its sender gave it up
        self._settle(message, message.delivered(int(self._env.now)))

    def _give_up(self, message: Message) -> None:
        self._settle(message, message.given_up(int(self._env.now)))

    def _settle(self, message: Message, transfer: Transfer) -> None:
        self._open.pop(message.number)[1].settle(transfer, 0)

    # --- time --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Send all that may go now, then set the timer."""
        now_ns = int(self._env.now)
        while (outgoing := self.engine.next_packet(now_ns)) is not None:
            self._put(outgoing, now_ns)
        deadline_ns = self._deadline_ns
        if deadline_ns >= 0 and (self._alarm_ns < 0 or deadline_ns < self._alarm_ns):
            self._alarm_ns = deadline_ns
            Timer(self._env, max(0, deadline_ns - now_ns), self._wake)

    @property
    def _deadline_ns(self) -> int:
        """The engine's next time-out, or when the oldest message's patience ends."""
        deadline_ns, patience_ns = self.engine.deadline_ns, self._connection.patience_ns
        if patience_ns is None or not self._open:
            return deadline_ns
        patience_end_ns = next(iter(self._open.values()))[0].sent_ns + patience_ns
        return patience_end_ns if deadline_ns < 0 else min(deadline_ns, patience_end_ns)

    def _wake(self, _: simpy.Event) -> None:
        now_ns, patience_ns = int(self._env.now), self._connection.patience_ns
        if self._alarm_ns != now_ns:
            return  # another one took its place
        self._alarm_ns = -1
        is_gone = self.engine.expire(now_ns)
        if patience_ns is not None:
            for message, _done in list(self._open.values()):
                if now_ns >= message.sent_ns + patience_ns and not is_gone:
                    is_gone = not self.engine.abandon(message)
                    if not is_gone:
                        self._give_up(message)
        if is_gone:
            self._connection.close()
        self.run()

    def reset(self) -> None:
        """The connection is no more: what it had not delivered is lost, and the next message opens another."""
        for message, _ in list(self._open.values()):
            self._give_up(message)
        self._engine = None

    # --- packets -----------------------------------------------------------------------------------------------------

    def _put(self, outgoing: Outgoing, now_ns: int) -> None:
        segment = outgoing.segment
        if segment is not None and segment.num_sent > 1:
            segment.message.num_retransmissions += 1
            self._retransmissions += 1
        self._path.send(
            Packet(
                size_bytes=outgoing.size_bytes,
                end=self,
                ports=self._path.ports,
                entity=self._path.entity,
                number=self._path.numbers.packets(1),  # each transmission is a packet of its own to loss
                attempt=0,
                message=self._latest if segment is None else segment.message.number,
                sent_ns=now_ns if segment is None else segment.message.sent_ns,
                content=(self.engine, outgoing),
            )
        )

    def left(self, packet: Packet, left_ns: int) -> None:
        _, outgoing = _content(packet)
        message = outgoing.opens_for if outgoing.segment is None else outgoing.segment.message
        if message is None:
            self.peer.count_ack(packet.size_bytes)
        else:
            message.wire_bytes += packet.size_bytes
            self._wire_bytes += packet.size_bytes

    def count_ack(self, size_bytes: int) -> None:
        """So many bytes were spent to acknowledge what is sent from here."""
        self._ack_bytes += size_bytes

    def dropped(self, packet: Packet) -> None:
        self._dropped_packets += _content(packet)[1].segment is not None

    def lost(self, packet: Packet, gone_ns: int) -> None:
        if _content(packet)[1].segment is None:
            return
        if packet.is_corrupt:  # the checksum shows it
            self._corrupt_packets += 1
        else:
            self._lost_packets += 1

    def arrived(self, packet: Packet) -> None:
        engine, outgoing = _content(packet)
        if engine is self._engine:  # not of an earlier connection
            self.peer.read(packet, outgoing)

    def read(self, packet: Packet, outgoing: Outgoing) -> None:
        """A packet of the other end is here."""
        now_ns = int(self._env.now)
        segment = self.engine.receive(now_ns, outgoing.content)
        if segment is not None:
            self._take(segment, packet, now_ns)
        elif outgoing.segment is not None:
            self.peer.count_duplicate()
        self.run()

    def _take(self, segment: Segment, packet: Packet, now_ns: int) -> None:
        segment.message.arrive(segment, packet, now_ns)
        for message in self.engine.completed(segment):
            self.peer.deliver(message)

    def count_duplicate(self) -> None:
        """One of the segments sent from here arrived once more."""
        self._duplicate_packets += 1

    def snapshot(self) -> LinkSnapshot:
        """The counters now; changes nothing. Packets are those with a message's bytes; the port carries others too."""
        return self._counted(self._path.ports[0].usage(int(self._env.now)))


class Connection:
    """Two ends and the paths between them; it lives until one end finds the other gone, and is then made anew."""

    __slots__ = (
        "_ends",
        "make_engine",
        "patience_ns",
    )

    def __init__(
        self,
        env: simpy.Environment,
        framing: Framing,
        up: Path,
        down: Path,
        *,
        make_engine: Callable[[], Engine],
        patience_ns: int | None,
    ) -> None:
        self.make_engine = make_engine
        self.patience_ns = patience_ns
        self._ends = Endpoint(env, framing, up, self), Endpoint(env, framing, down, self)
        self._ends[0].peer, self._ends[1].peer = self._ends[1], self._ends[0]

    def close(self) -> None:
        """Both ends give up all that is under way."""
        for end in self._ends:
            end.reset()

    def access(self) -> Access:
        """The two directions as links."""
        return Access(*self._ends)


def _content(packet: Packet) -> tuple[Engine, Outgoing]:
    assert isinstance(packet.content, tuple)
    engine, outgoing = packet.content
    assert isinstance(outgoing, Outgoing)
    return engine, outgoing
