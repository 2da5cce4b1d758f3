"""A shard host: one process's worth of real shards, shared by many emulated devices or servers.

Fronts of one split share one set of weights; every session keeps its own KV cache. The host is a plain class: the
in-process executor calls it directly and a Ray actor wraps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from testbed.actors.calls import (
    AuditCall,
    BackCall,
    BackItem,
    Call,
    CloseCall,
    Done,
    FillCall,
    FrontCall,
    HostSpec,
    Refused,
    WholeCall,
    unpack_tokens,
)
from testbed.actors.host_shards import HostShards
from testbed.actors.session_seals import SessionSeals
from testbed.actors.stateless import StatelessMessages
from testbed.codecs.framing import Codec, CodecError
from testbed.codecs.named import make_codec
from testbed.core.cast import Quality
from testbed.models.sampling import Sampler
from testbed.models.shard import Shard, ShardInput

Logits = npt.NDArray[np.float32]
Hidden = npt.NDArray[np.float32]


def _apart(calls: Sequence[FrontCall]) -> Iterator[list[FrontCall]]:
    """In turn as many as are of different sessions: a host that takes over for a lost one is told all steps at once."""
    together: dict[int, FrontCall] = {}
    for call in calls:
        if call.session in together:
            yield list(together.values())
            together = {}
        together[call.session] = call
    yield list(together.values())


def _company(call: Call) -> object:
    """Equal for calls that may run together: decode steps through one front. A session waits for each of its own."""
    if isinstance(call, FrontCall) and len(call.tokens) == 1:
        return call.split
    return call


class ShardHost:
    """Runs calls one after the other, on the shards they need.

    Answers are held against the unsplit model at full precision.

    Devices' passes give what they give at batch 1, since each stands for a machine of its own: their results can't
    depend on which devices share a host. Decode steps that are handed in together go abreast, with the same bits. A
    server's batch runs as one real batch.
    """

    def __init__(self, spec: HostSpec) -> None:
        torch.set_num_threads(1)  # results, and the host's share of the machine, must not depend on the core count
        self._spec = spec
        self.shards = HostShards(spec, "cuda" if spec.use_gpu and torch.cuda.is_available() else "cpu")
        self._messages = StatelessMessages(spec)
        self._codecs: dict[tuple[str, int], Codec] = {}
        self._seals = SessionSeals(spec)
        self._rest: dict[int, ShardInput] = {}  # by session: what parts of its last message are to come
        self._samplers: dict[int, Sampler] = {}
        self._logits: dict[int, list[Logits]] = {}
        self._run: dict[type[Call], Callable[[Any], Done]] = {
            FrontCall: self._front,
            WholeCall: self._whole,
            BackCall: self._back,
            CloseCall: self._close,
            AuditCall: self._audit,
            FillCall: self._fill,
        }

    def execute(self, calls: Sequence[Call]) -> list[Done]:
        """Run calls in order; a session is opened by its first call."""
        results: list[Done] = []
        for _, run in groupby(calls, key=_company):
            together = list(run)
            if isinstance(first := together[0], FrontCall) and len(first.tokens) == 1:
                for calls_apart in _apart([call for call in together if isinstance(call, FrontCall)]):
                    results += self._fronts(calls_apart)
            else:
                results += [self._run[type(call)](call) for call in together]
        return results

    def _front(self, call: FrontCall) -> Done:
        (done,) = self._fronts([call])
        return done

    def _fronts(self, calls: Sequence[FrontCall]) -> list[Done]:
        """Passes of different sessions through one front; each took an equal share of the time."""
        shard = self.shards.front(calls[0].split, *(call.session for call in calls))
        started_ns = time.perf_counter_ns()
        inputs = [ShardInput(session=call.session, tokens=call.tokens) for call in calls]
        hidden = shard.forward(inputs, batched=False)
        compute_ns = (time.perf_counter_ns() - started_ns) // len(calls)
        return [self._sent(shard, call, hidden_ND, compute_ns) for call, hidden_ND in zip(calls, hidden, strict=True)]

    def _sent(self, shard: Shard, call: FrontCall, hidden_ND: Hidden, compute_ns: int) -> Done:
        """The message of a pass."""
        computed_ns = time.perf_counter_ns()
        position = shard.length(call.session) - len(call.tokens)
        hidden_ND, envelope = self._messages.outgoing(call, hidden_ND, position)
        message = self._codec(call.codec, call.split).encode(hidden_ND, envelope)
        message = self._messages.with_kv(message, call, envelope)
        encoded_ns = time.perf_counter_ns()
        if (seal := self._seals.of("device", call.session, call.split)) is not None:
            message = seal.seal(message, position + len(call.tokens))
        return Done(
            value=message,
            compute_ns=compute_ns,
            codec_ns=encoded_ns - computed_ns,
            seal_ns=time.perf_counter_ns() - encoded_ns,
        )

    def _whole(self, call: WholeCall) -> Done:
        shard = self.shards.front(self.shards.num_layers, call.session)
        started_ns = time.perf_counter_ns()
        (logits_V,) = shard.forward([ShardInput(session=call.session, tokens=call.tokens)], batched=False)
        token = self._choose(call, logits_V)
        return Done(value=token, compute_ns=time.perf_counter_ns() - started_ns)

    def _back(self, call: BackCall) -> Done:
        started_ns = time.perf_counter_ns()
        messages = [self._opened(item) for item in call.items]
        opened_ns = time.perf_counter_ns()
        inputs = [self._input(item, message) for item, message in zip(call.items, messages, strict=True)]
        decoded_ns = time.perf_counter_ns()
        tokens: list[int | Refused] = [given if isinstance(given, Refused) else 0 for given in inputs]
        spans = [(past, past) for past in map(self._length, call.items)]
        kv = [b""] * len(inputs)
        good = {place: given for place, given in enumerate(inputs) if isinstance(given, ShardInput)}
        for split in sorted({call.items[place].split for place in good}):
            places = [place for place in good if call.items[place].split == split]
            shard = self.shards.back(split, *(call.items[place].session for place in places))
            past_tokens = [shard.length(call.items[place].session) for place in places]
            logits = shard.forward([good[place] for place in places])
            for place, past, logits_V in zip(places, past_tokens, logits, strict=True):
                item = call.items[place]
                if item.is_last:
                    tokens[place] = self._choose(item, logits_V)
                spans[place] = (past, shard.length(item.session))
            for place, past in zip(places, past_tokens, strict=True):
                if (item := call.items[place]).mode != "stateful":
                    kv[place], spans[place] = self._sent_away(shard, item, past), (0, 0)
        return Done(
            value=tokens,
            compute_ns=time.perf_counter_ns() - decoded_ns,
            codec_ns=decoded_ns - opened_ns,
            seal_ns=opened_ns - started_ns,
            kv=tuple(kv),
            spans=tuple(spans),
        )

    def _sent_away(self, shard: Shard, item: BackItem, past: int) -> bytes:
        """A stateless server forgets the session; the keys and values of its pass, where they go down."""
        records_LNB = shard.export_kv(item.session, past) if item.mode == "ship-kv" else None
        shard.truncate(item.session, 0)
        return b"" if records_LNB is None else self._messages.answer(item, records_LNB, past)

    def _length(self, item: BackItem) -> int:
        """Tokens that the session's back holds."""
        shard = self.shards.back(item.split)
        return shard.length(item.session) if item.session in shard.sessions else 0

    def _opened(self, item: BackItem) -> bytes | Refused | None:
        """The message in the clear, if one came. Raises SealError where it can't be, unless that is an answer."""
        if item.message is None:
            return None
        seal = self._seals.of("server", item.session, item.split) if item.is_sealed else None
        try:
            return item.message if seal is None else seal.open(item.message)
        except CodecError as error:
            return self._refused(error)

    def _input(self, item: BackItem, message: bytes | Refused | None) -> ShardInput | Refused:
        """What the shard runs of a pass now; the rest waits for the pass's next part."""
        whole = self._left(item) if message is None else self._decoded(item, message)
        if isinstance(whole, Refused) or item.num_tokens is None:
            return whole
        now, rest = _cut(whole, item.num_tokens)
        if not item.is_last:
            self._rest[item.session] = rest
        return now

    def _left(self, item: BackItem) -> ShardInput:
        """What is left of the session's last message; filler for a session that has ended (see FillCall)."""
        assert item.num_tokens is not None, "a part says how long it is"
        return self._rest.pop(item.session, None) or self._filler(item.session, item.split, item.num_tokens)

    def _decoded(self, item: BackItem, message: bytes | Refused) -> ShardInput | Refused:
        if isinstance(message, Refused):
            return message
        if item.split == 0:
            return ShardInput(session=item.session, tokens=unpack_tokens(message))
        shard = self.shards.back(item.split, item.session)
        try:
            arrived = self._messages.arrived(item, message, shard.length(item.session))
            hidden_ND = self._codec(item.codec, item.split).decode(arrived.hidden, arrived.envelope)
        except CodecError as error:
            return self._refused(error)
        if arrived.records is not None:
            shard.restore_kv(item.session, arrived.records)
        return ShardInput(session=item.session, hidden=hidden_ND)

    def _refused(self, error: CodecError) -> Refused:
        if not self._spec.refuses:
            raise error
        return Refused(str(error))

    def _close(self, call: CloseCall) -> Done:
        for shard in self.shards:
            if call.session in shard.sessions:
                shard.close(call.session)
        self._rest.pop(call.session, None)
        self._messages.forget(call.session)
        self._samplers.pop(call.session, None)
        self._logits.pop(call.session, None)
        self._seals.forget(call.session)
        return Done(value=None)

    def _fill(self, call: FillCall) -> Done:
        shard = self.shards.back(call.split, call.session)
        shard.forward([self._filler(call.session, call.split, call.num_tokens)], batched=False)
        return Done(value=None)

    def _filler(self, session: int, split: int, num_tokens: int) -> ShardInput:
        if split == 0:
            return ShardInput(session=session, tokens=[0] * num_tokens)
        hidden_ND = np.zeros((num_tokens, self._spec.source.shape.hidden_size), dtype=np.float32)
        return ShardInput(session=session, hidden=hidden_ND)

    def _audit(self, call: AuditCall) -> Done:
        """Teacher-forced: at each step the unsplit model sees the tokens that the split run chose."""
        kept = self._logits.pop(call.session)
        shard = self.shards.reference(session := -1 - call.session)
        num_agree, largest = 0, 0.0
        for step, logits_V in enumerate(kept):
            tokens = call.prompt if step == 0 else (call.output[step - 1],)
            (reference_V,) = shard.forward([ShardInput(session=session, tokens=tokens)], batched=False)
            num_agree += int(np.argmax(reference_V) == np.argmax(logits_V))
            largest = max(largest, float(np.abs(reference_V - logits_V).max()))
        shard.close(session)
        return Done(value=Quality(num_tokens=len(kept), num_agree=num_agree, max_logit_difference=largest))

    def _choose(self, call: WholeCall | BackItem, logits_V: Logits) -> int:
        session = call.session
        if session not in self._samplers:
            self._samplers[session] = Sampler(self._spec.sampling, call.sampling_seed)
        if self._spec.keep_logits:
            self._logits.setdefault(session, []).append(logits_V)
        return self._samplers[session].sample(logits_V)

    def _codec(self, name: str, split: int) -> Codec:
        """Raises CodecError for a codec that no session agreed on, at this cut."""
        pair = (name, split)
        if pair not in self._codecs:
            if self._spec.codecs is not None and pair not in self._spec.codecs:
                raise CodecError(f"no session agreed on codec {name} behind layer {split}")
            self._codecs[pair] = make_codec(name, self._spec.agreed.get(pair))
        return self._codecs[pair]


def _cut(whole: ShardInput, num_tokens: int) -> tuple[ShardInput, ShardInput]:
    """An input's first tokens, and the others."""
    parts = slice(None, num_tokens), slice(num_tokens, None)
    if whole.tokens is not None:
        first, others = (ShardInput(session=whole.session, tokens=whole.tokens[part]) for part in parts)
    else:
        assert whole.hidden is not None, "an input is tokens or hidden states"
        first, others = (ShardInput(session=whole.session, hidden=whole.hidden[part]) for part in parts)
    return first, others
