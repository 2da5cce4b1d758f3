"""A shard: consecutive layers of one model with their own weights and their own sessions' KV cache.

``Shard(0, l)`` is a front, ``Shard(l, L)`` a back, ``Shard(0, L)`` the unsplit model. A shard that starts at 0 takes
token ids, any other takes hidden states; a shard that stops at L returns logits, any other returns hidden states.
Hidden states cross the cut as float32, which holds bfloat16 and float16 exactly.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers import DynamicCache

from testbed.core.errors import ModelError, nearest_name
from testbed.models.abreast import Forward, installed, row_by_row
from testbed.models.families import FAMILIES
from testbed.models.kv_format import KVFormat
from testbed.models.kv_store import KVStore
from testbed.models.loading import load_module
from testbed.models.parts import Part
from testbed.models.plan import Row, lone_step, plan_abreast, plan_batch
from testbed.models.ragged import Window, register
from testbed.models.source import ModelSource

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("sdpa", "eager")
_EVERY = 0  # as the library's `logits_to_keep`: none is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInput:
    """New tokens of one session: ids for a shard with the embedding, else hidden states [n, d] float32."""

    session: int
    tokens: Sequence[int] | None = None
    hidden: np.ndarray | None = None


class Shard:
    """Layers [start, stop) of a model; holds only their tensors and the keys and values of its open sessions."""

    def __init__(
        self,
        source: ModelSource,
        *,
        start: int,
        stop: int,
        dtype: str = "float32",
        device: str = "cpu",
        attn_implementation: str | None = None,
        kv_bits: int | None = None,
        absent: Collection[str] = (),
    ) -> None:
        """``kv_bits``: the width keys and values are stored at, packed; None stores them in ``dtype``.

        Parts that ``absent`` names are not loaded: `adopt` must put them in before the shard runs.
        """
        _check_choice(dtype, DTYPES, "dtype")
        attention = _attention(source, attn_implementation)
        kv_format = None if kv_bits is None else KVFormat(bits=kv_bits).check()
        if not 0 <= start < stop <= source.shape.num_layers:
            raise ModelError(
                f"a shard of {source.name} needs at least one layer",
                value=f"[{start}, {stop})",
                allowed=f"0 <= start < stop <= {source.shape.num_layers}",
            )
        self.source, self.start, self.stop = source, start, stop
        self._dtype, self._device = DTYPES[dtype], torch.device(device)
        self._module = load_module(
            source,
            start=start,
            stop=stop,
            dtype=self._dtype,
            device=self._device,
            attention=register(attention),
            absent=absent,
        )
        self._windows = _layer_windows(self._module.config)
        self._store = KVStore(self._windows, self._device, kv_format)
        self._mask_dtype = self._dtype if attention == "eager" else None
        has_table = FAMILIES[source.shape.family].position_table is not None
        self._can_go_abreast = attention == "sdpa" and set(self._windows) == {None} and not has_table
        self._row_by_row: Mapping[torch.nn.Module, Forward] | None = None  # made when it is first needed
        self._max_tokens = _max_tokens(source, self._module.config)

    @property
    def is_first(self) -> bool:
        """Whether the shard has the embedding and takes token ids."""
        return self.start == 0

    @property
    def is_last(self) -> bool:
        """Whether the shard has final norm and LM head and returns logits."""
        return self.stop == self.source.shape.num_layers

    @property
    def module(self) -> torch.nn.Module:
        """The shard's own module; weight quantisers replace its parameters."""
        return self._module.outer

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the shard is composed of; weight quantisers replace the modules, not the parts."""
        return self._module.parts

    def adopt(self, modules: Mapping[str, torch.nn.Module]) -> None:
        """Puts parts that another shard holds, by name, into their places here: both share them from now on.

        Where both ends are here and plain, a matrix that the model ties is one again.
        """
        for part in self.parts:
            if part.name in modules:
                self.module.set_submodule(part.path, modules[part.name])
        if self.source.shape.tied_embeddings and self.is_first and self.is_last:
            self._tie()

    def _tie(self) -> None:
        family = FAMILIES[self.source.shape.family]
        table = self.module.get_submodule(f"{family.decoder}.{family.token_table}")
        head = self.module.get_submodule("lm_head")
        if isinstance(shared := getattr(table, "weight", None), torch.nn.Parameter) and hasattr(head, "weight"):
            head.weight = shared

    @property
    def sessions(self) -> tuple[int, ...]:
        """Open sessions in the order of their opening."""
        return tuple(self._store.sessions)

    def open(self, session: int) -> None:
        """Starts a session with an empty cache."""
        if session in self._store.sessions:
            raise ModelError("session is already open on this shard", value=session)
        self._store.open(session)

    def close(self, session: int) -> None:
        """Ends a session; its cache is free for others."""
        self._length_of(session)
        self._store.close(session)

    def length(self, session: int) -> int:
        """Tokens of the session that this shard has run."""
        return self._length_of(session)

    def truncate(self, session: int, length: int) -> None:
        """Forgets a session's tokens from position ``length`` on; ModelError where a sliding window forbids it."""
        if not 0 <= length <= self._length_of(session):
            raise ModelError("cannot truncate to this length", value=length, allowed=f"0 to {self.length(session)}")
        self._store.truncate(session, length)

    def export_kv(self, session: int, start: int) -> np.ndarray:
        """Keys and values of a session from position ``start`` on, as they are stored: uint8 [layers, N, bytes].

        Before the next call where a sliding window may have left some of them behind.
        """
        self._length_of(session)
        with torch.inference_mode():
            records: np.ndarray = self._store.export(session, start).cpu().numpy()
        return records

    def restore_kv(self, session: int, records_LNB: np.ndarray) -> None:
        """Gives an open session without tokens what ``export_kv`` of such a shard gave, from position 0 on."""
        if self._length_of(session):
            raise ModelError("keys and values are for a session that has none yet", value=session)
        shape = self.source.shape
        with torch.inference_mode():
            like = torch.empty((1, shape.num_kv_heads, 0, shape.head_dim), dtype=self._dtype, device=self._device)
            self._store.restore(session, torch.from_numpy(np.array(records_LNB)).to(self._device), like)

    def kv_bytes(self) -> int:
        """Bytes of the keys and values that open sessions hold: the KV law's bytes (a window's, where one slides)."""
        return self._store.held_bytes()

    def kv_reserved_bytes(self) -> int:
        """Bytes of the cache's tensors, room for growth included."""
        return self._store.reserved_bytes()

    def resident_bytes(self) -> int:
        """Bytes of weights and buffers that this shard holds, a tied matrix counted once; without the KV cache."""
        return sum(self.resident_tensors().values())

    def resident_tensors(self) -> dict[int, int]:
        """The same by tensor, {address: bytes}: shards that share parts have addresses in common."""
        module = self._module.outer
        return {item.data_ptr(): item.nbytes for item in (*module.parameters(), *module.buffers())}

    def forward(
        self, inputs: Sequence[ShardInput], *, batched: bool = True, keep: Literal["last", "all"] = "last"
    ) -> list[np.ndarray]:
        """Runs every input's new tokens through the layers and appends them to its session's cache.

        Per input, in order: hidden states [n, d] float32, or from the last shard the logits [V] float32 of the input's
        last token, with ``keep="all"`` those of all its tokens [n, V]. ``batched`` runs all inputs as one batch,
        whatever their lengths; otherwise, or for a single input, each runs as if alone and gives what the unsplit model
        gives, bit for bit. Which other sessions share a batch or have lived on the shard before changes results by
        rounding only. A failed call leaves every session's length as it was. Raises ModelError for a session that is
        not open or named twice and for inputs that do not fit the model.
        """
        rows = [self._row(item) for item in inputs]
        if len({row.session for row in rows}) < len(rows):
            raise ModelError("a session appears twice in one batch", value=[row.session for row in rows])
        with torch.inference_mode():
            if batched and len(rows) > 1:
                return self._run_together(rows, keep_all=keep == "all")
            if self._can_go_abreast and len(rows) > 1 and all(row.new == 1 for row in rows):
                return self._run_abreast(rows, keep_all=keep == "all")
            return [self._run_alone(row, keep_all=keep == "all") for row in rows]

    def _run_alone(self, row: Row, *, keep_all: bool) -> np.ndarray:
        self._store.reserve(row.session, row.total)
        self._store.begin(lone_step(row, self._store))
        positions = torch.arange(row.past, row.total, device=self._device)
        output = self._call(row.data, positions, logits_to_keep=_EVERY if keep_all else 1)
        self._store.advance(row.session, row.total)
        return output[-1] if self.is_last and not keep_all else output

    def _run_abreast(self, rows: Sequence[Row], *, keep_all: bool) -> list[np.ndarray]:
        """Decode steps in one pass, each with the very bits that `_run_alone` gives it."""
        for row in rows:
            self._store.reserve(row.session, row.total)
        step, batch = plan_abreast(rows, self._store)
        self._store.begin(step)
        if self._row_by_row is None:
            self._row_by_row = row_by_row(self.module)
        with installed(self._row_by_row):
            output = self._call(
                torch.cat([row.data for row in rows]),
                torch.tensor([row.past for row in rows], device=self._device),
                logits_to_keep=_EVERY,
                attention_mask=torch.empty((1, 1, 0, 0), device=self._device),
                ragged=batch,
            )
        for row in rows:
            self._store.advance(row.session, row.total)
        return [part.copy() if self.is_last and not keep_all else part[None].copy() for part in output]

    def _run_together(self, rows: Sequence[Row], *, keep_all: bool) -> list[np.ndarray]:
        for row in rows:
            self._store.reserve(row.session, row.total)
        step, batch = plan_batch(rows, self._store, mask_dtype=self._mask_dtype)
        self._store.begin(step)
        ends = np.cumsum([row.new for row in rows])
        positions = torch.from_numpy(np.concatenate([np.arange(row.past, row.total) for row in rows]))
        output = self._call(
            torch.cat([row.data for row in rows]),
            positions.to(self._device),
            logits_to_keep=_EVERY if keep_all else torch.from_numpy(ends - 1).to(self._device),
            attention_mask=torch.empty((1, 1, 0, 0), device=self._device),  # 4-D: the library makes no mask of its own
            ragged=batch,
        )
        for row in rows:
            self._store.advance(row.session, row.total)
        if self.is_last and not keep_all:
            return list(output)
        return [part.copy() for part in np.split(output, ends[:-1])]

    def _call(
        self, data: torch.Tensor, positions: torch.Tensor, *, logits_to_keep: int | torch.Tensor, **kwargs: Any
    ) -> np.ndarray:
        """Hidden states [N, d], or logits of the positions to keep [rows, V], of packed tokens; float32 on the host."""
        kwargs |= {"input_ids" if self.is_first else "inputs_embeds": data[None], "position_ids": positions[None]}
        if self._module.causal_lm is None:
            result = self._module.decoder(past_key_values=self._store, use_cache=True, **kwargs).last_hidden_state
        else:
            kwargs["logits_to_keep"] = logits_to_keep
            result = self._module.causal_lm(past_key_values=self._store, use_cache=True, **kwargs).logits
        output: np.ndarray = result[0].float().cpu().numpy()
        return output

    def _row(self, item: ShardInput) -> Row:
        """The checked input on the shard's device."""
        past = self._length_of(item.session)
        data = self._token_data(item) if self.is_first else self._hidden_data(item)
        row = Row(session=item.session, past=past, data=data)
        if row.total > self._max_tokens:
            raise ModelError(
                f"session {item.session} grows beyond what {self.source.name} can place",
                value=row.total,
                allowed=f"{self._max_tokens} tokens",
            )
        return row

    def _token_data(self, item: ShardInput) -> torch.Tensor:
        if not item.tokens:
            raise ModelError("this shard has the embedding and takes token ids", path=f"session {item.session}")
        vocab = self.source.shape.vocab_size
        if min(item.tokens) < 0 or max(item.tokens) >= vocab:
            raise ModelError("token id outside the vocabulary", value=max(item.tokens), allowed=f"0 to {vocab - 1}")
        return torch.tensor(list(item.tokens), dtype=torch.long, device=self._device)

    def _hidden_data(self, item: ShardInput) -> torch.Tensor:
        width, hidden = self.source.shape.hidden_size, item.hidden
        if hidden is None or hidden.ndim != 2 or hidden.shape[0] == 0 or hidden.shape[1] != width:  # noqa: PLR2004
            raise ModelError(
                "this shard starts behind the cut and takes hidden states",
                path=f"session {item.session}",
                value=None if hidden is None else list(hidden.shape),
                allowed=f"[n, {width}]",
            )
        return torch.from_numpy(np.array(hidden, dtype=np.float32)).to(self._device, self._dtype)

    def _length_of(self, session: int) -> int:
        if session not in self._store.sessions:
            raise ModelError("session is not open on this shard", value=session)
        return self._store.sessions[session].length


