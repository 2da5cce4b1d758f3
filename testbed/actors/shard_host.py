"""A shard host: one process's worth of real shards, shared by many emulated devices or servers.

Fronts of one split share one set of weights; every session keeps its own KV cache. The host is a plain class: the
in-process executor calls it directly and a Ray actor wraps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

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
from testbed.actors.layer_store import LayerStore
from testbed.actors.session_seals import SessionSeals
from testbed.actors.stateless import StatelessMessages
from testbed.codecs.framing import Codec, CodecError
from testbed.codecs.named import make_codec
from testbed.core.cast import Quality
from testbed.models.sampling import Sampler
from testbed.models.shard import Shard, ShardInput
from testbed.quantization.apply import needs_blocks, needs_text, quantise_module
from testbed.quantization.blocks import Blocks, collect_blocks
from testbed.quantization.calibrate import Statistics, collect
from testbed.quantization.config import WeightConfig
from testbed.quantization.saved import load_quantised
from testbed.quantization.targets import find_blocks

Side = Literal["front", "back", "reference"]  # whose precision a shard has; the reference is never quantised
Key = tuple[int, int, WeightConfig | None, int | None]  # a shard: layers [start, stop), how weights and KV are stored
Logits = npt.NDArray[np.float32]
_CALIBRATION = -1  # a session of no request


class ShardHost:
    """Loads the shards its calls need, at their first use, and runs calls one after the other.

    Where the spec says so, weights and KV caches are stored packed: those of a shard that a device runs as the front's,
    of one that a server runs as the back's. Answers are held against the unsplit model at full precision.

    Devices' passes run at batch 1, since each stands for a machine of its own: their results can't depend on which
    devices share a host. A server's batch runs as one real batch.
    """

    def __init__(self, spec: HostSpec) -> None:
        torch.set_num_threads(1)  # results, and the host's share of the machine, must not depend on the core count
        self._spec = spec
        self._device = "cuda" if spec.use_gpu and torch.cuda.is_available() else "cpu"
        self._shards: dict[Key, Shard] = {}
        self._layers = LayerStore(spec.source, dtype=spec.dtype, device=self._device, pack=self._pack)
        self._messages = StatelessMessages(spec)
        self._statistics: Statistics | None = None
        self._codecs: dict[tuple[str, int], Codec] = {}
        self._seals = SessionSeals(spec)
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
        return [self._run[type(call)](call) for call in calls]

    def resident_bytes(self) -> dict[tuple[int, int, WeightConfig | None], int]:
        """Bytes of weights held, by shard (start, stop, how they are stored)."""
        return {key[:3]: shard.resident_bytes() for key, shard in self._shards.items()}

    def weight_bytes(self) -> int:
        """Bytes of weights and buffers of all shards, what they share counted once."""
        tensors: dict[int, int] = {}
        for shard in self._shards.values():
            tensors |= shard.resident_tensors()
        return sum(tensors.values())

    def kv_bytes(self) -> dict[tuple[int, int], int]:
        """Bytes of keys and values that open sessions hold, by layers [start, stop)."""
        held: dict[tuple[int, int], int] = {}
        for (start, stop, *_), shard in self._shards.items():
            held[start, stop] = held.get((start, stop), 0) + shard.kv_bytes()
        return held

    def calibration_states(self, split: int) -> list[npt.NDArray[np.float32]]:
        """Hidden states [n, d] of each calibration sequence behind the first `split` layers, as devices have them."""
        shard, states = self._shard("front", 0, split), []
        for tokens in self._spec.calibration:
            shard.open(_CALIBRATION)
            states += shard.forward([ShardInput(session=_CALIBRATION, tokens=tokens)], batched=False)
            shard.close(_CALIBRATION)
        return states

    def _front(self, call: FrontCall) -> Done:
        shard = self._shard("front", 0, call.split, call.session)
        started_ns = time.perf_counter_ns()
        (hidden_ND,) = shard.forward([ShardInput(session=call.session, tokens=call.tokens)], batched=False)
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
            compute_ns=computed_ns - started_ns,
            codec_ns=encoded_ns - computed_ns,
            seal_ns=time.perf_counter_ns() - encoded_ns,
        )

    def _whole(self, call: WholeCall) -> Done:
        shard = self._shard("front", 0, self._num_layers, call.session)
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
            shard = self._shard("back", split, self._num_layers, *(call.items[place].session for place in places))
            past_tokens = [shard.length(call.items[place].session) for place in places]
            logits = shard.forward([good[place] for place in places])
            for place, past, logits_V in zip(places, past_tokens, logits, strict=True):
                item = call.items[place]
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
        shard = self._shard("back", item.split, self._num_layers)
        return shard.length(item.session) if item.session in shard.sessions else 0

    def _opened(self, item: BackItem) -> bytes | Refused:
        """The message in the clear. Raises SealError where it can't be opened, unless that is an answer."""
        seal = self._seals.of("server", item.session, item.split) if item.is_sealed else None
        try:
            return item.message if seal is None else seal.open(item.message)
        except CodecError as error:
            return self._refused(error)

    def _input(self, item: BackItem, message: bytes | Refused) -> ShardInput | Refused:
        if isinstance(message, Refused):
            return message
        if item.split == 0:
            return ShardInput(session=item.session, tokens=unpack_tokens(message))
        shard = self._shard("back", item.split, self._num_layers, item.session)
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
        for shard in self._shards.values():
            if call.session in shard.sessions:
                shard.close(call.session)
        self._messages.forget(call.session)
        self._samplers.pop(call.session, None)
        self._logits.pop(call.session, None)
        self._seals.forget(call.session)
        return Done(value=None)

    def _fill(self, call: FillCall) -> Done:
        shard = self._shard("back", call.split, self._num_layers, call.session)
        if call.split == 0:
            filler = ShardInput(session=call.session, tokens=[0] * call.num_tokens)
        else:
            hidden_ND = np.zeros((call.num_tokens, self._spec.source.shape.hidden_size), dtype=np.float32)
            filler = ShardInput(session=call.session, hidden=hidden_ND)
        shard.forward([filler], batched=False)
        return Done(value=None)

    def _audit(self, call: AuditCall) -> Done:
        """Teacher-forced: at each step the unsplit model sees the tokens that the split run chose."""
        kept = self._logits.pop(call.session)
        shard = self._shard("reference", 0, self._num_layers, session := -1 - call.session)
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

    def _shard(self, side: Side, start: int, stop: int, *sessions: int) -> Shard:
        key = (start, stop, self._stored(side, start, stop), self._kv_bits(side))
        shard = self._shards.get(key)
        if shard is None:
            shard = self._shards[key] = self._layers.shard(*key)
        for session in sessions:
            if session not in shard.sessions:
                shard.open(session)
        return shard

    def _stored(self, side: Side, start: int, stop: int) -> WeightConfig | None:
        """How a shard's weights are stored and its inputs rounded, with the change point at its own cut.

        None where everything stays as it is.
        """
        weights = self._spec.weights
        if weights is None or side == "reference":
            return None
        is_front = side == "front"
        layers = weights.front if is_front else weights.back
        inputs = weights.front_inputs if is_front else weights.back_inputs
        embedding = weights.embedding if start == 0 else None
        head = weights.head if stop == self._num_layers else None
        if layers is None and inputs is None and embedding is None and head is None:
            return None
        own = replace(weights, split=0, front=None, front_inputs=None, embedding=embedding, head=head)
        return replace(own, back=layers, back_inputs=inputs)

    def _kv_bits(self, side: Side) -> int | None:
        if side == "reference":
            return None
        return self._spec.front_kv_bits if side == "front" else self._spec.back_kv_bits

    def _pack(self, shard: Shard, stored: WeightConfig) -> None:
        if self._spec.saved is not None:
            load_quantised(shard.module, self._spec.saved, first_layer=shard.start)
            return
        seen = self._calibrated() if needs_text(stored) else None
        blocks = self._blocks(shard) if needs_blocks(stored) else None
        quantise_module(shard.module, stored, first_layer=shard.start, statistics=seen, blocks=blocks)

    def _calibrated(self) -> Statistics:
        """What the unsplit model's linear layers are fed when it reads the calibration text."""
        if self._statistics is None:
            shard = self._layers.shard(0, self._num_layers, None, None)
            self._statistics = collect(shard.module, lambda: self._read_text(shard))
        return self._statistics

    def _blocks(self, shard: Shard) -> Blocks:
        """What enters the layers to be packed in the unsplit model; not kept, since it is all their hidden states."""
        layers = {block.layer for block in find_blocks(shard.module, shard.start)}
        whole = self._layers.shard(0, self._num_layers, None, None)
        return collect_blocks(whole.module, lambda: self._read_text(whole), layers=layers) if layers else {}

    def _read_text(self, shard: Shard) -> None:
        for session, tokens in enumerate(self._spec.calibration):
            shard.open(session)
            shard.forward([ShardInput(session=session, tokens=tokens)], batched=False)
            shard.close(session)

    def _codec(self, name: str, split: int) -> Codec:
        """Raises CodecError for a codec that no session agreed on, at this cut."""
        pair = (name, split)
        if pair not in self._codecs:
            if self._spec.codecs is not None and pair not in self._spec.codecs:
                raise CodecError(f"no session agreed on codec {name} behind layer {split}")
            self._codecs[pair] = make_codec(name, self._spec.agreed.get(pair))
        return self._codecs[pair]

    @property
    def _num_layers(self) -> int:
        return self._spec.source.shape.num_layers
