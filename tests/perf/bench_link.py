"""How many messages a link moves in a CPU second, with the bare event rate of the clock in the same run beside it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator

import simpy

from testbed.network_models.build import build_access
from testbed.network_models.queues.drop_tail import DropTail
from testbed.network_models.transfer import Link
from testbed.scenarios.profiles import LinkProfile
from tests.perf.yardstick import simpy_timeouts_per_cpu_s

SENDING_GAP_NS_PER_BYTE = 610  # 10 ms for 16 KiB, which take 6.8 ms of their link
ROUNDS = 3

PROFILE = LinkProfile.model_validate(
    {
        "name": "bench",
        "rate_up": "20 Mbit/s",
        "rate_down": "20 Mbit/s",
        "propagation_delay": 0,
        "jitter": {"law": "normal", "mean": "20 ms", "std": "5 ms"},
        "loss": "1 %",
    }
)
CASES = (  # name, links, bytes a message, messages
    ("network.link.100.messages_per_cpu_s", 100, 16_384, 10_000),
    ("network.link.1000.messages_per_cpu_s", 1000, 16_384, 10_000),
    ("network.link.100.1mib_messages_per_cpu_s", 100, 2**20, 1000),
)


def measure() -> list[dict[str, object]]:
    """Rows {name, value, unit, yardstick_name, yardstick_value}; a figure is the best of a few runs."""
    return [_row(*case) for case in CASES]


def _row(name: str, num_links: int, size_bytes: int, num_messages: int) -> dict[str, object]:
    return {
        "name": name,
        "value": max(_messages_per_cpu_s(num_links, size_bytes, num_messages) for _ in range(ROUNDS)),
        "unit": "messages/CPU-s",
        "yardstick_name": "bare SimPy timeouts/CPU-s",
        "yardstick_value": simpy_timeouts_per_cpu_s(),
    }


def _cpu_s(work: Callable[[], object]) -> float:
    gc.collect()
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


def _messages_per_cpu_s(num_links: int, size_bytes: int, num_messages: int) -> float:
    """Links and senders included: a process for each link sends its messages at two thirds of the rate."""
    env = simpy.Environment()
    gap_ns = size_bytes * SENDING_GAP_NS_PER_BYTE
    room = DropTail.Config(limit=f"{max(1_000_000, 2 * size_bytes)} B")
    profile = PROFILE.model_copy(update={"queue": room})
    links: list[Link] = []

    def send(link: Link) -> Generator[simpy.Event, None, None]:
        for _ in range(num_messages // num_links):
            link.send(size_bytes)
            yield env.timeout(gap_ns)

    def work() -> None:
        links.extend(build_access(env, profile, entity=entity, seed=1).up for entity in range(num_links))
        for link in links:
            env.process(send(link))
        env.run()

    cpu_s = _cpu_s(work)
    delivered = sum(link.snapshot().delivered for link in links)
    if delivered != num_messages:
        raise RuntimeError(f"{delivered} of {num_messages} messages were delivered")
    return num_messages / cpu_s
