"""Tokens that a server sends down while it goes on: the device reads them in order."""

from __future__ import annotations

from typing import cast

import simpy

from testbed.actors.calls import TOKEN_BYTES
from testbed.core.events import Hop
from testbed.network_models.transfer import Direction, Transfer
from testbed.sim.journey import Journey, MessageLostError
from testbed.sim.kernel import Wait


class TokenStream:
    """One request's tokens on their way down, each a message of its own; jitter may let them overtake each other."""

    def __init__(self, journey: Journey) -> None:
        self._journey = journey
        self._sealer = journey.device.edge.sealer
        self._open_ns = self._sealer.time_ns(TOKEN_BYTES)
        self._messages: list[simpy.Event] = []
        self._waiting: dict[int, int] = {}  # arrived before an earlier token: index -> token
        self._num_delivered = 0

    def send(self, token: int) -> None:
        """Hand one token to the down-link."""
        index = len(self._messages)
        message = self._journey.link(Direction.DOWN).send(self._sealer.token_bytes)
        assert message.callbacks is not None, "a message takes time"
        message.callbacks.append(lambda event: self._arrive(index, token, event.value))
        self._messages.append(message)

    def drain(self) -> Wait[None]:
        """Wait until the last token is there.

        Raises MessageLostError when one never came, or came with a wrong bit.
        """
        if not self._messages:
            return
        yield self._journey.clock.all_of(self._messages)
        transfers = [cast(Transfer, message.value) for message in self._messages]
        last = max(transfers, key=lambda transfer: transfer.ended_ns)
        self._journey.trace.waited(last, Direction.DOWN)
        undelivered = [transfer.fate for transfer in transfers if not transfer.delivered]
        if undelivered:
            raise MessageLostError.on(Direction.DOWN, undelivered[0])
        if self._open_ns:
            yield from self._journey.compute(Hop.OPEN_TOKEN, self._open_ns)
        if any(transfer.is_corrupt for transfer in transfers):
            raise MessageLostError.altered_down(TOKEN_BYTES, is_sealed=self._sealer.overhead_bytes > 0)

    def _arrive(self, index: int, token: int, transfer: Transfer) -> None:
        self._journey.trace.moved(transfer, Direction.DOWN)
        self._journey.device.heard()
        if not transfer.delivered or transfer.is_corrupt:
            return
        if not self._open_ns:
            self._read(index, token)
            return
        opened = self._journey.clock.timeout(self._sealer.spend(self._open_ns))
        assert opened.callbacks is not None, "opening takes time"
        opened.callbacks.append(lambda _: self._read(index, token))

    def _read(self, index: int, token: int) -> None:
        self._waiting[index] = token
        while self._num_delivered in self._waiting:
            token = self._waiting.pop(self._num_delivered)
            self._journey.trace.token(self._journey.clock.now_ns, self._num_delivered, token)
            self._num_delivered += 1
