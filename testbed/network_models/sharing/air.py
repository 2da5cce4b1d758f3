"""Air time that the links of a cell share, by a discipline.

A member alone sends at its own link's rate. With others it has a share of the air: nothing, all, or something between,
as the discipline grants it, at its own rate of each instant. A member's own jobs leave in the order in which they came.
A job is a packet.

What happens is computed from change to change: a grant begins or ends, a job comes or ends. Between two changes a
member's progress is closed form (`sharing.work`), so nothing is lost by waiting for the next one.

Order at one instant: (1) jobs that end, in the order of the members; (2) a grant that is over; (3) jobs that come now,
in the order of the calls.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import simpy

from testbed.network_models.clock import Timer
from testbed.network_models.rates.segments import FOREVER, Rate
from testbed.network_models.sharing.member import Job, Member, Served
from testbed.network_models.sharing.work import Share


class Grants(NamedTuple):
    """Who is served from now on: each member at weight / total of its own rate, at the latest until `until_ns`."""

    weights: Mapping[Member, int]
    total: int
    until_ns: int = FOREVER


NOBODY = Grants({}, 1)


class Discipline(Protocol):
    """Whose turn it is. One object serves one medium, and knows of it what it is told here."""

    def came(self, member: Member) -> None:
        """One more job of this member is there, the last of `member.jobs`."""
        ...

    def ended(self, member: Member) -> None:
        """The first of this member's jobs has left, and is no longer among `member.jobs`."""
        ...

    def grants(self, now_ns: int) -> Grants:
        """Who is served from now on, all of them with a job; NOBODY where no job is left.

        The same object as before where nothing changes; another one once that one's `until_ns` has come.
        """
        ...


class Air:
    """Serves its members' jobs as `discipline` grants."""

    def __init__(self, env: simpy.Environment, discipline: Discipline) -> None:
        self._env = env
        self._discipline = discipline
        self._grants = NOBODY
        self._ends: list[tuple[int, int, Member]] = []  # heap: when the first job of each served member ends
        self._due_ns = FOREVER  # of the next change, for which there is a timer
        self._num_contending = 0  # members with a job
        self._changed_ns = 0  # when that number last changed
        self._busy_ns = 0
        self._contending_ns = 0
        self.num_members = 0
        self.carried_bytes = 0  # of the jobs that have ended

    def join(self, rate: Rate, weight: int) -> Member:
        """One more link."""
        self.num_members += 1
        return Member(self, self.num_members - 1, rate, weight)

    def take(self, member: Member, job: Job) -> None:
        """A job that came now."""
        now_ns = int(self._env.now)
        self._settle(now_ns)
        if not member.jobs:
            self._contend(now_ns, 1)
        member.jobs.append(job)
        self._discipline.came(member)
        self._regrant(now_ns)
        self._arm(now_ns)

    def busy_ns(self, now_ns: int) -> int:
        """Time until now in which at least one member had a job."""
        return self._busy_ns + (now_ns - self._changed_ns if self._num_contending else 0)

    def contending_ns(self, now_ns: int) -> int:
        """The number of members with a job, summed over time until now."""
        return self._contending_ns + self._num_contending * (now_ns - self._changed_ns)

    def _settle(self, now_ns: int) -> None:
        """Whatever is over by now."""
        while True:
            if self._ends and self._ends[0][0] <= now_ns:
                self._end_first(now_ns)
            elif self._grants.until_ns <= now_ns:
                self._regrant(now_ns)
            else:
                return

    def _end_first(self, now_ns: int) -> None:
        member = heapq.heappop(self._ends)[2]
        job, num_contending = member.end_first(now_ns), self._num_contending
        self.carried_bytes += job.size_bytes
        if not member.jobs:
            self._contend(now_ns, -1)
        self._discipline.ended(member)
        if not self._regrant(now_ns):
            heapq.heappush(self._ends, (member.go_on(now_ns, self._grants.until_ns), member.number, member))
        job.done(Served(job.start_ns, now_ns, num_contending))  # may bring the next job: all is in order before

    def _regrant(self, now_ns: int) -> bool:
        """Ask the discipline; whether it has changed anything."""
        grants = self._discipline.grants(now_ns)
        if grants is self._grants:
            return False
        for member in self._grants.weights:
            member.stop(now_ns)
        self._grants, total = grants, grants.total
        self._ends = [
            (member.start(now_ns, Share(weight, total), grants.until_ns), member.number, member)
            for member, weight in grants.weights.items()
        ]
        heapq.heapify(self._ends)
        return True

    def _arm(self, now_ns: int) -> None:
        """A timer at the next change; one that is out of date finds nothing to do."""
        due_ns = min(self._ends[0][0] if self._ends else FOREVER, self._grants.until_ns)
        if due_ns != self._due_ns:
            self._due_ns = due_ns
            if due_ns < FOREVER:
                Timer(self._env, due_ns - now_ns, self._on_time)

    def _on_time(self, _: simpy.Event) -> None:
        now_ns = int(self._env.now)
        if now_ns == self._due_ns:
            self._settle(now_ns)
            self._arm(now_ns)

    def _contend(self, now_ns: int, change: int) -> None:
        elapsed_ns = now_ns - self._changed_ns
        self._busy_ns += elapsed_ns if self._num_contending else 0
        self._contending_ns += elapsed_ns * self._num_contending
        self._num_contending += change
        self._changed_ns = now_ns
