"""The same links as ns.py makes them: a port, a wire and a sink for each. Its packets are lost for good."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence

import simpy
from ns.packet.packet import Packet
from ns.packet.sink import PacketSink
from ns.port.port import Port
from ns.port.wire import Wire


def ns_links(
    env: simpy.Environment,
    num_links: int,
    *,
    rate_bps: float,
    limit_bytes: int,
    delay_s: Callable[[random.Random], float],
    p_loss: float,
) -> list[Port]:
    """One port a link, with what follows it. Times are in seconds; losses draw from the global generator."""
    generator = random.Random(1)
    ports = []
    for _ in range(num_links):
        port = Port(env, rate_bps, qlimit=limit_bytes + 1, limit_bytes=True)  # refuses at the limit, not above it
        port.out = Wire(env, lambda: delay_s(generator), lambda packet_id: p_loss)
        port.out.out = PacketSink(env)
        ports.append(port)
    return ports


def send_ns(
    env: simpy.Environment, port: Port, sizes: Sequence[int], num_messages: int, gap_s: float
) -> Generator[simpy.Event, None, None]:
    """So many messages of packets of these sizes."""
    packet_id = 0
    for _ in range(num_messages):
        for size_bytes in sizes:
            port.put(Packet(env.now, size_bytes, packet_id))
            packet_id += 1
        yield env.timeout(gap_s)
