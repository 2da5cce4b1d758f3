"""Small messages that share a queue with a bulk transfer: how long they wait is the queue's doing."""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from testbed.network_models.build import build_ports, connect
from testbed.network_models.ports.packet import Path
from testbed.scenarios.profiles import LinkProfile

S, MS = 1_000_000_000, 1_000_000
RATE_BPS = 20_000_000
LINK = {"name": "home", "rate_up": f"{RATE_BPS} bit/s", "rate_down": "100 Mbit/s", "propagation_delay": "10 ms"}
SMALL_BYTES, HEADER_BYTES, GAP_NS = 200, 40, 20 * MS
ALONE_NS = 10 * MS + (SMALL_BYTES + HEADER_BYTES) * 8 * S // RATE_BPS  # a small message on an idle link


@dataclass(frozen=True, kw_only=True)
class Shared:
    """`delays_ns` are the small messages' that arrived; `bulk_bytes` crossed the link meanwhile."""

    delays_ns: list[int]
    num_small: int
    bulk_bytes: int
    peak_backlog_bytes: int
    dropped_packets: int


def share(queue: object, *, duration_ns: int = 20 * S) -> Shared:
    """A bulk transfer by TCP (CUBIC) up a home link, and a small datagram every 20 ms through the same queue."""
    env = simpy.Environment()
    by_tcp = LinkProfile(**LINK, queue=queue, transport="tcp")
    by_datagram = by_tcp.model_copy(update={"transport": LinkProfile(**LINK, transport="datagram").transport})
    up, down = build_ports(env, by_tcp, entity=0, seed=1)
    heavy = connect(env, by_tcp, Path(ports=(up,), entity=0), Path(ports=(down,), entity=0)).up
    light = connect(env, by_datagram, Path(ports=(up,), entity=1), Path(ports=(down,), entity=1)).up
    delays_ns: list[int] = []

    def arrived(done: simpy.Event) -> None:
        transfer = done.value
        if transfer.delivered:
            delays_ns.append(transfer.ended_ns - transfer.sent_ns)

    def tick():
        while True:
            light.send(SMALL_BYTES).callbacks.append(arrived)
            yield env.timeout(GAP_NS)

    heavy.send(RATE_BPS // 8 * (duration_ns // S) * 2)  # more than the link can pass
    env.process(tick())
    env.run(until=duration_ns)
    usage = up.usage(duration_ns)
    return Shared(
        delays_ns=delays_ns,
        num_small=light.snapshot().messages,
        bulk_bytes=usage.busy_ns * RATE_BPS // 8 // S - len(delays_ns) * (SMALL_BYTES + HEADER_BYTES),
        peak_backlog_bytes=usage.peak_backlog_bytes,
        dropped_packets=usage.dropped_packets,
    )
