"""A small scenario of real devices over a random model, in process and on Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import testbed.actors.pool as pools
from testbed.actors.calls import Call
from testbed.actors.executor import HostRef, Promise
from testbed.run import RunResult, prepare, run
from testbed.scenarios.load import load_scenario


def save_model(folder: Path) -> None:
    """A random Llama of 4 layers; its weights are large enough that logits, and so sampled tokens, differ widely."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def write_scenario(folder: Path, model: Path) -> Path:
    """Devices cut in the middle, cloud-only, edge-only and modelled, on two servers: sampling, lossy links, sealing."""
    group = {"device": "raspberry-pi-5", "link": "wifi", "compute": "real"}
    data: dict[str, Any] = {
        "name": "small",
        "model": str(model),
        "seed": 5,
        "policy": {"kind": "static", "split": 2, "codec": "int8"},
        "security": {"seal": "aes-gcm"},
        "fleet": [
            {"name": "cut", "count": 3, **group},
            {"name": "thin", "count": 5, "policy": "cloud-only", **group},
            {"name": "thick", "count": 1, "policy": "edge-only", **group},
            {"name": "modelled", "count": 4, **group, "compute": "modelled"},
        ],
        "servers": [{"name": "cloud", "server": "cpu-server", "count": 2}],
        "sampling": {"temperature": 1.0, "top_p": 0.95},
        "workload": {
            "arrivals": {"kind": "poisson", "rate_per_device": "200 /s", "requests_per_device": 3},
            "prompts": {"kind": "random", "length": {"law": "uniform", "low": 3, "high": 20}},
            "output_tokens": {"law": "uniform", "low": 4, "high": 14},
        },
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def run_small(scenario: Path, folder: Path, *overrides: str, address: str | None = None) -> RunResult:
    """Run it with overrides into `folder`."""
    return run(prepare(load_scenario(scenario, overrides=overrides)), folder, address=address)


def on_ray(edge_hosts: int, cloud_hosts: int, *, on_failure: str = "fail") -> list[str]:
    """Overrides that put a scenario on Ray."""
    return [
        "execution.executor=ray",
        f"execution.edge_hosts={edge_hosts}",
        f"execution.cloud_hosts={cloud_hosts}",
        f"execution.on_failure={on_failure}",
    ]


class WatchedPool(pools.RayPool):
    """Keeps itself for the test, and lets something happen before the calls of given numbers are handed in."""

    last: WatchedPool
    disturbances: Mapping[int, Callable[[WatchedPool], None]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        type(self).last = self
        self.num_submitted = 0
        super().__init__(*args, **kwargs)

    def submit(self, host: HostRef, call: Call) -> Promise:
        self.num_submitted += 1
        if self.num_submitted in self.disturbances:
            self.disturbances[self.num_submitted](self)
        return super().submit(host, call)


def watch(
    monkeypatch: pytest.MonkeyPatch, disturbances: Mapping[int, Callable[[WatchedPool], None]]
) -> type[WatchedPool]:
    """The next run's pool is of the returned class."""
    kind = type("Watched", (WatchedPool,), {"disturbances": disturbances})
    monkeypatch.setattr(pools, "RayPool", kind)
    return kind


def pids_of(pool: pools.RayPool) -> list[int]:
    """The processes of its hosts."""
    return [place.pid for place in pool.places.values() if place is not None]
