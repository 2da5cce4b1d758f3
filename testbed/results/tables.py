"""The tables that are written when a run ends: requests, devices, links, servers' totals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from testbed.core import request_row as rows
from testbed.core.cast import Cast, DeviceEnd, DeviceStateEnd, Quality, RequestFacts, RunEnd, ServerEnd
from testbed.core.events import HOPS, Outcome
from testbed.core.records import Records, column_of
from testbed.core.request_row import OUTCOMES, UNKNOWN
from testbed.core.units import NS_PER_S
from testbed.results import files

IntArray = npt.NDArray[np.int64]
_SERVER_OPERATION = ("starting_ns", "up_ns", "draining_ns", "down_ns", "failures", "cost_usd")
_SERVER_ACCOUNT = (
    *("busy_ns", "energy_j", "peak_kv_bytes"),
    *("preemptions", "swapped_bytes", "recomputed_tokens", "prefix_tokens", "rejected"),
)
_COMPLETED = OUTCOMES.index(Outcome.COMPLETED)


class Rows(Protocol):
    """Requests as rows of numbers (testbed.core.request_row), and what some of the numbers stand for."""

    @property
    def codecs(self) -> Collection[str]: ...

    @property
    def reasons(self) -> Collection[str]: ...

    @property
    def tokens(self) -> Mapping[int, Sequence[int]]:
        """Ids that real requests answered."""
        ...

    @property
    def moves(self) -> Mapping[int, Sequence[int]]:
        """Of preempted requests: how often, bytes swapped, tokens computed again."""
        ...

    def table(self) -> IntArray: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What real requests answered: how that compares with the unsplit model, and as text."""

    quality: Mapping[int, Quality]
    texts: Mapping[int, str]


