"""Messages to packets: every packet but a message's last is as large as the MTU allows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """`mtu_bytes` of network-layer bytes a packet, `header_bytes` of them headers, the rest payload."""

    mtu_bytes: int
    header_bytes: int

    def cut(self, payload_bytes: int) -> tuple[int, int]:
        """Number of packets, and the size of the last; as the two methods below say."""
        room_bytes = self.mtu_bytes - self.header_bytes
        num_packets = -(-payload_bytes // room_bytes) or 1
        return num_packets, self.header_bytes + payload_bytes - (num_packets - 1) * room_bytes

    def num_packets(self, payload_bytes: int) -> int:
        """At least one: an empty message travels as a bare header."""
        return self.cut(payload_bytes)[0]

    def last_packet_bytes(self, payload_bytes: int) -> int:
        """Size of the last packet with its header; the ones before it are `mtu_bytes` each."""
        return self.cut(payload_bytes)[1]

    def wire_bytes(self, payload_bytes: int) -> int:
        """All packets of a message, each sent once."""
        return payload_bytes + self.num_packets(payload_bytes) * self.header_bytes
