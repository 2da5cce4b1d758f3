"""Sealed runs: what they add is the law's, to the byte and the nanosecond, and real messages are really sealed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from scipy import stats

from testbed.actors.calls import BackCall, BackItem, CloseCall, FrontCall, HostSpec, Refused
from testbed.actors.cloud import REFUSED, BackStep, CloudWorker, Part
from testbed.actors.costs import CostModel
from testbed.actors.edge import Payload, Session, Step
from testbed.actors.host_queue import CallLog
from testbed.actors.shard_host import ShardHost
from testbed.codecs.framing import CodecError
from testbed.codecs.named import size_law
from testbed.codecs.seal import SealError, run_secret
from testbed.core.events import IterationEnded, Outcome, SpanEnded, TransferEnded
from testbed.models.sampling_config import SamplingConfig
from testbed.scenarios.fingerprint import fingerprint
from tests.sim_runs import TINY, device, ends, group, link, of_kind, run_events, run_world, scenario, spans_of, workload

RATE = {"aes-gcm": 25_000_000, "chacha20": 100_000_000}  # bytes a second: the profiles' defaults
SETUP, COUNTER_AND_TAG = 256, 20
SEALING_HOPS = {"seal", "open", "seal_token", "open_token"}


def sealed(suite="aes-gcm", **changes):
    return scenario(security={"seal": suite}, **changes)


def law_ns(suite, message_bytes):
    exact = Fraction((message_bytes + SETUP) * 10**9, RATE[suite])
    return -(-exact.numerator // exact.denominator)


@pytest.mark.parametrize("suite", sorted(RATE))
@pytest.mark.parametrize("policy", ["cloud-only", {"kind": "static", "split": 2, "codec": "int8"}])
def test_every_message_takes_20_bytes_more(suite, policy):
    plain, safe = run_events(scenario(policy=policy)), run_events(sealed(suite, policy=policy))
    for direction in ("up", "down"):
        sizes = [[e.payload_bytes for e in of_kind(run, TransferEnded, direction=direction)] for run in (plain, safe)]
        assert sizes[1] == [size + COUNTER_AND_TAG for size in sizes[0]]


@pytest.mark.parametrize("suite", sorted(RATE))
def test_sealing_and_opening_last_as_long_as_their_law_says(suite):
    events = run_events(sealed(suite))
    found = [(hop, end - start) for _, hop, start, end in spans_of(events) if hop in SEALING_HOPS]
    expected = []
    for num_tokens in (5, 1, 1, 1):
        up, token = law_ns(suite, 24 + num_tokens * 20), law_ns(suite, 4)  # int8 on 16 channels
        expected += [("seal", up), ("open", up), ("seal_token", token), ("open_token", token)]
    assert found == expected


def test_spans_of_a_sealed_request_still_follow_each_other_without_gap():
    for policy in ("cloud-only", {"kind": "static", "split": 2}):
        events = run_events(sealed(policy=policy))
        spans = spans_of(events)
        assert all(before[3] == after[2] for before, after in pairwise(spans))
        assert spans[-1][3] == ends(events)[0].time_ns


def test_a_batch_is_opened_message_by_message():
    fleet = [group(count=3, link=link(rate_up="1 Tbit/s"))]
    events = run_events(sealed(fleet=fleet))
    first = of_kind(events, SpanEnded, hop="open", step=0)
    assert {span.end_ns - span.start_ns for span in first} == {3 * law_ns("aes-gcm", 24 + 5 * 20)}


def test_what_a_run_spent_on_sealing_is_counted_once_for_each_message():
    for policy in ("cloud-only", {"kind": "static", "split": 2, "codec": "int8"}):
        world, events = run_world(sealed(policy=policy))
        up = [event.payload_bytes - COUNTER_AND_TAG for event in of_kind(events, TransferEnded, direction="up")]
        expected_ns = sum(law_ns("aes-gcm", size) for size in up) + 4 * law_ns("aes-gcm", 4)
        (on_device,), (on_server,) = world.devices, world.server_ends(world.clock.now_ns)
        found = on_device.end(world.clock.now_ns)
        assert found.seal_ns == on_server.seal_ns == expected_ns
        assert found.seal_j == pytest.approx((6 - 2) * expected_ns / 1e9)  # active less idle watts
        assert on_server.seal_j == pytest.approx((300 - 60) * expected_ns / 1e9)


def test_nothing_is_sealed_where_nothing_is_asked_for():
    world, events = run_world(scenario())
    assert not SEALING_HOPS & {event.hop for event in of_kind(events, SpanEnded)}
    assert world.devices[0].end(world.clock.now_ns).seal_ns == 0
    assert events == run_events(scenario(security={}))


def test_altered_messages_are_refused_as_often_as_they_are_altered():
    asks = workload(
        arrivals={"kind": "poisson", "rate_per_device": "2 /s", "requests_per_device": 100},
        output_tokens={"law": "fixed", "value": 1},
    )
    for security, outcome in (
        ({"seal": "aes-gcm", "tamper": 0.2}, Outcome.AUTHENTICATION),
        ({"tamper": 0.2}, Outcome.FAILED),
    ):
        built = scenario(security=security, fleet=[group(count=4)], workload=asks)
        found = [end.outcome for end in ends(run_events(built)).values()]
        assert set(found) == {outcome, Outcome.COMPLETED}
        low, high = stats.binom(400, 0.2).interval(0.999)
        assert low <= found.count(outcome) <= high


def test_an_altered_message_is_opened_and_takes_no_part_in_the_layers():
    built = sealed()
    worker = CloudWorker(CostModel(profile=built.servers[0].server, shape=TINY, weight_bits=32, kv_bits=32), None)
    session = Session(
        request=0,
        sampling_seed=0,
        split=2,
        codec_name="int8",
        codec=size_law("int8"),
        size_of=lambda num_tokens, past_tokens: 124,
    )
    payload = Payload(size_bytes=124, message=None, encode_ns=0)
    step = Step(num_tokens=5, past_tokens=0, tokens=None)
    item = BackStep(session=session, step=step, payload=payload, real=False)
    good = Part.whole(item)
    altered = Part.whole(replace(item, payload=replace(payload, is_altered=True)))
    alone, together = worker.start([good]), worker.start([good, altered])
    assert together.back.duration_ns == alone.back.duration_ns < worker.start([good, good]).back.duration_ns
    assert together.decode_ns > alone.decode_ns
    assert together.back.value() == [*alone.back.value(), REFUSED]


def test_a_server_holds_nothing_of_what_it_refused():
    events = run_events(scenario(security={"seal": "aes-gcm", "tamper": 0.999}))
    (iteration,) = of_kind(events, IterationEnded)
    assert (iteration.num_sequences, iteration.prefill_tokens, iteration.kv_tokens) == (1, 0, 0)


def test_bare_token_ids_can_not_tell_and_sealed_ones_can():
    asks = workload(arrivals={"kind": "times", "times": [f"{second} s" for second in range(20)]})
    plain = scenario(policy="cloud-only", workload=asks, security={"tamper": 0.5})
    assert {end.outcome for end in ends(run_events(plain)).values()} == {Outcome.COMPLETED}
    safe = scenario(policy="cloud-only", workload=asks, security={"seal": "chacha20", "tamper": 0.5})
    assert Outcome.AUTHENTICATION in {end.outcome for end in ends(run_events(safe)).values()}


def test_who_else_there_is_does_not_change_what_is_altered():
    asks = workload(arrivals={"kind": "times", "times": [f"{second} s" for second in range(8)]})

    def outcomes(fleet):
        built = scenario(security={"seal": "aes-gcm", "tamper": 0.1}, fleet=fleet, workload=asks)
        events = run_events(built)
        device_of = {event.request: event.device for event in events if hasattr(event, "device")}
        last = max(device_of.values())
        return [end.outcome for number, end in sorted(ends(events).items()) if device_of[number] == last]

    alone = outcomes([group("mine", device=device())])
    assert outcomes([group("others", count=2), group("mine", device=device())]) == alone
    assert len(set(alone)) == 2


def test_sealing_has_its_place_in_the_fingerprint():
    bare = scenario()
    names = {fingerprint(built) for built in (bare, sealed(), sealed("chacha20"), scenario(security={"tamper": 0.1}))}
    assert len(names) == 4
    faster = sealed(fleet=[group(device=device(aes_gcm_rate="1 GB/s"))])
    assert fingerprint(faster) != fingerprint(sealed())


def test_an_unknown_suite_is_refused():
    with pytest.raises(ValueError, match="seal"):
        sealed("rot13")


CODEC = "ts-tabq(delta=0.05,tau=1.0)"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    from testbed.models.source import from_folder
    from tests.ray.worlds import save_model

    folder = tmp_path_factory.mktemp("sealed") / "model"
    save_model(folder)
    return from_folder(folder)


def host(source, **changes):
    sampling = SamplingConfig(greedy=True)
    sealing = {"seal": "aes-gcm", "seal_secret": run_secret(7), **changes}
    return ShardHost(HostSpec(source=source, dtype="float32", sampling=sampling, keep_logits=False, **sealing))


def front(edge, *tokens, session=5):
    (done,) = edge.execute([FrontCall(session=session, split=2, codec=CODEC, tokens=tokens)])
    return BackItem(session=session, sampling_seed=0, split=2, codec=CODEC, message=done.value, is_sealed=True)


def back(cloud, *items):
    (done,) = cloud.execute([BackCall(items=items)])
    return done.value


def test_hosts_seal_and_open_and_the_answer_is_that_of_open_messages(source):
    secret, clear = [], []
    for kept, changes in ((secret, {}), (clear, {"seal": "none"})):
        edge, cloud = host(source, **changes), host(source, **changes)
        for tokens in ((1, 2, 3), (4,), (5,)):
            item = front(edge, *tokens)
            kept.append((len(item.message), item.message[4:12], back(cloud, item)))
    assert [size for size, _, _ in secret] == [size + COUNTER_AND_TAG for size, _, _ in clear]
    assert [tokens for *_, tokens in secret] == [tokens for *_, tokens in clear]
    assert not {text for _, text, _ in secret} & {text for _, text, _ in clear}


def test_a_host_refuses_what_is_repeated_altered_of_another_session_or_under_another_key(source):
    edge, cloud = host(source), host(source)
    first, second = front(edge, 1, 2, 3), front(edge, 4)
    back(cloud, first)
    altered = replace(second, message=second.message[:-1] + bytes([second.message[-1] ^ 1]))
    for wrong in (first, altered, replace(second, session=6), replace(second, message=second.message[:30])):
        with pytest.raises(SealError):
            back(cloud, wrong)
    with pytest.raises(SealError):
        back(host(source, seal_secret=run_secret(8)), first)
    with pytest.raises(SealError, match="no key"):
        back(host(source, seal_secret=b""), first)
    back(cloud, second)


@pytest.mark.parametrize("suite", ["none", "aes-gcm"])
def test_a_refused_message_costs_its_own_request_only(source, suite):
    edge = host(source, seal=suite)
    cloud, alone = (host(source, seal=suite, refuses=True) for _ in range(2))
    good, bad = front(edge, 1, 2, 3), front(edge, 4, 5, session=6)
    bad = replace(bad, message=bad.message[:40] + bytes([bad.message[40] ^ 4]) + bad.message[41:])
    token, refused = back(cloud, good, bad)
    assert isinstance(refused, Refused)
    assert [token] == back(alone, good)
    with pytest.raises(CodecError):
        back(host(source, seal=suite), bad)


def test_a_fresh_host_takes_over_where_sealed_and_refused_messages_were(source):
    """What a lost host had run runs again on its successor, which then answers as if it had been there all along."""
    edge, lost, other = host(source), host(source, refuses=True), host(source, refuses=True)
    log = CallLog()
    first, second = front(edge, 1, 2, 3), front(edge, 7, 8, session=6)
    step = front(edge, 5, session=6)
    altered = replace(step, message=step.message[:-1] + bytes([step.message[-1] ^ 1]))
    for items in ((first, second), (front(edge, 4), altered)):
        call = BackCall(items=items)
        (done,) = lost.execute([call])
        log.record(call, done)
    assert isinstance(done.value[1], Refused)
    assert done.spans == ((3, 4), (2, 2)), "what was refused is not among the tokens held"
    closed = CloseCall(session=6)
    log.record(closed, lost.execute([closed])[0])
    other.execute(log.recovery())
    following = front(edge, 9)
    assert back(other, following) == back(lost, following)
