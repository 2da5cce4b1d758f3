"""Ports against ns.py: the same arrivals, rates, delays and limits give the same finish times."""

from __future__ import annotations

import numpy as np
import pytest
import simpy

pytest.importorskip("ns", reason="ns.py is not installed: pip install ns.py")

from ns.packet.packet import Packet
from ns.port.port import Port
from ns.port.wire import Wire

from tests.paths import hop_port, send_packets


class Sink:
    """ns.py's packets arrive here."""

    def __init__(self, env):
        self.env, self.arrived_s = env, {}

    def put(self, packet):
        self.arrived_s[packet.packet_id] = self.env.now


def send_ns(hops, times_s, sizes):
    """When ns.py's packets arrive over ports of these (bit/s, limit in bytes, delay in s), and what was dropped."""
    env = simpy.Environment()
    sink = target = Sink(env)
    ports = []
    for rate_bps, limit_bytes, delay_s in reversed(hops):
        wire = Wire(env, lambda delay_s=delay_s: delay_s)
        port = Port(env, rate_bps, qlimit=limit_bytes + 1, limit_bytes=True)  # it refuses at the limit, not above it
        port.out, wire.out, target = wire, target, port
        ports.append(port)

    def sender():
        for number, (time_s, size) in enumerate(zip(times_s, sizes, strict=True)):
            yield env.timeout(time_s - env.now)
            target.put(Packet(env.now, int(size), number))

    env.process(sender())
    env.run()
    return sink.arrived_s, sum(port.packets_dropped for port in ports)


@pytest.mark.parametrize(
    ("hops", "seed"),
    [
        ([(8_000_000, 10**9, 0.010)], 1),
        ([(8_000_000, 6000, 0.010)], 2),  # drop-tail
        ([(8_000_000, 10**9, 0.010), (4_000_000, 9000, 0.003), (16_000_000, 3000, 0.020)], 3),
    ],
)
def test_packets_arrive_when_they_do_in_ns_py(hops, seed):
    # Rates divide 8 * 10**9, so that no service time is rounded: what is left is ns.py's float seconds.
    generator = np.random.default_rng(seed)
    times_ns = np.cumsum(np.ceil(generator.exponential(900_000, 1500))).astype(np.int64)
    sizes = generator.integers(40, 1501, 1500)
    expected_s, num_dropped = send_ns(hops, times_ns / 1e9, sizes)
    env = simpy.Environment()
    ports = tuple(
        hop_port(env, rate_up=f"{rate_bps} bit/s", mtu="1500 B", queue=f"{limit} B", propagation_delay=f"{delay_s} s")
        for rate_bps, limit, delay_s in hops
    )
    end = send_packets(env, ports, times_ns, sizes)
    assert list(end.arrived_ns) == list(expected_s)
    assert len(end.dropped_ns) + len(end.lost_ns) == num_dropped
    difference_s = np.asarray(list(end.arrived_ns.values())) / 1e9 - np.asarray(list(expected_s.values()))
    assert np.abs(difference_s).max() < 1e-9
