"""A cloud worker: one real and modelled batch at a time through the layers behind the cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.actors.calls import TOKEN_BYTES, BackCall, BackItem, Refused
from testbed.actors.costs import CostModel
from testbed.actors.edge import MODELLED_TOKEN, Payload, Session, Step
from testbed.actors.executor import HostPort
from testbed.actors.sealing import Sealer
from testbed.codecs.framing import CodecError
from testbed.core.units import NS_PER_S
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

    @property
    def kv_bytes(self) -> int:
        """Keys and values of earlier tokens that came with it."""
        return self.session.crossing.kv_up_bytes(self.step.past_tokens)

    @property
    def answer_bytes(self) -> int:
        """What goes down for it, in the clear: a token id, and keys and values where they travel."""
        return TOKEN_BYTES + self.session.crossing.kv_down_bytes(self.step.num_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one iteration runs of a pass: `num_tokens` of its positions behind `past_tokens` that it finds in the cache.

    A pass's message is opened and decoded whole with its first part; its token, which the head gives, comes out of
    its last one. A pass that is run again needs no opening, and decodes earlier messages of its sequence too.
    """

    item: BackStep
    num_tokens: int
    past_tokens: int
    is_first: bool = True
    is_last: bool = True
    is_opened: bool = False  # before: it is run again
    kept_work: int = 0  # of decoding the earlier messages again, as `CloudWorker.decode_work` counts it

    @classmethod
    def whole(cls, item: BackStep) -> Part:
        """The pass in one piece."""
        return cls(item=item, num_tokens=item.step.num_tokens, past_tokens=item.step.past_tokens)

    @property
    def is_altered(self) -> bool:
        return self.item.payload.is_altered

    @property
    def is_real(self) -> bool:
        return self.item.real


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """A batch under way: opening and decoding all messages, the layers, sealing the tokens.

    The value is each sequence's next token, REFUSED, or NO_TOKEN where its pass goes on.
    """

    decode_ns: int
    back: Ticket[list[int]]
    open_ns: int = 0
    seal_ns: int = 0

    @property
    def duration_ns(self) -> int:
        return self.open_ns + self.decode_ns + self.back.duration_ns + self.seal_ns


REFUSED = -2  # stands for a token id where the message was none that the session can have sent
NO_TOKEN = -3  # and where the pass is not through


class CloudWorker:
    """Layers [split, L), norm and head for every split asked of it. Real sequences run through `port` as one batch."""

    def __init__(
        self, costs: CostModel, port: HostPort | None, sealer: Sealer | None = None, *, swap_bandwidth: int = 1
    ) -> None:
        self._swap_bandwidth = swap_bandwidth
        self.sealer = Sealer("none", costs.profile) if sealer is None else sealer
        self._costs = costs
        self._port = port

    def start(self, batch: Sequence[Part], swapped_bytes: int = 0) -> Iteration:
        """Begin one iteration over a non-empty batch, and the KV that is swapped before its layers run."""
        good = [part for part in batch if not part.is_altered]
        begun = [part for part in batch if part.is_first]
        open_ns, decode_ns = self._open_ns(begun), self._decode_ns(begun)
        swap_ns = -(-swapped_bytes * NS_PER_S // self._swap_bandwidth)
        back_ns = swap_ns + self._costs.forward_ns([self._work(part) for part in good])
        answers = [part.item.answer_bytes for part in good if part.is_last]
        seal_ns = self.sealer.spend(sum(self.sealer.time_ns(size_bytes) for size_bytes in answers))
        chosen = [_modelled_token(part) for part in batch]
        real = [place for place, part in enumerate(batch) if part.is_real]
        if not real:
            modelled = Ticket(back_ns, lambda: chosen)
            self.sealer.spend(open_ns)
            return Iteration(open_ns=open_ns, decode_ns=decode_ns, back=modelled, seal_ns=seal_ns)
        assert self._port is not None, "a server of real groups has a host"
        promise = self._port.submit(BackCall(items=tuple(_item(batch[place]) for place in real)))

        def tokens() -> list[int]:
            done = promise()
            for place, answer, kv in zip(real, done.value, done.kv, strict=True):
                token = _accepted(batch[place].item, answer)
                chosen[place] = token if token == REFUSED or batch[place].is_last else NO_TOKEN
                if kv:
                    batch[place].item.session.shipped.append(kv)
            return chosen

        if self._port.measured:
            open_ns, decode_ns = promise().seal_ns, promise().codec_ns
        self.sealer.spend(open_ns)
        back = Ticket(self._port.duration_ns(promise, back_ns), tokens)
        return Iteration(open_ns=open_ns, decode_ns=decode_ns, back=back, seal_ns=seal_ns)

    def _work(self, part: Part) -> Work:
        return Work(
            start=part.item.session.split,
            stop=self._costs.shape.num_layers,
            new_tokens=part.num_tokens,
            past_tokens=part.past_tokens,
            has_head=part.is_last,
        )

    def _open_ns(self, begun: Sequence[Part]) -> int:
        """One message after the other; what the server goes on with by itself needs no opening."""
        arrived = [part.item.payload for part in begun if not part.is_opened]
        sealed = [payload for payload in arrived if payload.seal_bytes]
        return sum(self.sealer.time_ns(payload.size_bytes - payload.seal_bytes) for payload in sealed)

    def _decode_ns(self, begun: Sequence[Part]) -> int:
        """One launch for all messages that hold hidden states, each with its own codec's passes."""
        coded = [part for part in begun if part.item.session.split > 0]
        if not coded:
            return 0
        return self._costs.coding_ns([(self.decode_work(part.item) + part.kept_work, 1) for part in coded])

    def decode_work(self, item: BackStep) -> int:
        """Bytes that decoding a message moves, times its codec's passes in percent; shipped KV is read and written."""
        if item.session.split == 0:
            return 0
        return self._moved_bytes(item) * item.session.codec.effort.decode_percent + 200 * item.kv_bytes

    def _moved_bytes(self, item: BackStep) -> int:
        """Hidden states and the message that they came in."""
        encoded_bytes = item.payload.size_bytes - item.payload.seal_bytes - item.kv_bytes
        return self._costs.shape.hidden_bytes(item.step.num_tokens, 32) + encoded_bytes


def _modelled_token(part: Part) -> int:
    if part.is_altered:
        return REFUSED
    return MODELLED_TOKEN if part.is_last else NO_TOKEN


def _accepted(item: BackStep, answer: int | Refused) -> int:
    """The token, or REFUSED for a message altered on its way; that any other is refused must not be."""
    if not isinstance(answer, Refused):
        return answer
    if not item.payload.is_altered:
        raise CodecError(answer.why)
    return REFUSED


def _item(part: Part) -> BackItem:
    item = part.item
    assert item.payload.message is not None, "a real sequence has a message"
    session = item.session
    return BackItem(
        session=session.request,
        sampling_seed=session.sampling_seed,
        split=session.split,
        codec=session.codec_name,
        message=item.payload.message if part.is_first else None,
        mode=session.crossing.mode,
        is_sealed=part.is_first and item.payload.seal_bytes > 0,
        num_tokens=None if part.is_first and part.is_last else part.num_tokens,
        is_last=part.is_last,
    )
