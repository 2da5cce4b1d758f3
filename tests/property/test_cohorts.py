"""The compiled engine against the one with a process a request: equal to the nanosecond, in everything they leave."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.sim.cohort.eligible import reasons
from tests.engines import by_cohorts, by_requests
from tests.property.test_plain_engine import scenarios
from tests.sim_runs import TINY, group, link, scenario, server, workload

LOCAL = link(transport="colocated")
UNRECORDED = {"spans": False}

STACKS = (
    {},
    {"host_time": 150_000},
    {"overlap": "partial"},
    {"tensor_parallel": 2, "interconnect_bandwidth": 1e8, "interconnect_latency": 3000, "overlap": "partial"},
)


@st.composite
def streaming(draw, built):
    """For tokens that a server sends down: no link, or one that never gives them up."""
    if draw(st.booleans()):
        return scenario(fleet=[group(link=LOCAL)]).fleet[0].link
    patient = built.transport.model_copy(update={"max_retransmissions": 60})
    slow = link(rate_down=draw(st.sampled_from(["16 Mbit/s", "16 kbit/s"])))  # slower than a server's iterations
    rate = scenario(fleet=[group(link=slow)]).fleet[0].link.rate_down
    return built.model_copy(update={"transport": patient, "rate_down": rate})


@st.composite
def cohort_scenarios(draw):
    """Random scenarios of which no key is a reason against cohorts."""
    built = draw(scenarios())
    fleet = [
        item.model_copy(update={"link": draw(streaming(item.link))})
        if built.policy_of(item).kind == "cloud-only"
        else item
        for item in built.fleet
    ]
    serving = {
        "chunk_tokens": draw(st.sampled_from([None, None, 1, 7, 64])),
        "priority": draw(st.sampled_from(["arrival", "decode", "prefill"])),
        "max_resident": draw(st.sampled_from([None, None, 1, 3])),
    }
    racks = [
        item.model_copy(update={**serving, "server": item.server.model_copy(update=draw(st.sampled_from(STACKS)))})
        for item in built.servers
    ]
    record = built.record.model_copy(update=UNRECORDED)
    return built.model_copy(update={"fleet": fleet, "servers": racks, "record": record})


@settings(max_examples=150)
@given(built=cohort_scenarios())
def test_cohorts_equal_a_process_a_request(built):
    assert reasons(built, TINY.num_layers) == []
    mine, theirs = by_cohorts(built), by_requests(built)
    assert mine.requests == theirs.requests
    assert mine.iterations == theirs.iterations
    assert mine == theirs


def crowd():
    """More requests than the engine has room for at first, on few servers."""
    arrivals = {"kind": "poisson", "rate_per_device": "40 /s", "requests_per_device": 2}
    prompts = {"kind": "random", "length": {"law": "uniform", "low": 1, "high": 30}}
    lossy = link(loss=0.05, jitter={"law": "gamma", "mean": "5 ms", "std": "3 ms"})
    return scenario(
        record=UNRECORDED,
        fleet=[group(count=1500, link=lossy)],
        servers=[{"server": server(), "count": 2, "max_batch": 8}],
        workload=workload(arrivals=arrivals, prompts=prompts, output_tokens={"law": "uniform", "low": 1, "high": 3}),
    )


def test_more_sequences_than_there_was_room_for():
    built = crowd()
    assert by_cohorts(built) == by_requests(built)


def test_plain_python_says_the_same():
    program = "from tests.property.test_cohorts import by_cohorts, small; print(by_cohorts(small()))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(by_cohorts(small()))


def small():
    lossy = link(loss=0.2, jitter={"law": "gamma", "mean": "5 ms", "std": "3 ms"})
    fleet = [group(count=3, link=lossy), group("alone", policy="edge-only")]
    return scenario(record=UNRECORDED, fleet=fleet)


def test_each_reason_is_named():
    changes = {
        "every span is recorded (record.spans)": {},
        "stop_at": {"stop_at": "1 s"},
        "a server streams tokens down a link that may give them up": {
            "policy": "cloud-only",
            "fleet": [group(link=link(loss=0.4))],
        },
        "loss gilbert-elliott": {
            "fleet": [group(link=link(loss={"kind": "gilbert-elliott", "mean_loss": 0.1, "mean_burst": 3}))]
        },
        "transport tcp": {"fleet": [group(link=link(transport="tcp"))]},
        "scheduler fair": {"servers": [{"server": server(), "scheduler": "fair"}]},
        "servers.kv_cache": {"servers": [{"server": server(), "kv_cache": {"reserve": "blocks"}}]},
    }
    for reason, keys in changes.items():
        record = {} if "spans" in reason else {"record": UNRECORDED}
        assert reasons(scenario(**keys, **record), TINY.num_layers) == [reason]
