"""What an iteration that is being formed has left for prefills and for steps."""

from __future__ import annotations

from testbed.schedulers.entry import Limits


class Budget:
    """The tokens that prefills and steps may still take in the iteration that is being formed."""

    __slots__ = ("_chunked", "_is_held", "_num_prefills", "_shared", "prefill_tokens", "seated", "step_tokens")

    def __init__(self, limits: Limits, num_steps: int) -> None:
        chunk = limits.chunk_tokens
        self._chunked = chunk is not None
        self._shared = chunk is not None and limits.priority == "prefill"
        self._num_prefills = 0
        self._is_held = False
        self.seated: set[int] = set()  # requests with a share
        self.prefill_tokens = limits.max_prefill_tokens
        self.step_tokens = limits.max_batch if chunk is None else chunk
        if chunk is not None:
            set_aside = 0 if self._shared else min(num_steps, limits.max_batch)
            self.prefill_tokens = min(limits.max_prefill_tokens, chunk - set_aside)

    def hold_prefills(self) -> None:
        """The first prefill has to wait, and later ones do not pass it."""
        self._is_held = True

    def prefill_share(self, left_tokens: int) -> int:
        """How many of its tokens the next prefill may run; 0: it has to wait."""
        if self._is_held:
            return 0
        if self._chunked:
            return max(0, min(left_tokens, self.prefill_tokens))
        return left_tokens if self._num_prefills == 0 or left_tokens <= self.prefill_tokens else 0

    def take_prefill(self, left_tokens: int) -> int:
        taken = self.prefill_share(left_tokens)
        self.prefill_tokens -= taken
        self._num_prefills += 1
        if self._shared:
            self.step_tokens -= taken
        return taken
