"""What crosses the link in a decode step, and what it takes: three modes [our design].

    stateful    each side keeps the KV cache of its own layers; the new token's hidden state goes up
    recompute   the server keeps nothing; the hidden states of all w positions go up, and it runs them all anew
    ship-kv     the server keeps nothing; the new token's hidden state goes up with the KV cache of the layers behind
                the cut, w - 1 tokens of it, and the new token's keys and values come down with the token

Down comes one token id in every mode. With the first pass, a prompt, all three send the same up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.actors.kv import KVLaw
from testbed.actors.memory import server_kv_bytes
from testbed.codecs.kv_message import kv_message_bytes
from testbed.core.plan import Decision, Mode
from testbed.models.shape import ModelShape

MODE_IDS: Mapping[Mode, int] = {"stateful": 0, "ship-kv": 1, "recompute": 2}  # in a message's header
HIDDEN_BITS = 32  # of a hidden state that the device keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """One session's mode; `kv_token_bytes` are a token's keys and values in the layers behind the cut, as stored."""

    mode: Mode = "stateful"
    kv_token_bytes: int = 0

    @property
    def is_stateless(self) -> bool:
        """Whether the server forgets the session after every pass."""
        return self.mode != "stateful"

    def rerun_tokens(self, past_tokens: int) -> int:
        """Earlier tokens whose hidden states go up again."""
        return past_tokens if self.mode == "recompute" else 0

    def kv_up_bytes(self, past_tokens: int) -> int:
        """Keys and values that go up with a pass."""
        return kv_message_bytes(past_tokens, self.kv_token_bytes) if self.mode == "ship-kv" else 0

    def kv_down_bytes(self, new_tokens: int) -> int:
        """Keys and values that come down with the token."""
        return kv_message_bytes(new_tokens, self.kv_token_bytes) if self.mode == "ship-kv" else 0

    def kept_bytes(self, shape: ModelShape, tokens: int) -> int:
        """What the device holds for the server, for a sequence of `tokens` tokens."""
        if self.mode == "recompute":
            return shape.hidden_bytes(tokens, HIDDEN_BITS)
        return tokens * self.kv_token_bytes if self.mode == "ship-kv" else 0


STATEFUL = Crossing()


def crossing_of(shape: ModelShape, decision: Decision, back_kv: KVLaw) -> Crossing:
    """A decision's mode; with the whole model on one side nothing is kept that could travel."""
    mode = decision.mode if 0 < decision.split < shape.num_layers else "stateful"
    return Crossing(mode=mode, kv_token_bytes=server_kv_bytes(shape, decision.split, 1, back_kv))
