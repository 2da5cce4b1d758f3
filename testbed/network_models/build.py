"""From a profile to a live link."""

from __future__ import annotations

import simpy

from testbed.core.errors import ScenarioError
from testbed.core.registry import TRANSPORTS
from testbed.network_models.channel import build_channel
from testbed.network_models.origin import Origin
from testbed.network_models.ports.fifo import FifoPort
from testbed.network_models.ports.packet import Path
from testbed.network_models.transfer import Direction, Link
from testbed.network_models.transports.transport import Access, Transport
from testbed.scenarios.profiles import LinkProfile


def build_access(env: simpy.Environment, profile: LinkProfile, *, entity: int, seed: int) -> Access:
    """Both directions of one link; `entity` keys its draws."""
    up, down = (
        build_channel(profile, Origin(seed=seed, direction=direction, entity=entity)) for direction in Direction
    )
    transport: Transport = TRANSPORTS.load(profile.transport.kind)(profile.transport)
    if resolution(profile) == "messages":
        return transport.over_messages(env, up, down)
    paths = (Path(ports=(FifoPort(env, channel),), entity=entity) for channel in (up, down))
    return transport.over_packets(env, up.framing, *paths)


def one_way(env: simpy.Environment, profile: LinkProfile, direction: Direction, *, entity: int, seed: int) -> Link:
    """One direction of a link of its own."""
    access = build_access(env, profile, entity=entity, seed=seed)
    return access.up if direction is Direction.UP else access.down


def check_link(profile: LinkProfile) -> None:
    """Raise ScenarioError for what can be known to be wrong before anything is sent: files, resolution."""
    resolution(profile)
    for direction in Direction:
        build_channel(profile, Origin(seed=0, direction=direction, entity=0))


def resolution(profile: LinkProfile) -> str:
    """``messages`` or ``packets``; `auto` takes messages wherever they give the same answer.

    Raises ScenarioError where messages are asked for and a piece can't have them.
    """
    reason = needs_packets(profile)
    if profile.resolution == "messages" and reason:
        raise ScenarioError(
            f"this link can't be computed by messages: {reason}", path="resolution", value="messages",
            allowed="packets, auto",
        )  # fmt: skip
    return "packets" if reason or profile.resolution == "packets" else "messages"


def needs_packets(profile: LinkProfile) -> str:
    """Why the link can't be computed by messages; "" where it can."""
    pieces = (profile.rate_up, profile.rate_down, profile.jitter, profile.loss, profile.queue, profile.transport)
    return next((piece.needs_packets for piece in pieces if piece is not None and piece.needs_packets), "")
