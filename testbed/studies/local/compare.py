"""How far a modelled run is from an emulated one: errors of TTFT, TPOT, E2E and throughput."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from testbed.core.errors import ScenarioError
from testbed.core.units import NS_PER_S
from testbed.studies.local.plan import Timing

STATISTICS = ("mean", "p50", "p95")
COLUMNS = ("point", "repeat", "metric", "statistic", "unit", "real", "modelled", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """One figure of one scenario point, measured and modelled."""

    point: str
    repeat: int
    metric: str  # ttft, tpot, e2e, throughput
    statistic: str  # mean, p50, p95; of throughput all there is
    unit: str
    real: float
    modelled: float

    @property
    def error(self) -> float:
        """Relative: +0.1 where the model says 10 % more than there was."""
        return self.modelled / self.real - 1 if self.real else math.nan


def figures(timings: Sequence[Timing]) -> dict[tuple[str, str, str], float]:
    """(metric, statistic, unit) of a run: latencies in s over its requests, tokens per second over all of it.

    TTFT from a request's arrival to its first token, TPOT the mean time between its tokens, E2E to its last token. A
    request of one token has no TPOT.
    """
    done = [timing for timing in timings if timing.tokens_ns]
    latencies: dict[str, Sequence[float]] = {
        "ttft": [timing.tokens_ns[0] - timing.arrival_ns for timing in done],
        "tpot": [
            (timing.tokens_ns[-1] - timing.tokens_ns[0]) / (len(timing.tokens_ns) - 1)
            for timing in done
            if len(timing.tokens_ns) > 1
        ],
        "e2e": [timing.tokens_ns[-1] - timing.arrival_ns for timing in done],
    }
    found = {
        (metric, statistic, "s"): _statistic(values, statistic) / NS_PER_S
        for metric, values in latencies.items()
        if values
        for statistic in STATISTICS
    }
    first_ns, last_ns = min(timing.arrival_ns for timing in done), max(timing.tokens_ns[-1] for timing in done)
    num_tokens = sum(len(timing.tokens_ns) for timing in done)
    found["throughput", "all", "tokens/s"] = num_tokens * NS_PER_S / (last_ns - first_ns)
    return found


def _statistic(values: Sequence[float], statistic: str) -> float:
    if statistic == "mean":
        return float(np.mean(values))
    return float(np.percentile(values, int(statistic[1:])))


def compared(point: str, repeat: int, real: Sequence[Timing], modelled: Sequence[Timing]) -> list[Error]:
    """Every figure of both runs. Raises ScenarioError where they are not of the same requests and tokens."""
    shapes = [[(timing.request, len(timing.tokens_ns)) for timing in run] for run in (real, modelled)]
    if shapes[0] != shapes[1]:
        raise ScenarioError("both runs must answer the same requests with as many tokens", path=point)
    theirs, ours = figures(real), figures(modelled)
    return [
        Error(
            point=point,
            repeat=repeat,
            metric=key[0],
            statistic=key[1],
            unit=key[2],
            real=theirs[key],
            modelled=ours[key],
        )
        for key in theirs
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Absolute errors of many figures."""

    count: int
    median: float
    p95: float
    largest: float


def spread(errors: Iterable[Error]) -> Spread:
    """Of no figures NaN."""
    sizes = [abs(item.error) for item in errors]
    if not sizes:
        return Spread(count=0, median=math.nan, p95=math.nan, largest=math.nan)
    return Spread(count=len(sizes), median=median(sizes), p95=float(np.percentile(sizes, 95)), largest=max(sizes))


def over_repeats(errors: Sequence[Error]) -> list[Error]:
    """One entry a figure: its median over the repeats of a point, real and modelled each for itself."""
    groups: dict[tuple[str, str, str, str], list[Error]] = {}
    for item in errors:
        groups.setdefault((item.point, item.metric, item.statistic, item.unit), []).append(item)
    return [
        Error(
            point=point, repeat=-1, metric=metric, statistic=statistic, unit=unit,
            real=median(item.real for item in found), modelled=median(item.modelled for item in found),
        )
        for (point, metric, statistic, unit), found in groups.items()
    ]  # fmt: skip


def write_table(errors: Iterable[Error], file: Path) -> None:
    """A row a figure. Raises ScenarioError for a file that can't be written."""
    try:
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(COLUMNS)
            for item in errors:
                numbers = (f"{item.real:.6g}", f"{item.modelled:.6g}", f"{item.error:.4f}")
                writer.writerow((item.point, item.repeat, item.metric, item.statistic, item.unit, *numbers))
    except OSError as error:
        raise ScenarioError(f"can't be written: {error.strerror}", file=file) from None
