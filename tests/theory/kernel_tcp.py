"""The kernel's own TCP against the model of it; `python -m tests.theory.kernel_tcp` prints the table.

The kernel's connection runs between network namespaces, through a router whose ends a token bucket shapes (tc tbf, see
`kernel_wire`); the model runs the same transfer over ports with the same bucket, queue and MTU. The wires add the time
their process takes to the delay it is asked for, so the model is told the round trip that the kernel's handshakes took,
and nothing else of the measurement. Both times run from the opening of the connection to the last byte read, with full
buckets at first.

The processes run in a real-time class (`chrt`), or else they wait for a core while others work and the connection with
them; `--ordinary` leaves that out, to see how much.
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
from testbed.network_models.transfer import Direction, Transfer
from testbed.scenarios.profiles import LinkProfile
from tests.theory.kernel_wire import Timing

KIB, MS, S = 1024, 1_000_000, 1_000_000_000
SIZES = [16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB]
BURST_BYTES = 5000
COLUMNS = [
    *("rate, Mbit/s", "one way, ms", "round trip, ms", "queue, kB", "control", "KiB"),
    *("predicted, ms", "measured, ms", "fastest to slowest", "waited for a core, ms"),
    *("sent again, predicted", "sent again, measured", "error"),
]
REAL_TIME = ("chrt", "--fifo", "1")


class Setting(NamedTuple):
    """A path, and who controls the window."""

    rate_bps: int
    delay_ns: int  # one way
    queue_bytes: int  # of the bucket
    congestion: str


DEEP = 20_000_000  # no transfer fills it
SETTINGS = [
    Setting(20_000_000, 0, DEEP, "reno"),
    *(
        Setting(rate_bps, delay_ns, queue_bytes, congestion)
        for rate_bps, delay_ns, queue_bytes in [
            (20_000_000, 10 * MS, DEEP),
            (50_000_000, 20 * MS, DEEP),
            (20_000_000, 10 * MS, 100_000),
            (20_000_000, 10 * MS, 50_000),
        ]
        for congestion in ("reno", "cubic")
    ),
]


class Row(NamedTuple):
    """One size at one setting; of what was measured, medians."""

    setting: Setting
    size_bytes: int
    predicted: Transfer
    round_trip_ns: int  # of the handshakes: what the model is told
    measured_ns: int
    fastest_ns: int
    slowest_ns: int
    waited_ns: int  # for a core
    num_repeats: int

    @property
    def error(self) -> float:
        """Of the prediction, relative to what was measured."""
        return self.predicted.ended_ns / self.measured_ns - 1


def missing() -> str:
    """Why the kernel's TCP can't be measured here; "" where it can."""
    if sys.platform != "linux":
        return "no Linux kernel"
    tools = [tool for tool in ("chrt", "unshare", "ip", "tc") if shutil.which(tool) is None]
    if tools:
        return f"tools not found: {', '.join(tools)}"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    if not Path("/proc/self/schedstat").exists():
        return "a kernel that does not count how long processes wait for a core"
    done = _inside(REAL_TIME, **Setting(10**7, 0, DEEP, "reno")._asdict(), sizes=[1], repetitions=1)
    return f"refused: namespaces with tc tbf, or a real-time class: {done.stderr.strip()}" if done.returncode else ""


def _inside(scheduling: tuple[str, ...], **setting: object) -> subprocess.CompletedProcess[str]:
    inner = ("unshare", "--map-root-user", "--net", sys.executable, "-m", "tests.theory.kernel_wire")
    text = json.dumps({"burst_bytes": BURST_BYTES, **setting})
    return subprocess.run([*scheduling, *inner, text], capture_output=True, text=True, check=False)


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


def predict(setting: Setting, size_bytes: int) -> Transfer:
    """The model's first message."""
    rate_bps, delay_ns, queue_bytes, congestion = setting
    profile = LinkProfile(
        name="kernel",
        rate_up=f"{rate_bps} bit/s",
        rate_down=f"{rate_bps} bit/s",
        propagation_delay=f"{delay_ns} ns",
        queue=f"{queue_bytes} B",
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
    return done.value


def compare(setting: Setting, *, repetitions: int, scheduling: tuple[str, ...] = REAL_TIME) -> list[Row]:
    """Predicted and measured times of all sizes; what the measurement prints on failure is raised."""
    done = _inside(scheduling, **setting._asdict(), sizes=SIZES, repetitions=repetitions)
    if done.returncode:
        raise OSError(done.stderr.strip())
    timings = {int(size): [Timing(*item) for item in found] for size, found in json.loads(done.stdout).items()}
    round_trip_ns = _median([timing.connect_ns for found in timings.values() for timing in found])
    return [_row(setting, size, round_trip_ns, timings[size]) for size in SIZES]


def _row(setting: Setting, size_bytes: int, round_trip_ns: int, timings: list[Timing]) -> Row:
    whole_ns = [timing.whole_ns for timing in timings]
    return Row(
        setting=setting,
        size_bytes=size_bytes,
        predicted=predict(setting._replace(delay_ns=round_trip_ns // 2), size_bytes),
        round_trip_ns=round_trip_ns,
        measured_ns=_median(whole_ns),
        fastest_ns=min(whole_ns),
        slowest_ns=max(whole_ns),
        waited_ns=_median([timing.waited_ns for timing in timings]),
        num_repeats=_median([timing.num_repeats for timing in timings]),
    )


def _median(values: list[int]) -> int:
    return round(statistics.median(values))


def main() -> None:
    """Print the table of docs/results/network.md."""
    scheduling = () if sys.argv[1:] == ["--ordinary"] else REAL_TIME
    reason = missing() if scheduling else ""
    if reason:
        sys.exit(reason)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for setting in SETTINGS:
        for row in compare(setting, repetitions=7, scheduling=scheduling):
            print(_line(row), flush=True)


def _line(row: Row) -> str:
    setting, repeats = row.setting, f"{row.predicted.num_retransmissions} | {row.num_repeats}"
    path = f"{setting.rate_bps / 1e6:g} | {setting.delay_ns / MS:g} | {row.round_trip_ns / MS:.2f}"
    size = f"{setting.queue_bytes // 1000} | {setting.congestion} | {row.size_bytes // KIB}"
    times = f"{row.predicted.ended_ns / MS:.2f} | {row.measured_ns / MS:.2f}"
    spread = f"{row.fastest_ns / MS:.2f} to {row.slowest_ns / MS:.2f} | {row.waited_ns / MS:.2f}"
    error = f"{row.error:+.1%}".replace("%", " %").replace("-", "−")
    return f"| {path} | {size} | {times} | {spread} | {repeats} | {error} |"


if __name__ == "__main__":
    main()
