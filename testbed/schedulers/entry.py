"""What a scheduler is told and what it answers: passes that are ready, and the parts of them that run next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from testbed.core.work import KvDemand

Priority = Literal["arrival", "decode", "prefill"]
Place = tuple[int, ...]  # where an entry stands in its queue: smaller goes first


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One sequence that is ready for its next pass, over positions [base_tokens, end_tokens).

    A pass begins behind the positions whose keys and values the server already holds; what `base_tokens` counts comes
    with the pass itself (mode ship-kv), so that it never has to be run here.
    """

    request: int
    ready_ns: int
    base_tokens: int
    end_tokens: int
    demand: KvDemand
    device: int = 0
    session: int = -1  # of which its request is a later turn; -1 for none, or where nothing was kept for it
    since_ns: int = 0  # what a deadline counts from: the request's arrival for its first token, then its last token
    is_first: bool = True  # its token will be the request's first
    step_tokens: int = 0  # positions before those that this pass is about, as its device sees it
    max_output_tokens: int = 1
    done_tokens: int = field(default=0, init=False)  # positions with keys and values here; the scheduler's to set
    is_new: bool = field(default=True, init=False)  # its sequence has never been preempted
    has_begun: bool = field(default=False, init=False)  # a share of it has run, and what came of it is not lost
    order: Place = field(default=(), init=False)  # as the scheduler orders; unique, since it ends with the request

    @property
    def left_tokens(self) -> int:
        """Positions that the pass still has to run."""
        return self.end_tokens - self.done_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One sequence's part of an iteration: positions [past_tokens, past_tokens + num_tokens) of its pass."""

    entry: Entry
    past_tokens: int
    num_tokens: int
    is_prefill: bool  # of a pass that claims its memory here, as against a step of a resident sequence
    is_first: bool  # of the pass's shares: its message is opened and decoded with it
    is_last: bool  # the pass's token comes out of it

    @property
    def is_prompt(self) -> bool:
        """Its positions are of a prompt, or run again: not a step's new one."""
        entry = self.entry
        return entry.is_first or self.past_tokens < entry.step_tokens or entry.step_tokens == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one iteration, and the server, may hold."""

    max_batch: int
    max_prefill_tokens: int
    chunk_tokens: int | None = None
    priority: Priority = "arrival"
    max_resident: int | None = None
    preempts_by_swap: bool = False
