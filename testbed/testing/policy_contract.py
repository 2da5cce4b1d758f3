"""What every policy must hold: subclass `PolicyContract` in a test module, say how one is made, run pytest.

class TestMine(PolicyContract):
    configs = ({"kind": "mine", "aggressive": True},)
    def make_policy(self, config):
        return Mine(Mine.Config(**config))
"""

from __future__ import annotations

import pickle
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from testbed.core.plan import Decision, MessageObservation, Observation
from testbed.core.registry import CODECS
from testbed.core.rng import Stream
from testbed.scenarios.codec_setting import codec_name, read_setting, write_setting
from testbed.sim.choosing import AdaptivePolicy

if TYPE_CHECKING:
    from testbed.sim.choosing import Policy

NUM_OBSERVATIONS = 200
LAYERS = (1, 2, 12, 80)


def random_observation(number: int, num_layers: int) -> Observation:
    """Any device, from nearly full to empty, at any time, asked for anything."""
    draws = Stream.named(17, "policy contract")
    memory_bytes = 2 ** (20 + draws.below(20, 0, number))
    return Observation(
        now_ns=draws.below(10**13, 1, number),
        device_kind=("board", "phone", "")[draws.below(3, 2, number)],
        memory_bytes=memory_bytes,
        free_memory_bytes=draws.below(memory_bytes + 1, 3, number),
        num_layers=num_layers,
        prompt_tokens=1 + draws.below(10_000, 4, number),
        max_output_tokens=1 + draws.below(10_000, 5, number),
    )


def random_message_observation(number: int, codecs: Sequence[str]) -> MessageObservation:
    """Any step of a request on any link; nothing was sent before the first."""
    draws = Stream.named(17, "policy contract, messages")
    step = draws.below(6, 0, number)
    sent = 1 + draws.below(10**6, 1, number) if step else 0
    return MessageObservation(
        now_ns=draws.below(10**13, 2, number),
        step=step,
        split=1 + draws.below(11, 3, number),
        num_layers=12,
        num_tokens=1 if step else 1 + draws.below(10_000, 4, number),
        past_tokens=step * (1 + draws.below(10_000, 5, number)),
        codec=codecs[draws.below(len(codecs), 6, number)],
        bytes_sent=sent * step,
        last_message_bytes=sent,
        last_send_ns=1 + draws.below(10**10, 7, number) if step else 0,
    )


class PolicyContract(ABC):
    """Pure, seeded, bounded: what it answers depends on what it is told and on nothing else."""

    configs: ClassVar[Sequence[Mapping[str, Any]]] = ()

    @abstractmethod
    def make_policy(self, config: Mapping[str, Any]) -> Policy:
        """A fresh policy of this configuration."""

    def answers(self, policy: Policy, num_layers: int) -> list[tuple[Decision, Any]]:
        """A device's decisions one after the other, its state handed on."""
        state: Any = None
        found = []
        for number in range(NUM_OBSERVATIONS):
            decision, state = policy.decide(random_observation(number, num_layers), state)
            found.append((decision, state))
        return found

    def test_there_is_something_to_test(self) -> None:
        assert self.configs, "name at least one configuration"

    def test_splits_lie_between_nothing_and_all_layers(self) -> None:
        for config in self.configs:
            for num_layers in LAYERS:
                splits = self._splits(config, num_layers)
                assert splits, "a policy that never decides"
                assert all(type(split) is int for split in splits)
                assert min(splits) >= 0
                if not self._asks_for_too_much(config, num_layers):
                    assert max(splits) <= num_layers

    def test_decisions_are_among_the_splits_it_has_named(self) -> None:
        for config in self.configs:
            for num_layers in LAYERS:
                named = set(self._splits(config, num_layers))
                for decision, _ in self.answers(self.make_policy(config), num_layers):
                    assert decision.split in named

    def test_decisions_are_among_the_codecs_it_has_named(self) -> None:
        for config in self.configs:
            named = self._codecs(config)
            for decision, _ in self.answers(self.make_policy(config), 12):
                assert decision.codec in named

    def test_codecs_are_settings_as_sessions_know_them(self) -> None:
        for config in self.configs:
            for setting in self._codecs(config):
                assert codec_name(setting) in CODECS
                assert write_setting(read_setting(setting)) == setting

    def test_each_message_gets_one_of_the_codecs_it_has_named_and_always_the_same(self) -> None:
        for config in self.configs:
            policy, again = self.make_policy(config), self.make_policy(config)
            if not isinstance(policy, AdaptivePolicy):
                continue
            assert isinstance(again, AdaptivePolicy)
            named = self._codecs(config)
            for number in range(NUM_OBSERVATIONS):
                observation = random_message_observation(number, named)
                codec = policy.adapt(observation)
                assert codec in named
                again.adapt(random_message_observation(number + 10_000, named))
                assert again.adapt(replace(observation)) == codec

    def test_the_same_observation_and_state_get_the_same_decision(self) -> None:
        for config in self.configs:
            policy = self.make_policy(config)
            for number in range(NUM_OBSERVATIONS):
                observation = random_observation(number, 12)
                assert policy.decide(observation, None) == policy.decide(replace(observation), None)

    def test_what_other_devices_asked_in_between_does_not_matter(self) -> None:
        for config in self.configs:
            shared, alone = self.make_policy(config), self.make_policy(config)
            state_a = state_b = other = None
            for number in range(NUM_OBSERVATIONS):
                observation = random_observation(number, 12)
                _, other = shared.decide(random_observation(number + 10_000, 12), other)
                decision_a, state_a = shared.decide(observation, state_a)
                decision_b, state_b = alone.decide(observation, state_b)
                assert (decision_a, state_a) == (decision_b, state_b)

    def test_a_state_is_not_changed_but_replaced(self) -> None:
        for config in self.configs:
            policy, state = self.make_policy(config), None
            for number in range(NUM_OBSERVATIONS):
                before = pickle.dumps(state)
                _, following = policy.decide(random_observation(number, 12), state)
                assert pickle.dumps(state) == before
                state = following

    def test_no_random_number_of_others_is_used(self) -> None:
        for config in self.configs:
            random.seed(1)
            np.random.seed(1)
            first = self.answers(self.make_policy(config), 12)
            random.seed(2)
            np.random.seed(2)
            kept = random.getstate()
            assert self.answers(self.make_policy(config), 12) == first
            assert random.getstate() == kept

    def _splits(self, config: Mapping[str, Any], num_layers: int) -> Sequence[int]:
        return self.make_policy(config).splits(num_layers)

    def _codecs(self, config: Mapping[str, Any]) -> Sequence[str]:
        codecs = self.make_policy(config).codecs()
        assert codecs, "a policy that never decides"
        return codecs

    def _asks_for_too_much(self, config: Mapping[str, Any], num_layers: int) -> bool:
        """A split that the user has fixed beyond the model's layers is refused before anything runs."""
        return bool(config.get("split", 0) > num_layers)
