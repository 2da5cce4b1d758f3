from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.network_models.build import build_link
from testbed.network_models.link import BasicLink
from testbed.testing.link_contract import LinkContract


class TestBasicLink(LinkContract):
    def make_link(self, env, *, profile, direction, entity, seed):
        return build_link(env, profile, direction, entity, seed)


class TooFast(TestBasicLink):
    def make_link(self, env, *, profile, direction, entity, seed):
        faster = profile.model_copy(update={"rate_up": 2 * profile.rate_up, "rate_down": 2 * profile.rate_down})
        return BasicLink(env, profile=faster, direction=direction, entity=entity, seed=seed)


class LossierThanItSays(TestBasicLink):
    def make_link(self, env, *, profile, direction, entity, seed):
        lossier = profile.model_copy(update={"loss": profile.loss * 1.2})
        return BasicLink(env, profile=lossier, direction=direction, entity=entity, seed=seed)


class SharedDraws(TestBasicLink):
    """All links draw from one sequence: how many messages others sent decides a message's fate."""

    def make_link(self, env, *, profile, direction, entity, seed):
        return self.shared.setdefault(env, BasicLink(env, profile=profile, direction=direction, entity=0, seed=seed))

    def run_link(self, messages, **changes):
        self.shared = {}
        return super().run_link(messages, **changes)


class LeakyAccount(TestBasicLink):
    class Link(BasicLink):
        def snapshot(self):
            account = super().snapshot()
            return replace(account, delivered_payload_bytes=account.delivered_payload_bytes - 1)

    def make_link(self, env, *, profile, direction, entity, seed):
        return self.Link(env, profile=profile, direction=direction, entity=entity, seed=seed)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (TooFast, "test_none_is_faster_than_rate_and_propagation"),
        (TooFast, "test_all_together_are_not_faster_than_the_rate"),
        (LossierThanItSays, "test_packets_are_lost_as_often_as_the_profile_says"),
        (SharedDraws, "test_another_links_traffic_changes_no_draw"),
        (SharedDraws, "test_seed_entity_and_direction_each_give_other_draws"),
        (LeakyAccount, "test_every_message_ends_and_its_bytes_are_accounted_for"),
    ],
)
def test_the_contract_finds_a_broken_link(broken, test):
    with pytest.raises(AssertionError):
        getattr(broken(), test)()
