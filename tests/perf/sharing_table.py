"""Contention: ``python -m tests.perf.sharing_table`` prints delay and loss against the number of devices in a cell.

Every device sends 16 KiB datagrams up at random times, 4 a second in the mean, over a link of 20 Mbit/s: 2.7 % of a
cell each, so that 37 devices fill it. Simulated, and the same on every machine.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import simpy

from testbed.core.registry import DISCIPLINES
from testbed.network_models.build import build_access
from testbed.network_models.sharing.cell import Cell, Seat
from testbed.scenarios.cells import Cells
from testbed.scenarios.profiles import LinkProfile

NUM_DEVICES = (1, 10, 20, 30, 45)
SECONDS = 20
COLLISION = 0.002
LINK = LinkProfile(
    name="cell",
    rate_up="20 Mbit/s",
    rate_down="20 Mbit/s",
    propagation_delay="5 ms",
    queue="64 kB",
    transport="datagram",
    resolution="packets",
)


def contend(cells, num_devices, *, seconds=SECONDS, seed=1):
    """Delays in ms of the datagrams that arrived, and the share of those that did not."""
    env = simpy.Environment()
    cell = Cell(env, cells, cells.name)
    transfers = []
    for place in range(num_devices):
        link = build_access(env, LINK, entity=place, seed=seed, seat=Seat(cell)).up
        gaps = np.random.default_rng([seed, place]).exponential(0.25e9, 4 * 2 * seconds)
        env.process(_send(env, link, np.cumsum(gaps), seconds, transfers))
    env.run()
    delays_ms = np.array([item.ended_ns - item.sent_ns for item in transfers if item.delivered]) / 1e6
    return delays_ms, 1 - len(delays_ms) / len(transfers)


def _send(env, link, times_ns, seconds, transfers):
    for time_ns in times_ns[times_ns < seconds * 1e9].astype(int).tolist():
        yield env.timeout(time_ns - env.now)
        link.send(16_384).callbacks.append(lambda done: transfers.append(done.value))


def rows():
    """A row a discipline and number of devices."""
    for kind in (kind for kind in DISCIPLINES if kind != "weighted"):  # which without weights is processor sharing
        for num_devices in NUM_DEVICES:
            told = partial(contend, num_devices=num_devices)
            delays_ms, lost = told(Cells(name="cell", discipline=kind))
            _, lost_too = told(Cells(name="cell", discipline=kind, collision=COLLISION))
            p95_ms = np.percentile(delays_ms, 95)
            yield kind, num_devices, delays_ms.mean(), p95_ms, lost, lost_too


def main() -> None:
    collision = f"lost, collision {COLLISION:.1%}"
    sys.stdout.write(
        f"| discipline | devices | mean delay ms | p95 ms | lost | {collision} |\n|---|---|---|---|---|---|\n"
    )
    for kind, num_devices, mean_ms, p95_ms, lost, lost_too in rows():
        cells = f"{kind} | {num_devices} | {mean_ms:.1f} | {p95_ms:.1f} | {lost:.1%} | {lost_too:.1%}"
        sys.stdout.write(f"| {cells} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
