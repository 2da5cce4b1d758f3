"""An emulated edge device: how long its share of a request takes, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.actors.calls import TOKEN_BYTES, FrontCall, WholeCall, pack_tokens
from testbed.actors.costs import CostModel
from testbed.actors.executor import HostPort
from testbed.codecs.framing import Codec
from testbed.core.work import Ticket, Work

MODELLED_TOKEN = -1  # stands for a token id where no model runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One request's path through the model: where it is cut, how hidden states travel, what seeds its choices."""

    request: int
    sampling_seed: int
    split: int
    codec_name: str
    codec: Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One pass of one request: a prefill, or a decode step of one token.

    `tokens` are the new token ids, None where the group is modelled; `num_tokens` counts them either way.
    """

    num_tokens: int
    past_tokens: int
    tokens: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What goes up: its size, its content where the group is real, and how long encoding it took the device."""

    size_bytes: int
    message: bytes | None
    encode_ns: int


class EdgeDevice:
    """Layers [0, split) on one device. With a `port` the layers really run; without, size and time are laws."""

    def __init__(self, costs: CostModel, port: HostPort | None) -> None:
        self._costs = costs
        self._port = port

    def start_front(self, session: Session, step: Step) -> Ticket[Payload]:
        """Run the front and encode. The ticket lasts as long as the layers; `Payload.encode_ns` comes after it."""
        duration_ns = self._forward_ns(step, session.split)
        raw_bytes = self._costs.shape.hidden_bytes(step.num_tokens, 32)
        if self._port is None or step.tokens is None:
            size = session.codec.nbytes(step.num_tokens, self._costs.shape.hidden_size)
            encode_ns = self._costs.codec_ns(raw_bytes, size)
            return Ticket(duration_ns, lambda: Payload(size_bytes=size, message=None, encode_ns=encode_ns))
        call = FrontCall(session=session.request, split=session.split, codec=session.codec_name, tokens=step.tokens)
        promise, measured = self._port.submit(call), self._port.measured

        def payload() -> Payload:
            done = promise()
            size = len(done.value)
            encode_ns = done.codec_ns if measured else self._costs.codec_ns(raw_bytes, size)
            return Payload(size_bytes=size, message=done.value, encode_ns=encode_ns)

        return Ticket(self._port.duration_ns(promise, duration_ns), payload)

    def start_whole(self, session: Session, step: Step) -> Ticket[int]:
        """Run the whole model on the device; the value is the next token."""
        duration_ns = self._forward_ns(step, self._costs.shape.num_layers)
        if self._port is None or step.tokens is None:
            return Ticket(duration_ns, lambda: MODELLED_TOKEN)
        call = WholeCall(session=session.request, sampling_seed=session.sampling_seed, tokens=step.tokens)
        promise = self._port.submit(call)
        return Ticket(self._port.duration_ns(promise, duration_ns), lambda: int(promise().value))

    def _forward_ns(self, step: Step, stop: int) -> int:
        work = Work(start=0, stop=stop, new_tokens=step.num_tokens, past_tokens=step.past_tokens)
        return self._costs.forward_ns([work])


def token_payload(step: Step) -> Payload:
    """Token ids as they are: what goes up where nothing runs on the device."""
    message = None if step.tokens is None else pack_tokens(step.tokens)
    return Payload(size_bytes=TOKEN_BYTES * step.num_tokens, message=message, encode_ns=0)
