from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from testbed.testing.link_contract import LinkContract
from tests.links import changed, link_of
from tests.resolutions.grid import KINDS, SETTINGS, refusal


class OnALink(LinkContract):
    def make_link(self, env, *, profile, direction, entity, seed):
        return link_of(env, profile, direction=direction, entity=entity, seed=seed)


class TestSelectiveRepeat(OnALink):
    """As a profile has it that says nothing else."""


def _contracts():
    """A class for each transport and each of its resolutions; those that react to acknowledgements take a minute."""
    for kind, resolution in product(KINDS, ("packets", "messages")):
        reacts = bool(refusal(kind))
        if resolution == "messages" and reacts:
            continue
        fields = {"transport": {"kind": kind, **SETTINGS.get(kind, {})}, "resolution": resolution}
        body = {"fields": fields, "reacts": reacts, "in_order": kind != "quic"}
        body |= {"pytestmark": [pytest.mark.slow]} if reacts else {}
        name = f"Test_{kind}_by_{resolution}".replace("-", "_")
        yield name, type(name, (OnALink,), body)


globals().update(_contracts())


class TooFast(TestSelectiveRepeat):
    def make_link(self, env, *, profile, direction, entity, seed):
        rates = {name: f"{2 * getattr(profile, name).rate} bit/s" for name in ("rate_up", "rate_down")}
        return link_of(env, changed(profile, **rates), direction=direction, entity=entity, seed=seed)


class LossierThanItSays(TestSelectiveRepeat):
    def make_link(self, env, *, profile, direction, entity, seed):
        lossier = changed(profile, loss=profile.loss.p * 1.2)
        return link_of(env, lossier, direction=direction, entity=entity, seed=seed)


class SharedDraws(TestSelectiveRepeat):
    """All links draw from one sequence: how many messages others sent decides a message's fate."""

    def make_link(self, env, *, profile, direction, entity, seed):
        return self.shared.setdefault(env, link_of(env, profile, direction=direction, seed=seed))

    def run_link(self, messages, **changes):
        self.shared = {}
        return super().run_link(messages, **changes)


class LeakyAccount(TestSelectiveRepeat):
    def run_link(self, messages, **changes):
        run = super().run_link(messages, **changes)
        leaky = replace(run.account, delivered_payload_bytes=run.account.delivered_payload_bytes - 1)
        return replace(run, account=leaky)


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
