"""Losses, jitter and queues in figures, for docs/results/network.md: ``python -m tests.perf.loss_tables``."""

from __future__ import annotations

import math
from itertools import groupby

import numpy as np
from scipy import stats

from testbed.core import distributions
from testbed.core.quantiles import QuantileTable
from testbed.core.registry import LOSSES
from testbed.network_models.jitter import Jitter, jitter_law
from testbed.network_models.origin import Origin
from testbed.network_models.rates.constant import ConstantRate
from testbed.network_models.transfer import Direction
from testbed.network_models.wave import Wave
from testbed.scenarios.jitter import JitterConfig
from testbed.scenarios.problems import validate
from tests.bufferbloat import share

MS = 1_000_000
LAWS = {
    "uniform, 2 to 8 ms": distributions.uniform(2e6, 8e6),
    "exponential, mean 5 ms": distributions.exponential(5e6),
    "normal, 20 +- 5 ms": distributions.normal(2e7, 5e6),
    "lognormal, 5 +- 2 ms": distributions.lognormal(5e6, 2e6),
    "gamma, 5 +- 3 ms": distributions.gamma(5e6, 3e6),
    "Pareto, 4 +- 2 ms": distributions.pareto(4e6, 2e6),
}
CHAINS = [
    {"p": 0.01, "r": 0.25},
    {"mean_loss": 0.02, "mean_burst": 8},
    {"p": 0.002, "r": 0.05, "loss_good": 0.001, "loss_bad": 0.6},
    {"p": 0.7, "r": 0.9},
]
QUEUES = {
    "drop-tail, 64 MB": "64 MB",
    "drop-tail, 1 MB": "1 MB",
    "drop-tail, 100 kB": "100 kB",
    "CoDel, 64 MB": {"kind": "codel", "limit": "64 MB"},
}


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def header(*cells: str) -> None:
    row(*cells)
    row(*["---", *["---:"] * (len(cells) - 1)])


def percent(value: float) -> str:
    return f"{100 * value:.2g} %"


def quantile_errors() -> None:
    header("law", "mean", "std", "p50", "p90", "p99", "p99.9", "p99.99", "p99.9999", "largest from p50 to 1 - 1e-7")
    for name, law in LAWS.items():
        table = QuantileTable.from_quantile(law.quantile)

        def error(u: float, law=law, table=table) -> float:
            return abs(table.value(int(u * 2**32)) / law.quantile(u) - 1)

        points = [percent(error(u)) for u in (0.5, 0.9, 0.99, 0.999, 0.9999, 0.999999)]
        largest = max(error(1 - above) for above in np.geomspace(0.5, 1e-7, 4000))
        moments = (abs(table.mean / law.mean - 1), abs(math.sqrt(table.variance) / law.std - 1))
        row(name, *(percent(value) for value in moments), *points, percent(largest))


def losses() -> None:
    count = 3_000_000
    header("Gilbert-Elliott", "loss by law", "measured", "interval, half width", "mean run of losses", "measured")
    for keys in CHAINS:
        kind = LOSSES.load("gilbert-elliott")
        config = validate(kind.Config, {"kind": "gilbert-elliott", **keys})
        origin = Origin(seed=5, direction=Direction.UP, entity=3)
        loss, lost = (
            kind(config, origin, ConstantRate(ConstantRate.Config(rate="1 Mbit/s"), origin)),
            np.zeros(count, bool),
        )
        lost[loss.lost(range(count), 0)] = True
        p, r = config.chain
        bad, good_loss, bad_loss = p / (p + r), config.loss_good, config.loss_bad
        mean = good_loss * (1 - bad) + bad_loss * bad
        kept = 1 - p - r
        inflation = 2 * kept / (1 - kept) * bad * (1 - bad) * (bad_loss - good_loss) ** 2
        half_width = stats.norm.ppf(1 - 5e-5) * math.sqrt((mean * (1 - mean) + inflation) / count)
        runs = [len(list(run)) for is_lost, run in groupby(lost.tolist()) if is_lost]
        # A loss is the last of its run with the probability that the next one arrives.
        lost_next = good_loss * (bad * bad_loss * r + (1 - bad) * good_loss * (1 - p))
        lost_next += bad_loss * (bad * bad_loss * (1 - r) + (1 - bad) * good_loss * p)
        name = ", ".join(f"{key} {value}" for key, value in keys.items())
        row(name, percent4(mean), percent4(lost.mean()), percent4(half_width),
            f"{1 / (1 - lost_next / mean):.3f}", f"{np.mean(runs):.3f}")  # fmt: skip


def percent4(value: float) -> str:
    return f"{100 * value:.4f} %"


def correlation() -> None:
    tau_ns, num_waves = 100 * MS, 4000
    waves = [Wave(tau_ns, Origin(seed=5, direction=Direction.UP, entity=k), "jitter") for k in range(num_waves)]
    config = JitterConfig(law="gamma", mean="4 ms", std="2 ms", correlation_time="100 ms")
    jitters = [Jitter(config, Origin(seed=5, direction=Direction.UP, entity=k)) for k in range(num_waves)]
    law = jitter_law(config)
    header("lag over correlation time", "exp(-lag)", "of normal scores", "half width", "of gamma jitter itself")
    for lag in (0.05, 0.25, 1.0, 2.0, 4.0):
        pair = [
            stats.norm.ppf((np.asarray([wave.u32(time_ns) for wave in waves]) + 0.5) / 2**32)
            for time_ns in (777 * MS, 777 * MS + round(lag * tau_ns))
        ]
        rho = math.exp(-lag)
        half_width = stats.norm.ppf(1 - 5e-5) * math.sqrt((1 + rho**2 + rho * (1 - rho) / 2) / num_waves)
        delays = [
            (np.asarray([one.delay_ns(0, time_ns) for one in jitters]) - law.mean) / law.std
            for time_ns in (777 * MS, 777 * MS + round(lag * tau_ns))
        ]
        row(lag, f"{rho:.3f}", f"{(pair[0] * pair[1]).mean():.3f}", f"{half_width:.3f}",
            f"{(delays[0] * delays[1]).mean():.3f}")  # fmt: skip


def bufferbloat() -> None:
    header(
        "queue of the up-link", "p50", "p95", "p99", "longest", "not there yet", "bulk", "most in the queue", "dropped"
    )
    for name, queue in QUEUES.items():
        found = share(queue)
        delays_ms = np.asarray(found.delays_ns) / MS
        row(name, *(f"{value:.1f} ms" for value in np.percentile(delays_ms, [50, 95, 99, 100])),
            f"{found.num_small - len(found.delays_ns)} of {found.num_small}",
            f"{found.bulk_bytes * 8 / 20 / 1e6:.1f} Mbit/s", f"{found.peak_backlog_bytes / 1e6:.2f} MB",
            found.dropped_packets)  # fmt: skip


if __name__ == "__main__":
    for table in (quantile_errors, losses, correlation, bufferbloat):
        table()
        print()
