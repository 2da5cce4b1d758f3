"""Links for tests: one direction of a profile, profiles with changes."""

from __future__ import annotations

from testbed.network_models.build import one_way
from testbed.network_models.transfer import Direction
from testbed.scenarios.profiles import LinkProfile


def link_of(env, profile, *, direction=Direction.UP, entity=0, seed=1):
    """One direction of a fresh link."""
    return one_way(env, profile, direction, entity=entity, seed=seed)


def changed(profile, **changes):
    """The profile with other values, read as a file's would be."""
    return LinkProfile(**{**profile.model_dump(mode="json", exclude_none=True), **changes})


def arq(**config):
    """Selective repeat with these settings."""
    return {"kind": "selective-repeat", **config}
