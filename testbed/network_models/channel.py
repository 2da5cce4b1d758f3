"""What one direction of a link is made of, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from testbed.core.errors import ScenarioError
from testbed.core.registry import LOSSES, OUTAGES, RATES
from testbed.network_models.framing import Framing
from testbed.network_models.jitter import Jitter
from testbed.network_models.losses.bernoulli import Bernoulli
from testbed.network_models.origin import Origin
from testbed.network_models.outages.gaps import GapLoss, GappedRate
from testbed.network_models.rates.segments import Rate
from testbed.network_models.transfer import Direction
from testbed.scenarios.pieces import QueueConfig
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

    framing: Framing
    rate: Rate
    loss: Loss
    duplication: Loss | None  # which of the packets that are not lost arrive once more
    corruption: Loss | None  # which of them arrive with a wrong bit
    jitter: Jitter
    keeps_order: bool  # what leaves later never arrives earlier, whatever its jitter
    propagation_ns: int
    queue: QueueConfig

    @property
    def delays_alike(self) -> bool:
        """Whether packets of a message that were sent together come out as they left, each once and right."""
        is_right = self.corruption is None and self.duplication is None
        return is_right and not self.keeps_order and not self.jitter.of_packets

    def missing(self, packets: Sequence[int], attempt: int) -> tuple[list[int], list[int]]:
        """Of these transmissions those that are lost, and those of the others that come with a wrong bit."""
        lost = self.loss.lost(packets, attempt)
        if self.corruption is None:
            return lost, []
        return lost, self.corruption.lost([packet for packet in packets if packet not in lost], attempt)


def framing_of(profile: LinkProfile) -> Framing:
    return _framing(profile.mtu, profile.header)


def build_channel(profile: LinkProfile, origin: Origin) -> Channel:
    """The pieces of this direction.

    Raises ScenarioError, with the key of the profile, for a file that a piece can't read.
    """
    config = profile.rate_up if origin.direction is Direction.UP else profile.rate_down
    key = f"rate_{origin.direction}"
    try:
        rate: Rate = RATES.load(config.kind)(config, origin)
        key = "loss"
        loss: Loss = LOSSES.load(profile.loss.kind)(profile.loss, origin, rate)
        key = "jitter"
        jitter = Jitter(profile.jitter, origin)
    except ScenarioError as error:
        raise error.below(key) from None
    if profile.outages:
        rate, loss = _with_outages(profile, origin, rate, loss)
    return Channel(
        framing=framing_of(profile),
        rate=rate,
        loss=loss,
        duplication=Bernoulli(profile.duplicate, origin, "duplicate") if profile.duplicate else None,
        corruption=Bernoulli(profile.corrupt, origin, "corrupt") if profile.corrupt else None,
        jitter=jitter,
        keeps_order=profile.jitter is not None and not profile.jitter.reorder,
        propagation_ns=profile.propagation_delay,
        queue=profile.queue,
    )


def _with_outages(profile: LinkProfile, origin: Origin, rate: Rate, loss: Loss) -> tuple[Rate, Loss]:
    made = [(config, OUTAGES.load(config.kind)(config, origin, place)) for place, config in enumerate(profile.outages)]
    waits, drops = ([outages for config, outages in made if config.drop == drop] for drop in (False, True))
    return GappedRate(rate, waits) if waits else rate, GapLoss(loss, drops) if drops else loss


@lru_cache(maxsize=256)  # links of one profile share it
def _framing(mtu_bytes: int, header_bytes: int) -> Framing:
    return Framing(mtu_bytes=mtu_bytes, header_bytes=header_bytes)
