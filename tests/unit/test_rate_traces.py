"""Rates from files: Mahimahi's semantics by hand and against a second implementation, seconds, CSV, offsets."""

from __future__ import annotations

from collections import deque
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.core.errors import ScenarioError
from testbed.network_models.rates.segments import finish_ns, num_finished
from tests.rates import rate_of, trace_of
from tests.unit.test_bad_input import refused
from tests.unit.tiny_scenario import tiny, write

MS = 1_000_000
HALF = MS // 2


def mahimahi_trace(folder, times_ms, **keys):
    file = write(folder / "trace.up", "".join(f"{time}\n" for time in times_ms))
    return trace_of(file, "mahimahi", **keys)


def departures_ms(rate, packets):
    """The millisecond in which each packet (arrival in ns, bytes) leaves a first-in-first-out queue."""
    left_ns, found = 0, []
    for arrival_ns, size_bytes in packets:
        left_ns = finish_ns(rate, max(left_ns, arrival_ns), size_bytes)
        found.append(left_ns // MS)
    return found


@pytest.mark.parametrize(
    ("times_ms", "packets", "expected"),
    [
        ([3, 3, 7], [(HALF, 1500)], [3]),
        ([3, 3, 7], [(HALF, 1500)] * 4, [3, 3, 7, 10]),  # the second lap begins at 7
        ([3, 3, 7], [(3 * MS + HALF, 1500)], [7]),  # both opportunities of 3 went by unused
        ([3, 3, 7], [(3 * MS + HALF, 700), (7 * MS + HALF, 100)], [7, 10]),  # 800 bytes of 7 were lost
        ([3, 3, 7], [(HALF, 700)] * 5, [3, 3, 3, 3, 7]),  # 3,000 bytes at 3: four and 200 bytes of the fifth
        ([3, 3, 7], [(HALF, 4000)], [7]),  # as large as three opportunities allow
        ([0, 5], [(0, 1500)] * 4, [0, 5, 5, 10]),  # 5 is the end of a lap and the start of the next
        ([1], [(HALF, 1500)] * 3, [1, 2, 3]),  # 12 Mbit/s
        ([2, 9], [(9 * MS + HALF, 1500)] * 2, [11, 18]),
    ],
)
def test_mahimahi_by_hand(times_ms, packets, expected, tmp_path):
    assert departures_ms(mahimahi_trace(tmp_path, times_ms), packets) == expected


def plain_mahimahi(times_ms, packets):
    """Opportunity by opportunity: 1,500 bytes for what has arrived by then, the rest of them lost."""
    queue, found = deque(), []
    waiting = deque(packets)
    lap_ms = 0
    while waiting or queue:
        for time_ms in times_ms:
            while waiting and waiting[0][0] < (lap_ms + time_ms) * MS:
                queue.append(waiting.popleft()[1])
            room = 1500
            while room and queue:
                sent = min(room, queue[0])
                room -= sent
                queue[0] -= sent
                if not queue[0]:
                    queue.popleft()
                    found.append(lap_ms + time_ms)
        lap_ms += times_ms[-1]
    return found


@given(
    gaps_ms=st.lists(st.integers(0, 4), min_size=1, max_size=20).filter(any),
    packets=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4000)), min_size=1, max_size=15),
)
def test_mahimahi_as_a_second_implementation_has_it(gaps_ms, packets, tmp_path_factory):
    times_ms = [sum(gaps_ms[: index + 1]) for index in range(len(gaps_ms))]
    arrivals = [(ms * MS + HALF, size) for ms, size in sorted(packets, key=lambda packet: packet[0])]
    rate = mahimahi_trace(tmp_path_factory.mktemp("trace"), times_ms)
    assert departures_ms(rate, arrivals) == plain_mahimahi(times_ms, arrivals)


def test_a_packet_leaves_at_most_a_nanosecond_a_byte_after_its_millisecond(tmp_path):
    rate = mahimahi_trace(tmp_path, [4, 4, 4])
    assert [finish_ns(rate, 0, 1500, count) for count in (1, 2, 3)] == [4 * MS + 1500, 4 * MS + 3000, 4 * MS + 4500]