NO_ANSWERS = Answers(quality={}, texts={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who devices are, by their number."""

    groups: Sequence[str]
    kinds: Sequence[str]
    group: IntArray  # index into `groups`
    kind: IntArray
    real: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, cast: Cast) -> Identity:
        groups, group = _coded(column_of(cast.devices, "group"))
        kinds, kind = _coded(column_of(cast.devices, "kind"))
        real = np.asarray(column_of(cast.devices, "real"), dtype=np.bool_)
        return cls(groups=groups, kinds=kinds, group=group, kind=kind, real=real)


def _coded(names: Any) -> tuple[list[str], IntArray]:
    """The different names in order, and each name's place among them."""
    known, codes = np.unique(np.asarray(names, dtype=object), return_inverse=True)
    return [str(name) for name in known], codes.astype(np.int64)


def request_table(requests: Rows, identity: Identity, facts: RequestFacts | None, answers: Answers) -> pa.Table:
    """A row a request, sorted by its number; null where a thing is not defined."""
    cells_RC = requests.table()
    columns: dict[str, Any] = {
        **_identity_columns(cells_RC, identity),
        **_fact_columns(cells_RC[:, rows.REQUEST], facts),
        **_decision_columns(cells_RC, requests),
        **_time_columns(cells_RC),
        **_traffic_columns(cells_RC),
        **_move_columns(cells_RC[:, rows.REQUEST], requests),
        **{files.hop_column(hop): _ints(cells_RC[:, index]) for index, hop in enumerate(HOPS)},
        **_answer_columns(cells_RC[:, rows.REQUEST], requests, answers),
    }
    return pa.table({name: columns[name] for name in files.REQUEST_SCHEMA.names}, schema=files.REQUEST_SCHEMA)


def _ints(values: IntArray) -> pa.Array:
    return pa.array(np.ascontiguousarray(values))


def _known(values: IntArray) -> pa.Array:
    """Integers with UNKNOWN as null."""
    return pa.array(np.ascontiguousarray(values), mask=values == UNKNOWN)


def _names(codes: IntArray, names: Sequence[str]) -> pa.Array:
    """Strings by code, with UNKNOWN as null."""
    indices = pa.array(codes, mask=codes == UNKNOWN).cast(pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(names), pa.string())).dictionary_decode()


def _identity_columns(cells_RC: IntArray, identity: Identity) -> dict[str, pa.Array]:
    devices = cells_RC[:, rows.DEVICE]
    return {
        "request": _ints(cells_RC[:, rows.REQUEST]),
        "device": _ints(devices),
        "group": _names(identity.group[devices], identity.groups),
        "device_kind": _names(identity.kind[devices], identity.kinds),
        "real": pa.array(identity.real[devices]),
    }


def _fact_columns(ids: IntArray, facts: RequestFacts | None) -> dict[str, pa.Array]:
    """Null where nothing is known, where kinds have no names, and outside of sessions."""
    if facts is None:
        nothing = {"kind": pa.string(), "session": pa.int64(), "turn": pa.int32(), "history_tokens": pa.int64()}
        return {name: pa.nulls(len(ids), kind) for name, kind in nothing.items()}
    session = facts.session[ids].astype(np.int64)
    outside = session == UNKNOWN
    return {
        "kind": _names(facts.kind[ids].astype(np.int64), facts.kind_names),
        "session": _known(session),
        "turn": pa.array(facts.turn[ids].astype(np.int32), mask=outside),
        "history_tokens": pa.array(facts.history_tokens[ids].astype(np.int64), mask=outside),
    }


def _decision_columns(cells_RC: IntArray, requests: Rows) -> dict[str, pa.Array]:
    return {
        "server": _known(cells_RC[:, rows.SERVER]),
        "split": _known(cells_RC[:, rows.SPLIT]),
        "codec": _names(cells_RC[:, rows.CODEC], list(requests.codecs)),
        "codec_changes": _ints(cells_RC[:, rows.CODEC_CHANGES]),
        "outcome": _names(cells_RC[:, rows.OUTCOME], OUTCOMES),
        "reason": _names(cells_RC[:, rows.REASON], list(requests.reasons)),
    }


def _time_columns(cells_RC: IntArray) -> dict[str, pa.Array]:
    """Times, and the three latencies: TTFT from the first token on, TPOT from the second, E2E of completed requests."""
    arrival, first = cells_RC[:, rows.ARRIVAL_NS], cells_RC[:, rows.FIRST_TOKEN_NS]
    last, end = cells_RC[:, rows.LAST_TOKEN_NS], cells_RC[:, rows.END_NS]
    num_tokens = cells_RC[:, rows.OUTPUT_TOKENS]
    gaps = np.maximum(num_tokens - 1, 1)
    return {
        "arrival_ns": _ints(arrival),
        "admitted_ns": _known(cells_RC[:, rows.ADMITTED_NS]),
        "first_token_ns": _known(first),
        "last_token_ns": _known(last),
        "end_ns": _known(end),
        "prompt_tokens": _ints(cells_RC[:, rows.PROMPT_TOKENS]),
        "max_output_tokens": _ints(cells_RC[:, rows.MAX_OUTPUT_TOKENS]),
        "output_tokens": _ints(num_tokens),
        "ttft_s": pa.array((first - arrival) / NS_PER_S, mask=first == UNKNOWN),
        "tpot_s": pa.array((last - first) / gaps / NS_PER_S, mask=num_tokens < 2),  # noqa: PLR2004
        "e2e_s": pa.array((end - arrival) / NS_PER_S, mask=cells_RC[:, rows.OUTCOME] != _COMPLETED),
    }


def _move_columns(ids: IntArray, requests: Rows) -> dict[str, pa.Array]:
    """What preemption on a server cost each request, and what it found of earlier turns."""
    moves_R5 = np.array([requests.moves.get(request, (0, 0, 0, 0, 0)) for request in ids.tolist()], dtype=np.int64)
    names = ("preemptions", "swapped_bytes", "recomputed_tokens", "prefix_tokens", "requeues")
    return {name: _ints(column) for name, column in zip(names, moves_R5.reshape(-1, 5).T, strict=True)}


def _traffic_columns(cells_RC: IntArray) -> dict[str, pa.Array]:
    return {
        "payload_bytes_up": _ints(cells_RC[:, rows.PAYLOAD_UP]),
        "payload_bytes_down": _ints(cells_RC[:, rows.PAYLOAD_DOWN]),
        "wire_bytes_up": _ints(cells_RC[:, rows.WIRE_UP]),
        "wire_bytes_down": _ints(cells_RC[:, rows.WIRE_DOWN]),
        "retransmissions": _ints(cells_RC[:, rows.RETRANSMISSIONS]),
    }


def _answer_columns(ids: IntArray, requests: Rows, answers: Answers) -> dict[str, pa.Array]:
    """What real requests answered, and how it compares with the unsplit model."""
    order: list[int] = ids.tolist()
    tokens = [None if request not in requests.tokens else list(requests.tokens[request]) for request in order]
    quality = [answers.quality.get(request) for request in order]
    agreement = [None if q is None or q.num_tokens == 0 else q.num_agree / q.num_tokens for q in quality]
    return {
        "tokens": pa.array(tokens, pa.list_(pa.int64())),
        "text": pa.array([answers.texts.get(request) for request in order], pa.string()),
        "compared_tokens": pa.array([None if q is None else q.num_tokens for q in quality], pa.int64()),
        "agreeing_tokens": pa.array([None if q is None else q.num_agree for q in quality], pa.int64()),
        "token_agreement": pa.array(agreement, pa.float64()),
        "max_logit_difference": pa.array(
            [None if q is None else q.max_logit_difference for q in quality], pa.float64()
        ),
    }


_DEVICE_FIGURES = (
    *("busy_ns", "transmit_ns", "receive_ns", "energy_j", "peak_memory_bytes"),
    *("idle_j", "compute_j", "transmit_j", "receive_j"),
)
_STATE_FIGURES = tuple(field.name for field in fields(DeviceStateEnd))


def device_table(requests: pa.Table, cast: Cast, end: RunEnd) -> pa.Table:
    """A row a device: its requests by outcome, and its account where the run could still give one."""
    counts = {outcome: _count_by_device(requests, outcome, len(cast.devices)) for outcome in OUTCOMES}
    columns = {
        **{name: column_of(cast.devices, name) for name in ("device", "group", "kind", "real")},
        "requests": sum(counts.values()),
        **{str(outcome): count for outcome, count in counts.items()},
        **_device_accounts(cast, end.devices),
    }
    return pa.table(columns, schema=files.DEVICE_SCHEMA)


def _device_accounts(cast: Cast, ends: Sequence[DeviceEnd]) -> dict[str, Any]:
    if isinstance(ends, Records):
        nothing = {name: pa.nulls(len(ends), files.DEVICE_SCHEMA.field(name).type) for name in _STATE_FIGURES}
        return {**{name: ends.column(name) for name in _DEVICE_FIGURES}, **nothing}
    known = {entry.device: entry for entry in ends}
    found: list[DeviceEnd | None] = [known.get(entry.device) for entry in cast.devices]
    states = [None if entry is None else entry.state for entry in found]
    return {**_accounts(found, _DEVICE_FIGURES), **_accounts(states, _STATE_FIGURES)}


def _count_by_device(requests: pa.Table, outcome: Outcome, num_devices: int) -> IntArray:
    chosen = requests.filter(pc.equal(requests["outcome"], str(outcome)))["device"].to_numpy()
    return np.bincount(chosen, minlength=num_devices).astype(np.int64)


def _accounts(entries: Sequence[Any | None], names: Sequence[str]) -> dict[str, list[Any]]:
    """A column a name, null where there is no entry."""
    return {name: [None if entry is None else getattr(entry, name) for entry in entries] for name in names}


def link_table(cast: Cast, end: RunEnd) -> pa.Table:
    """A row a direction of a device's link."""
    names = [name for name in files.LINK_SCHEMA.names if name != "group"]
    columns: dict[str, Any] = {name: column_of(end.links, name) for name in names}
    identity = Identity.of(cast)
    columns["group"] = _names(identity.group[np.asarray(columns["device"], dtype=np.int64)], identity.groups)
    return pa.table({name: columns[name] for name in files.LINK_SCHEMA.names}, schema=files.LINK_SCHEMA)


def edge_table(end: RunEnd) -> pa.Table:
    """A row a direction of an edge of the topology."""
    return pa.table(_accounts(end.edges, files.EDGE_SCHEMA.names), schema=files.EDGE_SCHEMA)


def server_total_table(num_iterations: Sequence[int], cast: Cast, end: RunEnd) -> pa.Table:
    """A row a server."""
    ends = {entry.server: entry for entry in end.servers}
    found: list[ServerEnd | None] = [ends.get(entry.server) for entry in cast.servers]
    columns = {
        "server": [entry.server for entry in cast.servers],
        "group": [entry.group for entry in cast.servers],
        "kind": [entry.kind for entry in cast.servers],
        "iterations": list(num_iterations),
        **_accounts(found, _SERVER_ACCOUNT),
        **_accounts([None if entry is None else entry.operation for entry in found], _SERVER_OPERATION),
    }
    return pa.table(columns, schema=files.SERVER_TOTAL_SCHEMA)
