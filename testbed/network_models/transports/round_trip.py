"""How long a round trip takes: smoothed, with its variation."""

from __future__ import annotations


class RoundTrip:
    """The estimator of RFC 6298 (section 2) and RFC 9002 (section 5.3), in whole ns: gains 1/8 and 1/4."""

    __slots__ = ("latest_ns", "least_ns", "smoothed_ns", "variation_ns")

    def __init__(self) -> None:
        self.smoothed_ns = 0  # 0: no sample yet
        self.variation_ns = 0
        self.latest_ns = 0
        self.least_ns = 0

    def sample(self, round_trip_ns: int) -> None:
        """One measured round trip of a packet that was sent once."""
        self.latest_ns = round_trip_ns
        if not self.smoothed_ns:
            self.smoothed_ns, self.variation_ns = round_trip_ns, round_trip_ns // 2
            self.least_ns = round_trip_ns
            return
        self.least_ns = min(self.least_ns, round_trip_ns)
        self.variation_ns = (3 * self.variation_ns + abs(self.smoothed_ns - round_trip_ns)) // 4
        self.smoothed_ns = (7 * self.smoothed_ns + round_trip_ns) // 8

    def timeout_ns(self, initial_ns: int, least_ns: int, most_ns: int) -> int:
        """The retransmission time-out of RFC 6298, between two bounds; `initial_ns` before the first sample."""
        if not self.smoothed_ns:
            return initial_ns
        return min(most_ns, max(least_ns, self.smoothed_ns + 4 * self.variation_ns))
