"""Both resolutions of every transport over a grid of links, on the same sample paths."""

from __future__ import annotations

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
LOSSES = (0.0, 0.01, 0.1)
JITTERS = {
    "none": None,
    "gamma": {"law": "gamma", "mean": "8 ms", "std": "4 ms"},
    "in order": {"law": "normal", "mean": "20 ms", "std": "5 ms", "reorder": False, "correlation_time": "50 ms"},
}
MISHAPS = {"duplicate": 0.02, "corrupt": 0.01}
NUM_MESSAGES = 40
MEAN_GAP_NS = 80_000_000


def rates(folder: Path) -> dict[str, object]:
    """Constant, changing, and a trace with gaps; the last two are files in `folder`."""
    steps, opportunities = folder / "steps.txt", folder / "opportunities.txt"
    steps.write_text("0 12\n0.4 1.5\n0.9 0\n1.3 25\n2 8\n")
    opportunities.write_text("".join(f"{ms}\n" for ms in (1, 2, 2, 2, 5, 9, 9, 14, 15, 15, 15, 40)))
    return {
        "constant": "20 Mbit/s",
        "steps": {"kind": "trace", "file": str(steps), "format": "seconds"},
        "opportunities": {"kind": "trace", "file": str(opportunities), "format": "mahimahi"},
    }


def link_for(kind: str, rate: object = "20 Mbit/s", **changes: object) -> LinkProfile:
    """A link with this transport."""
    return LinkProfile(
        name=kind, rate_up=rate, rate_down=rate, propagation_delay="15 ms", queue="200 kB",
        transport={"kind": kind, **SETTINGS.get(kind, {})}, **changes,
    )  # fmt: skip


def cases(kind: str, folder: Path) -> Iterator[tuple[LinkProfile, int]]:
    """Links with this transport, and the size of their messages."""
    for rate, size_bytes, loss, jitter in product(rates(folder).values(), SIZES_BYTES, LOSSES, JITTERS.values()):
        yield link_for(kind, rate, jitter=jitter, loss=loss, **(MISHAPS if loss == 0.1 else {})), size_bytes


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
    messages: int
    equal: int  # in every field, to the nanosecond
    mean_error: float
    p95_error: float


def refusal(kind: str) -> str:
    """Why this transport is not to be had by messages."""
    return needs_packets(link_for(kind))


def agreement(kind: str, folder: Path) -> Agreement:
    """Over the whole grid."""
    num_equal, errors, num_links = 0, [(0.0, 0.0)], 0
    for profile, size_bytes in cases(kind, folder):
        packets, messages = (delays(profile, size_bytes, resolution)[0] for resolution in ("packets", "messages"))
        num_equal += sum(one == other for one, other in zip(packets, messages, strict=True))
        of_packets, of_messages = (
            [item.ended_ns - item.sent_ns for item in transfers] for transfers in (packets, messages)
        )
        means, tails = (
            (np.mean(of_packets), np.mean(of_messages)),
            (
                np.percentile(of_packets, 95),
                np.percentile(of_messages, 95),
            ),
        )
        errors.append((abs(means[1] / means[0] - 1), abs(tails[1] / tails[0] - 1)))
        num_links += 1
    mean_error, p95_error = np.max(errors, axis=0)
    return Agreement(
        links=num_links,
        messages=num_links * NUM_MESSAGES,
        equal=num_equal,
        mean_error=float(mean_error),
        p95_error=float(p95_error),
    )


KINDS = tuple(TRANSPORTS)
