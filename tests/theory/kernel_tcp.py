"""The kernel's own TCP against the model of it; `python -m tests.theory.kernel_tcp` prints the table.

The kernel's connection runs between two network namespaces (`kernel_wire`) whose ends a token bucket shapes (tc tbf);
the model runs the same transfer over ports with the same bucket and MTU. The wire adds the time its process takes to
the delay it is asked for, so the model is told the round trip that the kernel's handshakes took, and nothing else of
the measurement. Both times run from the opening of the connection to the last byte read.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import simpy

from testbed.core.registry import TRANSPORTS
from testbed.network_models.channel import build_channel
from testbed.network_models.origin import Origin
from testbed.network_models.ports.fifo import FifoPort
from testbed.network_models.ports.packet import Path as PortPath
from testbed.network_models.transfer import Direction
from testbed.scenarios.profiles import LinkProfile

KIB, MS, S = 1024, 1_000_000, 1_000_000_000
SIZES = [16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB]
BURST_BYTES = 5000
# rate, one-way delay, congestion control
SETTINGS = [
    (20_000_000, 0, "reno"),
    (20_000_000, 10 * MS, "reno"),
    (50_000_000, 20 * MS, "reno"),
    (20_000_000, 10 * MS, "cubic"),
    (50_000_000, 20 * MS, "cubic"),
]


class Row(NamedTuple):
    """One size at one setting."""

    rate_bps: int
    delay_ns: int
    congestion: str
    size_bytes: int
    predicted_ns: int
    measured_ns: int  # the median
    round_trip_ns: int  # of the handshakes, the median: what the model is told

    @property
    def error(self) -> float:
        """Of the prediction, relative to what was measured."""
        return self.predicted_ns / self.measured_ns - 1


def missing() -> str:
    """Why the kernel's TCP can't be measured here; "" where it can."""
    if sys.platform != "linux":
        return "no Linux kernel"
    tools = [tool for tool in ("unshare", "ip", "tc") if shutil.which(tool) is None]
    if tools:
        return f"tools not found: {', '.join(tools)}"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    done = _inside(rate_bps=10**7, delay_ns=0, congestion="reno", sizes=[1], repetitions=1)
    return f"namespaces with tc tbf refused: {done.stderr.strip()}" if done.returncode else ""


def _inside(**setting: object) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-m", "tests.theory.kernel_wire"]
    text = json.dumps({"burst_bytes": BURST_BYTES, **setting})
    return subprocess.run([*command, text], capture_output=True, text=True, check=False)


class TokenBucketPort(FifoPort):
    """What tc tbf does: a packet leaves whole as soon as the bucket holds its bytes; the wire behind it is fast."""

    def __init__(self, env, channel, *, burst_bytes):
        super().__init__(env, channel)
        self._rate_bps = channel.rate.segment(0).rate_bps
        self._burst_ns = self._token_ns(burst_bytes)
        self._full_ns = 0  # when the bucket would be full, were nothing more to leave

    def _token_ns(self, size_bytes):
        return -(-size_bytes * 8 * S // self._rate_bps)

    def _clock_out(self, start_ns, size_bytes):
        cost_ns = self._token_ns(size_bytes)
        left_ns = max(start_ns, self._full_ns - self._burst_ns + cost_ns)
        self._full_ns = max(self._full_ns, left_ns) + cost_ns
        super()._clock_out(start_ns, size_bytes)  # its account
        self._busy_until_ns = left_ns
        return left_ns


def predict(rate_bps: int, delay_ns: int, congestion: str, size_bytes: int) -> int:
    """The model's transfer time in ns of a first message."""
    profile = LinkProfile(
        name="kernel",
        rate_up=f"{rate_bps} bit/s",
        rate_down=f"{rate_bps} bit/s",
        propagation_delay=f"{delay_ns} ns",
        queue="20 MB",
        transport={"kind": "tcp", "congestion": congestion},
    )
    env = simpy.Environment()
    paths = []
    for direction in Direction:
        channel = build_channel(profile, Origin(seed=1, direction=direction, entity=0))
        paths.append(PortPath(ports=(TokenBucketPort(env, channel, burst_bytes=BURST_BYTES),)))
    transport = TRANSPORTS.load("tcp")(profile.transport)
    done = transport.over_packets(env, channel.framing, *paths).up.send(size_bytes)
    env.run(until=done)
    return done.value.ended_ns


def compare(setting: tuple[int, int, str], *, repetitions: int) -> list[Row]:
    """Predicted and measured times of all sizes; what the measurement prints on failure is raised."""
    rate_bps, delay_ns, congestion = setting
    done = _inside(rate_bps=rate_bps, delay_ns=delay_ns, congestion=congestion, sizes=SIZES, repetitions=repetitions)
    if done.returncode:
        raise OSError(done.stderr.strip())
    times = {int(size): pairs for size, pairs in json.loads(done.stdout).items()}
    round_trip_ns = round(statistics.median(connect_ns for pairs in times.values() for connect_ns, _ in pairs))
    return [
        Row(
            *setting,
            size,
            predict(rate_bps, round_trip_ns // 2, congestion, size),
            round(statistics.median(whole_ns for _, whole_ns in times[size])),
            round_trip_ns,
        )
        for size in SIZES
    ]


def main() -> None:
    """Print the table of docs/results/network.md."""
    reason = missing()
    if reason:
        sys.exit(reason)
    print("rate, Mbit/s  one way, ms  round trip, ms  control     KiB  predicted, ms  measured, ms   error")
    for setting in SETTINGS:
        for row in compare(setting, repetitions=7):
            print(_line(row))


def _line(row: Row) -> str:
    setting = f"{row.rate_bps / 1e6:12g}  {row.delay_ns / MS:11g}  {row.round_trip_ns / MS:14.2f}  {row.congestion:<7}"
    times = f"{row.predicted_ns / MS:13.1f}  {row.measured_ns / MS:12.1f}  {row.error:+6.1%}"
    return f"{setting}  {row.size_bytes // KIB:6}  {times}"


if __name__ == "__main__":
    main()
