"""How much of a run one core handles in a second, with the bare event rate of the clock in the same run beside it.

The scenario is modelled and split: every decode step computes on its device, goes up a lossy link, joins a batch and
comes back. ``engine.*`` counts the world, its events and their digest; ``run.*`` also the tables of a run folder.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from testbed.core.events import EventDigest
from testbed.run import Prepared, prepare, run
from testbed.scenarios.load import build_scenario
from testbed.sim.simulate import simulate
from testbed.sim.world import World
from tests.perf.yardstick import simpy_timeouts_per_cpu_s

ROUNDS = 3
NUM_DEVICES, REQUESTS_PER_DEVICE, OUTPUT_TOKENS = 100, 2, 64
SCENARIO = {
    "name": "bench",
    "model": "llama-2-7b",
    "dtype": "float16",
    "seed": 3,
    "policy": {"kind": "static", "split": 8, "codec": "int8"},
    "fleet": [{"name": "boards", "device": "jetson-agx-orin", "count": NUM_DEVICES, "link": "5g"}],
    "servers": [{"name": "cloud", "server": "a100", "count": 2, "max_batch": 128}],
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_device": "0.1 /s", "requests_per_device": REQUESTS_PER_DEVICE},
        "prompts": {"kind": "random", "length": {"law": "uniform", "low": 20, "high": 200}},
        "output_tokens": {"law": "fixed", "value": OUTPUT_TOKENS},
    },
}


def measure() -> list[dict[str, object]]:
    """Rows {name, value, unit, yardstick_name, yardstick_value}; a figure is the best of a few runs."""
    prepared = prepare(build_scenario(SCENARIO, base=Path()))
    yardstick = simpy_timeouts_per_cpu_s()
    num_requests = len(prepared.requests)
    digests: list[EventDigest] = []
    engine_s = min(_cpu_s(lambda: digests.append(_engine(prepared))) for _ in range(ROUNDS))
    run_s = min(_cpu_s(lambda: _whole(prepared)) for _ in range(ROUNDS))
    return [
        _row("engine.requests_per_cpu_s", num_requests / engine_s, "requests/CPU-s", yardstick),
        _row("engine.tokens_per_cpu_s", num_requests * OUTPUT_TOKENS / engine_s, "tokens/CPU-s", yardstick),
        _row("engine.events_per_cpu_s", digests[0].num_events / engine_s, "trace events/CPU-s", yardstick),
        _row("run.tokens_per_cpu_s", num_requests * OUTPUT_TOKENS / run_s, "tokens/CPU-s", yardstick),
    ]


def _row(name: str, value: float, unit: str, yardstick: float) -> dict[str, object]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "yardstick_name": "bare SimPy timeouts/CPU-s",
        "yardstick_value": yardstick,
    }


def _cpu_s(work: Callable[[], object]) -> float:
    gc.collect()
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


def _engine(prepared: Prepared) -> EventDigest:
    digest = EventDigest()
    simulate(World(prepared.scenario, prepared.source, executor=None, emit=digest), prepared.requests)
    return digest


def _whole(prepared: Prepared) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(prepared, Path(folder) / "run")
