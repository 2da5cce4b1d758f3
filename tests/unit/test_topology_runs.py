"""Fleets behind a network: hand-computed delays, shared edges, failures, and what other devices can't change."""

from __future__ import annotations

import pytest

from testbed.core.events import Outcome, TransferEnded
from tests.sim_runs import MS, ends, group, link, of_kind, run_world, scenario, server, token_times, workload

HEADER, MTU = 40, 1500


def edge(one, other, **changes):
    """8 Mbit/s: a microsecond a byte; 5 ms."""
    return {"between": [one, other], "rate": "8 Mbit/s", "delay": "5 ms", **changes}


def line(*names, **changes):
    return {
        "nodes": [{"name": name} for name in names],
        "edges": [edge(one, other, **changes) for one, other in zip(names, names[1:], strict=False)],
    }


def built(topology, **changes):
    """A device at `a` and a server at `z`, unless it is said otherwise."""
    fleet = changes.pop("fleet", [group(at="a")])
    servers = changes.pop("servers", [{"server": server(), "at": "z"}])
    return scenario(topology=topology, fleet=fleet, servers=servers, **changes)


def first_message(events):
    return of_kind(events, TransferEnded, direction="up", request=0)[0]


def test_a_message_takes_the_sum_of_its_hops_with_a_pipeline_of_packets() -> None:
    """n packets over h equal hops: the first takes all hops, each other one packet time more."""
    _, events = run_world(built(line("a", "b", "z")))
    moved = first_message(events)
    sizes = [MTU] * (moved.num_packets - 1) + [
        moved.payload_bytes + HEADER * moved.num_packets - MTU * (moved.num_packets - 1)
    ]
    # The last packet leaves hop k when it is there and the one before has left.
    arrivals_ns = [moved.sent_ns] * len(sizes)
    for propagation_ms in (10, 5, 5):
        free_ns = 0
        for place, size in enumerate(sizes):
            free_ns = max(free_ns, arrivals_ns[place]) + size * 1000
            arrivals_ns[place] = free_ns + propagation_ms * MS
    assert moved.time_ns == max(arrivals_ns)
