"""What a link has carried so far: the same counters, whatever its transport and resolution."""

from __future__ import annotations

import simpy

from testbed.network_models.ports.packet import PortUsage
from testbed.network_models.transfer import LinkSnapshot, Transfer


class LinkAccount:
    """One direction's counters. Links inherit it: an object of its own would cost every idle link its memory."""

    __slots__ = (
        "_ack_bytes",
        "_corrupt_packets",
        "_delivered",
        "_delivered_payload_bytes",
        "_dropped_packets",
        "_duplicate_packets",
        "_lost",
        "_lost_packets",
        "_lost_payload_bytes",
        "_packets",
        "_payload_bytes",
        "_retransmissions",
        "_wire_bytes",
        "num_messages",
    )

    def __init__(self) -> None:
        self.num_messages = self._delivered = self._lost = 0
        self._payload_bytes = self._delivered_payload_bytes = self._lost_payload_bytes = 0
        self._packets = self._retransmissions = self._dropped_packets = self._lost_packets = 0
        self._wire_bytes = self._ack_bytes = self._duplicate_packets = self._corrupt_packets = 0

    def _count_message(self, payload_bytes: int) -> None:
        assert payload_bytes >= 0, f"a message can't have {payload_bytes} bytes"
        self.num_messages += 1
        self._payload_bytes += payload_bytes

    def count_end(self, done: simpy.Event) -> None:
        """A message has ended."""
        transfer = done.value
        assert isinstance(transfer, Transfer)
        if transfer.delivered:
            self._delivered += 1
            self._delivered_payload_bytes += transfer.payload_bytes
        else:
            self._lost += 1
            self._lost_payload_bytes += transfer.payload_bytes

    def _counted(self, port: PortUsage) -> LinkSnapshot:
        """The counters now, and beside them how busy the sending port is."""
        return LinkSnapshot(
            messages=self.num_messages,
            delivered=self._delivered,
            lost=self._lost,
            payload_bytes=self._payload_bytes,
            delivered_payload_bytes=self._delivered_payload_bytes,
            lost_payload_bytes=self._lost_payload_bytes,
            wire_bytes=self._wire_bytes,
            packets=self._packets,
            retransmissions=self._retransmissions,
            dropped_packets=self._dropped_packets,
            lost_packets=self._lost_packets,
            busy_ns=port.busy_ns,
            backlog_bytes=port.backlog_bytes,
            peak_backlog_bytes=port.peak_backlog_bytes,
            ack_bytes=self._ack_bytes,
            duplicate_packets=self._duplicate_packets,
            corrupt_packets=self._corrupt_packets,
        )
