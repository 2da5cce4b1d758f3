"""What one direction of a link is made of, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from testbed.core.errors import ScenarioError
from testbed.core.registry import LOSSES, RATES, Registry
from testbed.network_models.framing import Framing
from testbed.network_models.jitter import Jitter
from testbed.network_models.origin import Origin
from testbed.network_models.queues.drop_tail import DropTail
from testbed.network_models.rates.segments import Rate
from testbed.network_models.transfer import Direction
from testbed.scenarios.pieces import PieceConfig, QueueConfig
from testbed.scenarios.profiles import LinkProfile


class Loss(Protocol):
    """Which transmissions never arrive. A packet's number is its place on its link, `attempt` 0 its first sending."""

    def lost(self, packets: Sequence[int], attempt: int) -> list[int]:
        """Those of `packets` (ascending numbers) whose transmission `attempt` is lost.

        First transmissions must be asked for in ascending order over all calls.
        """
        ...

    def is_lost(self, packet: int, attempt: int, time_ns: int) -> bool:
        """Whether one transmission, whose last bit leaves at `time_ns`, is lost: what `lost` says of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One direction of one link: its pieces with their draws."""

    origin: Origin
    framing: Framing
    rate: Rate
    loss: Loss
    jitter: Jitter
    propagation_ns: int
    queue: QueueConfig

    @property
    def queue_limit_bytes(self) -> int:
        """Of a drop-tail queue."""
        assert isinstance(self.queue, DropTail.Config), "other queues need packets"
        return self.queue.limit


def build_channel(profile: LinkProfile, origin: Origin) -> Channel:
    """The pieces of this direction.

    Raises ScenarioError, with the key of the profile, for a file that a piece can't read.
    """
    rate = profile.rate_up if origin.direction is Direction.UP else profile.rate_down
    return Channel(
        origin=origin,
        framing=Framing(mtu_bytes=profile.mtu, header_bytes=profile.header),
        rate=_made(RATES, rate, origin, f"rate_{origin.direction}"),
        loss=_made(LOSSES, profile.loss, origin, "loss"),
        jitter=Jitter(profile.jitter, origin),
        propagation_ns=profile.propagation_delay,
        queue=profile.queue,
    )


def _made(registry: Registry, config: PieceConfig, origin: Origin, path: str) -> Any:
    try:
        return registry.load(config.kind)(config, origin)
    except ScenarioError as error:  # of a file that it reads
        raise error.below(path) from None
