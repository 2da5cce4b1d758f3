"""The scenario points that `testbed validate-local` takes where no scenario is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.scenarios.load import build_scenario
from testbed.scenarios.overrides import apply_overrides
from testbed.scenarios.schema import Scenario

BASE: Mapping[str, Any] = {
    "name": "local",
    "model": "pebble",
    "seed": 11,
    "policy": {"kind": "static", "split": 6, "codec": "int8"},
    "fleet": [
        {
            "name": "devices",
            "device": "raspberry-pi-5",
            "count": 4,
            "compute": "real",
            "link": {
                "name": "paced",
                "rate_up": "40 Mbit/s",
                "rate_down": "40 Mbit/s",
                "propagation_delay": "5 ms",
                "sources": {"rate_up": "chosen", "rate_down": "chosen", "propagation_delay": "chosen"},
            },
        }
    ],
    "servers": [{"name": "cloud", "server": "l4", "max_batch": 16, "max_prefill_tokens": 320}],
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_device": "0.8 /s", "requests_per_device": 5},
        "prompts": {"kind": "random", "length": {"law": "uniform", "low": 20, "high": 44}},
        "output_tokens": {"law": "uniform", "low": 16, "high": 48},
        "ignore_eos": True,
    },
    "record": {"quality": False},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One scenario to run twice."""

    name: str
    overrides: tuple[str, ...] = field(default=())

    def scenario(self, more: Sequence[str] = ()) -> Scenario:
        """The point, with changes."""
        return build_scenario(apply_overrides(_copy(BASE), [*self.overrides, *more]), base=Path())


def _copy(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(item) for item in data] if isinstance(data, list) else data


_RATE = "workload.arrivals.rate_per_device"
_EACH = "workload.arrivals.requests_per_device"
_DELAY = "fleet.0.link.propagation_delay"

POINTS = (
    Point(name="base"),
    Point(name="light load", overrides=(f"{_RATE}=0.3 /s", f"{_EACH}=3")),
    Point(name="heavy load", overrides=(f"{_RATE}=3 /s",)),
    Point(name="all at once", overrides=(f"{_RATE}=100 /s", f"{_EACH}=3")),
    Point(name="split 2", overrides=("policy.split=2",)),
    Point(name="split 10", overrides=("policy.split=10",)),
    Point(name="codec int4", overrides=("policy.codec=int4",)),
    Point(name="float32, 10 Mbit/s", overrides=("policy.codec=raw-float32", "fleet.0.link.rate_up=10 Mbit/s")),
    Point(name="long prompts", overrides=("workload.prompts.length={law: uniform, low: 120, high: 240}",)),
    Point(name="long answers", overrides=("workload.output_tokens={law: uniform, low: 64, high: 128}", f"{_EACH}=3")),
    Point(name="one device", overrides=("fleet.0.count=1", f"{_EACH}=8")),
    Point(name="eight devices", overrides=("fleet.0.count=8", f"{_RATE}=0.6 /s", f"{_EACH}=3")),
    Point(name="eight devices, fast link", overrides=("fleet.0.count=8", f"{_DELAY}=0.5 ms", f"{_EACH}=3")),
    Point(name="slow link", overrides=(f"{_DELAY}=25 ms", f"{_EACH}=3")),
)
