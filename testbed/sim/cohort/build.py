"""A scenario as the cohort engine's arrays: every law that depends on a number of tokens becomes a table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from testbed.actors.costs import CostModel
from testbed.actors.kv import KVLaw, kv_laws
from testbed.actors.memory import edge_demand, free_bytes, server_kv_bytes, server_weights_bytes
from testbed.actors.weight_plan import weight_laws
from testbed.actors.weights import WeightLaw
from testbed.codecs.named import size_law
from testbed.core.plan import Decision
from testbed.core.request_row import WIDTH
from testbed.core.rng import I64Array, entity_key, probability_u32, stream_key
from testbed.models.shape import ModelShape
from testbed.models.source import ModelSource
from testbed.network_models.jitter import jitter_table
from testbed.network_models.rates.segments import packet_ns
from testbed.scenarios.profiles import LinkProfile, ProcessorProfile
from testbed.scenarios.schema import Group, Scenario, Servers
from testbed.sim.cohort import state
from testbed.sim.cohort.eligible import fixed_decision
from testbed.sim.cohort.state import NEVER, NOBODY
from testbed.sim.measured import BITS
from testbed.sim.request_table import RequestTable

_FIRST_SLOTS = 1024
_MOST_ROWS, _MOST_ITERATIONS = 16_384, 65_536
_PRIORITIES = ("arrival", "decode", "prefill")  # in the order of their numbers
_STREAMS = ("link.up.loss", "link.down.loss", "link.up.jitter", "link.down.jitter")


@dataclass(slots=True)
class Memory:
    """The engine's three arrays."""

    fixed: I64Array
    live: I64Array
    agenda: I64Array

    def grow(self) -> None:
        """Twice the slots, and room for as many events."""
        first, count = int(self.live[state.AT_SLOTS]), self.num_slots
        self.live = np.concatenate([self.live, np.zeros(count * state.SLOT_WIDTH, np.int64)])
        _free(self.live, first + count * state.SLOT_WIDTH, count)
        self.agenda = np.concatenate([self.agenda, np.zeros_like(self.agenda)])

    @property
    def num_slots(self) -> int:
        return (len(self.live) - int(self.live[state.AT_SLOTS])) // state.SLOT_WIDTH

    def devices(self) -> I64Array:
        """[D, DEVICE_WIDTH]"""
        return self.fixed[self.fixed[state.AT_DEVICES] : self.fixed[state.AT_GROUPS]].reshape(-1, state.DEVICE_WIDTH)

    def servers(self) -> I64Array:
        """[S, .]"""
        first, stride = self.fixed[state.AT_SERVERS], self.fixed[state.SERVER_STRIDE]
        return self.fixed[first : first + self.fixed[state.NUM_SERVERS] * stride].reshape(-1, stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class Laws:
    """What the parts of a model take on each side of the cut."""

    shape: ModelShape
    front_weights: WeightLaw
    back_weights: WeightLaw
    front_kv: KVLaw
    back_kv: KVLaw

    @classmethod
    def of(cls, scenario: Scenario, shape: ModelShape) -> Laws:
        front, back = weight_laws(scenario.weights, BITS[scenario.dtype])
        front_kv, back_kv = kv_laws(scenario.kv, BITS[scenario.dtype])
        return cls(shape=shape, front_weights=front, back_weights=back, front_kv=front_kv, back_kv=back_kv)

    def front(self, profile: ProcessorProfile) -> CostModel:
        return CostModel(profile=profile, shape=self.shape, weight_bits=self.front_weights, kv_bits=self.front_kv)

    def back(self, profile: ProcessorProfile) -> CostModel:
        return CostModel(profile=profile, shape=self.shape, weight_bits=self.back_weights, kv_bits=self.back_kv)


def build_memory(scenario: Scenario, source: ModelSource, requests: RequestTable) -> Memory:
    """Everything at the start of a run."""
    builder = _Builder(scenario, Laws.of(scenario, source.shape), requests)
    return Memory(
        fixed=builder.fixed(), live=_live(), agenda=np.zeros(1 + 4 * _FIRST_SLOTS * state.EVENT_WIDTH, np.int64)
    )


def codec_names(scenario: Scenario, num_layers: int) -> list[str]:
    """Of the numbers in a group's row."""
    return list(dict.fromkeys(_decision(scenario, group, num_layers).codec for group in scenario.fleet))


class _Builder:
    """Lays out `fixed`: its head, then rows of requests, devices, groups, splits, servers, laws and scratch."""

    def __init__(self, scenario: Scenario, laws: Laws, requests: RequestTable) -> None:
        self._scenario = scenario
        self._laws = laws
        self._num_layers = laws.shape.num_layers
        self._decisions = [_decision(scenario, group, self._num_layers) for group in scenario.fleet]
        self._served = sorted({decision.split for decision in self._decisions} - {self._num_layers})
        self._requests = _requests(requests, state.FIXED_HEAD)
        prompts, outputs = self._requests[:, state.ITS_PROMPT], self._requests[:, state.ITS_OUTPUT]
        self._tables = _tables(self._decisions, laws, prompts=prompts, totals=prompts + outputs)
        self._jitters = list(dict.fromkeys(group.link.jitter for group in scenario.fleet if group.link.jitter))
        most_packets = _most_packets(scenario, self._decisions, int(prompts.max(initial=1)), laws.shape)
        splits = [[split, 0, 0, 0] for split in self._served or [0]]
        jitters = [[*jitter_table(config).cells, *jitter_table(config).tail] for config in self._jitters]
        self._sections: dict[int, I64Array] = {}
        self._ends = state.FIXED_HEAD
        for name, section in (
            (state.AT_REQUESTS, self._requests),
            (state.AT_DEVICES, _devices(scenario)),
            (state.AT_GROUPS, np.zeros((len(scenario.fleet), state.GROUP_WIDTH), np.int64)),
            (state.AT_SPLITS, np.array(splits, np.int64)),
            (state.AT_SERVERS, self._servers()),
            (_AT_TABLES, self._tables),
            (_AT_JITTERS, np.array(jitters, np.int64)),
            (state.AT_MISSING, np.zeros(most_packets, np.int64)),
        ):
            self._sections[name] = section
        self._places = self._placed()

    def _placed(self) -> dict[int, int]:
        """Where each section begins."""
        places, at = {}, state.FIXED_HEAD
        for name, section in self._sections.items():
            places[name] = at
            at += section.size
        return places

    def fixed(self) -> I64Array:
        """All of it, in one piece."""
        groups = self._sections[state.AT_GROUPS]
        for number in range(len(groups)):
            groups[number] = self._group_row(number)
        devices = self._sections[state.AT_DEVICES]
        devices[:, state.ITS_GROUP] = self._places[state.AT_GROUPS] + devices[:, state.ITS_GROUP] * state.GROUP_WIDTH
        return np.concatenate([self._head(), *(section.ravel() for section in self._sections.values())])

    def _head(self) -> I64Array:
        head = np.zeros(state.FIXED_HEAD, np.int64)
        servers = self._sections[state.AT_SERVERS]
        (roots,) = np.nonzero(self._requests[:, state.GAP_NS] == NOBODY)
        first = state.FIXED_HEAD + roots[0] * state.REQUEST_WIDTH if len(roots) else NOBODY
        head[state.NEXT_ROOT], head[state.NUM_LAYERS] = first, self._num_layers
        head[state.NUM_REQUESTS] = len(self._requests)
        head[state.RECORDS_ITERATIONS] = 1
        head[state.NUM_SPLITS] = len(self._sections[state.AT_SPLITS])
        head[state.NUM_SERVERS], head[state.SERVER_STRIDE] = servers.shape
        head[state.TABLE_STRIDE] = self._tables.shape[2]
        for name, place in self._places.items():
            if name >= 0:
                head[name] = place
        keys = [stream_key(self._scenario.seed, name) for name in _STREAMS]
        head[state.KEYS : state.KEYS + len(keys)] = np.array(keys, np.uint64).view(np.int64)
        return head

    def _group_row(self, number: int) -> I64Array:
        group, decision = self._scenario.fleet[number], self._decisions[number]
        cost, effort = self._laws.front(group.device), size_law(decision.codec).effort
        row = np.zeros(state.GROUP_WIDTH, np.int64)
        row[: state.COST_WIDTH] = cost.roofline.constants
        row[state.UP_LINK : state.DOWN_LINK] = self._link_row(group.link, group.link.rate_up)
        row[state.DOWN_LINK : state.SPLIT_LAYER] = self._link_row(group.link, group.link.rate_down)
        row[state.SPLIT_LAYER], row[state.FREE_BYTES] = decision.split, free_bytes(group.device)
        place = self._served.index(decision.split) if decision.split in self._served else 0
        row[state.ITS_SPLIT] = self._places[state.AT_SPLITS] + place * state.SPLIT_WIDTH
        row[state.CODEC_NUMBER] = codec_names(self._scenario, self._num_layers).index(decision.codec)
        row[state.HIDDEN_BYTES] = self._laws.shape.hidden_bytes(1, 32)
        row[state.ENCODE_PERCENT], row[state.DECODE_PERCENT] = effort.encode_percent, effort.decode_percent
        row[state.HEAD_NS] = cost.roofline.head_ns(1)
        row[state.AT_LAWS] = self._places[_AT_TABLES] + number * self._tables[0].size
        return row

    def _link_row(self, link: LinkProfile, rate: object) -> I64Array:
        row = np.zeros(state.LINK_WIDTH, np.int64)
        if link.transport.kind == "colocated":
            row[state.IS_COLOCATED] = 1
            return row
        rate_bps: int = getattr(rate, "rate", 0)
        row[state.RATE_BPS], row[state.FULL_NS] = rate_bps, packet_ns(link.mtu, rate_bps)
        row[state.MTU_BYTES], row[state.HEADER_BYTES] = link.mtu, link.header
        row[state.LIMIT_BYTES], row[state.PROPAGATION_NS] = link.queue.limit, link.propagation_delay
        row[state.LOSS_U32] = probability_u32(getattr(link.loss, "p", 0.0))
        row[state.TIMEOUT_NS] = getattr(link.transport, "timeout", 0)
        row[state.MAX_RETRANSMISSIONS] = getattr(link.transport, "max_retransmissions", 0)
        row[state.AT_JITTER] = NOBODY
        if link.jitter is not None:
            stride = self._sections[_AT_JITTERS].shape[1]
            row[state.AT_JITTER] = self._places[_AT_JITTERS] + self._jitters.index(link.jitter) * stride
        return row

    def _servers(self) -> I64Array:
        most = max([group.max_batch for group in self._scenario.servers], default=0)
        groups = [group for group in self._scenario.servers for _ in range(group.count)]
        rows = np.zeros((len(groups), state.BATCH + most), np.int64)
        for number, group in enumerate(groups):
            self._fill_server(rows[number], number, group)
        return rows

    def _fill_server(self, row: I64Array, number: int, group: Servers) -> None:
        laws = self._laws
        weights = server_weights_bytes(laws.shape, self._served, laws.back_weights)
        row[: state.COST_WIDTH] = laws.back(group.server).roofline.constants
        row[state.SERVER_NUMBER], row[state.KV_CAPACITY] = number, free_bytes(group.server) - weights
        row[state.MAX_BATCH], row[state.MAX_PREFILL] = group.max_batch, group.max_prefill_tokens
        row[state.CHUNK], row[state.PRIORITY] = group.chunk_tokens or 0, _PRIORITIES.index(group.priority)
        row[state.MAX_RESIDENT], row[state.PLANNED_NS] = group.max_resident or NEVER, NEVER
        row[[state.COMING, state.STEPS, state.PREFILLS, state.PARTIAL]] = NOBODY


_AT_TABLES, _AT_JITTERS = -1, -2  # sections that only groups' rows refer to


def _decision(scenario: Scenario, group: Group, num_layers: int) -> Decision:
    decision = fixed_decision(scenario, group, num_layers)
    assert decision is not None, "a policy that looks is none for this engine"
    return decision


def _live() -> I64Array:
    """Empty: its head, room for what has ended, free slots."""
    at_iterations = state.LIVE_HEAD + _MOST_ROWS * WIDTH
    at_slots = at_iterations + _MOST_ITERATIONS * state.ITERATION_WIDTH
    live = np.zeros(at_slots + _FIRST_SLOTS * state.SLOT_WIDTH, np.int64)
    live[state.MOST_ROWS], live[state.AT_ROWS] = _MOST_ROWS, state.LIVE_HEAD
    live[state.MOST_ITERATIONS], live[state.AT_ITERATIONS] = _MOST_ITERATIONS, at_iterations
    live[state.AT_SLOTS], live[state.FIRST_FREE] = at_slots, NOBODY
    _free(live, at_slots, _FIRST_SLOTS)
    return live


def _free(live: I64Array, first: int, count: int) -> None:
    """Add these slots to the free ones."""
    slots = np.arange(first, first + count * state.SLOT_WIDTH, state.SLOT_WIDTH)
    live[slots + state.NEXT] = [*slots[1:], live[state.FIRST_FREE]]
    live[state.FIRST_FREE] = first
    live[state.NUM_FREE] += count


def _requests(table: RequestTable, first: int) -> I64Array:
    """Rows that begin at `first`."""
    rows = np.full((len(table), state.REQUEST_WIDTH), NOBODY, np.int64)
    rows[:, state.ITS_ARRIVAL_NS] = table.arrival_ns
    rows[:, state.ITS_DEVICE], rows[:, state.ITS_PROMPT] = table.device, table.prompt_tokens
    rows[:, state.ITS_OUTPUT], rows[:, state.GAP_NS] = (
        table.max_output_tokens,
        np.where(table.after < 0, NOBODY, table.gap_ns),
    )
    (followers,) = np.nonzero(table.after >= 0)
    rows[table.after[followers], state.FOLLOWER] = first + followers * state.REQUEST_WIDTH
    return rows


def _devices(scenario: Scenario) -> I64Array:
    members = [(number, place) for number, group in enumerate(scenario.fleet) for place in range(group.count)]
    devices = np.zeros((len(members), state.DEVICE_WIDTH), np.int64)
    devices[:, state.ITS_GROUP] = [number for number, _ in members]
    devices[:, state.WAITING_HEAD] = NOBODY
    keys = [entity_key(scenario.fleet[number].name, place) for number, place in members]
    devices[:, state.ENTITY] = np.array(keys, np.uint64).view(np.int64)
    return devices


def _tables(decisions: Sequence[Decision], laws: Laws, *, prompts: I64Array, totals: I64Array) -> I64Array:
    """By group, law and number of tokens; filled where a number occurs."""
    tables = np.zeros((len(decisions), 3, int(totals.max(initial=1)) + 1), np.int64)
    messages, whole = sorted({1, *np.unique(prompts).tolist()}), np.unique(totals).tolist()
    first: dict[Decision, int] = {}
    for number, decision in enumerate(decisions):
        known = first.setdefault(decision, number)
        if known < number:
            tables[number] = tables[known]
            continue
        codec = size_law(decision.codec)
        tables[number, 0, messages] = [codec.nbytes(count, laws.shape.hidden_size) for count in messages]
        tables[number, 1, whole] = [_demand_bytes(decision, laws, tokens) for tokens in whole]
        tables[number, 2, whole] = [
            server_kv_bytes(laws.shape, decision.split, tokens, laws.back_kv) for tokens in whole
        ]
    return tables


def _demand_bytes(decision: Decision, laws: Laws, tokens: int) -> int:
    return edge_demand(laws.shape, decision.split, tokens, laws.front_weights, laws.front_kv).total_bytes


def _most_packets(scenario: Scenario, decisions: Sequence[Decision], prompt_tokens: int, shape: ModelShape) -> int:
    """Of any message, where the longest prompt has so many tokens."""
    most = 1
    for group, decision in zip(scenario.fleet, decisions, strict=True):
        size_bytes = max(size_law(decision.codec).nbytes(prompt_tokens, shape.hidden_size), 4 * prompt_tokens)
        most = max(most, -(-size_bytes // (group.link.mtu - group.link.header)))
    return most + 1
