"""Jitter on links: measured values, order, a draw a packet, and what is refused."""

from __future__ import annotations

import pytest

from testbed.core.errors import ScenarioError
from testbed.network_models.build import resolution
from testbed.network_models.channel import build_channel
from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.origin import Origin
from testbed.network_models.transfer import Direction
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import LinkProfile
from tests.links import link_of

MS = 1_000_000
GAMMA = {"law": "gamma", "mean": "40 ms", "std": "40 ms"}


def profile_of(jitter, **changes):
    fields = {"rate_up": "12 Mbit/s", "rate_down": "12 Mbit/s", "propagation_delay": "10 ms", **changes}
    return validate(LinkProfile, {"name": "any", "jitter": jitter, **fields})


def send(profile, sizes, gap_ns=2 * MS, entity=3):
    messages = [Sent(index * gap_ns, size) for index, size in enumerate(sizes)]
    return exercise(lambda env: link_of(env, profile, entity=entity, seed=9), messages)


RESOLUTIONS = ["messages", "packets"]


@pytest.mark.parametrize("way", RESOLUTIONS)
@pytest.mark.parametrize("transport", ["datagram", "selective-repeat"])
def test_messages_overtake_each_other_unless_order_is_kept(way, transport):
    sizes = [100, 5000, 700] * 60
    free, _ = send(profile_of(GAMMA, resolution=way, transport=transport), sizes)
    kept, _ = send(profile_of({**GAMMA, "reorder": False}, resolution=way, transport=transport), sizes)
    ends = [transfer.ended_ns for transfer in kept]
    assert ends == sorted(ends)
    assert [transfer.ended_ns for transfer in free] != sorted(transfer.ended_ns for transfer in free)
    latest = 0  # without loss, each arrives when it would have or with the one before it
    for one, other in zip(free, kept, strict=True):
        latest = max(latest, one.ended_ns)
        assert other.ended_ns == latest


def test_what_is_lost_holds_back_what_follows_it_too():
    in_order = {**GAMMA, "reorder": False}
    profile = profile_of(in_order, transport="datagram")
    lossy, _ = send(profile_of(in_order, transport="datagram", loss=0.4), [100] * 200)
    whole, _ = send(profile, [100] * 200)
    delivered = [index for index, transfer in enumerate(lossy) if transfer.delivered]
    assert 80 < len(delivered) < 160
    assert all(lossy[index].ended_ns == whole[index].ended_ns for index in delivered)


def test_packets_with_jitter_of_their_own_need_packets_and_the_last_one_counts():
    alone = profile_of({**GAMMA, "per": "packet"}, transport="datagram")
    assert resolution(alone) == "packets"
    with pytest.raises(ScenarioError, match="each packet has a jitter of its own"):
        resolution(profile_of({**GAMMA, "per": "packet"}, resolution="messages"))
    jitter = build_channel(alone, Origin(seed=9, direction=Direction.UP, entity=3)).jitter
    (transfer,), _ = send(alone, [1460 * 20])
    expected = max((k + 1) * MS + 10 * MS + jitter.delay_ns(k, 0) for k in range(20))  # the draws' keys are the places
    assert transfer.ended_ns == expected


def test_correlated_packets_see_the_process_at_their_own_instants():
    profile = profile_of(
        {**GAMMA, "per": "packet", "correlation_time": "50 ms", "reorder": False}, transport="datagram"
    )
    transfers, _ = send(profile, [1460 * 20] * 30, gap_ns=25 * MS)
    ends = [transfer.ended_ns for transfer in transfers]
    assert ends == sorted(ends)
    assert len({transfer.jitter_ns for transfer in transfers}) > 8


def test_measured_values_are_drawn_from_a_list_or_a_file(tmp_path):
    file = tmp_path / "delays.txt"
    file.write_text("# ms\n4 ms\n2 ms\n\n3500 us  # slow\n")
    listed = profile_of({"law": "empirical", "values": ["2 ms", "3.5 ms", "4 ms"]})
    read = profile_of({"law": "empirical", "file": str(file)})
    sizes = [10] * 200
    assert send(listed, sizes)[0] == send(read, sizes)[0]
    jitters = [transfer.jitter_ns for transfer in send(listed, sizes)[0]]
    assert 2 * MS <= min(jitters) < 2.1 * MS
    assert 3.9 * MS < max(jitters) <= 4 * MS
    assert abs(sorted(jitters)[100] - 3.5 * MS) < 0.2 * MS


def test_another_links_jitter_changes_no_draw():
    profile = profile_of({**GAMMA, "correlation_time": "30 ms"})
    assert send(profile, [500] * 30)[0] == send(profile, [500] * 30)[0]
    assert send(profile, [500] * 30)[0] != send(profile, [500] * 30, entity=4)[0]


REFUSED = [
    ({"law": "empirical", "values": []}, "jitter.values: an empirical jitter needs at least one value"),
    ({"law": "empirical"}, "jitter.values: an empirical jitter needs values or a file"),
    ({"law": "empirical", "values": ["-1 ms"]}, "jitter.values[0]: time too small (got '-1 ms'); allowed: at least 0"),
    ({"law": "empirical", "values": ["1 ms"], "mean": "1 ms"}, "jitter.mean: an empirical jitter has no mean"),
    ({"law": "gamma", "mean": "1 ms", "std": "1 ms", "values": ["1 ms"]}, "jitter.values: jitter law 'gamma' has no"),
    ({"law": "gamma", "std": "1 ms"}, "jitter.mean: jitter law 'gamma' needs a mean"),
    ({"law": "constant", "mean": "-2 ms"}, "jitter.mean: time too small (got '-2 ms'); allowed: at least 0"),
    ({**GAMMA, "correlation_time": "-1 s"}, "jitter.correlation_time: time too small (got '-1 s')"),
]


@pytest.mark.parametrize(("jitter", "expected"), REFUSED)
def test_jitters_that_can_not_be_are_refused(jitter, expected):
    with pytest.raises(ScenarioError) as caught:
        profile_of(jitter)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 ms\n2\n", "line 2: a time needs a unit (got '2')"),
        ("1 ms\n-2 ms\n", "line 2: a delay can't be negative (got '-2 ms')"),
        ("\n", "no jitter value in the file"),
    ],
)
def test_a_malformed_file_of_values_is_refused_with_line_and_content(tmp_path, text, expected):
    file = tmp_path / "delays.txt"
    file.write_text(text)
    profile = profile_of({"law": "empirical", "file": str(file)})
    with pytest.raises(ScenarioError) as caught:
        build_channel(profile, Origin(seed=1, direction=Direction.UP, entity=0))
    assert str(caught.value).startswith(f"{file}: jitter: {expected}")
