"""Outages, radio promotion, propagation by distance, and what of rates is refused."""

from __future__ import annotations

import pytest

from testbed.core.errors import ScenarioError
from testbed.network_models.build import resolution
from testbed.network_models.channel import build_channel
from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.origin import Origin
from testbed.network_models.rates import segments
from testbed.network_models.rates.segments import finish_ns
from testbed.network_models.transfer import Direction
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import LinkProfile
from tests.links import link_of
from tests.rates import rate_of
from tests.unit.test_bad_input import refused
from tests.unit.tiny_scenario import tiny, write

MS = 1_000_000
SECOND = 1000 * MS
BASE = {"name": "p", "rate_up": "8 Mbit/s", "rate_down": "8 Mbit/s", "propagation_delay": "10 ms"}
RADIO = {"promotion": "260 ms", "idle_after": "10 s"}


def profile(**keys):
    return validate(LinkProfile, {**BASE, **keys})


def sent(messages, *, direction=Direction.UP, **keys):
    link = profile(**keys)
    return exercise(lambda env: link_of(env, link, direction=direction), [Sent(*item) for item in messages])


def channel(**keys):
    return build_channel(profile(**keys), Origin(seed=1, direction=Direction.UP, entity=0))


SCHEDULE = {"kind": "schedule", "times": [{"start": "1 s", "duration": "300 ms"}, {"start": "3 s", "duration": "1 s"}]}


@pytest.mark.parametrize("resolution", ["messages", "packets"])
def test_bits_wait_for_the_end_of_an_outage(resolution):
    transfers, account = sent(
        [(0, 960), (999 * MS + 500_000, 960), (1100 * MS, 960)], outages=[SCHEDULE], resolution=resolution
    )
    # A thousand bytes take 1 ms; the second message has half of them out when the outage begins.
    assert [item.ended_ns for item in transfers] == [11 * MS, 1310 * MS + 500_000, 1311 * MS + 500_000]
    assert [item.serialise_ns for item in transfers] == [MS, 301 * MS, MS]
    assert account.lost_packets == 0


def test_outages_hold_for_any_rate_and_from_several_lists():
    outages = [SCHEDULE, {"kind": "periodic", "every": "10 s", "duration": "2 s", "first": "2 s"}]
    rate = channel(
        rate_up={"kind": "markov", "states": [{"rate": "8 Mbit/s", "mean": "9 d"}] * 2}, outages=outages
    ).rate
    at_ms = [0, 999, 1000, 1299, 1300, 1999, 2000, 3999, 4000, 11_999, 12_000, 13_999, 14_000]
    assert [rate.segment(ms * MS).rate_bps > 0 for ms in at_ms] == [
        True, True, False, False, True, True, False, False, True, True, False, False, True,
    ]  # fmt: skip


def test_handovers_at_a_random_phase_differ_between_links_and_not_between_directions():
    link = profile(outages=[{"kind": "periodic", "every": "40 s", "duration": "200 ms", "first": "random"}])
    first = {}
    for entity in range(5):
        for direction in Direction:
            rate = build_channel(link, Origin(seed=1, direction=direction, entity=entity)).rate
            first[entity, direction] = rate.segment(0).end_ns
    assert len(set(first.values())) == 5
    assert all(first[entity, Direction.UP] == first[entity, Direction.DOWN] for entity in range(5))


def test_what_is_sent_while_an_outage_drops_is_lost():
    outages = [{**SCHEDULE, "drop": True}]
    # A thousand bytes take 1 ms: these last bits leave at 1 ms, just before 1 s, at 1.101 s, and at 1.3 s sharp.
    messages = [(0, 960), (999 * MS - 1, 960), (1100 * MS, 960), (1299 * MS, 960)]
    transfers, account = sent(messages, outages=outages)
    assert [item.num_retransmissions for item in transfers] == [0, 0, 1, 0]
    assert account.lost_packets == 1
    assert [item.queue_ns for item in transfers] == [0] * 4


def test_an_outage_that_drops_needs_packets():
    link = profile(outages=[{**SCHEDULE, "drop": True}])
    assert resolution(link) == "packets"
    assert resolution(profile(outages=[SCHEDULE])) == "messages"
    with pytest.raises(ScenarioError, match="outages drop what leaves at their time, packet by packet"):
        resolution(profile(outages=[{**SCHEDULE, "drop": True}], resolution="messages"))


def test_an_outage_longer_than_patience_is_a_timeout():
    hole = {"kind": "schedule", "times": [{"start": 0, "duration": "1 h"}], "drop": True}
    transport = {"kind": "selective-repeat", "max_retransmissions": 3, "timeout": "200 ms"}
    (transfer,), account = sent([(0, 5000)], outages=[hole], transport=transport)
    assert transfer.fate == "timeout"
    assert transfer.wire_bytes == account.wire_bytes == 4 * (5000 + 4 * 40)
    assert (account.lost, account.lost_payload_bytes, account.lost_packets) == (1, 5000, 16)