def test_an_opportunity_may_be_scaled(tmp_path):
    assert departures_ms(mahimahi_trace(tmp_path, [1, 2], scale=2.0), [(0, 1500)] * 5) == [1, 1, 2, 2, 3]
    assert departures_ms(mahimahi_trace(tmp_path, [1, 2], scale=0.5), [(0, 1500)] * 2) == [2, 4]


def test_seconds_hold_until_the_next_line_and_the_last_as_long_as_the_one_before(tmp_path):
    rate = trace_of(write(tmp_path / "t", "10.0 8\n11.0\t16\n13.0 0\n"), "seconds")
    starts = [0, 1_000 * MS, 3_000 * MS, 5_000 * MS, 6_000 * MS]
    assert [tuple(rate.segment(start)) for start in starts] == [
        (8_000_000, 1_000 * MS), (16_000_000, 3_000 * MS), (0, 5_000 * MS), (8_000_000, 6_000 * MS),
        (16_000_000, 8_000 * MS),
    ]  # fmt: skip
    assert rate.segment(1_000 * MS - 1) == (8_000_000, 1_000 * MS)
    assert finish_ns(rate, 0, 1_000_000) == 1_000 * MS
    assert finish_ns(rate, 1_000 * MS - 995, 1) == 1_000 * MS + 3  # 7.96 bits before the change, 0.04 at twice the rate
    assert finish_ns(rate, 0, 5_000_000, 2) == 6_000 * MS + 2_000 * MS  # 1 + 4 MB, then 1 + 4 again


def test_csv_columns_have_names_and_units(tmp_path):
    file = write(tmp_path / "t.csv", "kbps,note,at\n8000,a,5000\n16000,b,5500\n\n4000,c,6500\n")
    columns = {"time": "at", "time_unit": "ms", "rate": "kbps", "rate_unit": "kbit/s"}
    rate = trace_of(file, "csv", columns=columns, scale=0.5)
    assert [tuple(rate.segment(t * MS)) for t in (0, 500, 1500, 2500)] == [
        (4_000_000, 500 * MS), (8_000_000, 1500 * MS), (2_000_000, 2500 * MS), (4_000_000, 3000 * MS),
    ]  # fmt: skip


def test_an_offset_moves_the_trace_and_a_random_one_is_each_links_own(tmp_path):
    file = write(tmp_path / "t", "".join(f"{second} {second + 1}\n" for second in range(1000)))
    assert trace_of(file, "seconds", offset="2500 ms").segment(0) == (3_000_000, 500 * MS)
    assert trace_of(file, "seconds", offset="1001 s").segment(0).rate_bps == 2_000_000
    first = {entity: trace_of(file, "seconds", offset="random", entity=entity).segment(0) for entity in range(20)}
    assert len(set(first.values())) > 10
    assert first[3] == trace_of(file, "seconds", offset="random", entity=3).segment(0)
    assert first[3] != trace_of(file, "seconds", offset="random", entity=3, seed=2).segment(0)


def test_a_file_that_changed_is_read_again(tmp_path):
    file = write(tmp_path / "t", "0 1\n")
    assert trace_of(file, "seconds").segment(0).rate_bps == 1_000_000
    write(file, "0 12\n")
    assert trace_of(file, "seconds").segment(0).rate_bps == 12_000_000


