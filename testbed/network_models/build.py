"""From a profile to a live link."""

from __future__ import annotations

import simpy

from testbed.core.registry import LINKS
from testbed.network_models.transfer import Direction, Link
from testbed.scenarios.profiles import LinkProfile


def build_link(env: simpy.Environment, profile: LinkProfile, direction: Direction, entity: int, seed: int) -> Link:
    """The link model that the profile names; raises ScenarioError, with the nearest name, when there is none such."""
    link: Link = LINKS.load(profile.model)(env, profile=profile, direction=direction, entity=entity, seed=seed)
    return link
