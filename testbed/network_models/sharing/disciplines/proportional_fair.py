"""Slot by slot to whom the channel favours now, by its own standards."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.units import format_seconds, ns_to_seconds
from testbed.network_models.sharing.air import NOBODY, Grants
from testbed.network_models.sharing.member import Member
from testbed.network_models.sharing.work import capacity
from testbed.scenarios.base import PositiveTimeNs, as_pydantic
from testbed.scenarios.pieces import DisciplineConfig


class _Record:
    """What a member had of late: the exponential average of its throughput a slot, up to `slot`, and of that slot."""

    __slots__ = ("average", "served", "slot")

    def __init__(self, slot: int) -> None:
        self.average = 0.0
        self.served = 0
        self.slot = slot


class ProportionalFair:
    """A slot goes to the member with the largest ratio of what it could send now to what it sent of late.

    The slot's measure is what the member's own rate allows in what is left of the slot; the past is an exponential
    average over slots with time constant `memory` (Jalali, Padovani, Pankaj 2000; Viswanath, Tse, Laroia 2002). Slots
    lie on one grid from time 0. Who comes to an idle medium begins at once, and where the member of a slot has nothing
    left to send, the rest of the slot is given anew. Ties go to the smaller average, then to the earlier member.

    Averages are floats under + - * / alone, so that every machine has the same.
    """

    class Config(DisciplineConfig):
        kind: Literal["proportional-fair"] = "proportional-fair"
        slot: PositiveTimeNs = Field(default=1_000_000, validate_default=False)
        memory: PositiveTimeNs = Field(default=100_000_000, validate_default=False)

        @model_validator(mode="after")
        def _memory_spans_slots(self) -> Self:
            if self.memory < self.slot:
                slot, memory = (format_seconds(ns_to_seconds(value)) for value in (self.slot, self.memory))
                error = ScenarioError("shorter than a slot", path="memory", value=memory, allowed=f"at least {slot}")
                raise as_pydantic(error)
            return self

    def __init__(self, config: Config) -> None:
        self._slot_ns = config.slot
        self._new = config.slot / config.memory  # weight of a slot in the average
        self._records: dict[Member, _Record] = {}  # of everybody who ever came
        self._backlogged: list[Member] = []
        self._grants = NOBODY
        self._holder: Member | None = None
        self._granted_ns = 0

    def came(self, member: Member) -> None:
        if len(member.jobs) == 1:
            self._backlogged.append(member)

    def ended(self, member: Member) -> None:
        if not member.jobs:
            self._backlogged.remove(member)

    def grants(self, now_ns: int) -> Grants:
        holder = self._holder
        if holder is not None and holder.jobs and now_ns < self._grants.until_ns:
            return self._grants
        if holder is not None:
            self._record(holder, self._granted_ns // self._slot_ns).served += capacity(
                holder.rate, self._granted_ns, now_ns
            )
            self._holder = None
        self._grants = NOBODY
        if self._backlogged:
            self._grant(now_ns)
        return self._grants

    def _grant(self, now_ns: int) -> None:
        slot = now_ns // self._slot_ns
        until_ns = (slot + 1) * self._slot_ns
        self._holder = max(self._backlogged, key=lambda member: self._merit(member, slot, now_ns, until_ns))
        self._granted_ns = now_ns
        self._grants = Grants({self._holder: 1}, 1, until_ns)

    def _merit(self, member: Member, slot: int, now_ns: int, until_ns: int) -> tuple[float, float, int]:
        average = self._record(member, slot).average
        possible = capacity(member.rate, now_ns, until_ns)
        return possible / max(average, 1.0), -average, -member.number

    def _record(self, member: Member, slot: int) -> _Record:
        """The member's record, brought up to the beginning of this slot."""
        record = self._records.setdefault(member, _Record(slot))
        if slot > record.slot:
            record.average += self._new * (record.served - record.average)
            record.average *= _power(1.0 - self._new, slot - record.slot - 1)
            record.served, record.slot = 0, slot
        return record


def _power(base: float, exponent: int) -> float:
    """By squaring: the same on every machine, which the C library's `pow` need not be."""
    result = 1.0
    while exponent and result:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
