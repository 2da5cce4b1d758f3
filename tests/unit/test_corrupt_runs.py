"""Requests over links that corrupt packets: who checks refuses, who repeats repairs, all bytes are accounted for."""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq
import pytest
from scipy import stats

from testbed.core.events import Outcome, TokenDelivered, TransferEnded
from testbed.results import files
from testbed.run import prepare, run
from testbed.scenarios.schema import Scenario
from tests.sim_runs import ends, group, link, of_kind, run_events, run_world, scenario, server, workload

ALPHA = 1e-4  # how often a right model would fail a statistical test, were its seed not fixed
P, COUNT = 0.2, 400
CHECKSUM, TAG = "message refused: wrong checksum", "message not authentic"
BARE_UP, BARE_DOWN = (f"wrong token from the {way}-link: bare token ids have no checksum" for way in ("up", "down"))
ASKS = workload(
    arrivals={"kind": "poisson", "rate_per_device": "2 /s", "requests_per_device": COUNT // 4},
    output_tokens={"law": "fixed", "value": 1},
)


def corrupting(**changes):
    return [group(count=4, link=link(**{"corrupt": P, "transport": "datagram", **changes}))]


def reasons_of(events):
    return Counter(end.reason for end in ends(events).values())


def is_share(found, trials, p):
    low, high = stats.binom(trials, p).interval(1 - ALPHA)
    return low <= found <= high


@pytest.mark.parametrize(
    ("policy", "security", "up", "down"),
    [
        ({"kind": "static", "split": 2, "codec": "int8"}, None, CHECKSUM, BARE_DOWN),
        ("cloud-only", None, BARE_UP, BARE_DOWN),
        ({"kind": "static", "split": 2, "codec": "int8"}, {"seal": "aes-gcm"}, TAG, TAG),
        ("cloud-only", {"seal": "chacha20"}, TAG, TAG),
    ],
)
def test_one_wrong_bit_ends_a_request_as_often_as_packets_are_corrupt(policy, security, up, down):
    events = run_events(scenario(policy=policy, security=security, fleet=corrupting(), workload=ASKS))
    reasons = reasons_of(events)
    assert set(reasons) == {up, down, "length"}
    expected = Counter({up: P})  # each message is one packet, and one up and one down make a request
    expected[down] += P * (1 - P)
    assert all(is_share(reasons[reason], COUNT, p) for reason, p in expected.items())
    sealed = security is not None
    wrong = Outcome.AUTHENTICATION if sealed else Outcome.FAILED
    assert {end.outcome for end in ends(events).values()} == {wrong, Outcome.COMPLETED}


def test_what_was_sent_in_vain_is_accounted_for():
    world, events = run_world(scenario(fleet=corrupting(), workload=ASKS))
    transfers = of_kind(events, TransferEnded)
    assert all(transfer.delivered for transfer in transfers)  # a wrong bit is none of the link's business
    sent = sum(end.wire_bytes for device in world.devices for end in device.link_ends())
    assert sum(transfer.wire_bytes for transfer in transfers) == sent
    assert len(of_kind(events, TokenDelivered)) == reasons_of(events)["length"]


@pytest.mark.parametrize("transport", ["selective-repeat", "stop-and-wait", "tcp"])
def test_a_transport_that_checks_sends_corrupt_packets_again(transport):
    world, events = run_world(scenario(fleet=corrupting(transport=transport), workload=ASKS))
    assert set(reasons_of(events)) == {"length"}
    assert sum(end.retransmissions for device in world.devices for end in device.link_ends()) > COUNT / 5


def test_copies_change_nothing_but_their_count():
    plain = scenario(fleet=corrupting(corrupt=0.0, transport="selective-repeat"), workload=ASKS)
    copied = scenario(fleet=corrupting(corrupt=0.0, duplicate=0.5, transport="selective-repeat"), workload=ASKS)
    assert run_events(copied) == run_events(plain)


def test_a_stream_of_tokens_ends_with_the_first_wrong_one():
    asks = workload(
        arrivals={"kind": "poisson", "rate_per_device": "1 /s", "requests_per_device": 30},
        output_tokens={"law": "fixed", "value": 8},
    )
    fleet = [group(count=1, link=link(corrupt=0.05, transport="datagram"))]
    for security, wrong in ((None, {BARE_UP, BARE_DOWN}), ({"seal": "aes-gcm"}, {TAG})):
        events = run_events(scenario(policy="cloud-only", security=security, fleet=fleet, workload=asks))
        assert set(reasons_of(events)) == wrong | {"length"}
        read = Counter(event.request for event in of_kind(events, TokenDelivered))
        assert {request for request, num in read.items() if num == 8} == {
            request for request, end in ends(events).items() if end.reason == "length"
        }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tests.ray.worlds import save_model

    folder = tmp_path_factory.mktemp("corrupt") / "model"
    save_model(folder)
    return folder


@pytest.mark.parametrize("suite", ["none", "aes-gcm"])
def test_real_messages_are_refused_by_what_they_hold(model, tmp_path, suite):
    """Hosts find the flipped bit in the bytes themselves, and in the requests that a modelled run says."""

    def outcomes(compute):
        data = {
            "name": "corrupt",
            "model": str(model),
            "seed": 3,
            "policy": {"kind": "static", "split": 2, "codec": "int8"},
            "security": {"seal": suite},
            "fleet": [group(count=3, link=link(corrupt=0.06, transport="datagram"), compute=compute)],
            "servers": [{"name": "cloud", "server": server()}],
            "record": {"quality": False},
            "workload": workload(
                arrivals={"kind": "poisson", "rate_per_device": "20 /s", "requests_per_device": 4}, ignore_eos=True
            ),
        }
        result = run(prepare(Scenario.model_validate(data)), tmp_path / compute)
        table = pq.read_table(result.folder / files.REQUESTS, columns=["outcome", "reason", "end_ns"])
        return table.to_pylist()

    real = outcomes("real")
    assert real == outcomes("modelled")
    reasons = {row["reason"] for row in real}
    assert reasons == ({TAG, "length"} if suite == "aes-gcm" else {CHECKSUM, BARE_DOWN, "length"})
