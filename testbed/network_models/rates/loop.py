"""A finite list of segments that is repeated for ever."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.network_models.rates.segments import Segment

I64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Segment i has `rates[i]` bit/s from `starts[i]` ns, the first from 0, until the next; the last until the period.

    In the very first lap only `lead_ns` of the first segment exist: the rest of it belongs to the end of a lap before.
    """

    starts: array[int]
    rates: array[int]
    period_ns: int
    lead_ns: int

    def segment(self, time_ns: int, offset_ns: int) -> Segment:
        """At `time_ns`, of the loop that began `offset_ns` before time 0."""
        lap, phase_ns = divmod(time_ns + offset_ns, self.period_ns)
        index = bisect_right(self.starts, phase_ns)
        end_ns = self.starts[index] if index < len(self.starts) else self.period_ns
        rate_bps = self.rates[index - 1]
        if lap == 0 and index == 1:
            if phase_ns < self.lead_ns:
                end_ns = self.lead_ns
            else:
                rate_bps = 0
        return Segment(rate_bps, time_ns + end_ns - phase_ns)


def loop_of(starts_ns: I64Array, rates_bps: I64Array, *, period_ns: int, lead_ns: int | None = None) -> Loop:
    """From the segments' starts and rates."""
    starts, rates = (array("q", column.tobytes()) for column in (starts_ns, rates_bps))
    first_end_ns = starts[1] if len(starts) > 1 else period_ns
    return Loop(starts=starts, rates=rates, period_ns=period_ns, lead_ns=first_end_ns if lead_ns is None else lead_ns)
