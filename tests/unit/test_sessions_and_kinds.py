"""Requests that wait for others, sessions of several turns, kinds whose mix shifts."""

from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from testbed.core.errors import ScenarioError
from testbed.core.events import Outcome, RequestArrived, RequestEnded
from testbed.report.console import summary_table
from testbed.report.html import write_report
from testbed.run import prepare, run
from testbed.scenarios.load import build_scenario, load_scenario
from tests.sim_runs import MS, S, device, ends, group, of_kind, run_events, scenario, table_of, workload
from tests.unit.tiny_scenario import tiny, write

ALPHA = 1e-4
THINK = {"law": "exponential", "mean": "40 ms"}


def fixed(value):
    return {"law": "fixed", "value": value}


def random_prompts(**law):
    return {"kind": "random", "length": law}


def closed(requests=4, **changes):
    return {"kind": "closed", "requests_per_device": requests, "think": THINK, **changes}


def session(**changes):
    return {"turns": {"law": "geometric", "mean": 3, "max": 9}, "think": THINK, **changes}


def conversations(**changes):
    """Poisson openings of sessions whose lengths are all drawn."""
    return workload(
        **{
            "arrivals": {"kind": "poisson", "rate_per_device": "2 /s", "requests_per_device": 5},
            "prompts": random_prompts(law="uniform", low=1, high=20),
            "output_tokens": {"law": "uniform", "low": 1, "high": 8},
            "session": session(),
            **changes,
        }
    )


def chained(events, table):
    """Of every row that waits: (the end of the row before it, its gap, its arrival)."""
    arrived = {event.request: event.time_ns for event in of_kind(events, RequestArrived)}
    ended = {event.request: event.time_ns for event in of_kind(events, RequestEnded)}
    waiting = np.flatnonzero(table.after >= 0).tolist()
    return [(ended[int(table.after[row])], int(table.gap_ns[row]), arrived[row]) for row in waiting]


class TestChains:
    def test_a_users_next_request_comes_a_think_time_after_the_answer(self):
        built = scenario(fleet=[group(count=3)], workload=workload(arrivals=closed(5)))
        table, events = table_of(built), run_events(built)
        links = chained(events, table)
        assert len(links) == 12
        assert all(end_ns + gap_ns == arrival_ns for end_ns, gap_ns, arrival_ns in links)
        assert Counter(table.device.tolist()) == {0: 5, 1: 5, 2: 5}

    def test_think_times_are_drawn_by_key(self):
        many = scenario(fleet=[group(count=500)], workload=workload(arrivals=closed(9, first=fixed("2 s"))))
        table = table_of(many)
        waiting = table.after >= 0
        assert waiting.sum() == 500 * 8
        assert stats.kstest(table.gap_ns[waiting] / S, stats.expon(scale=0.04).cdf).pvalue > ALPHA
        assert set(table.arrival_ns[~waiting]) == {2 * S}
        fewer = table_of(scenario(fleet=[group(count=200)], workload=workload(arrivals=closed(9, first=fixed("2 s")))))
        assert sorted(fewer.gap_ns) == sorted(table.gap_ns[table.device < 200])

    @given(seed=st.integers(0, 10**6), mean=st.sampled_from([1, 2.5]))
    def test_a_row_stands_behind_the_one_it_waits_for(self, seed, mean):
        turns = {"law": "geometric", "mean": mean, "max": 4}
        asks = conversations(
            arrivals=closed(3, think=fixed("0 s"), first=fixed("1 s")),
            session=session(turns=turns, think=fixed("0 s")),
        )
        table = table_of(scenario(fleet=[group(count=2)], workload=asks, seed=seed))
        rows = np.arange(len(table))
        waits = table.after >= 0
        assert (table.after[waits] < rows[waits]).all()
        assert len(set(table.after[waits])) == waits.sum()
        assert (table.device[table.after[waits]] == table.device[waits]).all()
        assert waits.sum() == len(table) - 2  # one chain a device
        assert (table.session <= rows).all()
        assert (table.turn[table.session] == 0).all()

    def test_a_chain_goes_on_after_a_request_that_fails(self):
        small = device(memory="1030 kB")
        asks = workload(arrivals=closed(3, think=fixed("5 ms")), prompts=random_prompts(law="fixed", value=400))
        built = scenario(fleet=[group(device=small)], workload=asks)
        events = run_events(built)
        assert {end.outcome for end in ends(events).values()} == {Outcome.OOM}
        assert [event.time_ns for event in of_kind(events, RequestArrived)] == [5 * MS, 10 * MS, 15 * MS]

    def test_of_one_instant_the_lower_number_has_its_turn_first(self):
        # Each device's requests: at 1 ms and, while that is answered, at one instant: the end of the first.
        alone = scenario(workload=workload(arrivals={"kind": "times", "times": ["1 ms"]}))
        end_ns = ends(run_events(alone))[0].time_ns
        turns = session(turns=fixed(2), think=fixed("0 s"))
        both = workload(
            arrivals={"kind": "times", "times": ["1 ms", f"{end_ns} ns"]},
            session=turns,
            output_tokens=fixed(4),
        )
        built = scenario(workload=both)
        table, events = table_of(built), run_events(built)
        assert table.arrival_ns.tolist() == [MS, MS, end_ns, end_ns]  # the second turn's is nominal
        arrivals = [(event.time_ns, event.request) for event in of_kind(events, RequestArrived)]
        assert arrivals[:3] == [(MS, 0), (end_ns, 1), (end_ns, 2)]
        assert ends(events)[1].time_ns < ends(events)[2].time_ns

    def test_many_users_set_few_timers(self):
        # A timer a row at most: chains that come before what was planned must not add up.
        from testbed.sim.simulate import Arrivals
        from testbed.sim.world import World
        from tests.sim_runs import TINY_SOURCE

        built = scenario(fleet=[group(count=30)], workload=workload(arrivals=closed(6)))
        world = World(built, TINY_SOURCE, executor=None, emit=lambda event: None)
        rung, at = [], world.clock.at
        world.clock.at = lambda delay_ns, rank, place=0: (rung.append(rank.name), at(delay_ns, rank, place))[1]
        Arrivals(world, table_of(built))
        world.clock.run()
        assert rung.count("ARRIVAL") <= 180

    def test_a_run_that_stops_leaves_the_rest_out(self):
        built = scenario(workload=workload(arrivals=closed(50)), stop_at="200 ms")
        events = run_events(built)
        assert 0 < len(of_kind(events, RequestArrived)) < 50
        assert all(event.time_ns < 200 * MS for event in events)


