"""A scenario as the cohort engine's arrays: every law that depends on a number of tokens becomes a table of it."""

from __future__ import annotations

import math
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
from testbed.core.quantiles import NUM_CELLS, NUM_EDGES
from testbed.core.request_row import WIDTH
from testbed.core.rng import I64Array, entity_keys, probability_u32, stream_key
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
_AT_TABLES, _AT_JITTERS = -1, -2  # sections that only groups' rows refer to
_NUM_LAWS, _TABLE_CELLS = 3, NUM_CELLS + 1 + NUM_EDGES
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
    """Lays out `fixed`: its head, then rows of requests, devices, groups, splits, servers, laws and scratch.

    All of it is one array from the start, and each section a view: with a million devices a copy would show.
    """

    def __init__(self, scenario: Scenario, laws: Laws, requests: RequestTable) -> None:
        self._scenario = scenario
        self._laws = laws
        self._requests = requests
        self._num_layers = laws.shape.num_layers
        self._decisions = [_decision(scenario, group, self._num_layers) for group in scenario.fleet]
        self._served = sorted({decision.split for decision in self._decisions} - {self._num_layers})
        self._jitters = list(dict.fromkeys(group.link.jitter for group in scenario.fleet if group.link.jitter))
        self._workers = [group for group in scenario.servers for _ in range(group.num_workers)]
        shapes = self._shapes()
        ends = np.cumsum([state.FIXED_HEAD, *(math.prod(shape) for shape in shapes.values())]).tolist()
        self._shape_of = shapes
        self._places = dict(zip(shapes, ends[:-1], strict=True))
        self._fixed = np.zeros(ends[-1], np.int64)

    def _shapes(self) -> dict[int, tuple[int, ...]]:
        """Of every section, in their order."""
        fleet, requests = self._scenario.fleet, self._requests
        longest = int(requests.prompt_tokens.max(initial=1))
        most_tokens = int((requests.prompt_tokens + requests.max_output_tokens).max(initial=1))
        most_batch = max([group.max_batch for group in self._scenario.servers], default=0)
        return {
            state.AT_REQUESTS: (len(requests), state.REQUEST_WIDTH),
            state.AT_DEVICES: (sum(group.count for group in fleet), state.DEVICE_WIDTH),
            state.AT_GROUPS: (len(fleet), state.GROUP_WIDTH),
            state.AT_SPLITS: (max(1, len(self._served)), state.SPLIT_WIDTH),
            state.AT_SERVERS: (len(self._workers), state.BATCH + most_batch),
            _AT_TABLES: (len(fleet), _NUM_LAWS, most_tokens + 1),
            _AT_JITTERS: (len(self._jitters), _TABLE_CELLS),
            state.AT_MISSING: (_most_packets(self._scenario, self._decisions, longest, self._laws.shape),),
        }

    def _section(self, name: int) -> I64Array:
        """A view of its part of the array."""
        first, shape = self._places[name], self._shape_of[name]
        return self._fixed[first : first + math.prod(shape)].reshape(shape)

    def fixed(self) -> I64Array:
        """All of it, filled in."""
        self._fill_head()
        _fill_requests(self._section(state.AT_REQUESTS), self._requests, self._places[state.AT_REQUESTS])
        _fill_devices(self._section(state.AT_DEVICES), self._scenario, self._places[state.AT_GROUPS])
        for number, row in enumerate(self._section(state.AT_GROUPS)):
            row[:] = self._group_row(number)
        self._section(state.AT_SPLITS)[: len(self._served), state.LAYER] = self._served
        for number, row in enumerate(self._section(state.AT_SERVERS)):
            self._fill_server(row, number, self._workers[number])
        _fill_tables(self._section(_AT_TABLES), self._decisions, self._laws, self._requests)
        for row, config in zip(self._section(_AT_JITTERS), self._jitters, strict=True):
            table = jitter_table(config)
            row[:] = np.concatenate([table.cells, table.tail])
        return self._fixed

    def _fill_head(self) -> None:
        head = self._fixed
        (roots,) = np.nonzero(self._requests.after < 0)
        first = self._places[state.AT_REQUESTS] + int(roots[0]) * state.REQUEST_WIDTH if len(roots) else NOBODY
        head[state.NEXT_ROOT], head[state.NUM_LAYERS] = first, self._num_layers
        head[state.RECORDS_ITERATIONS] = 1
        head[state.NUM_SPLITS] = self._shape_of[state.AT_SPLITS][0]
        head[state.NUM_SERVERS], head[state.SERVER_STRIDE] = self._shape_of[state.AT_SERVERS]
        head[state.TABLE_STRIDE] = self._shape_of[_AT_TABLES][2]
        for name, place in self._places.items():
            if name >= 0:
                head[name] = place
        keys = [stream_key(self._scenario.seed, name) for name in _STREAMS]
        head[state.KEYS : state.KEYS + len(keys)] = np.array(keys, np.uint64).view(np.int64)

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
        row[state.STREAMS] = decision.split == 0 and not row[state.UP_LINK + state.IS_COLOCATED]
        row[state.HEAD_NS] = cost.roofline.head_ns(1)
        row[state.AT_LAWS] = self._places[_AT_TABLES] + number * _NUM_LAWS * self._shape_of[_AT_TABLES][2]
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
            row[state.AT_JITTER] = self._places[_AT_JITTERS] + self._jitters.index(link.jitter) * _TABLE_CELLS
        return row

    def _fill_server(self, row: I64Array, number: int, group: Servers) -> None:
        laws = self._laws
        weights = server_weights_bytes(laws.shape, self._served, laws.back_weights)
        row[: state.COST_WIDTH] = laws.back(group.server).roofline.constants
        row[state.SERVER_NUMBER], row[state.KV_CAPACITY] = number, free_bytes(group.server) - weights
        row[state.MAX_BATCH], row[state.MAX_PREFILL] = group.max_batch, group.max_prefill_tokens
        row[state.CHUNK], row[state.PRIORITY] = group.chunk_tokens or 0, _PRIORITIES.index(group.priority)
        row[state.MAX_RESIDENT], row[state.PLANNED_NS] = group.max_resident or NEVER, NEVER
        row[[state.COMING, state.STEPS, state.PREFILLS, state.PARTIAL]] = NOBODY


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


