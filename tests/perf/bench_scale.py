"""How many requests the compiled engine moves in a CPU second, and what a million devices take.

``scale.server_*`` and ``scale.split_5000`` replay the traces of ../shared/data/bench on Llama-2-7B and A100-class
workers, 128 sequences and 512 tokens an iteration; split in the middle, 1,000 devices share the requests and each token
goes there and back over a lossy link. Loading compiled code is not counted, results are thrown away. ``scale.million``
is a whole run in a process of its own: prepared, run, tables and summary written.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from testbed.run import Prepared, prepare
from testbed.scenarios.load import build_scenario
from testbed.sim.cohort.engine import CohortRun, Results
from testbed.sim.cohort.state import NUM_PASSES
from tests.perf.yardstick import simpy_timeouts_per_cpu_s

TRACES = Path(__file__).parents[3] / "shared" / "data" / "bench"
ROUNDS = 3
WIRED = {"use": "fibre-home", "transport": "selective-repeat", "queue": "1 MB"}
_NOTHING = Results(lambda _rows: None, lambda _rows: None)


def measure() -> list[dict[str, object]]:
    """Rows {name, value, unit, yardstick_name, yardstick_value}; a figure is the best of a few runs."""
    timeouts = simpy_timeouts_per_cpu_s()
    rows = []
    if TRACES.is_dir():
        for name, built in (
            ("server_5000", replay(5000, 2)),
            ("server_19000", replay(19_000, 16)),
            ("split_5000", replay(5000, 2, split=16)),
        ):
            rate = max(len(built.requests) / cpu_s(built)[0] for _ in range(ROUNDS))
            rows.append(_row(f"scale.{name}.req_per_cpu_s", rate, "requests/CPU-s", timeouts))
    else:
        print(f"bench_scale: no traces to replay, {TRACES} is not here", file=sys.stderr)
    million = whole_run(1_000_000)
    rows.append(_row("scale.million.wall_s", million["wall_s"], "s", None))
    rows.append(_row("scale.million.max_rss_bytes", million["max_rss_bytes"], "B", None))
    return rows


def _row(name: str, value: float, unit: str, timeouts: float | None) -> dict[str, object]:
    bare = None if timeouts is None else "bare SimPy timeouts/CPU-s"
    return {"name": name, "value": value, "unit": unit, "yardstick_name": bare, "yardstick_value": timeouts}


def replay(num_requests: int, num_workers: int, split: int = 0) -> Prepared:
    """A trace's requests, in the cloud alone or split between 1,000 devices and the cloud."""
    trace = {
        "kind": "trace",
        "file": str(TRACES / f"bench_{num_requests}.csv"),
        "time_column": "arrival_timestamp",
        "prompt_column": "prompt_size",
        "output_column": "token_size",
    }
    return _prepared(
        policy={"kind": "static", "split": split, "codec": "int8"} if split else "cloud-only",
        fleet=[
            {
                "name": "boards",
                "device": "jetson-agx-orin",
                "count": 1000 if split else num_requests,
                "link": "lte" if split else "colocated",
            }
        ],
        servers=[
            {
                "name": "cloud",
                "server": "a100",
                "count": num_workers,
                "max_batch": 128,
                "max_resident": None if split else 128,
                "chunk_tokens": 512,
                "priority": "decode",
            }
        ],
        workload={
            "arrivals": trace,
            "prompts": {"kind": "random", "length": {"law": "fixed", "value": 1}},
            "output_tokens": {"law": "fixed", "value": 1},
        },
    )


def fleet_of(num_devices: int) -> dict[str, Any]:
    """Devices of three classes, one 64-token request each over an hour, 400 workers for a million of them."""
    half, third = num_devices // 2, num_devices * 3 // 10
    return {
        "policy": {"kind": "static", "split": 8, "codec": "int8"},
        "fleet": [
            {"name": "orins", "device": "jetson-agx-orin", "count": half, "link": "5g"},
            {"name": "laptops", "device": "laptop", "count": third, "link": WIRED},
            {
                "name": "boards",
                "device": "jetson-agx-orin",
                "count": num_devices - half - third,
                "link": "lte",
                "policy": {"kind": "static", "split": 12, "codec": "int4"},
            },
        ],
        "servers": [
            {
                "name": "cloud",
                "server": "a100",
                "count": max(1, num_devices // 2500),
                "max_batch": 64,
                "chunk_tokens": 512,
                "priority": "decode",
            }
        ],
        "workload": {
            "arrivals": {"kind": "uniform", "requests_per_device": 1, "until": "1 h"},
            "prompts": {"kind": "random", "length": {"law": "fixed", "value": 64}},
            "output_tokens": {"law": "fixed", "value": 64},
        },
    }


def _prepared(**keys: object) -> Prepared:
    return prepare(build_scenario(scenario(**keys), base=Path()))


def scenario(**keys: object) -> dict[str, Any]:
    common = {"name": "bench", "model": "llama-2-7b", "dtype": "float16", "seed": 3, "record": {"spans": False}}
    return {**common, "execution": {"engine": "cohorts"}, **keys}


def cpu_s(prepared: Prepared) -> tuple[float, int]:
    """CPU time of one run by the engine, its memory laid out before, and the passes of sequences through servers."""
    gc.collect()
    start_s = time.process_time()
    run = CohortRun(prepared.scenario, prepared.source, prepared.requests, _NOTHING)
    run.run()
    return time.process_time() - start_s, int(run.memory.fixed[NUM_PASSES])


def whole_run(num_devices: int) -> dict[str, float]:
    """Wall clock and CPU seconds, and most memory, of a run in a process of its own; its passes beside them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fleet.json"
        file.write_text(json.dumps(scenario(**fleet_of(num_devices))), encoding="utf-8")
        command = [sys.executable, "-m", "tests.perf.bench_scale", str(file), str(Path(folder) / "run")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _one(file: str, folder: str) -> None:
    from testbed.run import run

    start_s = time.perf_counter()
    prepared = prepare(build_scenario(json.loads(Path(file).read_text(encoding="utf-8")), base=Path()))
    summary = run(prepared, Path(folder)).summary
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "wall_s": time.perf_counter() - start_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "max_rss_bytes": used.ru_maxrss * 1024,
        "completed": summary["completed"],
        "utilisation": summary["servers"]["utilisation"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    _one(*sys.argv[1:])