class TestSessions:
    def test_a_turns_prompt_is_its_history_and_something_new(self):
        table = table_of(scenario(fleet=[group(count=20)], workload=conversations()))
        assert len(set(table.session)) == 100
        for opener in set(table.session.tolist()):
            rows = np.flatnonzero(table.session == opener)
            assert table.turn[rows].tolist() == list(range(len(rows)))
            history = 0
            for row in rows:
                assert table.history_tokens[row] == history
                assert 1 <= table.prompt_tokens[row] - history <= 20
                history = int(table.prompt_tokens[row] + table.max_output_tokens[row])
        turns = np.bincount(table.session)
        p = 1 / 3
        weights = np.append(p * (1 - p) ** np.arange(8), (1 - p) ** 8)
        observed = np.bincount(turns[turns > 0], minlength=10)[1:10]
        assert (
            stats.chisquare([*observed[:4], observed[4:].sum()], [*weights[:4] * 100, weights[4:].sum() * 100]).pvalue
            > ALPHA
        )

    def test_openings_are_those_of_the_same_workload_without_sessions(self):
        plain = table_of(scenario(fleet=[group(count=4)], workload=conversations(session=None)))
        table = table_of(scenario(fleet=[group(count=4)], workload=conversations()))
        first = table.turn == 0
        for column in ("arrival_ns", "prompt_tokens", "max_output_tokens", "device", "counter"):
            assert getattr(table, column)[first].tolist() == getattr(plain, column).tolist()
        assert set(plain.session) == {-1}

    def test_turns_that_would_be_too_long_are_not_asked(self):
        limited = conversations(session=session(turns=fixed(9), max_tokens=60))
        free = table_of(scenario(fleet=[group(count=9)], workload=conversations(session=session(turns=fixed(9)))))
        table = table_of(scenario(fleet=[group(count=9)], workload=limited))
        total = table.prompt_tokens + table.max_output_tokens
        assert total.max() <= 60
        assert len(table) == (free.prompt_tokens + free.max_output_tokens <= 60).sum()

    def test_a_real_turns_prompt_begins_with_all_that_was_said(self):
        built = scenario(fleet=[group(compute="real")], workload=conversations(session=session(turns=fixed(3))))
        table = table_of(built)
        for row in np.flatnonzero(table.turn > 0).tolist():
            before, prompt = table[int(table.after[row])], table[row].prompt
            assert len(prompt) == table[row].num_prompt_tokens
            assert prompt[: len(before.prompt)] == before.prompt
            assert table[row].history_tokens == len(before.prompt) + before.max_output_tokens
        modelled = table_of(scenario(workload=conversations(session=session(turns=fixed(3)))))
        assert modelled.prompt_tokens.tolist() == table.prompt_tokens.tolist()
        assert modelled[0].prompt is None


