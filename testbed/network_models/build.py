"""From a profile to a live link."""

from __future__ import annotations

from typing import NamedTuple

import simpy

from testbed.core.errors import ScenarioError
from testbed.core.registry import QUEUES, TRANSPORTS
from testbed.network_models.channel import Channel, build_channel, framing_of
from testbed.network_models.origin import Origin
from testbed.network_models.ports.packet import Path, Port
from testbed.network_models.radio import behind_radio, radio_of
from testbed.network_models.sharing.cell import Seat
from testbed.network_models.transfer import Direction, Link
from testbed.network_models.transports.transport import Access, Transport
from testbed.scenarios.profiles import LinkProfile

_IN_CELL = "when a packet leaves depends on what the cell's other links send later"


class Ports(NamedTuple):
    """The device's end and the network's end of a link, at resolution `packets`."""

    up: Port
    down: Port


def build_access(
    env: simpy.Environment, profile: LinkProfile, *, entity: int, seed: int, seat: Seat | None = None
) -> Access:
    """Both directions of one link; `entity` keys its draws. Without a seat in a cell its air is its own."""
    if resolution(profile, in_cell=seat is not None) == "messages":
        up, down = _origins(entity=entity, seed=seed)
        access = _transport(profile).over_messages(env, build_channel(profile, up), build_channel(profile, down))
    else:
        ports = build_ports(env, profile, entity=entity, seed=seed, seat=seat)
        up_path, down_path = Path(ports=(ports.up,), entity=entity), Path(ports=(ports.down,), entity=entity)
        access = connect(env, profile, up_path, down_path)
    return behind_radio(env, access, radio_of(profile))


def build_ports(
    env: simpy.Environment, profile: LinkProfile, *, entity: int, seed: int, seat: Seat | None = None
) -> Ports:
    """The ports of a link on its own, that connections to several servers may share."""
    origins = _origins(entity=entity, seed=seed)
    (up, up_origin), (down, down_origin) = ((build_channel(profile, origin), origin) for origin in origins)
    if seat is None:
        return Ports(port_of(env, up), port_of(env, down))
    return Ports(seat.port(up, up_origin), seat.port(down, down_origin))


def connect(env: simpy.Environment, profile: LinkProfile, up: Path, down: Path) -> Access:
    """The link's transport between the ends of two paths."""
    return _transport(profile).over_packets(env, framing_of(profile), up, down)


def _origins(*, entity: int, seed: int) -> tuple[Origin, Origin]:
    """Of the link up and of the link down."""
    return (
        Origin(seed=seed, direction=Direction.UP, entity=entity),
        Origin(seed=seed, direction=Direction.DOWN, entity=entity),
    )


def _transport(profile: LinkProfile) -> Transport:
    transport: Transport = TRANSPORTS.load(profile.transport.kind)(profile.transport)
    return transport


def port_of(env: simpy.Environment, channel: Channel) -> Port:
    """A port of the channel's own, as its queue wants it."""
    port: Port = QUEUES.load(channel.queue.kind).port(env, channel)
    return port


def one_way(env: simpy.Environment, profile: LinkProfile, direction: Direction, *, entity: int, seed: int) -> Link:
    """One direction of a link of its own."""
    access = build_access(env, profile, entity=entity, seed=seed)
    return access.up if direction is Direction.UP else access.down


def check_link(profile: LinkProfile, *, in_cell: bool = False) -> None:
    """Raise ScenarioError for what can be known to be wrong before anything is sent: files, resolution."""
    resolution(profile, in_cell=in_cell)
    for direction in Direction:
        build_channel(profile, Origin(seed=0, direction=direction, entity=0))


def resolution(profile: LinkProfile, *, in_cell: bool = False) -> str:
    """``messages`` or ``packets``; `auto` takes messages wherever they give the same answer.

    Raises ScenarioError where messages are asked for and a piece can't have them.
    """
    if profile.resolution == "packets":
        return "packets"
    reason = needs_packets(profile) or (_IN_CELL if in_cell else "")
    if profile.resolution == "messages" and reason:
        raise ScenarioError(
            f"this link can't be computed by messages: {reason}", path="resolution", value="messages",
            allowed="packets, auto",
        )  # fmt: skip
    return "packets" if reason else "messages"


def needs_packets(profile: LinkProfile) -> str:
    """Why the link can't be computed by messages; "" where it can."""
    pieces = (profile.rate_up, profile.rate_down, profile.jitter, profile.loss, profile.queue, profile.transport)
    reasons = [piece.needs_packets for piece in (*pieces, *profile.outages) if piece is not None]
    return next(filter(None, [*reasons, _needs_order(profile)]), "")


def _needs_order(profile: LinkProfile) -> str:
    """Why packets' fates can't be drawn ahead of their sending; "" where they can, or are not."""
    if not (profile.transport.looks_ahead and profile.loss.follows_order):
        return ""
    return (
        f"{profile.transport.kind} draws the fates of packets before they are sent, and a loss of kind "
        f"{profile.loss.kind} follows the order of sending"
    )
