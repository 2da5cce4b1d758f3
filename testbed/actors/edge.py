"""An emulated edge device: how long its share of a request takes, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.actors.calls import TOKEN_BYTES, FrontCall, WholeCall, pack_tokens
from testbed.actors.costs import CostModel
from testbed.actors.executor import HostPort
from testbed.actors.modes import STATEFUL, Crossing
from testbed.actors.payload_law import SizeOf
from testbed.actors.sealing import Sealer
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
    size_of: SizeOf  # of its modelled messages
    crossing: Crossing = STATEFUL
    shipped: list[bytes] = field(default_factory=list)  # keys and values that came down, a message a pass


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
    """What goes up: its size, its content where the group is real, and how long the device worked on it."""

    size_bytes: int
    message: bytes | None
    encode_ns: int
    seal_ns: int = 0
    seal_bytes: int = 0  # of its size
    is_altered: bool = False  # on its way; the server can't know but by opening it


class EdgeDevice:
    """Layers [0, split) on one device. With a `port` the layers really run; without, size and time are laws."""

    def __init__(self, costs: CostModel, port: HostPort | None, sealer: Sealer | None = None) -> None:
        self.sealer = Sealer("none", costs.profile) if sealer is None else sealer
        self._costs = costs
        self._port = port

    def start_front(self, session: Session, step: Step) -> Ticket[Payload]:
        """Run the front and encode. The ticket lasts as long as the layers; `Payload.encode_ns` comes after it."""
        duration_ns = self._forward_ns(step, session.split)
        crossing = session.crossing
        num_sent = step.num_tokens + crossing.rerun_tokens(step.past_tokens)
        kv_bytes = crossing.kv_up_bytes(step.past_tokens)
        if self._port is None or step.tokens is None:
            size = session.size_of(num_sent, step.past_tokens) + kv_bytes
            modelled = self._sealed(size, None, self._encode_ns(session, num_sent, size, kv_bytes))
            return Ticket(duration_ns, lambda: modelled)
        call = FrontCall(
            session=session.request,
            split=session.split,
            codec=session.codec_name,
            tokens=step.tokens,
            mode=crossing.mode,
            kv=tuple(session.shipped),
        )
        promise, measured = self._port.submit(call), self._port.measured

        def payload() -> Payload:
            done = promise()
            size = len(done.value) - self.sealer.overhead_bytes
            if measured:
                return self._sealed(size, done.value, done.codec_ns, done.seal_ns)
            return self._sealed(size, done.value, self._encode_ns(session, num_sent, size, kv_bytes))

        return Ticket(self._port.duration_ns(promise, duration_ns), payload)

    def _encode_ns(self, session: Session, num_tokens: int, size_bytes: int, kv_bytes: int) -> int:
        """The codec's passes over hidden states and their message; keys and values in it are read and written once."""
        moved_bytes = self._costs.shape.hidden_bytes(num_tokens, 32) + size_bytes - kv_bytes
        return self._costs.coding_ns([(moved_bytes, session.codec.effort.encode_percent), (2 * kv_bytes, 100)])

    def tokens(self, session: Session, step: Step) -> Payload:
        """Token ids as they go up where nothing runs on the device, sealed where messages are."""
        clear = token_payload(step)
        message = None if clear.message is None else self.sealer.sealed(clear.message, session.request, step.num_tokens)
        return self._sealed(clear.size_bytes, message, 0)

    def _sealed(self, size_bytes: int, message: bytes | None, encode_ns: int, seal_ns: int | None = None) -> Payload:
        """A payload of so many bytes in the clear; `message` is what travels."""
        return Payload(
            size_bytes=size_bytes + self.sealer.overhead_bytes,
            message=message,
            encode_ns=encode_ns,
            seal_ns=self.sealer.spend(self.sealer.time_ns(size_bytes) if seal_ns is None else seal_ns),
            seal_bytes=self.sealer.overhead_bytes,
        )

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
