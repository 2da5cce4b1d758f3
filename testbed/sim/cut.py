"""Why a request ends in the middle of something: what its process is interrupted with.

``process.interrupt(Cut(...))`` ends a request at this very instant, whatever it waits for: its turn, a stage, a
message, the server. The interruption is URGENT, so of two things at one instant it comes before the end of what was
waited for. A message that was under way goes on over its link, and nobody takes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.core.events import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How the request ended."""

    outcome: Outcome
    reason: str

    @classmethod
    def of(cls, cause: object) -> Cut:
        """What a request's process was interrupted with."""
        assert isinstance(cause, Cut), "nothing else interrupts a request"
        return cause
