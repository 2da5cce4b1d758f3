"""The requests of a scenario: arrivals, lengths and prompts, each keyed so that nobody else can change them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from testbed.core.errors import ScenarioError
from testbed.scenarios.laws import EmpiricalLength, FixedLength, LognormalLength, UniformLength
from testbed.sim.requests import Workloads
from testbed.workloads.lengths import length_law
from tests.sim_runs import MS, TINY_SOURCE, S, group, requests_of, scenario, workload

ALPHA = 1e-4  # how often a right generator would fail a statistical test, were its seed not fixed


def poisson(rate=2, count=5):
    return {"kind": "poisson", "rate_per_device": f"{rate} /s", "requests_per_device": count}


def random_prompts(**law):
    return {"kind": "random", "length": law or {"law": "uniform", "low": 1, "high": 50}}


def varied(**changes):
    """Everything drawn: gaps, lengths of prompts and answers, and ids."""
    outputs = {"law": "lognormal", "mean": 20, "std": 10, "max": 60}
    return workload(**{"arrivals": poisson(), "prompts": random_prompts(), "output_tokens": outputs, **changes})


def asked_of(requests, group_index, first_device=0):
    """What the devices of one group are asked, without the numbers that the run gives."""
    return [
        (
            item.device - first_device,
            item.arrival_ns,
            item.num_prompt_tokens,
            item.prompt,
            item.max_output_tokens,
            item.sampling_seed,
        )
        for item in requests
        if item.group == group_index
    ]


class TestArrivals:
    def test_gaps_are_exponential(self):
        many = workload(arrivals=poisson(rate=4, count=2000))
        requests = requests_of(scenario(fleet=[group(count=5)], workload=many, seed=3))
        for device in range(5):
            arrivals = [item.arrival_ns for item in requests if item.device == device]
            gaps = np.diff([0, *arrivals]) / S
            assert stats.kstest(gaps, stats.expon(scale=1 / 4).cdf).pvalue > ALPHA

    def test_counts_in_a_window_are_poisson(self):
        many = workload(arrivals=poisson(rate=10, count=60))  # which nobody reaches within a second
        requests = requests_of(scenario(fleet=[group(count=400)], workload=many, seed=4))
        within = Counter(item.device for item in requests if item.arrival_ns < S)
        counts = [within[device] for device in range(400)]
        assert max(counts) < 60
        dispersion = np.var(counts, ddof=1) / np.mean(counts) * (len(counts) - 1)
        assert stats.chi2.cdf(dispersion, 399) == pytest.approx(0.5, abs=0.5 - ALPHA)
        assert stats.poisson(400 * 10).cdf(sum(counts)) == pytest.approx(0.5, abs=0.5 - ALPHA)

    def test_devices_and_seeds_differ(self):
        first = requests_of(scenario(fleet=[group(count=20)], workload=varied(), seed=1))
        assert len({item.arrival_ns for item in first}) == len(first)
        second = requests_of(scenario(fleet=[group(count=20)], workload=varied(), seed=2))
        assert not {item.arrival_ns for item in first} & {item.arrival_ns for item in second}

    def test_times_are_sent_by_every_device_in_order(self):
        requests = requests_of(
            scenario(fleet=[group(count=2)], workload=workload(arrivals={"kind": "times", "times": ["2 s", "1 s"]}))
        )
        assert [(item.arrival_ns, item.device) for item in requests] == [(S, 0), (S, 1), (2 * S, 0), (2 * S, 1)]

    def test_numbers_go_by_arrival_then_device(self):
        fleet = [group("a", count=3), group("b", count=2)]
        requests = requests_of(scenario(fleet=fleet, workload=varied()))
        assert [item.request for item in requests] == list(range(25))
        order = [(item.arrival_ns, item.device) for item in requests]
        assert order == sorted(order)
        assert {item.device for item in requests if item.group == 1} == {3, 4}

    def test_an_rate_is_a_mean(self):
        requests = requests_of(scenario(workload=workload(arrivals=poisson(rate=5, count=5000))))
        mean_s = requests[-1].arrival_ns / S / 5000
        assert abs(mean_s - 0.2) < stats.norm.ppf(1 - ALPHA / 2) * 0.2 / np.sqrt(5000)


class TestKeys:
    """A device's requests depend on its own group alone."""

    def test_same_scenario_same_requests(self):
        built = scenario(fleet=[group(count=4)], workload=varied())
        assert requests_of(built) == requests_of(built)

    @pytest.mark.parametrize("prompts", ["random", "ids"])
    @pytest.mark.parametrize("where", ["before", "behind"])
    def test_another_group_changes_nothing(self, where, prompts):
        chosen = {"kind": "ids", "ids": [[n] * (n + 1) for n in range(11)]} if prompts == "ids" else random_prompts()
        asks = varied(prompts=chosen)
        alone = requests_of(scenario(fleet=[group("mine", count=3)], workload=asks))
        fleet = [group("mine", count=3), group("others", count=5)]
        if where == "before":
            fleet.reverse()
        together = requests_of(scenario(fleet=fleet, workload=asks))
        mine, first = (1, 5) if where == "before" else (0, 0)
        assert asked_of(together, mine, first) == asked_of(alone, 0)

    @pytest.mark.parametrize("prompts", ["random", "ids"])
    def test_another_device_in_the_group_changes_nothing_for_the_rest(self, prompts):
        chosen = {"kind": "ids", "ids": [[n] * (n + 1) for n in range(11)]} if prompts == "ids" else random_prompts()
        asks = varied(prompts=chosen)
        three = asked_of(requests_of(scenario(fleet=[group(count=3)], workload=asks)), 0)
        four = asked_of(requests_of(scenario(fleet=[group(count=4)], workload=asks)), 0)
        assert [item for item in four if item[0] < 3] == three

    def test_groups_of_the_same_workload_are_asked_different_things(self):
        requests = requests_of(scenario(fleet=[group("a"), group("b")], workload=varied()))
        first, second = asked_of(requests, 0), asked_of(requests, 1, 1)
        assert all(mine[1] != theirs[1] for mine, theirs in zip(first, second, strict=True))

    def test_device_and_policy_change_no_request(self):
        one = scenario(workload=varied(), policy="cloud-only")
        two = scenario(workload=varied(), policy={"kind": "static", "split": 1, "codec": "int4"})
        assert requests_of(one) == requests_of(two)

    def test_real_and_modelled_groups_are_asked_the_same(self):
        modelled = requests_of(scenario(fleet=[group(count=2)], workload=varied()))
        real = requests_of(scenario(fleet=[group(count=2, compute="real")], workload=varied()))
        assert [len(item.prompt) for item in real] == [item.num_prompt_tokens for item in modelled]
        assert all(item.prompt is None for item in modelled)
        shared = [(item.arrival_ns, item.num_prompt_tokens, item.max_output_tokens) for item in real]
        assert shared == [(item.arrival_ns, item.num_prompt_tokens, item.max_output_tokens) for item in modelled]


