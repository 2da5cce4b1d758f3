from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from testbed.core.plan import Decision
from testbed.core.registry import POLICIES
from testbed.policies.adaptive import Ladder, Phases
from testbed.policies.fixed import CloudOnly, EdgeOnly, Static
from testbed.testing.policy_contract import PolicyContract, random_message_observation, random_observation


class TestStatic(PolicyContract):
    configs = ({"split": 0}, {"split": 1, "codec": "int4"}, {"split": 12, "codec": "raw-bfloat16"})

    def make_policy(self, config):
        return Static(Static.Config(**config))

    def test_it_does_what_it_is_told(self):
        policy = Static(Static.Config(split=7, codec="int8"))
        assert policy.decide(random_observation(0, 12), None) == (Decision(split=7, codec="int8"), None)


class TestCloudOnly(PolicyContract):
    configs = ({},)

    def make_policy(self, config):
        return CloudOnly(CloudOnly.Config(**config))

    def test_nothing_runs_on_the_device(self):
        assert self.make_policy({}).splits(12) == (0,)


class TestEdgeOnly(PolicyContract):
    configs = ({},)

    def make_policy(self, config):
        return EdgeOnly(EdgeOnly.Config(**config))

    def test_all_layers_run_on_the_device(self):
        decision, _ = self.make_policy({}).decide(random_observation(0, 80), None)
        assert decision.split == 80


class TestPhases(PolicyContract):
    configs = ({"split": 3, "prefill": "int4", "decode": "int8"}, {"split": 0, "prefill": "fp8", "decode": "fp8"})

    def make_policy(self, config):
        return Phases(Phases.Config(**config))

    def test_the_prompt_has_one_codec_and_every_step_the_other(self):
        policy = self.make_policy(self.configs[0])
        for number in range(50):
            observation = random_message_observation(number, policy.codecs())
            assert policy.adapt(observation) == ("int8" if observation.step else "int4")


class TestLadder(PolicyContract):
    configs = (
        {
            "split": 3,
            "rungs": ["int8", "ts-tabq(delta=0.2)", "int4"],
            "coarser_below": "1 Mbit/s",
            "finer_above": "4 Mbit/s",
        },
    )

    def make_policy(self, config):
        return Ladder(Ladder.Config(**config))

    @pytest.mark.parametrize(
        ("mbit_s", "before", "after"),
        [(0.5, 0, 1), (0.5, 1, 2), (0.5, 2, 2), (2, 1, 1), (1, 0, 0), (4, 2, 2), (5, 2, 1), (5, 1, 0), (5, 0, 0)],
    )
    def test_one_rung_at_a_time(self, mbit_s, before, after):
        policy = self.make_policy(self.configs[0])
        sent = {"step": 3, "last_message_bytes": 1000, "last_send_ns": round(8000 / mbit_s * 1000)}
        observation = replace(random_message_observation(0, policy.codecs()), codec=policy.codecs()[before], **sent)
        assert policy.adapt(observation) == policy.codecs()[after]

    def test_nothing_measured_nothing_changed(self):
        policy = self.make_policy(self.configs[0])
        sent = {"step": 0, "last_message_bytes": 0, "last_send_ns": 0}
        observation = replace(random_message_observation(0, policy.codecs()), codec="int4", **sent)
        assert policy.adapt(observation) == "int4"

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"rungs": ["int8"]}, "rungs"),
            ({"rungs": ["int8", "int8"]}, "the same"),
            ({"finer_above": "1 Mbit/s"}, "too"),
        ],
    )
    def test_what_is_no_ladder_is_refused(self, changes, said):
        with pytest.raises(ValueError, match=said):
            Ladder.Config(**{**self.configs[0], **changes})


def test_every_registered_policy_has_its_contract_tested():
    tested = {
        suite.make_policy(suite(), dict(suite.configs[0])).Config.model_fields["kind"].default for suite in SUITES
    }
    assert tested == set(POLICIES)


SUITES = (TestStatic, TestCloudOnly, TestEdgeOnly, TestPhases, TestLadder)


class Wayward(CloudOnly):
    """Names one codec, and changes to another."""

    def adapt(self, observation):
        return "int4"


class Fickle(CloudOnly):
    def codecs(self):
        return ("int4", "int8")

    def adapt(self, observation):
        return random.choice(self.codecs())


class Dice(CloudOnly):
    def decide(self, observation, state=None):
        return Decision(split=random.randint(0, observation.num_layers), codec="int8"), state

    def splits(self, num_layers):
        return range(num_layers + 1)


class Counting(Dice):
    """Keeps what it knows to itself, so that devices influence each other."""

    def __init__(self, config):
        self._count = itertools.count()

    def decide(self, observation, state=None):
        return Decision(split=next(self._count) % 2, codec="int8"), state


class Grows(CloudOnly):
    """Writes into the state it was given."""

    def decide(self, observation, state=None):
        state = state if state is not None else []
        state.append(observation.now_ns)
        return self._decision, state


class Secretive(CloudOnly):
    def decide(self, observation, state=None):
        return Decision(split=1, codec="int8"), state


class Beyond(CloudOnly):
    def splits(self, num_layers):
        return (num_layers + 1,)


class Misspelt(CloudOnly):
    def decide(self, observation, state=None):
        return Decision(split=0, codec="int-8"), state


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Dice, "test_the_same_observation_and_state_get_the_same_decision"),
        (Dice, "test_no_random_number_of_others_is_used"),
        (Counting, "test_what_other_devices_asked_in_between_does_not_matter"),
        (Grows, "test_a_state_is_not_changed_but_replaced"),
        (Secretive, "test_decisions_are_among_the_splits_it_has_named"),
        (Beyond, "test_splits_lie_between_nothing_and_all_layers"),
        (Misspelt, "test_decisions_are_among_the_codecs_it_has_named"),
        (Wayward, "test_each_message_gets_one_of_the_codecs_it_has_named_and_always_the_same"),
        (Fickle, "test_each_message_gets_one_of_the_codecs_it_has_named_and_always_the_same"),
    ],
)
def test_the_contract_finds_a_broken_policy(broken, test):
    class Suite(PolicyContract):
        configs = ({},)

        def make_policy(self, config):
            return broken(CloudOnly.Config())

    with pytest.raises(AssertionError):
        getattr(Suite(), test)()