@pytest.mark.parametrize("transport", ["selective-repeat", "datagram", "tcp"])
@pytest.mark.parametrize("resolution", ["auto", "packets"])
def test_the_first_message_after_idleness_wakes_the_radio(transport, resolution):
    messages = [(0, 500), (100 * MS, 500), (300 * MS, 500), (10 * SECOND, 500), (25 * SECOND, 500)]
    transfers, account = sent(messages, radio=RADIO, transport=transport, resolution=resolution)
    awake, _ = sent([(260 * MS + at_ns, size) for at_ns, size in messages], transport=transport, resolution=resolution)
    waits_ms = [260, 160, 0, 0, 260]
    assert [item.connect_ns - awake[0].connect_ns for item in transfers[:1]] == [260 * MS]
    assert [item.connect_ns for item in transfers[2:]] == [wait * MS for wait in waits_ms[2:]]
    assert [item.sent_ns for item in transfers] == [at_ns for at_ns, _ in messages]
    for item in transfers:
        parts = (item.connect_ns, item.window_ns, item.queue_ns, item.serialise_ns, item.propagate_ns, item.jitter_ns)
        assert sum(parts) + item.retransmit_ns == item.ended_ns - item.sent_ns
    assert account.messages == account.delivered == 5


def test_a_radio_is_both_directions_own():
    import simpy

    from testbed.network_models.build import build_access

    env = simpy.Environment()
    access = build_access(env, profile(radio=RADIO), entity=0, seed=1)
    first = access.up.send(500)
    env.run(until=MS)
    second = access.down.send(500)
    assert access.down.snapshot().messages == 1
    assert access.down.snapshot().payload_bytes == 500
    env.run()
    assert (first.value.connect_ns, second.value.connect_ns) == (260 * MS, 259 * MS)
    third = access.down.send(500)
    env.run()
    assert third.value.connect_ns == 0


def test_propagation_by_distance():
    assert profile(propagation_delay={"distance": "300 km", "medium": "air"}).propagation_delay == 1_000_692
    fibre = profile(propagation_delay={"distance": "500 km", "stretch": 1.5}).propagation_delay
    assert fibre == round(750e3 / (299_792_458 / 1.4682) * 1e9)


def test_a_rate_that_comes_to_nothing_is_an_error(monkeypatch):
    monkeypatch.setattr(segments, "_MOST_SEGMENTS", 1000)
    outages = [
        {"kind": "periodic", "every": "10 ms", "duration": "5 ms"},
        {"kind": "periodic", "every": "10 ms", "duration": "5 ms", "first": "5 ms"},
    ]
    with pytest.raises(ScenarioError, match="does not get through while its link's rate changes"):
        finish_ns(channel(outages=outages).rate, 0, 1500)


