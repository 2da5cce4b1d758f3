"""Rates for tests, read as a profile's file would be."""

from __future__ import annotations

from testbed.core.registry import RATES
from testbed.network_models.origin import Origin
from testbed.network_models.transfer import Direction
from testbed.scenarios.problems import validate


def rate_of(kind, *, seed=1, direction=Direction.UP, entity=0, **keys):
    """One direction's rate."""
    made = RATES.load(kind)
    config = validate(made.Config, {"kind": kind, **keys})
    return made(config, Origin(seed=seed, direction=direction, entity=entity))


def trace_of(file, kind, **keys):
    """The rate in a trace file."""
    return rate_of("trace", file=str(file), format=kind, **keys)
