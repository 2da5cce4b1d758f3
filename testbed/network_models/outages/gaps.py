"""Times during which a link carries nothing: holes in coverage, and the short gaps of handovers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from testbed.network_models.rates.segments import Rate, Segment

if TYPE_CHECKING:
    from testbed.network_models.channel import Loss


class Gap(NamedTuple):
    """Whether the link is out from some instant until `end_ns`, exclusive."""

    is_out: bool
    end_ns: int


class Outages(Protocol):
    """A pure function of time. Both directions of a link have the same."""

    def at(self, time_ns: int) -> Gap:
        """What holds at `time_ns`, and until when."""
        ...


@dataclass(frozen=True, slots=True)
class GappedRate:
    """Any rate, and nothing during outages: bits wait."""

    rate: Rate
    outages: Sequence[Outages]

    def segment(self, time_ns: int) -> Segment:
        rate_bps, end_ns = self.rate.segment(time_ns)
        for outages in self.outages:
            is_out, gap_end_ns = outages.at(time_ns)
            if is_out:
                return Segment(0, gap_end_ns)
            end_ns = min(end_ns, gap_end_ns)
        return Segment(rate_bps, end_ns)


@dataclass(frozen=True, slots=True)
class GapLoss:
    """Any loss, and during outages every packet: what is sent then is sent in vain."""

    loss: Loss
    outages: Sequence[Outages]

    def lost(self, packets: Sequence[int], attempt: int) -> list[int]:
        """Never asked: such a link needs packets."""
        return self.loss.lost(packets, attempt)

    def is_lost(self, packet: int, attempt: int, time_ns: int) -> bool:
        """Whether the transmission whose last bit leaves at `time_ns` is lost."""
        return any(outages.at(time_ns).is_out for outages in self.outages) or self.loss.is_lost(
            packet, attempt, time_ns
        )
