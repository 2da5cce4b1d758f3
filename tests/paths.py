"""Paths of several ports for tests, and an end that notes what becomes of packets."""

from __future__ import annotations

from testbed.network_models.build import connect, port_of
from testbed.network_models.channel import build_channel
from testbed.network_models.origin import Origin
from testbed.network_models.ports.packet import Packet, Path
from testbed.network_models.transfer import Direction
from testbed.scenarios.profiles import LinkProfile

HOP = {"name": "hop", "rate_down": "1 Gbit/s", "propagation_delay": 0, "queue": "1 TB", "mtu": "1 GB", "header": "1 B"}


def hop_port(env, entity=0, **changes):
    """A port of its own; a byte takes a nanosecond where nothing else is said."""
    profile = LinkProfile(**{**HOP, "rate_up": "8 Gbit/s", **changes})
    return port_of(env, build_channel(profile, Origin(seed=1, direction=Direction.UP, entity=entity)))


def link_over(env, profile, ports):
    """The profile's transport over these ports; acknowledgements come back over one more."""
    return connect(env, profile, Path(ports=ports), Path(ports=(hop_port(env, propagation_delay="2 ms"),))).up


class Notes:
    """Where each packet went, by its number."""

    def __init__(self):
        self.left_ns, self.dropped_ns, self.lost_ns, self.arrived_ns = {}, {}, {}, {}

    def left(self, packet, left_ns):
        self.left_ns[packet.number] = left_ns

    def dropped(self, packet):
        self.dropped_ns[packet.number] = packet.content.now

    def lost(self, packet, gone_ns):
        self.lost_ns[packet.number] = gone_ns

    def arrived(self, packet):
        self.arrived_ns[packet.number] = packet.content.now


def send_packets(env, ports, times_ns, sizes_bytes):
    """Hand packets to the first port at ascending times, run to the end, and give the notes."""
    end = Notes()

    def sender():
        for number, (time_ns, size_bytes) in enumerate(zip(times_ns, sizes_bytes, strict=True)):
            if time_ns > env.now:
                yield env.timeout(int(time_ns) - env.now)
            ports[0].offer(Packet(int(size_bytes), end, ports, 0, number, 0, number, int(time_ns), env))

    env.process(sender())
    env.run()
    return end
