"""Both resolutions of every transport over a grid of links, on the same sample paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from testbed.core.registry import TRANSPORTS
from testbed.core.rng import Stream
from testbed.network_models.build import needs_packets
from testbed.network_models.exercise import Sent, exercise
from testbed.scenarios.profiles import LinkProfile
from tests.links import changed, link_of

SETTINGS = {"fec": {"data": 8, "parity": 2}}  # keys that a transport can't do without
SIZES_BYTES = (400, 16_384, 120_000)
IMPAIRMENTS = {
    "none": {},
    "1 %": {"loss": 0.01},
    "bursts": {"loss": {"kind": "gilbert-elliott", "mean_loss": 0.05, "mean_burst": 4}},
    "10 % and others": {"loss": 0.1, "duplicate": 0.02, "corrupt": 0.01},
}
JITTERS = {
    "none": None,
    "gamma": {"law": "gamma", "mean": "8 ms", "std": "4 ms"},
    "in order": {"law": "normal", "mean": "20 ms", "std": "5 ms", "reorder": False, "correlation_time": "50 ms"},
}
OUTAGES = {"kind": "random", "mean_gap": "700 ms", "duration": "120 ms"}
RADIO = {"idle_after": "60 ms", "promotion": "25 ms"}
NUM_MESSAGES = 24
MEAN_GAP_NS = 80_000_000


def rates(folder: Path) -> dict[str, dict[str, object]]:
    """Constant, changing, fading with outages and a sleeping radio, a trace with gaps; two are files in `folder`."""
    steps, opportunities = folder / "steps.txt", folder / "opportunities.txt"
    steps.write_text("0 12\n0.4 1.5\n0.9 0\n1.3 25\n2 8\n")
    opportunities.write_text("".join(f"{ms}\n" for ms in (1, 2, 2, 2, 5, 9, 9, 14, 15, 15, 15, 40)))
    fading = {"kind": "rayleigh", "bandwidth": "5 MHz", "snr": "10 dB", "coherence_time": "20 ms"}
    return {
        "constant": {"rate": "20 Mbit/s"},
        "steps": {"rate": {"kind": "trace", "file": str(steps), "format": "seconds"}},
        "fading": {"rate": fading, "outages": [OUTAGES], "radio": RADIO},
        "opportunities": {"rate": {"kind": "trace", "file": str(opportunities), "format": "mahimahi"}},
    }


def link_for(kind: str, rate: object = "20 Mbit/s", **changes: object) -> LinkProfile:
    """A link with this transport."""
    fields = {"rate_up": rate, "rate_down": rate, "propagation_delay": "15 ms", "queue": "200 kB"}
    return LinkProfile(**{"name": kind, **fields, "transport": {"kind": kind, **SETTINGS.get(kind, {})}, **changes})


def cases(kind: str, folder: Path) -> Iterator[tuple[LinkProfile, int]]:
    """Links with this transport, and the size of their messages."""
    keys = (rates(folder).values(), SIZES_BYTES, IMPAIRMENTS.values(), JITTERS.values())
    for rate, size_bytes, impairments, jitter in product(*keys):
        yield link_for(kind, jitter=jitter, **rate, **impairments), size_bytes


def delays(profile: LinkProfile, size_bytes: int, resolution: str):
    """All transfers and the counters: messages of random sizes around this one, at random times."""
    draws = Stream.named(1, "grid")
    gaps = [int(-MEAN_GAP_NS * np.log1p(-draws.uniform(0, number))) for number in range(NUM_MESSAGES)]
    sizes = [draws.below(2 * size_bytes, 1, number) for number in range(NUM_MESSAGES)]
    messages = [Sent(int(time_ns), size) for time_ns, size in zip(np.cumsum(gaps), sizes, strict=True)]
    return exercise(lambda env: link_of(env, changed(profile, resolution=resolution), seed=7), messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How one transport's two resolutions compare; errors are relative to `packets`, the largest over all links."""

    links: int
    refused: dict[str, int]  # others that are not to be had by messages: reason -> how many
    messages: int
    equal: int  # in every field, to the nanosecond
    mean_error: float
    p95_error: float


def refusal(kind: str) -> str:
    """Why this transport is never to be had by messages; "" where it is."""
    return needs_packets(link_for(kind))


def agreement(kind: str, folder: Path) -> Agreement:
    """Over the whole grid."""
    num_equal, errors, num_links, refused = 0, [(0.0, 0.0)], 0, Counter[str]()
    for profile, size_bytes in cases(kind, folder):
        if reason := needs_packets(profile):
            refused[reason] += 1
            continue
        packets, messages = (delays(profile, size_bytes, resolution)[0] for resolution in ("packets", "messages"))
        num_equal += sum(one == other for one, other in zip(packets, messages, strict=True))
        times = [[item.ended_ns - item.sent_ns for item in transfers] for transfers in (packets, messages)]
        means, tails = np.mean(times, axis=1), np.percentile(times, 95, axis=1)
        errors.append((abs(means[1] / means[0] - 1), abs(tails[1] / tails[0] - 1)))
        num_links += 1
    mean_error, p95_error = np.max(errors, axis=0)
    return Agreement(
        links=num_links,
        refused=dict(refused),
        messages=num_links * NUM_MESSAGES,
        equal=num_equal,
        mean_error=float(mean_error),
        p95_error=float(p95_error),
    )


KINDS = tuple(kind for kind in TRANSPORTS if kind != "colocated")  # which has no packets
