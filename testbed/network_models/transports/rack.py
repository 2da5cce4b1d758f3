"""Which transmissions TCP gives up as lost: by time, not by number (RACK, RFC 8985, section 6)."""

from __future__ import annotations

from testbed.network_models.transports.stream import Segment


class Rack:
    """Keeps what is under way in the order of sending; of two that were sent, the later one arrived, so the earlier
    one did not. It has grace against reordering once reordering was seen, or while too little arrived to tell.

    `deadline_ns` is when the next one's grace ends, -1 without any.
    """

    __slots__ = ("_highest", "_is_reordering", "_latest_turn", "_round_trip_ns", "_turn", "_under_way", "deadline_ns")

    def __init__(self) -> None:
        self._under_way: dict[int, Segment] = {}  # by place in the stream, oldest transmission first
        self._turn = 0
        self._latest_turn = 0  # of what arrived, sent last
        self._round_trip_ns = 0  # of the same
        self._highest = -1  # place that arrived
        self._is_reordering = False
        self.deadline_ns = -1

    def sent(self, index: int, segment: Segment) -> None:
        """It goes now, for the first time or again."""
        self._turn += 1
        segment.turn = self._turn
        self._under_way.pop(index, None)
        self._under_way[index] = segment

    def delivered(self, now_ns: int, index: int, segment: Segment, least_ns: int) -> None:
        """It was acknowledged; what comes back sooner than any round trip answers an earlier transmission."""
        self._under_way.pop(index, None)
        if index < self._highest and segment.num_sent == 1:
            self._is_reordering = True
        self._highest = max(self._highest, index)
        round_trip_ns = now_ns - segment.sent_ns
        if segment.turn > self._latest_turn and (segment.num_sent == 1 or round_trip_ns >= least_ns):
            self._latest_turn, self._round_trip_ns = segment.turn, round_trip_ns

    def take_losses(self, now_ns: int, *, least_ns: int, smoothed_ns: int, is_sure: bool) -> list[int]:
        """What is lost by now, ascending. Grace is a quarter round trip; `is_sure`: only after reordering was seen."""
        grace_ns = 0 if is_sure and not self._is_reordering else min(least_ns // 4, smoothed_ns)
        lost: list[int] = []
        self.deadline_ns = -1
        for index, segment in self._under_way.items():
            if segment.turn >= self._latest_turn:
                break
            due_ns = segment.sent_ns + self._round_trip_ns + grace_ns
            if due_ns > now_ns:
                self.deadline_ns = due_ns
                break
            lost.append(index)
        for index in lost:
            del self._under_way[index]
        return sorted(lost)

    def clear(self) -> None:
        """Nothing counts as under way any more."""
        self._under_way.clear()
        self.deadline_ns = -1