def _attention(source: ModelSource, wanted: str | None) -> str:
    """The attention to run: the family's own unless another is wanted and the family has it."""
    family = FAMILIES[source.shape.family]
    attention = wanted or family.attention
    _check_choice(attention, ATTENTIONS if family.attention == "sdpa" else (family.attention,), "attn_implementation")
    return attention


def _layer_windows(config: Any) -> list[Window]:
    """Each layer's sliding window, as the library's own cache for this config has it."""
    layers: list[Any] = list(DynamicCache(config=config).layers)
    return [layer.sliding_window if layer.is_sliding else None for layer in layers]


def _max_tokens(source: ModelSource, config: Any) -> int:
    """The longest session: the learned position table, or where rotary frequencies start to depend on the length.

    Beyond that length dynamic and long-context rotary scaling change the frequencies of a whole batch.
    """
    limits = [sys.maxsize]
    if FAMILIES[source.shape.family].position_table is not None:
        limits.append(source.shape.max_positions)
    parameters = getattr(config, "rope_parameters", None) or {}
    for item in (parameters, *(value for value in parameters.values() if isinstance(value, dict))):
        if item.get("rope_type") in {"dynamic", "longrope"}:
            original = item.get("original_max_position_embeddings")
            original = original or getattr(config, "original_max_position_embeddings", None)
            limits.append(int(original or source.shape.max_positions))
    return min(limits)


def _check_choice(value: str, allowed: Iterable[str], what: str) -> None:
    if value not in set(allowed):
        raise ModelError(f"unknown {what}", value=value, allowed=sorted(allowed), nearest=nearest_name(value, allowed))
