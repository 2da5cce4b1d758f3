"""A message's way under stop-and-wait: a list of *legs*, runs of equal packets that each wait for the one before.

Those that got through at once are one leg; every transmission of a packet that was lost is a leg of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from testbed.network_models.channel import Loss
from testbed.network_models.rates.pacing import num_paced, paced_ns
from testbed.network_models.rates.segments import Rate


class Run(NamedTuple):
    """Equal packets of one fate; one that did not get through is alone. `attempt` is 0 for first transmissions."""

    first_packet: int
    size_bytes: int
    num_packets: int
    attempt: int = 0
    is_lost: bool = False
    is_corrupt: bool = False

    @property
    def is_missing(self) -> bool:
        return self.is_lost or self.is_corrupt


class Leg(NamedTuple):
    """A run on its way: its first packet is handed over at `start_ns`, others `pause_ns` after the one before left."""

    run: Run
    start_ns: int
    left_ns: int  # the last one's last bit
    pause_ns: int  # also after the last

    @property
    def serialise_ns(self) -> int:
        return self.left_ns - self.start_ns - (self.run.num_packets - 1) * self.pause_ns

    def handed_over(self, rate: Rate, now_ns: int) -> Leg:
        """Of a leg that has begun, the packets handed over by now."""
        if self.left_ns <= now_ns:
            return self
        run, pause_ns = self.run, self.pause_ns
        count = 1 + num_paced(rate, self.start_ns, run.size_bytes, pause_ns, now_ns - pause_ns)
        left_ns = paced_ns(rate, self.start_ns, run.size_bytes, count, pause_ns)
        return self._replace(run=run._replace(num_packets=count), left_ns=left_ns)


@dataclass(slots=True)
class Tally:
    """What was handed to the queue so far."""

    packets: int = 0
    retransmissions: int = 0
    wire_bytes: int = 0
    lost_packets: int = 0
    corrupt_packets: int = 0
    arrived_packets: int = 0
    duplicate_packets: int = 0
    busy_ns: int = 0
    largest_bytes: int = 0

    def add(self, leg: Leg, duplication: Loss | None) -> None:
        run = leg.run
        self.packets += 0 if run.attempt else run.num_packets
        self.retransmissions += run.num_packets if run.attempt else 0
        self.wire_bytes += run.num_packets * run.size_bytes
        self.lost_packets += run.is_lost
        self.corrupt_packets += run.is_corrupt
        self.arrived_packets += 0 if run.is_missing else run.num_packets
        self.busy_ns += leg.serialise_ns
        self.largest_bytes = max(self.largest_bytes, run.size_bytes)
        if duplication is not None and not run.is_missing:
            packets = range(run.first_packet, run.first_packet + run.num_packets)
            self.duplicate_packets += sum(duplication.is_lost(packet, run.attempt, leg.left_ns) for packet in packets)
