"""Routers, failures and autoscalers against closed forms. Seeds are fixed; ALPHA: how often a right one would fail."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest
from scipy import stats

from testbed.core.events import IterationEnded, ServersScaled
from testbed.core.portable import exponential
from testbed.core.rng import Stream
from testbed.schedulers.routers.at_random import AtRandom, PowerOfTwo
from testbed.schedulers.routing import Ask, Candidate
from tests.sim_runs import S, group, link, of_kind, run_world, scenario, server, workload
from tests.theory.test_server_theory import loaded, server_waits

ALPHA = 1e-3


def supermarket(router, *, num_servers, load, num_arrivals, seed):
    """Queue lengths of exponential servers, first come first served, as every tenth arrival finds them: [samples, k].

    Poisson arrivals of rate `load` a server, service of mean 1; sample i counts servers with at least k requests.
    """
    arrivals, services = Stream.named(seed, "theory.arrivals"), Stream.named(seed, "theory.services")
    queues, free_at, leaves, now, found = [0] * num_servers, [0.0] * num_servers, [], 0.0, []
    for request in range(num_arrivals):
        now += exponential(arrivals, 0, request) / (load * num_servers)
        while leaves and leaves[0][0] <= now:
            queues[heapq.heappop(leaves)[1]] -= 1
        if request > num_arrivals // 5 and request % num_servers == 0:
            found.append([sum(queue >= k for queue in queues) / num_servers for k in range(1, 5)])
        chosen = router.choose(Ask(request=request), [Candidate(n, queue) for n, queue in enumerate(queues)])
        queues[chosen] += 1
        free_at[chosen] = max(now, free_at[chosen]) + exponential(services, 0, request)
        heapq.heappush(leaves, (free_at[chosen], chosen))
    return np.asarray(found)


@pytest.mark.parametrize(
    ("kind", "exponent"),
    # In the mean-field limit at least k wait or are served at a share load ** (2 ** k - 1) of the servers with two
    # choices (Mitzenmacher 2001; Vvedenskaya et al. 1996), and load ** k with one: an M/M/1 queue each.
    [(PowerOfTwo, lambda k: 2**k - 1), (AtRandom, lambda k: k)],
    ids=["two-choices", "one-choice"],
)
def test_tails_of_queues_in_the_supermarket_model(kind, exponent):
    load, num_servers = 0.8, 60
    router = kind(kind.Config(), 11)
    found = supermarket(router, num_servers=num_servers, load=load, num_arrivals=24_000, seed=3)
    batches = np.array_split(found, 12)
    means = np.asarray([batch.mean(axis=0) for batch in batches])
    for k in range(1, 5):
        half_width = stats.t.ppf(1 - ALPHA / 8, len(means) - 1) * means[:, k - 1].std(ddof=1) / math.sqrt(len(means))
        # The limit is approached as 1 / n: for n servers a finite-size error of the order of the tail / n remains.
        finite = 2 / num_servers * load ** exponent(k)
        assert abs(means[:, k - 1].mean() - load ** exponent(k)) < half_width + finite, k
        assert half_width < 0.1


def test_routers_rank_as_theory_has_it():
    # M/D/c by one queue, two choices, in turn and by lot: by what each knows, waits grow in this order.
    waits = {}
    for kind in ("least-loaded", "power-of-two", "random"):
        waits[kind] = server_waits(loaded(0.8, num_devices=200, per_device=10, num_servers=4, router=kind)[1]).mean()
    assert waits["least-loaded"] < waits["power-of-two"] < waits["random"]


def test_random_routing_splits_into_independent_m_d_1_queues():
    _, events, service_ns = loaded(0.6, num_devices=400, per_device=20, num_servers=4, router="random")
    waits = server_waits(events)
    middle = waits[1000 : 1000 + (len(waits) - 2000) // 20 * 20]
    means = middle.reshape(20, -1).mean(axis=1)
    half_width = stats.t.ppf(1 - ALPHA / 2, 19) * means.std(ddof=1) / math.sqrt(20)
    assert abs(means.mean() - 0.6 * service_ns / (2 * 0.4)) < half_width
    assert half_width < 0.35 * means.mean()


def test_availability_is_the_share_of_time_up():
    # Alternating renewal: mean_up / (mean_up + mean_down); the delta method gives the width for exponential times.
    mean_up, mean_down, count, until_s = 90, 30, 40, 36_000
    failures = {"mean_up": f"{mean_up} s", "mean_down": f"{mean_down} s"}
    servers = [{"server": server(), "count": count, "failures": failures}]
    asks = workload(arrivals={"kind": "times", "times": [f"{until_s} s"]})
    world, _ = run_world(scenario(servers=servers, workload=asks, stop_at=f"{until_s} s"))
    ends = [end.operation for end in world.server_ends(until_s * S)]
    up_ns = sum(end.up_ns for end in ends)
    assert up_ns + sum(end.down_ns for end in ends) == count * until_s * S
    expected = mean_up / (mean_up + mean_down)
    num_cycles = count * until_s / (mean_up + mean_down)
    sigma = expected * (1 - expected) * math.sqrt(2 / num_cycles)
    assert abs(up_ns / (count * until_s * S) - expected) < stats.norm.ppf(1 - ALPHA / 2) * sigma
    num_failures = sum(end.failures for end in ends)
    assert num_failures == pytest.approx(num_cycles, abs=stats.norm.ppf(1 - ALPHA / 2) * math.sqrt(num_cycles))


def test_failures_of_a_server_are_its_own():
    """Another group beside it, or more servers in its own, change nothing."""
    failures = {"mean_up": "90 s", "mean_down": "30 s"}
    asks = workload(arrivals={"kind": "times", "times": ["3600 s"]})
    told = []
    for more in ([], [{"name": "more", "server": server(), "count": 2, "failures": failures}]):
        servers = [*more, {"server": server(), "count": 1 + len(more), "failures": failures}]
        world, _ = run_world(scenario(servers=servers, workload=asks, stop_at="1 h"))
        told.append(world.server_ends(3600 * S)[2 * len(more)].operation)
    assert told[0] == told[1]


def test_an_autoscaler_answers_a_step_of_load_with_the_servers_that_carry_it():
    # A constant stream of work for 1.4 servers at a target of 75 % busy. One server is saturated: ceil(1 / 0.75) = 2.
    # While these work off what waited they are saturated too: ceil(2 / 0.75) = 3. Then ceil(1.4 / 0.75) = 2 for good.
    worker = {"server": server(kernel_overhead="10 ms"), "max_batch": 1}
    ideal = link(rate_up="100 Gbit/s", rate_down="100 Gbit/s", propagation_delay="0 s")
    one_token = {"output_tokens": {"law": "fixed", "value": 1}}

    def events_of(times, **changes):
        fleet = [
            group(f"g{place}", link=ideal, workload=workload(arrivals={"kind": "times", "times": own}, **one_token))
            for place, own in enumerate(times)
        ]
        return run_world(scenario(policy="cloud-only", fleet=fleet, servers=[worker | changes]))[1]

    (alone,) = of_kind(events_of([["0 s"]]), IterationEnded)
    gap_s = (alone.time_ns - alone.start_ns) / S / 1.4
    times = [f"{gap_s * index!r} s" for index in range(int(60 / gap_s))]
    scale = {"signal": "utilisation", "target": 0.75, "interval": "5 s", "cold_start": "2 s", "max": 6}
    orders = of_kind(events_of([times[place::50] for place in range(50)], autoscale=scale), ServersScaled)
    assert [order.num_after for order in orders] == [2, 3, 2]
    assert orders[0].time_ns == 5 * S
    # What waits after 7 s, 0.4 of them, is worked off at 0.6 a second at least, and at 1.6 at most: the first interval
    # that lies after that as a whole asks for two.
    assert 7 + 0.4 * 7 / 1.6 < orders[2].time_ns / S <= 7 + 0.4 * 7 / 0.6 + 2 * 5
