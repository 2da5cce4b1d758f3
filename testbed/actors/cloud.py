"""A cloud worker: one real and modelled batch at a time through the layers behind the cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.actors.calls import BackCall, BackItem
from testbed.actors.costs import CostModel
from testbed.actors.edge import MODELLED_TOKEN, Payload, Session, Step
from testbed.actors.executor import HostPort
from testbed.core.work import Ticket, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class BackStep:
    """One sequence's pass on the server. `payload` is what arrived for it; None where the server goes on by itself.

    `step.tokens` are set only at split 0, where token ids and not hidden states come in.
    """

    session: Session
    step: Step
    payload: Payload
    real: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """A batch under way: decoding all messages, then the layers; the value is each sequence's next token."""

    decode_ns: int
    back: Ticket[list[int]]


class CloudWorker:
    """Layers [split, L), norm and head for every split asked of it. Real sequences run through `port` as one batch."""

    def __init__(self, costs: CostModel, port: HostPort | None) -> None:
        self._costs = costs
        self._port = port

    def start(self, batch: Sequence[BackStep]) -> Iteration:
        """Begin one iteration over a non-empty batch."""
        decode_ns = self._decode_ns(batch)
        back_ns = self._costs.forward_ns([self._work(item) for item in batch])
        real = [place for place, item in enumerate(batch) if item.real]
        if not real:
            return Iteration(decode_ns=decode_ns, back=Ticket(back_ns, lambda: [MODELLED_TOKEN] * len(batch)))
        assert self._port is not None, "a server of real groups has a host"
        promise = self._port.submit(BackCall(items=tuple(_item(batch[place]) for place in real)))

        def tokens() -> list[int]:
            chosen = [MODELLED_TOKEN] * len(batch)
            for place, token in zip(real, promise().value, strict=True):
                chosen[place] = token
            return chosen

        if self._port.measured:
            decode_ns = promise().codec_ns
        return Iteration(decode_ns=decode_ns, back=Ticket(self._port.duration_ns(promise, back_ns), tokens))

    def _work(self, item: BackStep) -> Work:
        return Work(
            start=item.session.split,
            stop=self._costs.shape.num_layers,
            new_tokens=item.step.num_tokens,
            past_tokens=item.step.past_tokens,
        )

    def _decode_ns(self, batch: Sequence[BackStep]) -> int:
        """One elementwise pass over all messages that hold hidden states."""
        coded = [item for item in batch if item.session.split > 0]
        if not coded:
            return 0
        raw_bytes = sum(self._costs.shape.hidden_bytes(item.step.num_tokens, 32) for item in coded)
        return self._costs.codec_ns(raw_bytes, sum(item.payload.size_bytes for item in coded))


def _item(item: BackStep) -> BackItem:
    assert item.payload.message is not None, "a real sequence has a message"
    session = item.session
    return BackItem(
        session=session.request,
        sampling_seed=session.sampling_seed,
        split=session.split,
        codec=session.codec_name,
        message=item.payload.message,
    )
