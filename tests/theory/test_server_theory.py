"""The server against queueing theory. Seeds are fixed; ALPHA: how often a right server would fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from testbed.core.events import Hop, IterationEnded, Outcome, RequestArrived, SpanEnded
from tests.sim_runs import ends, group, link, of_kind, run_world, scenario, server, workload

ALPHA = 1e-3
IDEAL = link(rate_up="100 Gbit/s", rate_down="100 Gbit/s", propagation_delay="0 s")
ONE_PASS = {
    "prompts": {"kind": "random", "length": {"law": "fixed", "value": 8}},
    "output_tokens": {"law": "fixed", "value": 1},
}
PROBE = {"arrivals": {"kind": "times", "times": ["0 s"]}, **ONE_PASS}


def one_pass_ns(worker):
    """How long a request alone keeps the server."""
    events = run_world(scenario(policy="cloud-only", fleet=[group(link=IDEAL)], servers=[worker], workload=PROBE))[1]
    (iteration,) = of_kind(events, IterationEnded)
    return iteration.time_ns - iteration.start_ns


def loaded(load, *, num_devices, per_device, max_batch=1, num_servers=1, seed=5, router="least-loaded"):
    """Cloud-only requests of one pass each: Poisson arrivals from many devices, all lengths equal."""
    worker = {"server": server(), "count": num_servers, "max_batch": max_batch}
    service_ns = one_pass_ns(worker)
    rate = load * num_servers / (service_ns / 1e9) / num_devices
    arrivals = {"kind": "poisson", "rate_per_device": f"{rate!r} /s", "requests_per_device": per_device}
    fleet = [group(count=num_devices, link=IDEAL)]
    asks = workload(arrivals=arrivals, **ONE_PASS)
    built = scenario(policy="cloud-only", fleet=fleet, servers=[worker], workload=asks, seed=seed, router=router)
    world, events = run_world(built)
    return world, events, service_ns


def server_waits(events):
    """By request, in the order of arrival; a request that did not wait has no span."""
    waits = {event.request: 0 for event in of_kind(events, RequestArrived)}
    for span in of_kind(events, SpanEnded, hop=Hop.SERVER_WAIT):
        waits[span.request] += span.end_ns - span.start_ns
    return np.asarray([waits[request] for request in sorted(waits)], dtype=float)


@pytest.mark.parametrize("load", [0.4, 0.7])
def test_mean_wait_of_an_m_d_1_queue(load):
    # Pollaczek and Khinchine: mean wait = load * service / (2 (1 - load)). Of 400 devices none waits for itself often.
    _, events, service_ns = loaded(load, num_devices=400, per_device=30)
    waits = server_waits(events)
    num_batches = 24
    middle = waits[1000 : 1000 + (len(waits) - 3000) // num_batches * num_batches]  # arrivals thin out at the end
    means = middle.reshape(num_batches, -1).mean(axis=1)
    half_width = stats.t.ppf(1 - ALPHA / 2, num_batches - 1) * means.std(ddof=1) / math.sqrt(num_batches)
    expected = load * service_ns / (2 * (1 - load))
    assert abs(means.mean() - expected) < half_width
    assert half_width < 0.25 * expected  # the interval says something


def test_utilisation_is_load():
    world, events, service_ns = loaded(0.6, num_devices=200, per_device=10)
    arrivals = [event.time_ns for event in of_kind(events, RequestArrived)]
    busy_ns = world.server_ends(world.clock.now_ns)[0].busy_ns
    assert busy_ns == len(arrivals) * service_ns  # work is conserved exactly
    half = sorted(arrivals)[len(arrivals) // 2]
    count = sum(arrival < half for arrival in arrivals)
    assert count * service_ns / half == pytest.approx(0.6, rel=stats.norm.ppf(1 - ALPHA / 2) / math.sqrt(count))


@pytest.mark.parametrize(("max_batch", "num_servers"), [(1, 1), (8, 1), (4, 3)])
def test_littles_law_holds_exactly_on_the_trace(max_batch, num_servers):
    # The area under the number of requests present is the sum of their times, whatever the order of service.
    _, events, _ = loaded(1.1, num_devices=50, per_device=20, max_batch=max_batch, num_servers=num_servers)
    changes = sorted(
        [(event.time_ns, 1) for event in of_kind(events, RequestArrived)]
        + [(event.time_ns, -1) for event in ends(events).values()]
    )
    area, present, last_ns = 0, 0, 0
    for time_ns, change in changes:
        area += present * (time_ns - last_ns)
        present, last_ns = present + change, time_ns
    spans = of_kind(events, SpanEnded)
    assert present == 0
    assert area == sum(span.end_ns - span.start_ns for span in spans)


def test_batches_grow_with_load_and_keep_an_overloaded_server_stable():
    # Twice what one at a time could serve: batching must carry it, since a pass's weights are read once for all.
    _, alone, _ = loaded(2.0, num_devices=200, per_device=10)
    _, batched, _ = loaded(2.0, num_devices=200, per_device=10, max_batch=32)
    _, idle, _ = loaded(0.05, num_devices=200, per_device=10, max_batch=32)
    assert server_waits(batched).mean() < server_waits(alone).mean() / 10
    sizes = [np.mean([item.num_sequences for item in of_kind(events, IterationEnded)]) for events in (idle, batched)]
    assert sizes[0] < 1.2
    assert sizes[1] > 1.5


def test_two_servers_share_their_load():
    # At the same load of each, two that are chosen by the shortest queue wait less than one.
    _, two, _ = loaded(0.8, num_devices=200, per_device=10, num_servers=2)
    _, one, _ = loaded(0.8, num_devices=200, per_device=10)
    assert server_waits(two).mean() < server_waits(one).mean()


def erlang_c(num_slots, offered):
    """The probability that an arrival waits in an M/M/c queue with this offered load."""
    terms = [offered**number / math.factorial(number) for number in range(num_slots + 1)]
    busy = terms[-1] / (1 - offered / num_slots)
    return busy / (sum(terms[:-1]) + busy)


@pytest.mark.parametrize(
    ("num_slots", "load", "mean_tokens", "num_requests"),
    [(1, 0.5, 20, 1200), (4, 0.7, 20, 1200), pytest.param(4, 0.8, 100, 8_000, marks=pytest.mark.slow)],
)
def test_mean_wait_of_an_m_m_c_queue(num_slots, load, mean_tokens, num_requests, tmp_path):
    # One server with `max_resident: c` is one queue before c slots: a sequence keeps its slot for a geometric number of
    # iterations, which take the same time however many they serve (launches alone count here). That is M/M/c as far as
    # a geometric time is exponential, which it is but for its squared coefficient of variation, 1 - 1/n in place of 1,
    # and as far as an arrival need not wait for the iteration under way to end, at most one of n. Both bound the bias.
    launches = server(memory_bandwidth="1e6 GB/s", compute="1e6 TFLOP/s", kernel_overhead="1 ms")
    worker = {"server": launches, "max_batch": num_slots, "max_resident": num_slots}
    step_ns = one_pass_ns(worker)
    service_ns, num_devices = mean_tokens * step_ns, 1000  # so many that hardly ever one has two requests at a time
    gaps_ns = np.random.default_rng(8).exponential(service_ns / (load * num_slots), num_requests)
    trace = tmp_path / "poisson.csv"
    trace.write_text("\n".join(["time", *(f"{time:.0f}" for time in gaps_ns.cumsum())]))
    asks = workload(
        arrivals={"kind": "trace", "file": str(trace), "time_column": "time", "time_unit": "ns"},
        prompts=ONE_PASS["prompts"],
        output_tokens={"law": "geometric", "mean": mean_tokens, "max": 100 * mean_tokens},
    )
    fleet = [group(count=num_devices, link=IDEAL)]
    events = run_world(scenario(policy="cloud-only", fleet=fleet, servers=[worker], workload=asks, seed=8))[1]
    waits = {event.request: 0 for event in of_kind(events, RequestArrived)}
    for span in of_kind(events, SpanEnded, hop=Hop.SERVER_WAIT, step=0):
        waits[span.request] += span.end_ns - span.start_ns
    ordered = np.asarray([waits[request] for request in sorted(waits)], dtype=float)
    middle = ordered[num_requests // 20 :]  # it is empty at first
    num_batches = 16
    means = middle[: len(middle) // num_batches * num_batches].reshape(num_batches, -1).mean(axis=1)
    half_width = stats.t.ppf(1 - ALPHA / 2, num_batches - 1) * means.std(ddof=1) / math.sqrt(num_batches)
    expected = erlang_c(num_slots, load * num_slots) * service_ns / (num_slots * (1 - load))
    bias = step_ns + expected / mean_tokens
    assert abs(means.mean() - expected) < half_width + bias
    assert half_width + bias < expected  # the interval says something


def erlang_b(num_servers, offered):
    """The probability that an arrival finds all servers busy where nobody waits."""
    blocked = 1.0
    for number in range(1, num_servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked


@pytest.mark.parametrize(("num_servers", "offered"), [(1, 0.7), (4, 3.0)])
def test_a_cluster_without_a_queue_turns_away_as_erlang_says(num_servers, offered):
    # Equal servers that take one request at a time and let nobody wait: M/D/c/c, which Erlang B holds for whatever the
    # law of service. Requests at uniform instants of a window are Poisson given their number.
    worker = {"server": server(), "count": num_servers, "max_batch": 1}
    service_ns = one_pass_ns(worker)
    num_requests, num_batches = 6000, 30
    window_s = num_requests / (offered / (service_ns / 1e9))
    arrivals = {"kind": "uniform", "requests_per_device": 1, "until": f"{window_s!r} s"}
    events = run_world(
        scenario(
            policy="cloud-only",
            fleet=[group(count=num_requests, link=link(transport="colocated"))],
            servers=[{**worker, "admission": {"max_inside": 1}}],
            workload=workload(arrivals=arrivals, **ONE_PASS),
        )
    )[1]
    outcomes = ends(events)
    refused = np.asarray([outcomes[number].outcome is Outcome.REJECTED for number in sorted(outcomes)], dtype=float)
    shares = refused.reshape(num_batches, -1).mean(axis=1)
    half_width = stats.t.ppf(1 - ALPHA / 2, num_batches - 1) * shares.std(ddof=1) / math.sqrt(num_batches)
    expected = erlang_b(num_servers, offered)
    assert abs(shares.mean() - expected) < half_width
    assert half_width < 0.25 * expected
