"""From a profile to a live link."""

from __future__ import annotations

import simpy

from testbed.core.errors import ScenarioError
from testbed.core.registry import QUEUES, TRANSPORTS
from testbed.network_models.channel import Channel, build_channel
from testbed.network_models.origin import Origin
from testbed.network_models.ports.packet import Path, Port
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
    paths = (Path(ports=(port_of(env, channel),), entity=entity) for channel in (up, down))
    return transport.over_packets(env, up.framing, *paths)


def port_of(env: simpy.Environment, channel: Channel) -> Port:
    """A port of the channel's own, as its queue wants it."""
    port: Port = QUEUES.load(channel.queue.kind).port(env, channel)
    return port


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
    reasons = [piece.needs_packets for piece in pieces if piece is not None]
    return next(filter(None, [*reasons, _needs_order(profile)]), "")


def _needs_order(profile: LinkProfile) -> str:
    """Why this transport can't be computed ahead of its transmissions; "" where it can or is not."""
    if not profile.transport.looks_ahead:
        return ""
    keeps_order = profile.jitter is not None and not profile.jitter.reorder
    reasons = {
        f"a loss of kind {profile.loss.kind} follows the order of packets": profile.loss.follows_order,
        "copies are made of packets": profile.duplicate > 0,
        "bits of packets go wrong": profile.corrupt > 0,
        "packets keep their order": keeps_order,
    }
    why = next((reason for reason, applies in reasons.items() if applies), "")
    return f"{profile.transport.kind} is computed before its packets are sent, and {why}" if why else ""