def test_every_second_of_the_public_mahimahi_traces_carries_a_packet_a_line(data_dir):
    files = sorted(item for item in (data_dir / "net-mahimahi" / "traces").iterdir() if item.suffix in {".up", ".down"})
    assert len(files) == 10
    for file in files:
        lines_ms = [int(line) for line in file.read_text().split()]
        times_ms = lines_ms + [lines_ms[-1] + time for time in lines_ms[:500]]  # into the second lap
        rate, left_ns = trace_of(file, "mahimahi"), 0
        for _, second in groupby(times_ms, lambda time: time // 1000):
            in_second = list(second)
            left_ns = finish_ns(rate, left_ns, 1500 * len(in_second))
            assert left_ns // MS == in_second[-1], file


def test_every_line_of_a_public_mahimahi_trace_is_one_packet(data_dir):
    file = data_dir / "net-mahimahi" / "traces" / "ATT-LTE-driving-2016.up"
    rate, left_ns = trace_of(file, "mahimahi"), 0
    for line in file.read_text().split():
        left_ns = finish_ns(rate, left_ns, 1500)
        assert left_ns // MS == int(line)


def test_every_second_of_public_bandwidth_traces_carries_what_the_file_says(data_dir):
    folder = data_dir / "net-bandwidth-collection"
    picked = ("cooked_3gp/norway_bus_1", "cooked_3gp/norway_tram_24", "traces_oboe/oboe_trace_7.txt")
    for name in picked:
        samples = [tuple(map(float, line.split())) for line in (folder / name).read_text().splitlines()]
        rate = trace_of(folder / name, "seconds")
        origin_s, last = samples[0][0], 0
        for second in range(1, int(samples[-1][0] - origin_s)):
            bits = sum(
                mbps * 1e6 * max(0.0, min(end, origin_s + second) - start)
                for (start, mbps), (end, _) in pairwise(samples)
            )
            left = num_finished(rate, 0, 500, second * 1000 * MS)
            assert bits / 4000 - 2 <= left <= bits / 4000 + 0.01, (name, second)
            last = left
        assert last > 100


LINK = "fleet.0.link"


@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ("1\n2\nx3\n", {}, "t: line 3: not a time in milliseconds (got 'x3'); allowed: a whole number from 0"),
        ("1\n\n3\n", {}, "t: line 2: not a time in milliseconds (got ''); allowed: a whole number from 0"),
        ("-1\n", {}, "t: line 1: not a time in milliseconds (got '-1'); allowed: a whole number from 0"),
        ("1.5\n", {}, "t: line 1: not a time in milliseconds (got '1.5'); allowed: a whole number from 0"),
        ("5\n4\n", {}, "t: line 2: the time runs backwards (got '4'); allowed: at least 5, as on the line before"),
        ("", {}, "t: the trace is empty"),
        ("0\n0\n", {}, "t: the trace lasts no time: its last line is its period (got '0')"),
        (
            "3\n" * 667 + "4\n",
            {},
            "t: millisecond 3 has room for too much (got '667 x 1500 B x 1'); allowed: 1 to 999999 B",
        ),
        ("0\n" * 400 + "2\n" * 300, {}, "t: millisecond 2 has room for too much (got '700 x 1500 B x 1'); "
         "allowed: 1 to 999999 B"),
        ("0 1\n1\n", {"format": "seconds"}, "t: line 2: not a time and a rate (got '1'); "
         "allowed: a time in s and a rate in Mbit/s"),
        ("0 1\n1 fast\n", {"format": "seconds"}, "t: line 2: not a rate (got '1 fast'); allowed: a number"),
        ("0 1\n1 nan\n", {"format": "seconds"}, "t: line 2: not a rate (got '1 nan'); allowed: a number"),
        ("0 1\nsoon 2\n", {"format": "seconds"}, "t: line 2: not a time (got 'soon 2'); allowed: a number"),
        ("0 1\n1 -2\n", {"format": "seconds"}, "t: line 2: a rate can't be negative (got '1 -2'); allowed: at least 0"),
        ("1 1\n1 2\n", {"format": "seconds"}, "t: line 2: the time does not increase (got '1 2'); "
         "allowed: a time after that of the line before"),
        ("0 0\n1 0\n", {"format": "seconds"}, "t: every rate of the trace is 0: nothing could ever be sent"),
        ("0 1e13\n", {"format": "seconds"}, "t: line 1: the rate is too large (got '0 1e13')"),
        ("a,kbps\n0,1\n", {"format": "csv", "columns": {"time": "a", "rate": "kbs"}},
         "t: the trace has no such column (got 'kbs'); allowed: a, kbps; did you mean 'kbps'?"),
        ("a,b\n0,1\n2\n", {"format": "csv", "columns": {"time": "a", "rate": "b"}},
         "t: line 3: too few columns (got '2'); allowed: 2 columns"),
        ("a,b\n", {"format": "csv", "columns": {"time": "a", "rate": "b"}}, "t: the trace has no rows"),
    ],
)  # fmt: skip
def test_a_bad_trace_is_refused_with_its_line(text, keys, expected, tmp_path):
    write(tmp_path / "t", text)
    with pytest.raises(ScenarioError) as caught:
        rate_of("trace", **{"file": str(tmp_path / "t"), "format": "mahimahi", **keys})
    assert str(caught.value) == f"{tmp_path}/{expected}"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "t: line 3: not a time in milliseconds (got 'x3'); allowed: a whole number from 0"),
        ({"format": "csv", "columns": {"time": "a", "rate": "b"}}, "t: the trace has no such column (got 'a'); "
         "allowed: 1"),
        ({"file": "gone"}, "gone: no such file"),
    ],
)  # fmt: skip
def test_validate_names_the_scenarios_key_and_the_file(keys, expected, tmp_path):
    write(tmp_path / "t", "1\n2\nx3\n")
    rate = {"kind": "trace", "file": "t", "format": "mahimahi", **keys}
    case = write(tmp_path / "case.yaml", tiny((LINK, {"use": "wifi", "rate_up": rate})))
    assert refused("validate", str(case)) == f"{case}: fleet[0].link.rate_up: {tmp_path.resolve()}/{expected}"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"format": "mahimah"}, "format: not one of the choices (got 'mahimah'); allowed: mahimahi, seconds, csv; "
         "did you mean 'mahimahi'?"),
        ({"format": "csv"}, "columns: required key is missing; allowed: with format csv: time and rate"),
        ({"columns": {"time": "a", "rate": "b"}}, "columns: only a csv file has named columns; "
         "allowed: with format csv: time and rate"),
        ({"format": "csv", "columns": {"time": "a", "rate": "b", "time_unit": "min"}},
         "columns.time_unit: not one of the choices (got 'min'); allowed: s, ms, us, ns"),
        ({"offset": "rand"}, "offset: not a time (got 'rand'); allowed: a time such as 15 s, or random"),
        ({"offset": "-1 s"}, "offset: time too small (got '-1 s'); allowed: a time such as 15 s, or random"),
        ({"scale": 0}, "scale: too small (got 0); allowed: more than 0.0"),
    ],
)  # fmt: skip
def test_a_bad_key_of_a_trace_is_refused_at_its_path(keys, expected):
    with pytest.raises(ScenarioError) as caught:
        rate_of("trace", **{"file": "t", "format": "mahimahi", **keys})
    assert str(caught.value) == expected


