"""The autoscaler's law, by its docstring: what levels ask for, bounds and cooldown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.core.events import Outcome, RequestAdmitted, RequestArrived, RequestEnded, TokenDelivered
from testbed.scenarios.cluster import Autoscale
from testbed.scenarios.schema import Slo
from testbed.schedulers.autoscaling import Autoscaler, GroupLoad, wanted
from testbed.sim.slo_watch import SloWatch

S = 1_000_000_000


def config(**changes):
    data = {"signal": "queue", "target": 4, "interval": "10 s", "cold_start": "30 s", "min": 1, "max": 8, **changes}
    return Autoscale.model_validate(data)


def load(servers, *, queue=0, busy_s=0.0, serving_s=0.0, ended=0, missed=0):
    return GroupLoad(
        num_servers=servers,
        num_outstanding=queue,
        busy_ns=round(busy_s * S),
        serving_ns=round(serving_s * S),
        num_ended=ended,
        num_missed=missed,
    )


@pytest.mark.parametrize(
    ("changes", "measured", "expected"),
    [
        ({}, load(2, queue=8), 2),  # exactly the target
        ({}, load(2, queue=9), 3),
        ({}, load(2, queue=33), 9),  # beyond max: the wrapper's business
        ({}, load(3, queue=8), 2),
        ({}, load(3, queue=0), 0),
        ({}, load(0, queue=1), 1),
        ({}, load(0), 0),
        ({"up": 6, "down": 2}, load(2, queue=12), 2),  # 6 a server is not above 6
        ({"up": 6, "down": 2}, load(2, queue=13), 4),
        ({"up": 6, "down": 2}, load(2, queue=4), 2),
        ({"up": 6, "down": 2}, load(4, queue=7), 2),
        ({"down": 0}, load(4, queue=0), 4),  # never fewer
        ({"signal": "utilisation", "target": 0.5}, load(2, busy_s=15, serving_s=20), 3),
        ({"signal": "utilisation", "target": 0.5}, load(2, busy_s=10, serving_s=20), 2),
        ({"signal": "utilisation", "target": 0.5}, load(4, busy_s=10, serving_s=40), 2),
        ({"signal": "utilisation", "target": 0.7}, load(2), 2),  # nobody took part: nothing is known
        ({"signal": "slo", "target": None, "up": 0.05, "down": 0.01}, load(3, ended=100, missed=6), 4),
        ({"signal": "slo", "target": None, "up": 0.05, "down": 0.01}, load(3, ended=100, missed=5), 3),
        ({"signal": "slo", "target": None, "up": 0.05, "down": 0.01}, load(3, ended=100, missed=0), 2),
        ({"signal": "slo", "target": None, "up": 0.05, "down": 0.01}, load(3), 3),
    ],
)
def test_what_a_level_asks_for(changes, measured, expected):
    assert wanted(config(**changes), measured).num_servers == expected


def test_bounds_and_cooldown():
    scaler = Autoscaler(config(cooldown="1 min"))
    assert scaler.order(load(2, queue=1000), 10 * S).num_servers == 8
    assert scaler.order(load(8, queue=0), 60 * S) is None  # 50 s after the last order
    assert scaler.order(load(7, queue=1000), 65 * S).num_servers == 8  # more is never held back
    assert scaler.order(load(8, queue=0), 120 * S) is None
    fewer = scaler.order(load(8, queue=0), 125 * S)
    assert (fewer.num_servers, fewer.why) == (1, "queue low")


def test_fewer_than_min_is_made_good():
    order = Autoscaler(config(signal="utilisation", target=0.5, min=2)).order(load(0), 10 * S)
    assert (order.num_servers, order.why) == (2, "fewer than min run")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 12), st.integers(0, 200), st.floats(0.1, 20), st.floats(0, 1), st.floats(1, 3))
def test_an_order_is_within_bounds_and_is_what_serves_the_queue(servers, queue, target, low, high):
    chosen = config(target=target, down=target * low, up=target * high)
    order = Autoscaler(chosen).order(load(servers, queue=queue), 10 * S)
    after = servers if order is None else order.num_servers
    assert min(servers, chosen.min) <= after <= max(servers, chosen.max)
    if order is not None and servers >= chosen.min and after < chosen.max:
        assert after * (target + 1e-6) >= queue  # enough for the target at least
    if order is not None and after > servers and servers:
        assert queue / servers > chosen.up - 1e-5
    if order is not None and after < servers <= chosen.max:
        assert queue / servers < chosen.down + 1e-5


def test_who_counts_as_having_missed_the_slo():
    watch = SloWatch(Slo.model_validate({"ttft": "1 s", "tpot": "100 ms"}), [0, 0, 1], lambda _: None)
    # request -> server, instants of its tokens in ms, outcome
    stories = {
        0: (0, [1000, 1100], Outcome.COMPLETED),
        1: (1, [1001, 1002], Outcome.COMPLETED),  # first token late
        2: (1, [10, 111], Outcome.COMPLETED),  # later ones slow
        3: (0, [10], Outcome.SERVER_FAILURE),
        4: (2, [10], Outcome.COMPLETED),
        5: (-1, [10], Outcome.COMPLETED),  # on its device alone
    }
    for request, (number, tokens, outcome) in stories.items():
        watch(RequestArrived(time_ns=0, request=request, device=0, prompt_tokens=1, max_output_tokens=2))
        watch(RequestAdmitted(time_ns=0, request=request, split=0, codec="int8", server=number))
        for index, at_ms in enumerate(tokens):
            watch(TokenDelivered(time_ns=at_ms * 10**6, request=request, index=index, token=-1))
        watch(RequestEnded(time_ns=2 * S, request=request, outcome=outcome, reason=""))
    assert [watch.take(0), watch.take(1), watch.take(0)] == [(4, 3), (1, 0), (0, 0)]
