"""How many messages and packets links move in a CPU second, beside ns.py's packets and bare SimPy of the same run.

Each link sends 16 KiB every 10 ms over 20 Mbit/s, 20 +- 5 ms, with 1 % of the packets lost and sent again (ns.py does
not send again). Contestants take turns and each figure is its best, because a machine's speed changes from second to
second. Links, senders and their making are counted. The garbage collector's rounds are rare, as in a run, for every
contestant alike.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Generator, Iterable

import simpy

from testbed.core.collector import rare_collections
from testbed.network_models.build import build_access
from testbed.network_models.losses.bernoulli import BernoulliLoss
from testbed.network_models.queues.drop_tail import DropTail
from testbed.network_models.transfer import Link
from testbed.network_models.transports.transport import Access
from testbed.scenarios.profiles import LinkProfile
from tests.perf.ns_links import ns_links, send_ns
from tests.perf.yardstick import simpy_timeouts_per_cpu_s

SIZE_BYTES, NUM_MESSAGES, PACKET_BYTES = 16_384, 10_000, (*[1500] * 11, 364)
LARGE_BYTES, NUM_LARGE = 2**20, 1000
GAP_NS_PER_BYTE = 610  # 10 ms for 16 KiB, which take 6.8 ms of their link
ROUNDS = 3
NUM_IDLE = 1000
RATE_BPS, JITTER_S, P_LOSS, LIMIT_BYTES = 20_000_000, (0.020, 0.005), 0.01, 1_000_000

PROFILE = LinkProfile.model_validate(
    {
        "name": "bench",
        "rate_up": f"{RATE_BPS} bit/s",
        "rate_down": f"{RATE_BPS} bit/s",
        "propagation_delay": 0,
        "jitter": {"law": "normal", "mean": f"{JITTER_S[0]} s", "std": f"{JITTER_S[1]} s"},
        "loss": P_LOSS,
        "queue": f"{LIMIT_BYTES} B",
    }
)


def measure() -> list[dict[str, object]]:
    """Rows {name, value, unit, yardstick_name, yardstick_value}."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, rate in _round():
            best[name] = max(rate, best.get(name, 0.0))
    bare = "bare SimPy timeouts/CPU-s"
    timeouts = simpy_timeouts_per_cpu_s()
    rows = [
        _row(name, rate, "packets/CPU-s" if "packets_per" in name else "messages/CPU-s", bare, timeouts)
        for name, rate in best.items()
    ]
    packets = best["network.packets.100.messages_per_cpu_s"] * len(PACKET_BYTES)
    rows.append(
        _row(
            "network.packets.packets_per_cpu_s",
            packets,
            "packets/CPU-s",
            "ns.py packets/CPU-s",
            best["network.ns_py.100.packets_per_cpu_s"],
        )
    )
    rows += [
        _row(f"network.link.idle_bytes.{resolution}", _idle_bytes(resolution), "B", "target B", 2000)
        for resolution in ("messages", "packets")
    ]
    return rows


def _row(name: str, value: float, unit: str, yardstick: str, yardstick_value: float) -> dict[str, object]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "yardstick_name": yardstick,
        "yardstick_value": yardstick_value,
    }


def _round() -> Iterable[tuple[str, float]]:
    """Every contestant once."""
    for num_links in (100, 1000):
        for resolution in ("packets", "messages"):
            rate = messages_per_cpu_s(resolution, num_links, SIZE_BYTES, NUM_MESSAGES)
            yield f"network.{resolution}.{num_links}.messages_per_cpu_s", rate
        yield f"network.ns_py.{num_links}.packets_per_cpu_s", _ns_packets_per_cpu_s(num_links)
    yield "network.messages.100.1mib_messages_per_cpu_s", messages_per_cpu_s("messages", 100, LARGE_BYTES, NUM_LARGE)


def _cpu_s(work: Callable[[], object]) -> float:
    gc.collect()
    with rare_collections():
        start_s = time.process_time()
        work()
        return time.process_time() - start_s


def _profile(resolution: str, size_bytes: int, p_loss: float = P_LOSS) -> LinkProfile:
    room = DropTail.Config(limit=f"{max(LIMIT_BYTES, 2 * size_bytes)} B")
    loss = BernoulliLoss.Config(p=p_loss)
    return PROFILE.model_copy(update={"queue": room, "resolution": resolution, "loss": loss})


def messages_per_cpu_s(
    resolution: str, num_links: int, size_bytes: int, num_messages: int, p_loss: float = P_LOSS
) -> float:
    """A process for each link sends its messages at two thirds of the rate."""
    env = simpy.Environment()
    profile = _profile(resolution, size_bytes, p_loss)
    links: list[Link] = []

    def send(link: Link) -> Generator[simpy.Event, None, None]:
        for _ in range(num_messages // num_links):
            link.send(size_bytes)
            yield env.timeout(size_bytes * GAP_NS_PER_BYTE)

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


def _ns_packets_per_cpu_s(num_links: int) -> float:
    env = simpy.Environment()

    def work() -> None:
        ports = ns_links(
            env,
            num_links,
            rate_bps=RATE_BPS,
            limit_bytes=LIMIT_BYTES,
            delay_s=lambda generator: max(0.0, generator.gauss(*JITTER_S)),
            p_loss=P_LOSS,
        )
        for port in ports:
            env.process(send_ns(env, port, PACKET_BYTES, NUM_MESSAGES // num_links, SIZE_BYTES * GAP_NS_PER_BYTE / 1e9))
        env.run()

    return NUM_MESSAGES * len(PACKET_BYTES) / _cpu_s(work)


def _idle_bytes(resolution: str) -> float:
    """Both directions of a link that has sent nothing yet, beyond what all links of a profile share."""
    env, profile = simpy.Environment(), _profile(resolution, SIZE_BYTES)
    build_access(env, profile, entity=0, seed=1)  # makes what is shared
    gc.collect()
    tracemalloc.start()
    kept: list[Access] = [build_access(env, profile, entity=entity, seed=1) for entity in range(1, NUM_IDLE + 1)]
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held_bytes / len(kept)
