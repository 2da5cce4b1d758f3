"""Congestion control: how many bytes may be under way. TCP and QUIC share it.

Both laws count acknowledged bytes (RFC 5681, section 3.1; RFC 9002, section 7), so delayed acknowledgements slow
neither of them down. Arithmetic is in whole bytes and nanoseconds with the remainders carried: the same on every
machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from testbed.core.units import NS_PER_S

_UNBOUNDED = 1 << 60


class Congestion(Protocol):
    """A window of payload bytes, and what changes it. `flight_bytes` is what was under way when the loss was found."""

    window_bytes: int
    threshold_bytes: int  # slow start below

    def acknowledged(self, now_ns: int, num_bytes: int, round_trip_ns: int) -> None:
        """These bytes arrived, while the window was full and no loss was being repaired."""
        ...

    def not_limited(self) -> None:
        """An acknowledgement came while the window was not full: what is not used does not grow."""
        ...

    def lost(self, flight_bytes: int) -> None:
        """Loss found by acknowledgements; at most once a round trip."""
        ...

    def collapsed(self, flight_bytes: int, window_bytes: int) -> None:
        """Nothing came back for long: start again from `window_bytes`."""
        ...

    def idle(self) -> None:
        """Nothing was sent for longer than the time-out: the path may have changed (RFC 5681, section 4.1)."""
        ...


class Reno:
    """Slow start, then one segment more a round trip; half at a loss (RFC 5681)."""

    __slots__ = (
        "_credit",
        "_initial_bytes",
        "_segment_bytes",
        "threshold_bytes",
        "window_bytes",
    )

    def __init__(self, segment_bytes: int, initial_segments: int) -> None:
        self._segment_bytes = segment_bytes
        self._initial_bytes = initial_segments * segment_bytes
        self._credit = 0
        self.window_bytes = self._initial_bytes
        self.threshold_bytes = _UNBOUNDED

    def acknowledged(self, now_ns: int, num_bytes: int, round_trip_ns: int) -> None:
        if self.window_bytes < self.threshold_bytes:
            slow_bytes = min(num_bytes, self.threshold_bytes - self.window_bytes)
            self.window_bytes += slow_bytes
            num_bytes -= slow_bytes
        if num_bytes:
            self._avoid(now_ns, num_bytes, round_trip_ns)

    def _avoid(self, now_ns: int, num_bytes: int, round_trip_ns: int) -> None:
        """Congestion avoidance: a segment for every full window acknowledged."""
        self._credit += num_bytes
        if self._credit >= self.window_bytes:
            self._credit -= self.window_bytes
            self.window_bytes += self._segment_bytes

    def not_limited(self) -> None:
        pass

    def lost(self, flight_bytes: int) -> None:
        self.threshold_bytes = self.window_bytes = self._reduced(flight_bytes)
        self._credit = 0

    def _reduced(self, flight_bytes: int) -> int:
        return max(flight_bytes // 2, 2 * self._segment_bytes)

    def collapsed(self, flight_bytes: int, window_bytes: int) -> None:
        self.lost(flight_bytes)
        self.window_bytes = window_bytes

    def idle(self) -> None:
        self.window_bytes = min(self.window_bytes, self._initial_bytes)
        self._credit = 0


class Cubic(Reno):
    """Grows as a cubic function of the time since the last loss, at least as fast as Reno would (RFC 9438).

    W(t) = C (t - K)^3 + W_max segments with C = 0.4 and K the time at which the window is back at W_max; 0.7 at a loss.
    """

    __slots__ = (
        "_back_ns",
        "_before_loss_bytes",
        "_epoch_ns",
        "_prior_bytes",
        "_reno_bytes",
        "_reno_credit",
    )

    def __init__(self, segment_bytes: int, initial_segments: int) -> None:
        super().__init__(segment_bytes, initial_segments)
        self._before_loss_bytes = 0  # W_max
        self._prior_bytes = 0  # the window at the last loss
        self._reno_bytes = 0  # what Reno with the same mean window would have
        self._reno_credit = 0
        self._epoch_ns = -1  # when this growth began; -1: with the next acknowledgement
        self._back_ns = 0  # K

    def _avoid(self, now_ns: int, num_bytes: int, round_trip_ns: int) -> None:
        if self._epoch_ns < 0:
            self._begin(now_ns)
        self._follow_reno(num_bytes)
        window_bytes = self.window_bytes
        since_ns = now_ns - self._epoch_ns
        if self.cubic_bytes(since_ns) < self._reno_bytes:
            self.window_bytes = max(window_bytes, self._reno_bytes)
            return
        target_bytes = min(max(self.cubic_bytes(since_ns + round_trip_ns), window_bytes), window_bytes * 3 // 2)
        self._credit += (target_bytes - window_bytes) * num_bytes
        grown_bytes, self._credit = divmod(self._credit, window_bytes)
        self.window_bytes += grown_bytes

    def cubic_bytes(self, since_ns: int) -> int:
        """The cubic function itself, so long after its epoch began."""
        offset_ns = since_ns - self._back_ns
        return self._before_loss_bytes + 2 * self._segment_bytes * offset_ns**3 // (5 * NS_PER_S**3)

    def _begin(self, now_ns: int) -> None:
        self._epoch_ns = now_ns
        self._reno_bytes, self._reno_credit = self.window_bytes, 0
        self._before_loss_bytes = max(self._before_loss_bytes, self.window_bytes)
        missing_bytes = self._before_loss_bytes - self.window_bytes
        self._back_ns = _cube_root(missing_bytes * 5 * NS_PER_S**3 // (2 * self._segment_bytes))

    def _follow_reno(self, num_bytes: int) -> None:
        """Of a segment 3 (1 - 0.7) / (1 + 0.7) = 9/17 a window, a whole one once back at where the loss was."""
        parts, whole = (9, 17) if self._reno_bytes < self._prior_bytes else (1, 1)
        self._reno_credit += num_bytes * self._segment_bytes * parts
        grown_bytes = self._reno_credit // (whole * self.window_bytes)
        self._reno_credit -= grown_bytes * whole * self.window_bytes
        self._reno_bytes += grown_bytes

    def not_limited(self) -> None:
        self._epoch_ns = -1  # time in which the window was not used does not count

    def lost(self, flight_bytes: int) -> None:
        window_bytes = self._prior_bytes = self.window_bytes
        # Fast convergence: who loses before it is back leaves room for others.
        falling = window_bytes < self._before_loss_bytes
        self._before_loss_bytes = window_bytes * 17 // 20 if falling else window_bytes
        self._epoch_ns = -1
        super().lost(flight_bytes)

    def _reduced(self, flight_bytes: int) -> int:
        return max(flight_bytes * 7 // 10, 2 * self._segment_bytes)

    def idle(self) -> None:
        super().idle()
        self._epoch_ns = -1


def _cube_root(value: int) -> int:
    """The largest int whose cube is not above `value`."""
    root = 1 << -(-value.bit_length() // 3)
    while root**3 > value:
        root = (2 * root + value // root**2) // 3
    return root


CONGESTION: Mapping[str, type[Reno]] = MappingProxyType({"reno": Reno, "cubic": Cubic})
