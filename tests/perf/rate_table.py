"""Tables of docs/results/network.md, section Rates: `python -m tests.perf.rate_table [DATA]`.

Public traces against what a saturated link delivers, and rates at random against their laws.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from scipy import stats

from testbed.core.capacity import outage_rate_bps, worst_transmit_ns
from testbed.network_models.origin import Origin
from testbed.network_models.rates.markov import MarkovRate, time_shares
from testbed.network_models.rates.segments import finish_ns
from testbed.network_models.transfer import Direction
from testbed.testing.link_contract import binomial_interval
from tests.rates import rate_of, trace_of

MS = 1_000_000
BLOCKS = 100_000
FADING = {"bandwidth": "10 MHz", "snr": "10 dB", "coherence_time": "1 ms"}
CHAIN = {
    "states": [
        {"rate": "9 Mbit/s", "mean": "30 ms"},
        {"rate": "2 Mbit/s", "mean": "10 ms"},
        {"rate": "0 bit/s", "mean": "5 ms"},
    ],
    "transitions": [[0, 0.9, 0.1], [0.5, 0, 0.5], [0.25, 0.75, 0]],
}


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def head(*cells: str) -> None:
    print()
    row(*cells)
    row(*("---" for _ in cells))


def traces(folder: Path) -> None:
    """Seconds in which as many bytes leave as the file has room for, of the seconds with any."""
    head("trace", "lines", "lap (s)", "mean (Mbit/s)", "seconds with opportunities", "of these equal to the file")
    for file in sorted(item for item in folder.iterdir() if item.suffix in {".up", ".down"}):
        times_ms = [int(line) for line in file.read_text().split()]
        rate, left_ns, equal, count = trace_of(file, "mahimahi"), 0, 0, 0
        for _, second in groupby(times_ms, lambda time: time // 1000):
            lines = list(second)
            left_ns = finish_ns(rate, left_ns, 1500 * len(lines))
            equal, count = equal + (left_ns // MS == lines[-1]), count + 1
        mean = len(times_ms) * 12e3 / times_ms[-1] / 1e3
        row(file.name, f"{len(times_ms):,}", f"{times_ms[-1] / 1000:g}", f"{mean:.2f}", count, equal)


def outages() -> None:
    head("eps", "R_eps (Mbit/s)", "16 KiB at R_eps (ms)", "blocks below R_eps", "interval of their share")
    rate = rate_of("rayleigh", **FADING)
    for eps in (0.1, 0.01, 0.001):
        planned_bps = outage_rate_bps(10e6, 10.0, eps)
        below = sum(rate.segment(block * MS).rate_bps < planned_bps for block in range(BLOCKS))
        low, high = binomial_interval(below, BLOCKS)
        worst_ms = worst_transmit_ns(16_384, 10e6, 10.0, eps) / MS
        row(eps, f"{planned_bps / 1e6:.4g}", f"{worst_ms:.4g}", f"{below:,} of {BLOCKS:,}", f"{low:.5f} to {high:.5f}")


def rician() -> None:
    head("K (dB)", "P(gain < 0.3), Marcum's Q", "blocks", "interval of their share")
    for decibels in (-10, 3, 10):
        rate, k = rate_of("rician", **FADING, k_factor=f"{decibels} dB"), 10 ** (decibels / 10)
        below = sum(rate.gain(block) < 0.3 for block in range(BLOCKS))
        low, high = binomial_interval(below, BLOCKS)
        p = stats.ncx2.cdf(2 * (k + 1) * 0.3, 2, 2 * k)
        row(decibels, f"{p:.5f}", f"{below:,} of {BLOCKS:,}", f"{low:.5f} to {high:.5f}")


def markov() -> None:
    head("state", "share of time, stationary", "links found in it at 40 ms", "interval of their share")
    config = MarkovRate.Config.model_validate({"kind": "markov", **CHAIN})
    links = [
        MarkovRate(config, Origin(seed=1, direction=Direction.UP, entity=entity)).segment(40 * MS).rate_bps
        for entity in range(10_000)
    ]
    for state, share in zip(config.states, time_shares(config), strict=True):
        seen = links.count(state.rate)
        low, high = binomial_interval(seen, len(links))
        row(f"{state.rate / 1e6:g} Mbit/s", f"{share:.4f}", f"{seen:,} of {len(links):,}", f"{low:.4f} to {high:.4f}")


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    traces(data / "net-mahimahi" / "traces")
    outages()
    rician()
    markov()


if __name__ == "__main__":
    main()
