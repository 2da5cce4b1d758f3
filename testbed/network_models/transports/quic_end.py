"""One end of a QUIC connection: handshake, streams without order among them, a sending and a receiving half."""

from __future__ import annotations

from typing import NamedTuple

from testbed.network_models.framing import Framing
from testbed.network_models.transports.congestion import Congestion
from testbed.network_models.transports.engine import Outgoing
from testbed.network_models.transports.quic_receiver import QuicAck, QuicReceiver
from testbed.network_models.transports.quic_sender import INITIAL_PROBE_NS, QuicRules, QuicSender
from testbed.network_models.transports.stream import Message, Segment, segments

_RANGE_BYTES = 4  # of a further range in an acknowledgement


class QuicPacket(NamedTuple):
    """What a packet says; `number` is never used twice, -1 in the handshake, which has numbers of its own."""

    number: int
    is_reply: bool = False
    ack: QuicAck | None = None
    segment: Segment | None = None


class QuicEnd:
    """Each message is a stream: it is complete when its own segments are there, whatever else is missing."""

    __slots__ = (
        "_framing",
        "_has_begun",
        "_has_spoken",
        "_heard_ns",
        "_initial_due",
        "_initial_ns",
        "_is_open",
        "_next_number",
        "_num_initials",
        "_receiver",
        "_reply_due",
        "_rules",
        "_unconnected",
        "sender",
    )

    def __init__(self, rules: QuicRules, framing: Framing, congestion: Congestion) -> None:
        self._rules = rules
        self._framing = framing
        self.sender = QuicSender(rules, congestion)
        self._receiver = QuicReceiver(rules.ack_delay_ns)
        self._is_open = self._has_begun = False
        self._unconnected: list[Message] = []
        self._initial_due = self._reply_due = False
        self._num_initials = 0
        self._initial_ns = 0
        self._next_number = 0
        self._heard_ns = 0  # the last packet of the other end, or the first sent since
        self._has_spoken = False  # since then

    @property
    def deadline_ns(self) -> int:
        deadlines = (self._initial_deadline_ns, self._idle_ns, self.sender.deadline_ns, self._receiver.deadline_ns)
        return min((deadline for deadline in deadlines if deadline >= 0), default=-1)

    @property
    def _initial_deadline_ns(self) -> int:
        if self._is_open or not self._num_initials:
            return -1
        return self._initial_ns + (INITIAL_PROBE_NS << (self._num_initials - 1))

    @property
    def _idle_ns(self) -> int:
        is_waiting = self.sender.is_waiting or (self._has_begun and not self._is_open)
        return self._heard_ns + self._rules.idle_timeout_ns if is_waiting and self._has_spoken else -1

    def write(self, now_ns: int, message: Message) -> None:
        self.sender.write(segments(message, self._framing))
        if not (self._has_begun or self._is_open):
            self._has_begun = self._initial_due = True
        if self._is_open or self._rules.zero_rtt:
            message.connected_ns = now_ns
        if not self._is_open:
            self._unconnected.append(message)

    def receive(self, now_ns: int, content: object) -> Segment | None:
        assert isinstance(content, QuicPacket)
        self._heard_ns, self._has_spoken = now_ns, False
        if not self._is_open:
            self._open(now_ns, content)
        if content.number < 0:
            self._reply_due = not content.is_reply
            return None
        segment = content.segment
        self._receiver.receive(now_ns, content.number, wants_ack=segment is not None)
        if content.ack is not None:
            self.sender.acknowledged(now_ns, content.ack)
        if segment is None or segment.has_arrived:
            return None
        segment.has_arrived = True
        return segment

    def completed(self, segment: Segment) -> list[Message]:
        return [] if segment.message.missing else [segment.message]

    def _open(self, now_ns: int, first: QuicPacket) -> None:
        self._is_open, self._initial_due = True, False
        if first.is_reply and self._num_initials == 1:
            self.sender.round_trip.sample(now_ns - self._initial_ns)
        for message in self._unconnected:
            message.connected_ns = message.connected_ns if self._rules.zero_rtt else now_ns
        self._unconnected.clear()

    def next_packet(self, now_ns: int) -> Outgoing | None:
        outgoing = self._handshake(now_ns) or self._data(now_ns) or self._acknowledgement(now_ns)
        if outgoing is not None and not self._has_spoken:
            self._heard_ns, self._has_spoken = now_ns, True
        return outgoing

    def _handshake(self, now_ns: int) -> Outgoing | None:
        if self._initial_due:
            self._initial_due, self._initial_ns = False, now_ns
            self._num_initials += 1
            return Outgoing(self._rules.initial_bytes, QuicPacket(-1), opens_for=self._unconnected[0])
        if self._reply_due:
            self._reply_due = False
            return Outgoing(self._rules.initial_bytes, QuicPacket(-1, is_reply=True))
        return None

    def _data(self, now_ns: int) -> Outgoing | None:
        if not (self._is_open or (self._rules.zero_rtt and self._has_begun)):
            return None
        segment = self.sender.next_segment(now_ns, self._next_number)
        if segment is None:
            return None
        size_bytes = self._framing.header_bytes + segment.payload_bytes
        return Outgoing(size_bytes, self._packet(now_ns, segment), segment)

    def _acknowledgement(self, now_ns: int) -> Outgoing | None:
        if not self._receiver.wants_ack:
            return None
        packet = self._packet(now_ns, None)
        assert packet.ack is not None
        return Outgoing(self._rules.ack_bytes + _RANGE_BYTES * (len(packet.ack.ranges) - 1), packet)

    def _packet(self, now_ns: int, segment: Segment | None) -> QuicPacket:
        ack = self._receiver.acknowledge(now_ns)
        self._next_number += 1
        return QuicPacket(self._next_number - 1, ack=ack if ack.ranges else None, segment=segment)

    def expire(self, now_ns: int) -> bool:
        if 0 <= self._idle_ns <= now_ns:
            return True
        if 0 <= self._initial_deadline_ns <= now_ns:
            self._initial_due = True
        self._receiver.expire(now_ns)
        self.sender.expire(now_ns)
        return False

    def abandon(self, message: Message) -> bool:
        self.sender.forget(message)
        if message in self._unconnected:
            self._unconnected.remove(message)
        return bool(self._is_open or self._unconnected)
