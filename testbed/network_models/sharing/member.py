"""One link's way to a shared medium: its jobs, and how far the first of them is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from testbed.network_models.rates.segments import FOREVER, Rate
from testbed.network_models.sharing.work import NOTHING, Share, serve, work_of


class Served(NamedTuple):
    """How a job fared: its member was first granted air for it, its last bit left."""

    start_ns: int
    end_ns: int
    num_contending: int  # members with a job at its end, its own among them


class Job:
    """A packet that waits or is served. `done` is called when its last bit has left."""

    __slots__ = ("done", "left", "size_bytes", "start_ns")

    def __init__(self, size_bytes: int, done: Callable[[Served], None]) -> None:
        self.size_bytes = size_bytes
        self.left = work_of(size_bytes)
        self.done = done
        self.start_ns = -1


class Carrier(Protocol):
    """Who serves a member's jobs."""

    def take(self, member: Member, job: Job) -> None:
        """A job that came now."""
        ...


class Member:
    """`number` is its place among the members of its medium, which breaks ties."""

    __slots__ = (
        "_air_ns", "_carrier", "_held_bytes", "_share", "_since_ns", "jobs", "number", "rate", "weight",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, number: int, rate: Rate, weight: int) -> None:
        self._carrier = carrier
        self.number = number
        self.rate = rate
        self.weight = weight
        self.jobs: deque[Job] = deque()
        self._held_bytes = 0  # of all jobs
        self._share = NOTHING
        self._since_ns = 0  # up to when its account is written
        self._air_ns = 0

    def offer(self, size_bytes: int, done: Callable[[Served], None]) -> None:
        """Hand over a packet now."""
        self._held_bytes += size_bytes
        self._carrier.take(self, Job(size_bytes, done))

    def backlog_bytes(self, now_ns: int) -> int:
        """Of the packets whose last bit has not left by now."""
        if self.jobs and not self._left(now_ns):
            return self._held_bytes - self.jobs[0].size_bytes
        return self._held_bytes

    def air_ns(self, now_ns: int) -> int:
        """The medium's time that its jobs have taken until now."""
        return self._air_ns + (now_ns - self._since_ns) * self._share.weight // self._share.total

    def start(self, now_ns: int, share: Share, until_ns: int) -> int:
        """From now on it has this share. Returns when its first job ends, or FOREVER where not by `until_ns`."""
        self._share, self._since_ns = share, now_ns
        return self.go_on(now_ns, until_ns)

    def go_on(self, now_ns: int, until_ns: int) -> int:
        """Its first job is served from now on. Returns when it ends, or FOREVER where not by `until_ns`."""
        job = self.jobs[0]
        if job.start_ns < 0:
            job.start_ns = now_ns
        end_ns, left = serve(self.rate, self._share, job.left, now_ns, until_ns)
        return FOREVER if left else end_ns

    def stop(self, now_ns: int) -> None:
        """Its share is over; its first job keeps what was served of it."""
        if self.jobs:
            self.jobs[0].left = self._left(now_ns)
        self._write_account(now_ns)
        self._share = NOTHING

    def end_first(self, now_ns: int) -> Job:
        """Its first job has left, now."""
        self._write_account(now_ns)
        job = self.jobs.popleft()
        self._held_bytes -= job.size_bytes
        return job

    def _left(self, now_ns: int) -> int:
        """Of its first job."""
        left = self.jobs[0].left
        return left if self._share is NOTHING else serve(self.rate, self._share, left, self._since_ns, now_ns)[1]

    def _write_account(self, now_ns: int) -> None:
        self._air_ns = self.air_ns(now_ns)
        self._since_ns = now_ns
