"""The same scenario and seed give the same events: as they were kept, again, in another process, with real tensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from testbed.actors.calls import HostSpec
from testbed.actors.sealing import seal_secret
from testbed.core.events import EventDigest, IterationEnded, RequestEnded, SpanEnded, TokenDelivered, TransferEnded
from testbed.models.sampling_config import SamplingConfig
from testbed.models.source import ModelSource, from_folder
from testbed.sim.simulate import simulate
from testbed.sim.world import World
from tests.golden.digest_runs import FILE, digest_of, scenarios
from tests.sim_runs import TINY, TINY_CONFIG, group, link, of_kind, run_events, scenario, table_of, workload

NAMES = list(scenarios())


@pytest.mark.parametrize("name", NAMES)
def test_digests_are_the_kept_ones(name):
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    assert list(kept) == NAMES
    assert digest_of(scenarios()[name]) == kept[name], "see digest_runs.py for what to do where this was meant"


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_another_process_with_another_hash_seed_gets_the_same(hash_seed, repo_root):
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden.digest_runs"],
        cwd=repo_root,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_has_events_of_its_own(name):
    built = scenarios()[name]
    other = built.model_copy(update={"seed": built.seed + 1})
    fixed = name == "ties"  # nothing in it is drawn
    assert (digest_of(other) == digest_of(built)) == fixed


def test_the_kept_runs_meet_what_they_are_meant_to_meet():
    events = [event for built in scenarios().values() for event in run_events(built)]
    reasons = {event.reason for event in of_kind(events, RequestEnded)}
    assert reasons >= {"length", "device memory", "server memory"}
    assert any(event.num_retransmissions for event in of_kind(events, TransferEnded))
    assert any(event.num_waiting and event.num_sequences > 1 for event in of_kind(events, IterationEnded))
    assert len({event.hop for event in of_kind(events, SpanEnded)}) >= 14


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory) -> ModelSource:
    """The tests' model with random weights."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    draw = np.random.default_rng(8)
    hidden, inner, rows = TINY.hidden_size, TINY.intermediate_size, TINY.num_kv_heads * TINY.head_dim
    shapes = {"model.embed_tokens.weight": (64, hidden), "lm_head.weight": (64, hidden), "model.norm.weight": (hidden,)}
    for layer in range(TINY.num_layers):
        sizes = {"q": (hidden, hidden), "k": (rows, hidden), "v": (rows, hidden), "o": (hidden, hidden)}
        shapes |= {f"model.layers.{layer}.self_attn.{name}_proj.weight": size for name, size in sizes.items()}
        sizes = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
        shapes |= {f"model.layers.{layer}.mlp.{name}_proj.weight": size for name, size in sizes.items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        shapes |= {f"model.layers.{layer}.{name}.weight": (hidden,) for name in norms}
    save_file(
        {name: draw.normal(0, 0.4, size).astype(np.float32) for name, size in shapes.items()},
        str(folder / "model.safetensors"),
    )
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG))
    return from_folder(folder)


def real_scenario(compute, policy, security=None, **sampling):
    lossy = link(
        loss=0.1,
        jitter={"law": "exponential", "mean": "5 ms"},
        transport={"kind": "selective-repeat", "timeout": "20 ms"},
    )
    asks = workload(
        arrivals={"kind": "poisson", "rate_per_device": "20 /s", "requests_per_device": 2},
        output_tokens={"law": "uniform", "low": 2, "high": 9},
        ignore_eos=True,
    )
    fleet = [group(count=3, compute=compute, link=lossy)]
    return scenario(
        fleet=fleet, workload=asks, policy=policy, sampling=sampling, security=security, record={"quality": False}
    )


def real_events(built, source):
    from testbed.actors.local import LocalExecutor

    sampling = SamplingConfig(
        greedy=built.sampling.temperature == 0,
        temperature=built.sampling.temperature or 1.0,
        top_k=built.sampling.top_k or 0,
        top_p=1.0,
    )
    spec = HostSpec(
        source=source,
        dtype="float32",
        sampling=sampling,
        keep_logits=False,
        seal=built.seal,
        seal_secret=seal_secret(built),
        refuses=True,
    )
    events = []
    world = World(built, source, executor=LocalExecutor(spec), emit=events.append)
    simulate(world, table_of(built, source))
    return events


POLICIES = ["cloud-only", "edge-only", {"kind": "static", "split": 2, "codec": "int8"}]


@pytest.mark.parametrize("security", [None, {"seal": "chacha20", "tamper": 0.2}, {"tamper": 0.2}], ids=repr)
@pytest.mark.parametrize("policy", POLICIES, ids=["cloud-only", "edge-only", "static"])
def test_real_and_modelled_devices_differ_in_nothing_but_their_tokens(policy, security, tiny_weights):
    """Sizes and durations are laws, so real tensors change which tokens come and nothing about when."""
    real = real_events(real_scenario("real", policy, security), tiny_weights)
    modelled = run_events(real_scenario("modelled", policy, security))
    tokens = [event.token for event in of_kind(real, TokenDelivered)]
    assert min(tokens) >= 0
    assert len(set(tokens)) > 3
    unread = [replace(event, token=-1) if isinstance(event, TokenDelivered) else event for event in real]
    assert unread == modelled


def test_real_runs_are_repeatable_and_sampling_follows_the_seed(tiny_weights):
    def digest(built):
        digest = EventDigest()
        for event in real_events(built, tiny_weights):
            digest(event)
        return digest.hexdigest()

    greedy = real_scenario("real", POLICIES[2])
    sampled = real_scenario("real", POLICIES[2], temperature=1.5, top_k=20)
    assert digest(greedy) == digest(greedy)
    assert digest(sampled) == digest(sampled)
    assert digest(sampled) != digest(greedy)