class TestPrompts:
    def test_ids_are_taken_in_turn_device_after_device(self):
        ids = [[number] for number in range(5)]
        asks = workload(arrivals={"kind": "times", "times": ["1 s", "2 s"]}, prompts={"kind": "ids", "ids": ids})
        requests = requests_of(scenario(fleet=[group(count=3, compute="real")], workload=asks))
        taken = {(item.device, item.arrival_ns // S): item.prompt for item in requests}
        assert taken == {(0, 1): (0,), (0, 2): (1,), (1, 1): (2,), (1, 2): (3,), (2, 1): (4,), (2, 2): (0,)}

    def test_random_ids_are_uniform_over_the_vocabulary(self):
        asks = workload(arrivals=poisson(count=20), prompts=random_prompts(law="fixed", value=500))
        requests = requests_of(scenario(fleet=[group(compute="real")], workload=asks))
        counts = np.bincount([token for item in requests for token in item.prompt], minlength=64)
        assert len(counts) == 64
        assert stats.chisquare(counts).pvalue > ALPHA
        assert len({item.prompt for item in requests}) == 20

    @pytest.mark.parametrize("ids", [[[64]], [[-1]], [[]], [[1], [2, 64]]])
    def test_ids_outside_the_vocabulary_are_refused(self, ids):
        with pytest.raises(ScenarioError):
            requests_of(scenario(workload=workload(prompts={"kind": "ids", "ids": ids})))

    def test_texts_are_encoded_by_the_tokenizer_which_is_loaded_once(self):
        loads = []

        class Letters:
            def encode(self, text):
                return [ord(letter) % 64 for letter in text]

        def load():
            loads.append(1)
            return Letters()

        built = scenario(workload=workload(prompts={"kind": "text", "texts": ["ab", "abc"]}))
        requests = Workloads(built, vocab_size=64, tokenizer=load).requests()
        assert requests[0].num_prompt_tokens == 2
        assert loads == [1]

    def test_a_text_without_a_token_is_refused(self):
        class Mute:
            def encode(self, text):
                return []

        built = scenario(workload=workload(prompts={"kind": "text", "texts": [" "]}))
        with pytest.raises(ScenarioError, match="no token"):
            Workloads(built, vocab_size=64, tokenizer=Mute).requests()


class TestTraces:
    @pytest.fixture
    def trace(self, tmp_path):
        rows = [f"{0.5 * number},{number + 1},{2 * number + 1}" for number in range(40)]
        file = tmp_path / "trace.csv"
        file.write_text("\n".join(["when,prompt,answer", *rows]) + "\n")
        columns = {"time_column": "when", "prompt_column": "prompt", "output_column": "answer"}
        return {"kind": "trace", "file": str(file), **columns}

    def test_rows_become_requests_with_their_lengths(self, trace):
        requests = requests_of(scenario(fleet=[group(count=4)], workload=varied(arrivals=trace)))
        rows = [(item.arrival_ns, item.num_prompt_tokens, item.max_output_tokens) for item in requests]
        assert rows == [(500 * MS * number, number + 1, 2 * number + 1) for number in range(40)]
        assert {item.device for item in requests} == {0, 1, 2, 3}

    def test_a_limit_takes_the_first_rows(self, trace):
        requests = requests_of(scenario(workload=varied(arrivals={**trace, "limit": 7})))
        assert [item.num_prompt_tokens for item in requests] == [1, 2, 3, 4, 5, 6, 7]

    def test_devices_take_rows_evenly_and_whatever_else_there_is(self, trace):
        many = {**trace, "prompt_column": None}
        alone = requests_of(scenario(fleet=[group("mine", count=4)], workload=varied(arrivals=many)))
        fleet = [group("others", count=9), group("mine", count=4)]
        together = requests_of(scenario(fleet=fleet, workload=varied(arrivals=many)))
        assert asked_of(together, 1, 9) == asked_of(alone, 0)

    def test_lengths_are_drawn_where_the_trace_has_none(self, trace):
        drawn = {**trace, "prompt_column": None, "output_column": None}
        requests = requests_of(scenario(workload=varied(arrivals=drawn)))
        assert len({item.num_prompt_tokens for item in requests}) > 10
        assert len({item.max_output_tokens for item in requests}) > 10


class TestLengths:
    GRID = (np.arange(20_000) + 0.5) / 20_000

    def counts(self, length):
        return Counter(length_law(length).at(self.GRID).tolist())

    def at(self, length, u):
        return int(length_law(length).at(np.array([u]))[0])

    def test_fixed(self):
        assert self.counts(FixedLength(law="fixed", value=9)) == {9: 20_000}

    def test_uniform_has_both_ends_and_equal_shares(self):
        counts = self.counts(UniformLength(law="uniform", low=3, high=7))
        assert counts == dict.fromkeys(range(3, 8), 4000)
        largest = 1 - 2.0**-53
        assert self.at(UniformLength(law="uniform", low=1, high=10**6 + 1), largest) == 10**6 + 1

    def test_empirical_gives_each_value_its_share(self):
        assert self.counts(EmpiricalLength(law="empirical", values=[5, 1, 5, 8])) == {5: 10_000, 1: 5000, 8: 5000}

    def test_lognormal_is_rounded_and_cut(self):
        length = LognormalLength(law="lognormal", mean=50, std=30, max=400)
        values = length_law(length).at(self.GRID)
        sigma = np.sqrt(np.log1p(0.36))
        law = stats.lognorm(sigma, scale=50 / np.sqrt(1.36))
        assert values.mean() == pytest.approx(50, rel=1e-2)
        assert np.quantile(values, [0.1, 0.5, 0.9]) == pytest.approx(law.ppf([0.1, 0.5, 0.9]), abs=1)
        assert self.at(length, 1 - 2.0**-53) == 400
        assert self.at(LognormalLength(law="lognormal", mean=1, std=5, max=400), 0.0) == 1


def test_ignoring_the_end_of_text_is_passed_on():
    assert requests_of(scenario(workload=workload(ignore_eos=True)))[0].ignore_eos
    assert not requests_of(scenario())[0].ignore_eos


def test_the_model_of_these_tests_has_its_vocabulary():
    assert TINY_SOURCE.shape.vocab_size == 64
