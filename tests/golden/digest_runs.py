"""The runs whose digests are kept: ``python -m tests.golden.digest_runs`` prints them, with --write it keeps them.

The digests in digests.json are of our own making: they say that a run is what it was, not that it is right. A change
of behaviour writes them anew, in a commit that says why; a refactoring leaves them as they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from testbed.core.events import EventDigest
from testbed.scenarios.schema import Scenario
from tests.networks import edge, graph
from tests.sim_runs import device, group, link, run_events, scenario, server, workload

FILE = Path(__file__).with_name("digests.json")

_ASKS = workload(
    arrivals={"kind": "poisson", "rate_per_device": "1.5 /s", "requests_per_device": 4},
    prompts={"kind": "random", "length": {"law": "lognormal", "mean": 20, "std": 15, "max": 100}},
    output_tokens={"law": "uniform", "low": 1, "high": 12},
)
_LOSSY = link(
    loss=0.05,
    jitter={"law": "normal", "mean": "6 ms", "std": "3 ms"},
    mtu="400 B",
    transport={"kind": "selective-repeat", "timeout": "40 ms"},
)
_SLOW = {"server": server(memory_bandwidth="2 MB/s"), "max_batch": 3}
_TIGHT = {
    "name": "tight",
    "server": server(memory="1055 kB", memory_bandwidth="2 MB/s"),
    "count": 2,
    "max_batch": 4,
    "max_prefill_tokens": 64,
}


_THINK = {"law": "exponential", "mean": "50 ms"}
_TALKS = {
    **_ASKS,
    "arrivals": {"kind": "closed", "requests_per_device": 2, "think": _THINK},
    "session": {"turns": {"law": "geometric", "mean": 2, "max": 4}, "think": _THINK},
    "kinds": [
        {"name": "text", "share": [{"at": "0 s", "share": 0.9}, {"at": "1 s", "share": 0.2}]},
        {
            "name": "code",
            "share": [{"at": "0 s", "share": 0.1}, {"at": "1 s", "share": 0.8}],
            "output_tokens": {"law": "fixed", "value": 2},
        },
    ],
}


def _networked() -> Scenario:
    """A ring with equal ways, loss, random failures and a cut; servers on two of its nodes, one of them a device's."""
    edges = [edge("a", "b", loss=0.05), edge("b", "z"), edge("a", "c", loss=0.05), edge("c", "z")]
    edges[1]["failures"] = {"mean_up": "300 ms", "mean_down": "150 ms"}
    edges[2]["down"] = [{"at": "500 ms", "until": "900 ms"}]
    fleet = [group("east", count=3, at="a", link=_LOSSY), group("west", count=3, at=["c", "z"], link=_LOSSY)]
    servers = [{**_SLOW, "name": "near", "at": "c"}, {**_SLOW, "name": "far", "at": "z"}]
    network = {**graph("abcz", edges), "reroute_after": "20 ms"}
    return scenario(fleet=fleet, servers=servers, topology=network, workload=_ASKS, seed=14)


def scenarios() -> dict[str, Scenario]:
    """Between them every policy, loss, jitter, full batches and memory, instants, gaps and requests that wait."""
    split = [
        group("a", count=4, link=_LOSSY),
        group("b", count=3, link=_LOSSY, policy={"kind": "static", "split": 3, "codec": "int4"}),
    ]
    mixed = [
        group("cloud", count=3, link=_LOSSY, policy="cloud-only"),
        group("edge", count=3, policy="edge-only", device=device(memory="1060 kB")),
        group("wide", count=2, policy={"kind": "static", "split": 1, "codec": "raw-float16"}),
    ]
    ties = workload(arrivals={"kind": "times", "times": ["0 s", "0 s", "30 ms"]})
    return {
        "split, lossy": scenario(fleet=split, servers=[_SLOW], workload=_ASKS, seed=11),
        "all policies, little memory": scenario(fleet=mixed, servers=[_TIGHT], workload=_ASKS, seed=12),
        "ties": scenario(fleet=[group(count=5)], servers=[{"server": server(), "count": 2}], workload=ties),
        "topology": _networked(),
        "sessions of users": scenario(fleet=split, servers=[_SLOW], workload=_TALKS, seed=15),
        "stopped": scenario(fleet=split, workload=_ASKS, seed=13, stop_at="1 s"),
    }


def digest_of(built: Scenario) -> str:
    digest = EventDigest()
    for event in run_events(built):
        digest(event)
    return digest.hexdigest()


def main() -> None:
    digests = {name: digest_of(built) for name, built in scenarios().items()}
    text = json.dumps(digests, indent=2) + "\n"
    if "--write" in sys.argv:
        FILE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