@pytest.mark.parametrize(
    ("kind", "keys", "expected"),
    [
        ("rayleigh", {"bandwidth": "1 MHz", "coherence_time": "1 ms"},
         "snr: fading needs a mean signal-to-noise ratio; allowed: snr, or path_loss"),
        ("rician", {"bandwidth": "1 MHz", "coherence_time": "1 ms", "snr": "3 dB"},
         "k_factor: required key is missing"),
        ("rayleigh", {"bandwidth": "1 MHz", "snr": "3 dB"},
         "coherence_time: block fading needs a coherence time; allowed: coherence_time, or speed"),
        ("rayleigh", {"bandwidth": "1 MHz", "snr": "3 dB", "speed": "3 km/h"},
         "carrier: path loss and speed need the carrier's frequency; allowed: such as 2.6 GHz"),
        ("rayleigh", {"bandwidth": "1 MHz", "snr": "3 db", "coherence_time": "1 ms"},
         "snr: unknown unit 'db' for a ratio in decibels (got '3 db'); allowed: a number with dB, such as 10 dB; "
         "did you mean 'dB'?"),
        ("rayleigh", {"bandwidth": "1 kHz", "snr": "-200 dB", "coherence_time": "1 ms"},
         "the channel carries less than 1 bit/s at its mean signal-to-noise ratio (got '-200 dB')"),
        ("rayleigh", {"bandwidth": "1 MHz", "carrier": "1 GHz", "coherence_time": "1 ms",
                      "path_loss": {"distance": "1 m", "reference": "2 m", "transmit_power": "1 dBm"}},
         "path_loss.distance: too near for this law (got '1 m'); allowed: at least the reference distance of 2 m"),
        ("markov", {"states": [{"rate": "1 bit/s", "mean": "1 s"}] * 2, "transitions": [[0, 1], [0.5, 0.4]]},
         "transitions[1]: the probabilities don't add up to 1 (got 0.9)"),
        ("markov", {"states": [{"rate": "1 bit/s", "mean": "1 s"}] * 2, "transitions": [[0, 1], [1]]},
         "transitions[1]: not a probability for each state (got 1); allowed: 2"),
        ("markov", {"states": [{"rate": "1 bit/s", "mean": "1 s"}] * 2, "transitions": [[0, 1]]},
         "transitions: not a row for each state (got 1); allowed: 2 rows"),
        ("markov", {"states": [{"rate": "1 bit/s", "mean": "1 s"}] * 3},
         "transitions: required key is missing; allowed: without it there are two states"),
        ("markov", {"states": [{"rate": "1 bit/s", "mean": "1 s"}] * 2, "transitions": [[0, 1], [0, 1]]},
         "transitions[1]: state 0 is never reached from state 1"),
        ("markov", {"states": [{"rate": 0, "mean": "1 s"}] * 2}, "states: every rate is 0: nothing could ever be sent"),
        ("markov", {"states": [{"rate": "1 bit/s", "mean": "1 s"}]}, "states: too few entries; allowed: at least 2"),
        ("markov", {"states": [{"rate": "-1 bit/s", "mean": "1 s"}] * 2},
         "states[0].rate: bit rate too small (got '-1 bit/s'); allowed: at least 0"),
    ],
)  # fmt: skip
def test_a_rate_that_cant_be_is_refused(kind, keys, expected):
    with pytest.raises(ScenarioError) as caught:
        rate_of(kind, **keys)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"outages": [{"kind": "periodic", "every": "1 s", "duration": "1 s"}]}, "outages[0].duration: the link would "
         "never carry anything (got '1.00 s'); allowed: less than `every`, 1.00 s"),
        ({"outages": [{"kind": "perodic"}]}, "outages[0].kind: unknown outage (got 'perodic'); "
         "allowed: periodic, random, schedule; did you mean 'periodic'?"),
        ({"outages": [{"kind": "random", "mean_gap": "1 s", "duration": {"law": "gamma", "mean": "1 s"}}]},
         "outages[0].duration.std: law 'gamma' needs a std (got '0 ns'); allowed: more than 0"),
        ({"radio": {"promotion": 0, "idle_after": 0}}, "radio.promotion: time too small (got 0); allowed: more than 0"),
        ({"propagation_delay": {"distance": "5 miles"}},
         "propagation_delay.distance: unknown unit 'miles' for a distance (got '5 miles'); "
         "allowed: a number with m or km, such as 80 km"),
        ({"propagation_delay": {"distance": "5 km", "medium": "copper"}}, "propagation_delay.medium: not one of the "
         "choices (got 'copper'); allowed: fibre, air"),
    ],
)  # fmt: skip
def test_a_link_that_cant_be_is_refused(keys, expected):
    with pytest.raises(ScenarioError) as caught:
        profile(**keys)
    assert str(caught.value) == expected


def test_validate_says_so_with_the_scenarios_path(tmp_path):
    rate = {"kind": "rayleigh", "bandwidth": "1 MHz", "coherence_time": "1 ms"}
    case = write(tmp_path / "case.yaml", tiny(("fleet.0.link", {"use": "wifi", "rate_up": rate})))
    assert refused("validate", str(case)) == (
        f"{case}: fleet[0].link.rate_up.snr: fading needs a mean signal-to-noise ratio; allowed: snr, or path_loss"
    )


def test_a_resolved_scenario_reads_back_as_itself(tmp_path):
    from testbed.scenarios.load import build_scenario, load_scenario

    link = {
        "use": "wifi",
        "rate_up": {"kind": "rician", "bandwidth": "1 MHz", "speed": "3 km/h", "carrier": "2 GHz", "k_factor": "6 dB",
                    "path_loss": {"distance": "80 m", "transmit_power": "20 dBm", "shadowing": "4 dB"}},
        "rate_down": {"kind": "markov", "states": [{"rate": "1 Mbit/s", "mean": "1 s"}, {"rate": 0, "mean": "9 ms"}]},
        "propagation_delay": {"distance": "40 km"},
        "outages": [{"kind": "random", "mean_gap": "1 min", "duration": "2 s", "drop": True}, SCHEDULE,
                    {"kind": "periodic", "every": "40 s", "duration": "50 ms", "first": "random"}],
        "radio": RADIO,
    }  # fmt: skip
    scenario = load_scenario(write(tmp_path / "case.yaml", tiny(("fleet.0.link", link))))
    assert build_scenario(scenario.as_data(), base=tmp_path) == scenario
