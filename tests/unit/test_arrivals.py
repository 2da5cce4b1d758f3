"""Arrival laws as a scenario names them: whose requests, draws by key, traces, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from testbed.core.errors import ScenarioError
from testbed.core.registry import ARRIVALS
from testbed.run import prepare
from testbed.scenarios.load import build_scenario
from tests.sim_runs import MS, S, group, scenario, table_of, workload
from tests.unit.tiny_scenario import tiny

DATA = Path(__file__).parents[2] / "../shared/data/req-azure"
STATES = [{"rate": "9 /s", "mean": "1 s"}, {"rate": "1 /s", "mean": "3 s"}]
THINK = {"law": "exponential", "mean": "1 s"}
PER_DEVICE = {
    "poisson": {"rate_per_device": "1 /s", "requests_per_device": 6},
    "poisson, window": {"rate_per_device": "1 /s", "until": "8 s"},
    "times": {"times": ["3 s", "1 s"]},
    "uniform": {"requests_per_device": 5, "until": "9 s"},
    "mmpp": {"states": STATES, "until": "9 s"},
    "diurnal": {"rate_per_device": "1 /s", "swing": 0.5, "day": "10 s", "until": "10 s"},
    "flash-crowd": {"rate_per_device": "1 /s", "peak": 5, "start": "1 s", "rise": "1 s", "hold": "1 s", "decay": "1 s",
                    "until": "9 s"},
    "closed": {"requests_per_device": 4, "think": THINK},
}  # fmt: skip
PER_GROUP = {
    "poisson": {"rate": "9 /s", "requests": 60},
    "poisson, window": {"rate": "9 /s", "until": "8 s"},
    "uniform": {"requests": 50, "until": "9 s"},
    "mmpp": {"states": [*STATES, {"rate": 0, "mean": "2 s"}], "until": "60 s", "per": "group"},
    "diurnal": {"rate": "9 /s", "hours": [1] * 12 + [3] * 12, "day": "10 s", "until": "10 s"},
    "flash-crowd": {"rate": "3 /s", "peak": 5, "start": "1 s", "rise": "1 s", "hold": "1 s", "decay": "1 s",
                    "until": "9 s"},
}  # fmt: skip


def asks(name, config):
    drawn = {"prompts": {"kind": "random", "length": {"law": "uniform", "low": 1, "high": 90}}}
    return workload(arrivals={"kind": name.partition(",")[0], **config}, **drawn)


def rows(table, first_device, count):
    """What these devices are asked, without the numbers that the run gives."""
    own = (table.device >= first_device) & (table.device < first_device + count)
    columns = (table.device - first_device, table.arrival_ns, table.gap_ns, table.counter, table.prompt_tokens)
    return sorted(zip(*(column[own].tolist() for column in columns), strict=True))


@pytest.mark.parametrize("name", PER_DEVICE)
def test_a_devices_requests_are_its_own(name):
    asked = asks(name, PER_DEVICE[name])
    alone = table_of(scenario(fleet=[group("mine", count=4)], workload=asked))
    with_others = table_of(scenario(fleet=[group("others", count=3), group("mine", count=6)], workload=asked))
    assert len(alone) > 4
    assert rows(with_others, 3, 4) == rows(alone, 0, 4)
    if name != "times":
        other = table_of(scenario(fleet=[group("mine", count=4)], workload=asked, seed=2))
        assert set(other.arrival_ns) != set(alone.arrival_ns)


@pytest.mark.parametrize("name", PER_GROUP)
def test_a_groups_instants_are_whatever_its_size(name):
    asked = asks(name, PER_GROUP[name])
    few = table_of(scenario(fleet=[group("mine", count=2)], workload=asked))
    many = table_of(scenario(fleet=[group("others", count=3), group("mine", count=40)], workload=asked))
    own = many.device >= 3
    assert many.arrival_ns[own].tolist() == few.arrival_ns.tolist()
    assert len(few) > 20
    assert len(set(many.device[own])) > 10


@pytest.mark.parametrize(("name", "config"), [*PER_DEVICE.items(), *PER_GROUP.items()])
def test_what_is_written_reads_back_as_the_same(name, config, tmp_path):
    data = tiny()
    data["workload"]["arrivals"] = {"kind": name.partition(",")[0], **config}
    built = build_scenario(data, base=tmp_path)
    again = build_scenario(yaml.safe_load(yaml.safe_dump(built.as_data())), base=tmp_path)
    assert again == built


def test_every_law_is_drawn_here_or_read_from_a_file():
    named = {name.partition(",")[0] for name in (*PER_DEVICE, *PER_GROUP)}
    assert named | {"trace", "mooncake"} == set(ARRIVALS)


def test_numbers_go_by_arrival_device_and_count():
    fleet = [group("a", count=20, workload=asks("uniform", {"requests_per_device": 3, "until": "40 ns"}))]
    table = table_of(scenario(fleet=fleet))
    order = list(zip(table.arrival_ns.tolist(), table.device.tolist(), table.counter.tolist(), strict=True))
    assert order == sorted(order)
    assert table.arrival_ns.max() < 40


class TestTraces:
    @pytest.mark.parametrize(("kind", "count", "hours"), [("conv", 19_366, 1), ("code", 8819, 1)])
    def test_the_azure_traces_of_2023(self, kind, count, hours):
        file = DATA / f"AzureLLMInferenceTrace_{kind}.csv"
        if not file.exists():
            pytest.skip(f"{file.name} of the Azure dataset is not beside the repository")
        trace = {
            "kind": "trace", "file": str(file), "time_column": "TIMESTAMP", "time_unit": "date",
            "prompt_column": "ContextTokens", "output_column": "GeneratedTokens",
        }  # fmt: skip
        table = table_of(scenario(fleet=[group(count=50)], workload=workload(arrivals=trace)))
        lines = file.read_text().splitlines()[1:]
        cells = [line.split(",") for line in lines]
        assert len(table) == len(lines) == count
        assert table.prompt_tokens.tolist() == [int(row[1]) for row in cells]
        assert table.max_output_tokens.tolist() == [int(row[2]) for row in cells]
        stamps = [np.datetime64(f"{row[0][:10]}T{row[0][11:]}", "ns") for row in cells]
        assert table.arrival_ns.tolist() == [int(stamp - stamps[0]) for stamp in stamps]
        assert table.arrival_ns[-1] < hours * 3600 * S

    def mooncake(self, tmp_path, *data):
        file = tmp_path / "trace.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in data) + "\n\n")
        return workload(arrivals={"kind": "mooncake", "file": str(file)})

    def row(self, timestamp, blocks, rest=100, output=20):
        """A prompt of these full blocks and some tokens more, under a hash of their own."""
        length = 512 * len(blocks) + rest
        own = [1000 + timestamp] if rest else []
        return {"timestamp": timestamp, "input_length": length, "output_length": output, "hash_ids": blocks + own}

    def test_mooncakes_hashes_make_sessions(self, tmp_path):
        asked = self.mooncake(
            tmp_path,
            self.row(0, [1]),
            self.row(10, [1, 2]),  # all of request 0, but one block only: perhaps a common system prompt
            self.row(20, [1, 2, 3, 4]),  # goes on from request 1
            self.row(30, [1, 2, 3, 4, 5], rest=0),  # and from request 2
            self.row(40, [1, 2, 9]),  # a branch from request 1
            self.row(50, [1, 2, 3, 4, 5], rest=0),  # and this, as something of a prompt is always new
        )
        table = table_of(scenario(fleet=[group(count=50)], workload=asked))
        assert table.arrival_ns.tolist() == [10 * MS * number for number in range(6)]
        assert table.session.tolist() == [0, 1, 1, 1, 1, 1]
        assert table.turn.tolist() == [0, 0, 1, 2, 1, 2]
        assert table.history_tokens.tolist() == [0, 0, 1024, 2048, 1024, 2048]
        assert table.prompt_tokens.tolist() == [612, 1124, 2148, 2560, 1636, 2560]
        assert set(table.after) == {-1}
        assert len(set(table.device[1:])) == 1

    def test_mooncakes_sessions_are_for_modelled_groups(self, tmp_path):
        asked = self.mooncake(tmp_path, self.row(0, [1]))
        with pytest.raises(ScenarioError, match=r"workload\.arrivals: sessions of a trace are for modelled groups"):
            table_of(scenario(fleet=[group(compute="real")], workload=asked))

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("{", "line 2: not JSON: Expecting property name enclosed in double quotes (got '{')"),
            ("[1]", "line 2: not a mapping (got '[1]'); "
             "allowed: a mapping with timestamp, input_length, output_length, hash_ids"),
            ({"timestamp": 1, "input_length": 9, "output_len": 9, "hash_ids": []},
             "line 2: no output_length; allowed: hash_ids, input_length, output_len, timestamp; "
             "did you mean 'output_len'?"),
            ({"timestamp": -1, "input_length": 9, "output_length": 9, "hash_ids": []},
             "line 2: timestamp is no time (got -1); allowed: milliseconds in the first 36500 d"),
            ({"timestamp": "1", "input_length": 9, "output_length": 9, "hash_ids": []},
             "line 2: timestamp is no time (got '1'); allowed: milliseconds in the first 36500 d"),
            ({"timestamp": 1, "input_length": 9, "output_length": 9, "hash_ids": []},
             "line 2: the time is before that of the row above (got 1); allowed: rows in the order of their times"),
            ({"timestamp": 5, "input_length": 0, "output_length": 9, "hash_ids": []},
             "line 2: input_length is no number of tokens (got 0); allowed: a whole number from 1 to 999999999"),
            ({"timestamp": 5, "input_length": 3, "output_length": 9, "hash_ids": ["a"]},
             """line 2: hash_ids is no list of whole numbers (got "['a']")"""),
        ],
    )  # fmt: skip
    def test_a_malformed_row_is_refused_with_its_line(self, line, expected, tmp_path):
        file = tmp_path / "trace.jsonl"
        text = line if isinstance(line, str) else json.dumps(line)
        file.write_text(json.dumps(self.row(2, [1])) + "\n" + text)
        with pytest.raises(ScenarioError) as caught:
            table_of(scenario(workload=workload(arrivals={"kind": "mooncake", "file": str(file)})))
        assert str(caught.value) == f"{file}: workload.arrivals: {expected}"

    def test_a_file_without_rows_is_refused(self, tmp_path):
        with pytest.raises(ScenarioError, match="the trace has no rows"):
            table_of(scenario(workload=self.mooncake(tmp_path)))


CROWD = {"kind": "flash-crowd", **PER_GROUP["flash-crowd"]}
MODULATED = {"kind": "mmpp", "states": STATES, "until": "9 s"}


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        ({"kind": "poisson", "requests_per_device": 3},
         "rate_per_device: required key is missing; allowed: one of rate_per_device, rate"),
        ({"kind": "poisson", "rate_per_device": "1 /s", "rate": "1 /s", "until": "1 s"},
         "rate: not beside rate_per_device; allowed: one of rate_per_device, rate"),
        ({"kind": "poisson", "rate_per_device": "1 /s"},
         "requests_per_device: required key is missing; allowed: one of requests_per_device, until"),
        ({"kind": "poisson", "rate_per_device": "1 /s", "requests": 5},
         "requests: no such key beside rate_per_device; allowed: requests_per_device"),
        ({"kind": "poisson", "rate": "1 /s", "requests_per_device": 5},
         "requests_per_device: no such key beside rate; allowed: requests"),
        ({"kind": "poisson", "rate": "1 /s", "requests": 5, "until": "1 s"},
         "until: not beside requests; allowed: one of requests, until"),
        ({"kind": "poisson", "rate": "-2 /s", "requests": 5},
         "rate: rate in time too small (got '-2 /s'); allowed: more than 0"),
        ({"kind": "uniform", "requests": 5, "start": "9 s", "until": "9 s"},
         "until: the window is empty (got '9.00 s'); allowed: a time after start"),
        ({"kind": "uniform", "requests": 5, "until": "0 s"}, "until: time too small (got '0 s'); allowed: more than 0"),
        ({"kind": "uniform", "until": "5 s"},
         "requests_per_device: required key is missing; allowed: one of requests_per_device, requests"),
        ({"kind": "diurnal", "rate": "1 /s", "until": "1 d"},
         "swing: required key is missing; allowed: one of swing, hours"),
        ({"kind": "diurnal", "rate": "1 /s", "until": "1 d", "hours": [1, 2]},
         "hours: not a weight for every hour (got 2); allowed: 24 weights"),
        ({"kind": "diurnal", "rate": "1 /s", "until": "1 d", "hours": [0] * 24},
         "hours: every weight is 0: nothing would ever arrive"),
        ({"kind": "diurnal", "rate": "1 /s", "until": "1 d", "hours": [-1] * 24},
         "hours[0]: too small (got -1); allowed: at least 0.0"),
        ({"kind": "diurnal", "rate": "1 /s", "until": "1 d", "swing": 1.5},
         "swing: ratio too large (got 1.5); allowed: at most 1"),
        ({**CROWD, "peak": 0.5}, "peak: too small (got 0.5); allowed: at least 1.0"),
        ({**CROWD, "until": "1 s"}, "until: over before the crowd comes (got '1.00 s'); allowed: a time after start"),
        ({**MODULATED, "states": STATES[:1]}, "states: too few entries; allowed: at least 2"),
        ({**MODULATED, "states": [{"rate": 0, "mean": "1 s"}] * 2},
         "states: every rate is 0: nothing would ever arrive"),
        ({**MODULATED, "transitions": [[0, 1]]}, "transitions: not a row for each state (got 1); allowed: 2 rows"),
        ({**MODULATED, "transitions": [[0, 1], [1, 0, 0]]},
         "transitions[1]: not a probability for each state (got 3); allowed: 2"),
        ({**MODULATED, "transitions": [[0, 1], [0.5, 0.4]]},
         "transitions[1]: the probabilities don't add up to 1 (got 0.9)"),
        ({**MODULATED, "transitions": [[1, 0], [1, 0]]}, "transitions[0]: state 1 is never reached from state 0"),
        ({"kind": "closed", "requests_per_device": 2}, "think: required key is missing"),
        ({"kind": "closed", "requests_per_device": 2, "think": {"law": "exponential", "mean": "-1 s"}},
         "think.mean: time too small (got '-1 s'); allowed: more than 0"),
        ({**MODULATED, "states": [{"rate": "-1 /s", "mean": "1 s"}, STATES[0]]},
         "states[0].rate: rate in time too small (got '-1 /s'); allowed: at least 0"),
        ({"kind": 5}, "kind: a name is expected (got 5); allowed: "
         "closed, diurnal, flash-crowd, mmpp, mooncake, poisson, times, trace, uniform"),
        ({"kind": "closd"}, "kind: unknown arrivals (got 'closd'); allowed: "
         "closed, diurnal, flash-crowd, mmpp, mooncake, poisson, times, trace, uniform; did you mean 'closed'?"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(arrivals, expected, tmp_path):
    data = tiny()
    data["workload"]["arrivals"] = arrivals
    with pytest.raises(ScenarioError) as caught:
        build_scenario(data, base=tmp_path)
    assert str(caught.value) == f"workload.arrivals.{expected}"


def test_gaps_that_leave_virtual_time_are_refused(tmp_path):
    data = tiny()
    think = {"law": "fixed", "value": "36500 d"}
    data["workload"]["arrivals"] = {"kind": "closed", "requests_per_device": 9, "think": think}
    with pytest.raises(ScenarioError, match=r"request 2 comes too late .*allowed: a time in the first 36500 d"):
        prepare(build_scenario(data, base=tmp_path))
