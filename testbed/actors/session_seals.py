"""The keys of a host's open sessions, each with the counter of what it has sealed or opened."""

from __future__ import annotations

from typing import Literal

from testbed.actors.calls import HostSpec
from testbed.codecs.seal import Seal, session_key

End = Literal["device", "server"]  # of the link


class SessionSeals:
    """Made at a session's first message, forgotten with the session; none where messages travel in the clear."""

    def __init__(self, spec: HostSpec) -> None:
        self._spec = spec
        self._seals: dict[tuple[End, int], Seal] = {}

    def of(self, end: End, session: int, split: int) -> Seal | None:
        """Raises SealError where the host has no secret to derive a key from."""
        if self._spec.seal == "none":
            return None
        if (end, session) not in self._seals:
            key = session_key(self._spec.seal_secret, session)
            self._seals[end, session] = Seal(self._spec.seal, key, session=session, split=split)
        return self._seals[end, session]

    def forget(self, session: int) -> None:
        """The session has ended."""
        ends: tuple[End, ...] = ("device", "server")
        for end in ends:
            self._seals.pop((end, session), None)
