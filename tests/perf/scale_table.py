"""Seconds against devices, and time a token step: ``python -m tests.perf.scale_table [FILE.svg]`` (about four minutes).

Each size is a whole run in a process of its own (tests.perf.bench_scale): an hour of one 64-token request a device, a
worker for 2,500 devices. The engine's own time is taken beside it, without preparation and results.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.run import Prepared, prepare
from testbed.scenarios.load import build_scenario
from tests.perf import bench_scale
from tests.perf.yardstick import simpy_timeouts_per_cpu_s

SIZES = (1000, 10_000, 100_000, 1_000_000)


def main(arguments: Sequence[str]) -> None:
    print(f"bare SimPy timeouts/CPU-s: {simpy_timeouts_per_cpu_s():,.0f}\n")
    print("| devices | token steps | engine, CPU s | ns a step | whole run, CPU s | wall s | most memory, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    bench_scale.cpu_s(_prepared(SIZES[0]))  # loads compiled code
    points = [_point(size) for size in SIZES]
    if arguments:
        _draw(points, Path(arguments[0]))


def _prepared(num_devices: int) -> Prepared:
    return prepare(build_scenario(bench_scale.scenario(**bench_scale.fleet_of(num_devices)), base=Path()))


def _point(num_devices: int) -> tuple[int, float, float]:
    prepared = _prepared(num_devices)
    engine_s, num_steps = min(bench_scale.cpu_s(prepared) for _ in range(3 if num_devices < SIZES[-1] else 1))
    whole = bench_scale.whole_run(num_devices)
    memory_mb = whole["max_rss_bytes"] / 1e6
    print(
        f"| {num_devices:,} | {num_steps:,} | {engine_s:.2f} | {engine_s / num_steps * 1e9:.0f} "
        f"| {whole['cpu_s']:.1f} | {whole['wall_s']:.1f} | {memory_mb:.0f} |",
        flush=True,
    )
    return num_devices, engine_s, whole["cpu_s"]


def _draw(points: Sequence[tuple[int, float, float]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    sizes = [point[0] for point in points]
    axes.loglog(sizes, [point[2] for point in points], "o-", label="whole run")
    axes.loglog(sizes, [point[1] for point in points], "s-", label="engine alone")
    axes.set_xlabel("devices")
    axes.set_ylabel("CPU seconds")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(file)


if __name__ == "__main__":
    main(sys.argv[1:])
