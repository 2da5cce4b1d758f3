"""Which numbers of which profiles were fitted, on which measurements, and the fit itself.

The catalogue holds the result, rounded to three digits. Rows not named here were not looked at by the fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.actors.costs import CostModel
from testbed.actors.profile_table import ProfileTable
from testbed.actors.roofline import Roofline
from testbed.actors.table_costs import TableKernels
from testbed.actors.weights import as_law
from testbed.core.units import ns_to_seconds
from testbed.scenarios.profiles import ProcessorProfile
from testbed.studies.profile_data.rows import Measurement, Row

KV_BITS = 16  # in every measurement
_REACHABLE = 0.93  # of the data sheet's bandwidth at most: refresh and bus turn-around take the rest [our design]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Which numbers of a profile were fitted, on which rows (data set, label), and the data sheet's bandwidth."""

    parameters: tuple[str, ...]
    peak_bandwidth: float  # B/s
    rows: tuple[tuple[str, str], ...]


_BOARD = "Jetson Orin Nano 8GB (original; 68 GB/s)"
_SUPER = "Jetson Orin Nano 8GB Super (102 GB/s)"
_VIDUR_ROWS = tuple(
    ("vidur", f"one layer of Llama 2 7B, 1/{parallel} slice, {tokens} tokens")
    for parallel in (1, 4)
    for tokens in (1, 64, 2048)
)
_BANDWIDTH, _OVERHEAD, _COMPUTE = "memory_bandwidth", "kernel_overhead", "compute"

FITS: Mapping[str, Fit] = {
    "raspberry-pi-4b": Fit(
        parameters=(_BANDWIDTH,), peak_bandwidth=12.8e9, rows=(("ai-benchmarks", "Llama 3.2:3b, Pi 400 - 4GB"),)
    ),
    "raspberry-pi-5": Fit(
        parameters=(_BANDWIDTH,),
        peak_bandwidth=17.1e9,
        rows=(("ai-benchmarks", "Llama 3.2:3b, Pi 5 - 16GB"), ("slips-rpi", "llama3.2:1b Q4_K_M, Raspberry Pi 5")),
    ),
    "jetson-orin-nano": Fit(
        parameters=(_BANDWIDTH, _OVERHEAD),
        peak_bandwidth=68e9,
        rows=(
            ("jetson-ai-lab", f"Llama 3.1 8B INT4, {_BOARD}"),
            ("jetson-ai-lab", f"Llama 3.2 3B INT4, {_BOARD}"),
        ),
    ),
    "jetson-orin-nano-super": Fit(
        parameters=(_BANDWIDTH, _OVERHEAD),
        peak_bandwidth=102e9,
        rows=(
            ("jetson-ai-lab", f"Llama 3.1 8B INT4, {_SUPER}"),
            ("jetson-ai-lab", f"Llama 3.2 3B INT4, {_SUPER}"),
        ),
    ),
    "mini-pc": Fit(
        parameters=(_BANDWIDTH,),
        peak_bandwidth=25.6e9,
        rows=(("ai-benchmarks", "Llama 3.2:3b, GMKtec G3 Plus (Intel N150) - 16GB"),),
    ),
    "laptop": Fit(
        parameters=(_BANDWIDTH,),
        peak_bandwidth=89.6e9,
        rows=(("ai-benchmarks", "Llama 3.2:3b, Framework 13 (Ryzen AI 5 340)"),),
    ),
    "cpu-server": Fit(
        parameters=(_BANDWIDTH, _OVERHEAD),
        peak_bandwidth=332.8e9,
        rows=(
            ("ai-benchmarks", "Llama 3.2:3b, AmpereOne A192-32X (512GB)"),
            ("ai-benchmarks", "Llama 3.1:70b, AmpereOne A192-32X (512GB)"),
        ),
    ),
    "rtx-4090": Fit(
        parameters=(_BANDWIDTH, _COMPUTE, _OVERHEAD),
        peak_bandwidth=1008e9,
        rows=(
            ("llmservingsim", "decode batch 1 context 1024"),
            ("llmservingsim", "decode batch 32 context 1024"),
            ("llmservingsim", "prefill 64 after 0"),
            ("llmservingsim", "prefill 1024 after 0"),
        ),
    ),
    "a100": Fit(parameters=(_BANDWIDTH, _COMPUTE, _OVERHEAD), peak_bandwidth=2039e9, rows=_VIDUR_ROWS),
    "h100": Fit(parameters=(_BANDWIDTH, _COMPUTE, _OVERHEAD), peak_bandwidth=3352e9, rows=_VIDUR_ROWS),
}


def predict_seconds(profile: ProcessorProfile, measurement: Measurement, table: ProfileTable | None = None) -> float:
    """Duration of the measured pass by the cost model, with a table in the roofline's place where one is given.

    Of one layer without its attention where that was measured.
    """
    if measurement.devices > 1:
        profile = profile.model_copy(update={"tensor_parallel": measurement.devices})
    if measurement.kind == "layer":
        kernels = Roofline(profile, measurement.shape, as_law(measurement.bits), KV_BITS)
        if table is not None:
            return ns_to_seconds(TableKernels(table, kernels, extrapolate=False).matrices_ns(measurement.tokens))
        return ns_to_seconds(kernels.overhead_ns + kernels.matrices_ns(measurement.tokens))
    model = CostModel(
        profile=profile, shape=measurement.shape, weight_bits=measurement.bits, kv_bits=KV_BITS, table=table
    )
    return ns_to_seconds(model.forward_ns(measurement.works))


def is_fitted(row: Measurement) -> bool:
    return row.profile in FITS and (row.dataset, row.label) in FITS[row.profile].rows


def fit(profile: ProcessorProfile, plan: Fit, rows: Sequence[Measurement]) -> dict[str, float]:
    """The plan's numbers (B/s, FLOP/s, ns) that minimise the squared log error over `rows`, others as they are."""
    from scipy.optimize import minimize  # noqa: PLC0415 - slow import, for --fit only

    def candidate(logs: npt.NDArray[np.float64]) -> dict[str, float]:
        values = {name: math.exp(log) for name, log in zip(plan.parameters, logs.tolist(), strict=True)}
        values[_BANDWIDTH] = min(values[_BANDWIDTH], _REACHABLE * plan.peak_bandwidth)
        return values

    def loss(logs: npt.NDArray[np.float64]) -> float:
        trial = profile.model_copy(update=_as_fields(candidate(logs)))
        return sum(math.log(predict_seconds(trial, row) / row.seconds) ** 2 for row in rows)

    start = {_BANDWIDTH: 0.7 * plan.peak_bandwidth, _COMPUTE: profile.compute, _OVERHEAD: 2e4}
    found = minimize(
        loss,
        np.log([start[name] for name in plan.parameters]),
        method="Nelder-Mead",
        options={"xatol": 1e-5, "fatol": 1e-9, "maxiter": 2000},
    )
    return candidate(found.x)


def _as_fields(values: Mapping[str, float]) -> dict[str, float | int]:
    return {name: round(value) if name == _OVERHEAD else value for name, value in values.items()}


def refit(rows: Iterable[Row], known: Mapping[str, ProcessorProfile]) -> dict[str, dict[str, float]]:
    """Fitted numbers per profile."""
    used: dict[str, list[Measurement]] = {name: [] for name in FITS}
    for row in rows:
        if isinstance(row, Measurement) and is_fitted(row):
            used[row.profile].append(row)
    return {name: fit(known[name], plan, used[name]) for name, plan in FITS.items()}
