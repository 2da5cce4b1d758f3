"""A public trace on two modelled servers, against the plain ones: TTFT, TPOT and throughput."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from testbed.actors.costs import CostModel
from testbed.actors.memory import free_bytes, server_kv_bytes, server_weights_bytes
from testbed.core.events import RequestArrived, TokenDelivered, TransferEnded
from testbed.core.work import Work
from testbed.models.source import resolve
from testbed.scenarios.load import build_scenario
from testbed.sim.requests import Workloads
from testbed.sim.simulate import simulate
from testbed.sim.world import World
from tests.plain_server import RULES, PlainServer, Sequence, run
from tests.sim_runs import device, link

TRACE = Path(__file__).parents[2] / "../shared/data/bench/bench_5000.csv"
LAYERS, NUM_SERVERS, LIMIT = 32, 2, 0.02
SERVING = {"max_batch": 128, "chunk_tokens": 512, "priority": "decode"}


def built_from(num_requests):
    """The trace's requests from many devices, over links that take next to nothing."""
    fast = link(rate_up="100 Gbit/s", rate_down="100 Gbit/s", propagation_delay="0 s")
    arrivals = {
        "kind": "trace", "file": str(TRACE), "time_column": "arrival_timestamp", "limit": num_requests,
        "prompt_column": "prompt_size", "output_column": "token_size",
    }  # fmt: skip
    data = {
        "name": "bench", "model": "llama-2-7b", "dtype": "float16", "seed": 1, "policy": "cloud-only",
        "fleet": [{"name": "askers", "device": device(), "count": 4 * num_requests, "link": fast}],
        "servers": [{"server": "a100", "count": NUM_SERVERS, **SERVING}],
        "workload": {"arrivals": arrivals, "prompts": {"kind": "random", "length": {"law": "fixed", "value": 1}},
                     "output_tokens": {"law": "fixed", "value": 1}},
    }  # fmt: skip
    return build_scenario(data, base=TRACE.parent)


def engine_figures(built, source):
    """By request: ready at the server, first and last token, tokens."""
    ready, first, last, count, asked = {}, {}, {}, {}, {}

    def emit(event):
        if type(event) is TokenDelivered:
            first.setdefault(event.request, event.time_ns)
            last[event.request] = event.time_ns
            count[event.request] = event.index + 1
        elif type(event) is TransferEnded and event.direction == "up":
            ready.setdefault(event.request, event.time_ns)
        elif type(event) is RequestArrived:
            asked[event.request] = (event.prompt_tokens, event.max_output_tokens)

    world = World(built, source, executor=None, emit=emit)
    requests = Workloads(built, vocab_size=source.shape.vocab_size, tokenizer=None).requests()
    simulate(world, requests)
    assert {number: count[number] for number in asked} == {number: output for number, (_, output) in asked.items()}
    return ready, asked, [(ready[number], first[number], last[number], count[number]) for number in sorted(ready)]


def plain_figures(built, source, ready, asked):
    profile, shape = built.servers[0].server, source.shape
    costs = CostModel(profile=profile, shape=shape, weight_bits=16, kv_bits=16)
    capacity = free_bytes(profile) - server_weights_bytes(shape, [0], 16)

    def iteration_ns(parts, _swapped):
        works = [
            Work(start=0, stop=LAYERS, new_tokens=new, past_tokens=past, has_head=is_last)
            for new, past, is_last in parts
        ]
        return costs.forward_ns(works)

    rules = SimpleNamespace(**{**vars(RULES), **SERVING})
    kv_tokens = capacity // server_kv_bytes(shape, 0, 1, 16)
    servers = [PlainServer(rules, kv_capacity=kv_tokens, iteration_ns=iteration_ns) for _ in range(NUM_SERVERS)]
    sequences = [
        Sequence(number=number, ready=ready[number], prompt=asked[number][0], output=asked[number][1], layers=LAYERS)
        for number in sorted(ready)
    ]
    run(servers, sequences)
    return [(item.ready_at, item.token_times[0], item.token_times[-1], item.made) for item in sequences]


def figures(rows):
    ready, first, last, count = np.array(rows, dtype=np.int64).T
    ttft, gaps = first - ready, count > 1
    tpot = (last - first)[gaps] / (count - 1)[gaps]
    return {
        "mean TTFT": ttft.mean(), "p99 TTFT": np.quantile(ttft, 0.99),
        "mean TPOT": tpot.mean(), "p99 TPOT": np.quantile(tpot, 0.99),
        "tokens per ns": count.sum() / (last.max() - ready.min()),
    }  # fmt: skip


@pytest.mark.parametrize("num_requests", [40, pytest.param(5000, marks=pytest.mark.slow)])
def test_latencies_and_throughput_are_those_of_the_plain_servers(num_requests):
    if not TRACE.exists():
        pytest.skip("the trace lies beside the repository, in ../shared/data/bench")
    built = built_from(num_requests)
    source = resolve("llama-2-7b")
    ready, asked, rows = engine_figures(built, source)
    assert len(rows) == num_requests
    ours, theirs = figures(rows), figures(plain_figures(built, source, ready, asked))
    differences = {name: abs(ours[name] / theirs[name] - 1) for name in ours}
    print({name: f"{value:.6f}" for name, value in differences.items()}, {k: f"{v:.4g}" for k, v in ours.items()})
    assert max(differences.values()) < LIMIT
