"""Arrivals in a window whose rate changes with time: an inhomogeneous Poisson process, exactly.

A Poisson process in a window is as many points as a Poisson law with the integral of the rate as its mean gives, each
at an instant of its own with the density ``rate(t) / integral``, independently (Kingman 1993, Poisson Processes,
section 2.4). The instants are drawn under an envelope of steps that is never below the rate, and kept with the
probability ``rate / envelope`` (Lewis and Shedler 1979).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from testbed.core.rng import F64Array, I64Array, U64Array
from testbed.core.units import NS_PER_S
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings, dealt, ragged

TRY_SHIFT = 40  # a draw's number lies below, the number of the try above


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """A rate over a window, under steps. `share(t_ns)` is the rate's share of the envelope; None where they agree."""

    edges_ns: I64Array  # of the steps, one more than there are steps
    envelope_per_s: F64Array
    mean_count: float  # the integral of the rate over the window
    share: Callable[[I64Array], F64Array] | None = None

    def instants(self, members: Members, entities: U64Array, numbers: I64Array) -> I64Array:
        """An instant with the rate's density for each (entity, number)."""
        found = np.empty(len(entities), dtype=np.int64)
        left, attempt = np.arange(len(entities)), 0
        while len(left):
            keys, counters = entities[left], numbers[left] | (attempt << TRY_SHIFT)
            instants = self._under_envelope(members.stream("arrivals").uniform_each(keys, counters))
            found[left] = instants
            if self.share is None:
                break
            kept = members.stream("arrivals.keep").uniform_each(keys, counters) < self.share(instants)
            left, attempt = left[~kept], attempt + 1
        return found

    def _under_envelope(self, u: F64Array) -> I64Array:
        """Inverse of the envelope's integral."""
        widths_ns = np.diff(self.edges_ns)
        counts = self.envelope_per_s * (widths_ns / NS_PER_S)
        until = np.cumsum(counts)
        target = u * until[-1]
        last = np.flatnonzero(counts)[-1]  # a product may be rounded up to the whole
        step = np.minimum(np.searchsorted(until, target, side="right"), last)
        offset_ns = (target - (until - counts)[step]) / self.envelope_per_s[step] * NS_PER_S
        found: I64Array = self.edges_ns[step] + np.clip(offset_ns.astype(np.int64), 0, widths_ns[step] - 1)
        return found


def constant(rate_per_s: float, start_ns: int, until_ns: int) -> Intensity:
    """The same rate throughout."""
    return Intensity(
        edges_ns=np.array([start_ns, until_ns], dtype=np.int64),
        envelope_per_s=np.array([rate_per_s]),
        mean_count=rate_per_s * ((until_ns - start_ns) / NS_PER_S),
    )


def poisson_counts(means: F64Array, u: F64Array) -> I64Array:
    """Quantiles of Poisson laws: the least n with P(N <= n) >= u."""
    from scipy.special import pdtr, pdtrik  # noqa: PLC0415 - 0.1 s, only where counts are drawn

    known = np.maximum(u, 2.0**-53)
    upper = np.maximum(np.ceil(pdtrik(known, means)), 0)
    below = np.maximum(upper - 1, 0)
    counts = np.where(pdtr(below, means) >= known, below, upper)
    return np.where(means > 0, counts, 0).astype(np.int64)


def in_window(members: Members, intensity: Intensity, *, is_per_device: bool) -> Openings:
    """A Poisson process of every device, or one of the group."""
    drawers = members.entities if is_per_device else members.entities[:1]
    u = members.stream("arrivals.count").uniform_each(drawers, np.zeros(len(drawers), dtype=np.int64))
    counts = poisson_counts(np.full(len(drawers), intensity.mean_count), u)
    return scattered(members, intensity, counts, is_per_device=is_per_device)


def scattered(members: Members, intensity: Intensity, counts: I64Array, *, is_per_device: bool) -> Openings:
    """As many arrivals of each drawer, at independent instants."""
    owner, number = ragged(counts)
    return in_order(members, owner, intensity.instants(members, members.entities[owner], number), is_per_device)


def in_order(members: Members, owner: I64Array, instants_ns: I64Array, is_per_device: bool) -> Openings:
    """Instants of each drawer (a device, or number 0: the group), which count them in the order of time."""
    order = np.lexsort((instants_ns, owner))
    if is_per_device:
        counter = ragged(np.bincount(owner, minlength=members.count))[1]
        return Openings(place=owner[order], counter=counter, arrival_ns=instants_ns[order])
    place, counter = dealt(members, len(owner))
    return Openings(place=place, counter=counter, arrival_ns=instants_ns[order])