def test_an_unknown_unit_is_answered_with_the_nearest():
    columns = {"time": "a", "rate": "b", "rate_unit": "kbits/s"}
    with pytest.raises(ScenarioError, match="unknown unit of a bit rate") as caught:
        rate_of("trace", file="t", format="csv", columns=columns)
    assert (caught.value.path, caught.value.value, caught.value.nearest) == ("columns.rate_unit", "kbits/s", "kbit/s")


def test_a_file_stands_beside_the_yaml_that_names_it(tmp_path, monkeypatch):
    links = tmp_path / "network_models" / "links"
    links.mkdir(parents=True)
    write(links / "t", "1\n")
    rate = {"kind": "trace", "file": "t", "format": "mahimahi"}
    write(links / "driven.yaml", {"rate_up": rate, "rate_down": rate, "propagation_delay": "5 ms"})
    (tmp_path / "stories").mkdir()
    write(tmp_path / "stories" / "case.yaml", tiny((LINK, "driven")))
    write(tmp_path / "stories" / "t", "0 5\n")
    changed = {"use": "driven", "rate_down": {**rate, "format": "seconds"}}
    write(tmp_path / "stories" / "changed.yaml", tiny((LINK, changed)))
    monkeypatch.chdir(tmp_path)
    from testbed.scenarios.load import load_link, load_scenario

    link = load_scenario("stories/case.yaml").fleet[0].link
    assert Path(link.rate_up.file) == Path(link.rate_down.file) == (links / "t").resolve()
    link = load_scenario("stories/changed.yaml").fleet[0].link
    assert Path(link.rate_up.file) == (links / "t").resolve()
    assert Path(link.rate_down.file) == (tmp_path / "stories" / "t").resolve()
    assert Path(load_link("driven").rate_up.file) == (links / "t").resolve()
    write(tmp_path / "here", "1\n")
    assert Path(load_link("driven", ["rate_up.file=here"]).rate_up.file) == (tmp_path / "here").resolve()
