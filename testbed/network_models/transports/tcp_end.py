"""One end of a TCP connection: the three-way handshake, then a sending and a receiving half (RFC 9293)."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from testbed.network_models.framing import Framing
from testbed.network_models.transports.congestion import Congestion
from testbed.network_models.transports.engine import Outgoing
from testbed.network_models.transports.stream import Message, Segment, segments
from testbed.network_models.transports.tcp_receiver import TcpAck, TcpReceiver
from testbed.network_models.transports.tcp_sender import TcpRules, TcpSender

_OPTION_BYTES, _RANGE_BYTES = 4, 8  # of a selective acknowledgement, padded (RFC 2018)


class TcpPacket(NamedTuple):
    """What a packet says: SYN has no `ack`, SYN-ACK has both, all others have an `ack` and perhaps a segment."""

    is_syn: bool
    ack: TcpAck | None
    place: int = 0  # of the segment in the stream
    segment: Segment | None = None


class _State(Enum):
    CLOSED = auto()
    SYN_SENT = auto()
    SYN_RECEIVED = auto()
    ESTABLISHED = auto()


class TcpEnd:
    """The end that first has something to send opens the connection; the other answers."""

    __slots__ = (
        "_framing",
        "_num_replies",
        "_num_syns",
        "_receiver",
        "_reply_due",
        "_rules",
        "_spoken_ns",
        "_state",
        "_syn_deadline_ns",
        "_syn_due",
        "_unconnected",
        "sender",
    )

    def __init__(self, rules: TcpRules, framing: Framing, congestion: Congestion) -> None:
        self._rules = rules
        self._framing = framing
        self.sender = TcpSender(rules, congestion)
        self._receiver = TcpReceiver(rules.delayed_ack_ns)
        self._state = _State.CLOSED
        self._unconnected: list[Message] = []
        self._syn_due = self._reply_due = False
        self._num_syns = self._num_replies = 0
        self._spoken_ns = 0  # the last SYN or SYN-ACK
        self._syn_deadline_ns = -1

    @property
    def deadline_ns(self) -> int:
        deadlines = (self._syn_deadline_ns, self.sender.deadline_ns, self._receiver.deadline_ns)
        return min((deadline for deadline in deadlines if deadline >= 0), default=-1)

    def write(self, now_ns: int, message: Message) -> None:
        self.sender.write(segments(message, self._framing))
        if self._state is _State.ESTABLISHED:
            message.connected_ns = now_ns
            return
        self._unconnected.append(message)
        if self._state is _State.CLOSED:
            self._state, self._syn_due = _State.SYN_SENT, True

    def receive(self, now_ns: int, content: object) -> Segment | None:
        assert isinstance(content, TcpPacket)
        if content.is_syn and content.ack is None:
            self._reply_due = True
            if self._state is _State.CLOSED:
                self._state = _State.SYN_RECEIVED
            return None
        if self._state is not _State.ESTABLISHED:
            self._establish(now_ns)
        if content.is_syn:
            self._receiver.ask_for_ack()
            return None
        assert content.ack is not None
        self.sender.acknowledged(now_ns, content.ack)
        if content.segment is None or not self._receiver.receive(now_ns, content.place, content.segment):
            return None
        return content.segment

    def completed(self, segment: Segment) -> list[Message]:
        return self._receiver.in_order()

    def _establish(self, now_ns: int) -> None:
        self._state = _State.ESTABLISHED
        if self._num_syns + self._num_replies == 1:
            self.sender.round_trip.sample(now_ns - self._spoken_ns)
        self._syn_due, self._syn_deadline_ns = False, -1
        for message in self._unconnected:
            message.connected_ns = now_ns
        self._unconnected.clear()

    def next_packet(self, now_ns: int) -> Outgoing | None:
        if self._syn_due:
            return self._syn(now_ns)
        if self._reply_due:
            self._reply_due = False
            self._num_replies += 1
            self._spoken_ns = now_ns
            return Outgoing(self._framing.header_bytes, TcpPacket(True, self._receiver.acknowledge()))
        found = self.sender.next_segment(now_ns) if self._state is _State.ESTABLISHED else None
        if found is not None:
            index, segment = found
            size_bytes = self._framing.header_bytes + segment.payload_bytes
            return Outgoing(size_bytes, TcpPacket(False, self._receiver.acknowledge(), index, segment), segment)
        if self._receiver.wants_ack:
            ack = self._receiver.acknowledge()
            option_bytes = _OPTION_BYTES + _RANGE_BYTES * len(ack.ranges) if ack.ranges else 0
            return Outgoing(self._framing.header_bytes + option_bytes, TcpPacket(False, ack))
        return None

    def _syn(self, now_ns: int) -> Outgoing:
        self._syn_due = False
        self._syn_deadline_ns = now_ns + (self._rules.initial_rto_ns << self._num_syns)
        self._num_syns += 1
        self._spoken_ns = now_ns
        return Outgoing(self._framing.header_bytes, TcpPacket(True, None), opens_for=self._unconnected[0])

    def expire(self, now_ns: int) -> bool:
        if 0 <= self._syn_deadline_ns <= now_ns:
            self._syn_deadline_ns, self._syn_due = -1, True
            return self._num_syns > self._rules.max_retries
        self._receiver.expire(now_ns)
        return self.sender.expire(now_ns)

    def abandon(self, message: Message) -> bool:
        return False  # a gap in the stream can't be closed