def kinds(*shares, **changes):
    """Kinds that a request's length tells apart."""
    names = ("text", "code", "audio")
    listed = [
        {"name": name, "share": share, "prompts": random_prompts(law="fixed", value=10 + number)}
        for number, (name, share) in enumerate(zip(names, shares, strict=False))
    ]
    return workload(arrivals={"kind": "uniform", "requests": 20_000, "until": "100 s"}, kinds=listed, **changes)


class TestKinds:
    def test_shares_and_lengths(self):
        table = table_of(scenario(workload=kinds(0.5, 0.2, 0.3)))
        counts = np.bincount(table.kind, minlength=3)
        assert stats.chisquare(counts, [10_000, 4000, 6000]).pvalue > ALPHA
        assert (table.prompt_tokens == 10 + table.kind).all()
        assert set(table.max_output_tokens) == {4}  # the workload's, as no kind has its own

    def test_the_mix_shifts_evenly_between_points(self):
        points = [{"at": "20 s", "share": 0.1}, {"at": "60 s", "share": 0.7}]
        rest = [{"at": "20 s", "share": 0.9}, {"at": "60 s", "share": 0.3}]
        table = table_of(scenario(workload=kinds(points, rest)))
        seconds = table.arrival_ns / S
        expected = np.interp(seconds, [20, 60], [0.1, 0.7])
        for low, high in ((0, 20), (20, 30), (30, 45), (45, 60), (60, 100)):
            inside = (seconds >= low) & (seconds < high)
            mean = expected[inside].sum()
            spread = np.sqrt((expected[inside] * (1 - expected[inside])).sum())
            assert abs((table.kind[inside] == 0).sum() - mean) < stats.norm.ppf(1 - ALPHA / 2) * spread

    def test_listed_prompts_are_taken_in_turn_by_kind(self):
        asks = {
            **kinds(0.5, 0.5),
            "arrivals": {"kind": "times", "times": [f"{n} s" for n in range(1, 21)]},
        }
        for number, kind in enumerate(asks["kinds"]):
            kind["prompts"] = {"kind": "ids", "ids": [[number, 1], [number, 2, 2], [number, 3, 3, 3]]}
        table = table_of(scenario(fleet=[group(compute="real")], workload=asks))
        for number in (0, 1):
            taken = [item.prompt[-1] for item in table if item.kind == number]
            assert taken == [1 + place % 3 for place in range(len(taken))]
            assert {item.prompt[0] for item in table if item.kind == number} == {number}

    def test_a_kind_may_have_sessions_where_others_have_none(self):
        asks = kinds(0.5, 0.5)
        asks["kinds"][1]["session"] = session(turns=fixed(3))
        table = table_of(scenario(workload=asks))
        assert set(table.turn[table.kind == 0]) == {0}
        assert set(table.session[table.kind == 0]) == {-1}
        assert Counter(table.turn[table.kind == 1].tolist()).keys() == {0, 1, 2}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kinds": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.4}]},
         "workload.kinds: the shares don't add up to 1 (got 0.9)"),
        ({"kinds": [{"name": "a", "share": [{"at": "0 s", "share": 1.0}, {"at": "9 s", "share": 0.5}]},
                    {"name": "b", "share": 0.0}]},
         "workload.kinds: the shares don't add up to 1 at 9 s (got 0.5)"),
        ({"kinds": [{"name": "a", "share": -0.5}]},
         "workload.kinds[0].share: ratio too small (got -0.5); allowed: at least 0"),
        ({"kinds": [{"name": "a", "share": 0.5}, {"name": "a", "share": 0.5}]},
         "workload.kinds[1].name: an earlier entry has this name (got 'a')"),
        ({"kinds": [{"name": "a", "share": [{"at": "2 s", "share": 1}, {"at": "1 s", "share": 1}]}]},
         "workload.kinds[0].share[1].at: not after the point before (got '1000000000 ns')"),
        ({"kinds": [{"name": "a", "share": [{"at": "2 s", "part": 1}]}]},
         "workload.kinds[0].share[0].part: unknown key; allowed: at, share; did you mean 'at'?"),
        ({"kinds": [{"name": "a", "share": 1}], "prompts": None}, "workload.kinds[0].prompts: required key is missing"),
        ({"output_tokens": {"law": "empirical"}},
         "workload.output_tokens: give either values or a file, not both or neither"),
        ({"output_tokens": {"law": "empirical", "file": "t.csv"}},
         "workload.output_tokens.column: a file and its column go together"),
        ({"output_tokens": None}, "workload.output_tokens: required key is missing"),
        ({"session": {"turns": fixed(2)}}, "workload.session.think: required key is missing"),
        ({"session": session(think={"law": "uniform", "low": "2 s", "high": "1 s"})},
         "workload.session.think.high: high is below low (got '1.00 s'); allowed: at least 2.00 s"),
        ({"session": session(turns=fixed(0))}, "workload.session.turns.value: too small (got 0); allowed: at least 1"),
        ({"arrivals": {"kind": "mooncake", "file": "no.jsonl"}, "session": session()},
         "workload.session: a mooncake that sets the lengths leaves no room for turns"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(changes, expected, tmp_path):
    data = tiny()
    data["workload"] = {**data["workload"], **changes}
    with pytest.raises(ScenarioError) as caught:
        build_scenario(data, base=tmp_path)
    assert str(caught.value) == expected


def test_a_column_that_a_law_reads_is_looked_for_before_the_run(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("when,prompt\n1,5\n2,zero\n")
    data = tiny()
    read = {"law": "empirical", "file": "t.csv", "column": "promt"}
    data["workload"]["kinds"] = [{"name": "a", "share": 1, "prompts": {"kind": "random", "length": read}}]
    with pytest.raises(ScenarioError) as caught:
        prepare(build_scenario(data, base=tmp_path))
    expected = "the trace has no such column (got 'promt'); allowed: when, prompt; did you mean 'prompt'?"
    assert str(caught.value) == f"{file}: workload.kinds[0].prompts: {expected}"
    read["column"] = "prompt"
    with pytest.raises(ScenarioError, match=r"kinds\[0\].prompts: line 3: not a number of tokens \(got 'zero'\)"):
        prepare(build_scenario(data, base=tmp_path))


def test_results_tell_kinds_sessions_and_turns(tmp_path):
    asks = conversations(
        arrivals={"kind": "times", "times": ["0 s", "1 s", "2 s", "3 s"]},
        kinds=[
            {"name": "talk", "share": 0.5, "session": session(turns=fixed(2))},
            {"name": "code", "share": 0.5},
        ],
        session=None,
    )
    file = write(tmp_path / "s.yaml", tiny(("workload", asks), ("seed", 4)))
    prepared = prepare(load_scenario(file))
    table = prepared.requests
    result = run(prepared, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "requests.parquet").to_pydict()
    names = ["talk", "code"]
    assert rows["kind"] == [names[kind] for kind in table.kind]
    assert set(rows["kind"]) == {"talk", "code"}
    assert rows["session"] == [None if opener < 0 else opener for opener in table.session.tolist()]
    assert rows["turn"] == [None if table.session[row] < 0 else int(table.turn[row]) for row in range(len(table))]
    by_kind = result.summary["by_kind"]
    assert {name: entry["requests"] for name, entry in by_kind.items()} == Counter(rows["kind"])
    assert by_kind["talk"]["completed"] == by_kind["talk"]["requests"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["by_kind"] == by_kind
    page = write_report(tmp_path / "out").read_text()
    assert "By kind of request" in page
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary_table(result.summary))
    (line,) = [line for line in console.export_text().splitlines() if line.startswith("talk")]
    count = by_kind["talk"]["requests"]
    assert line.split()[:4] == ["talk", str(count), "of", str(count)]
    again = build_scenario(yaml.safe_load((tmp_path / "out" / "scenario.yaml").read_text()), base=tmp_path)
    assert again == prepared.scenario


def test_without_names_there_is_one_kind_of_request(tmp_path):
    file = write(tmp_path / "s.yaml", tiny())
    result = run(prepare(load_scenario(file)), tmp_path / "out")
    assert result.summary["by_kind"] is None
    rows = pq.read_table(tmp_path / "out" / "requests.parquet")
    assert rows["kind"].null_count == rows["session"].null_count == rows.num_rows
