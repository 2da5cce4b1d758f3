"""A battery: whole picojoules, drained and charged by whole milliwatts [our design].

    level(t + dt) = min(capacity, level(t) + (P_charge - P_drawn) dt)

mW times ns is pJ, so the level is exact at every nanosecond while both powers are constant, and 64 bits hold 2.5 kWh.
A charger's losses and the cell's own discharge are not modelled. The device goes off at the first nanosecond by which
the level is at its cut-off or below, and comes back at the first by which it is at its resume level or above.
"""

from __future__ import annotations

from testbed.actors.heat import NEVER

PJ_PER_J = 10**12


class Battery:
    """One device's. Levels in the constructor are shares of the capacity."""

    def __init__(self, *, capacity_j: float, initial: float, cutoff: float, resume: float | None) -> None:
        self.capacity_pj = round(capacity_j * PJ_PER_J)
        self.first_pj = self.level_pj = round(capacity_j * initial * PJ_PER_J)
        self._cutoff_pj = round(capacity_j * cutoff * PJ_PER_J)
        self._resume_pj = None if resume is None else round(capacity_j * resume * PJ_PER_J)
        self.charged_pj = 0
        self.is_cut = False
        self.num_cutoffs = 0

    def draw(self, energy_pj: int) -> None:
        """At once, as a message's that has ended: the level may go below the cut-off by as much."""
        self.level_pj -= energy_pj

    def last(self, duration_ns: int, *, drawn_mw: int, charge_mw: int) -> None:
        """So long at these powers."""
        level_pj = min(self.capacity_pj, self.level_pj + (charge_mw - drawn_mw) * duration_ns)
        self.charged_pj += level_pj - self.level_pj + drawn_mw * duration_ns
        self.level_pj = level_pj

    def settle(self) -> None:
        """Go off, or come back, where the level says so."""
        if not self.is_cut and self.level_pj <= self._cutoff_pj:
            self.is_cut = True
            self.num_cutoffs += 1
        elif self.is_cut and self._resume_pj is not None and self.level_pj >= self._resume_pj:
            self.is_cut = False

    def due_ns(self, *, drawn_mw: int, charge_mw: int) -> int:
        """Nanoseconds until it goes off or comes back at these powers; NEVER if it doesn't."""
        gain_mw = charge_mw - drawn_mw
        if self.is_cut:
            if self._resume_pj is None or gain_mw <= 0:
                return NEVER
            return -((self.level_pj - self._resume_pj) // gain_mw)
        return NEVER if gain_mw >= 0 else -((self._cutoff_pj - self.level_pj) // -gain_mw)
