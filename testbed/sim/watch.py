"""A device that may go off: who is on it, and what ends them at which instant.

While requests are on a device, a timer of rank DEVICE_STATE stands at the instant at which it goes off as things stand,
or at the next change of what decides that; it is set anew when a stage starts or ends, a message ends, or a request
comes. So a device goes off before anything else of its instant, but after a message whose energy empties its battery.
All requests on it end there, waiting ones too. Where other programs take the memory, only the one that holds some ends.
"""

from __future__ import annotations

from collections.abc import Callable

import simpy

from testbed.actors.heat import NEVER
from testbed.core.events import Outcome
from testbed.network_models.connections import Connections
from testbed.network_models.transfer import Direction
from testbed.sim.cut import Cut
from testbed.sim.kernel import BusyTime, Clock, Rank
from testbed.sim.levels import Levels
from testbed.sim.vitals import Absence, Vitals

OTHERS_TOOK_IT = "other programs took the device's memory"


class Watch:
    """One device's vitals on the clock."""

    def __init__(
        self,
        clock: Clock,
        device: int,
        vitals: Vitals,
        *,
        links: Connections,
        busy: BusyTime,
        others: Levels | None,
        wake_delay_ns: int,
        notice_ns: int,
    ) -> None:
        self.vitals = vitals
        self._clock = clock
        self._device = device
        self._links = links
        self._busy = busy
        self._others = others
        self._wake_delay_ns = wake_delay_ns
        self._notice_ns = notice_ns
        self._aboard: dict[int, simpy.Process] = {}
        self._num_offs = 0  # that `has_been_off` has told of
        self._awake_ns = 0  # when it is, or was, awake for the requests on it
        self._radio_ns = (0, 0)  # of its link's busy time up and down, what has been accounted for
        self._holder = -1  # the request that holds memory
        self._fits: Callable[[int], bool] | None = None  # whether so many bytes are enough for it
        self._timer: simpy.Event | None = None
        self._timer_ns = NEVER

    def board(self, request: int) -> Absence | None:
        """A request has come to the device; the process at work is its own. It stays unless the device is away."""
        now_ns = self._clock.now_ns
        self.vitals.advance(now_ns)
        absence = self.vitals.absence
        if absence is not None:
            return absence
        if self.vitals.is_asleep:
            self._awake_ns = now_ns + self._wake_delay_ns
        if not self._aboard:
            self._radio_ns = self._radio()
        process = self._clock.active_process
        assert process is not None, "a request is a process"
        self._aboard[request] = process
        self.vitals.board()
        self._arm()
        return None

    def has_been_off(self) -> bool:
        """Whether it has been off or away since this was asked last: what its programs held is lost."""
        before, self._num_offs = self._num_offs, self.vitals.num_offs
        return self._num_offs != before

    @property
    def waking_ns(self) -> int:
        """Until it is awake."""
        return max(0, self._awake_ns - self._clock.now_ns)

    def alight(self, request: int) -> None:
        """A request has ended, however it did."""
        if request not in self._aboard:
            return
        self._hear()
        self._leave(request)
        if self._aboard:
            self._arm()
        else:
            self._timer, self._timer_ns = None, NEVER

    def start_stage(self, duration_ns: int) -> int:
        """A stage of this duration begins: how long it takes."""
        self.vitals.advance(self._clock.now_ns)
        lasts_ns = self.vitals.start_stage(duration_ns)
        self._arm()
        return lasts_ns

    def rest(self) -> None:
        """The stage has ended."""
        self.vitals.advance(self._clock.now_ns)
        self._arm()

    def heard(self) -> None:
        """A message, up or down, has ended."""
        if self._aboard:
            self._hear()
            self._arm()

    def others_bytes(self) -> int:
        """What other programs take now."""
        return 0 if self._others is None else self._others.at(self._clock.now_ns).value

    def hold(self, request: int, fits: Callable[[int], bool]) -> None:
        """Memory is claimed for a request; `fits` tells whether it does beside so many bytes of others."""
        self._holder, self._fits = request, fits

    def silence_ns(self) -> int:
        """How long servers don't learn that a request's device is gone; 0 where it isn't, or says so."""
        absence = self.vitals.absence
        return self._notice_ns if absence is not None and absence.is_silent else 0

    def account(self, now_ns: int) -> None:
        """Up to date, with the radio's energy if it is in use."""
        self.vitals.advance(now_ns)
        if self._aboard:
            self._hear()

    def _hear(self) -> None:
        self.vitals.advance(self._clock.now_ns)
        (sent_ns, received_ns), (transmit_ns, receive_ns) = self._radio_ns, self._radio()
        self._radio_ns = (transmit_ns, receive_ns)
        self.vitals.radio(transmit_ns - sent_ns, receive_ns - received_ns)

    def _radio(self) -> tuple[int, int]:
        up, down = (self._links.snapshot(direction).busy_ns for direction in (Direction.UP, Direction.DOWN))
        return up, down

    def _arm(self) -> None:
        """A timer at the next instant to look, unless an earlier one stands; what is off already is seen at once."""
        now_ns = self._clock.now_ns
        due_ns = now_ns if self.vitals.absence is not None else self.vitals.look_ns
        if self._others is not None:
            due_ns = min(due_ns, self._others.at(now_ns).end_ns)
        if due_ns < self._timer_ns:
            self._timer, self._timer_ns = self._clock.at(due_ns - now_ns, Rank.DEVICE_STATE, self._device), due_ns
            self._timer.callbacks.append(self._look)

    def _look(self, timer: simpy.Event) -> None:
        if timer is not self._timer:
            return  # another has been set since, or nobody is left
        self._timer, self._timer_ns = None, NEVER
        self.vitals.advance(self._clock.now_ns)
        absence = self.vitals.absence
        if absence is not None:
            self._end_all(Cut(outcome=absence.outcome, reason=absence.ends))
        elif self._fits is not None and not self._fits(self.others_bytes()):
            self._end(self._holder, Cut(outcome=Outcome.OOM, reason=OTHERS_TOOK_IT))
        if self._aboard:
            self._arm()

    def _end_all(self, cut: Cut) -> None:
        for request in list(self._aboard):
            self._end(request, cut)

    def _end(self, request: int, cut: Cut) -> None:
        """The request's process is interrupted, and is no longer aboard; of a message under way nothing is drawn."""
        self._busy.stop(self._clock.now_ns)
        self.vitals.stop_stage()
        self._aboard[request].interrupt(cut)
        self._leave(request)

    def _leave(self, request: int) -> None:
        del self._aboard[request]
        self.vitals.alight()
        if request == self._holder:
            self._holder, self._fits = -1, None
