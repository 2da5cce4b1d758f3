"""A server's door: who is inside, who has not been begun yet, and who is turned away."""

from __future__ import annotations

from testbed.scenarios.serving import Admission


class Door:
    """Counts requests in and out.

    A request is inside from its routing to its end, whatever that is; it *waits* until its first share runs, while its
    device computes and sends too. With `max_inside` a request that would find so many inside is rejected, and with
    `max_waiting` one that would find so many waiting. With
    `max_wait` one is rejected whose predicted wait is longer: ``w floor(b / n)`` for w that wait, n that have been
    begun and b nanoseconds that the server was busy until now, as if each took as much as those before did on average;
    0 while none has been begun [our own design].
    """

    def __init__(self, admission: Admission | None) -> None:
        self.num_inside = 0
        self.num_rejected = 0
        self._max_inside = None if admission is None else admission.max_inside
        self._max_waiting = None if admission is None else admission.max_waiting
        self._max_wait_ns = None if admission is None else admission.max_wait
        self._waiting: set[int] = set()
        self._num_begun = 0
        self._area_ns = 0  # under the number inside
        self._stays_ns = 0  # of those that have left, and of the others as if they left at 0
        self._since_ns = 0

    def refusal(self, busy_ns: int) -> str:
        """Why a request is turned away now; "" where it may come in."""
        num_waiting = len(self._waiting)
        if self._max_inside is not None and self.num_inside >= self._max_inside:
            return "server full"
        if self._max_waiting is not None and num_waiting >= self._max_waiting:
            return "server queue full"
        limit_ns, num_begun = self._max_wait_ns, self._num_begun
        if limit_ns is not None and num_begun and num_waiting * (busy_ns // num_begun) > limit_ns:
            return "predicted wait too long"
        return ""

    def enter(self, request: int, now_ns: int) -> None:
        self._pass(now_ns, 1)
        self._waiting.add(request)

    def begin(self, request: int) -> None:
        """A share of it runs."""
        if request in self._waiting:
            self._waiting.remove(request)
            self._num_begun += 1

    def leave(self, request: int, now_ns: int) -> None:
        self._pass(now_ns, -1)
        self._waiting.discard(request)

    def check(self, now_ns: int) -> None:
        """Little's law, as an identity: the area under the number inside is the sum of the stays."""
        self._pass(now_ns, 0)
        assert self._area_ns == self._stays_ns + self.num_inside * now_ns, "a request left twice, or never came"
        assert 0 <= len(self._waiting) <= self.num_inside, "who waits is not inside"

    def _pass(self, now_ns: int, change: int) -> None:
        self._area_ns += self.num_inside * (now_ns - self._since_ns)
        self._since_ns = now_ns
        self.num_inside += change
        self._stays_ns -= change * now_ns