def _fill_requests(rows: I64Array, table: RequestTable, first: int) -> None:
    """Rows that begin at `first`."""
    rows[:, state.BEHIND] = rows[:, state.FOLLOWER] = NOBODY
    rows[:, state.ITS_ARRIVAL_NS] = table.arrival_ns
    rows[:, state.ITS_DEVICE], rows[:, state.ITS_PROMPT] = table.device, table.prompt_tokens
    rows[:, state.ITS_OUTPUT] = table.max_output_tokens
    rows[:, state.GAP_NS] = np.where(table.after < 0, NOBODY, table.gap_ns)
    (followers,) = np.nonzero(table.after >= 0)
    rows[table.after[followers], state.FOLLOWER] = first + followers * state.REQUEST_WIDTH


def _fill_devices(rows: I64Array, scenario: Scenario, first_group: int) -> None:
    rows[:, state.WAITING_HEAD] = NOBODY
    start = 0
    for number, group in enumerate(scenario.fleet):
        own = rows[start : start + group.count]
        own[:, state.ITS_GROUP] = first_group + number * state.GROUP_WIDTH
        own[:, state.ENTITY] = entity_keys(group.name, group.count).view(np.int64)
        start += group.count


def _fill_tables(tables: I64Array, decisions: Sequence[Decision], laws: Laws, requests: RequestTable) -> None:
    """By group, law and number of tokens; filled where a number occurs."""
    messages = sorted({1, *np.unique(requests.prompt_tokens).tolist()})
    whole = np.unique(requests.prompt_tokens + requests.max_output_tokens).tolist()
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


def _demand_bytes(decision: Decision, laws: Laws, tokens: int) -> int:
    return edge_demand(laws.shape, decision.split, tokens, laws.front_weights, laws.front_kv).total_bytes


def _most_packets(scenario: Scenario, decisions: Sequence[Decision], prompt_tokens: int, shape: ModelShape) -> int:
    """Of any message, where the longest prompt has so many tokens."""
    most = 1
    for group, decision in zip(scenario.fleet, decisions, strict=True):
        size_bytes = max(size_law(decision.codec).nbytes(prompt_tokens, shape.hidden_size), 4 * prompt_tokens)
        most = max(most, -(-size_bytes // (group.link.mtu - group.link.header)))
    return most + 1
