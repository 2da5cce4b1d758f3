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
from testbed.core.rng import entity_key, probability_u32, stream_key
from testbed.models.shape import ModelShape
from testbed.models.source import ModelSource
from testbed.network_models.jitter import jitter_table
from testbed.network_models.rates.segments import packet_ns
from testbed.scenarios.jitter import JitterConfig
from testbed.scenarios.profiles import LinkProfile, ProcessorProfile
from testbed.scenarios.schema import Group, Scenario, Servers
from testbed.sim.cohort import state
from testbed.sim.cohort.eligible import fixed_decision
from testbed.sim.cohort.state import (
    COMING,
    CONTROL_WIDTH,
    COST_WIDTH,
    DEMAND_TABLE,
    DEVICE_COUNTS,
    DEVICE_SUMS,
    DOWN_LINK,
    ENTITY,
    GROUP_WIDTH,
    ITERATION_WIDTH,
    ITS_GROUP,
    KEYS,
    KV_CAPACITY,
    LINK_WIDTH,
    MAX_BATCH,
    MAX_PREFILL,
    MESSAGE_TABLE,
    NEVER,
    NOBODY,
    NUM_FREE,
    PLANNED_NS,
    PREFILLS_HEAD,
    RECORDS_ITERATIONS,
    REQUEST_WIDTH,
    RESERVE_TABLE,
    SERVER_WIDTH,
    SLOT_WIDTH,
    STEPS_HEAD,
    UP_LINK,
    WAITING_HEAD,
    Arrays,
    I32Array,
    I64Array,
)
from testbed.sim.requests import Request
from testbed.sim.world import BITS

_FIRST_SLOTS = 1024
_ROWS, _ITERATIONS = 16_384, 65_536
_STREAMS = ("link.up.loss", "link.down.loss", "link.up.jitter", "link.down.jitter")


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


def build_arrays(scenario: Scenario, source: ModelSource, requests: Sequence[Request]) -> Arrays:
    """Everything at the start of a run."""
    shape, laws = source.shape, Laws.of(scenario, source.shape)
    decisions = [_decision(scenario, group, shape.num_layers) for group in scenario.fleet]
    splits = sorted({decision.split for decision in decisions} - {shape.num_layers}) or [0]
    tables = _JitterTables()
    costs = [laws.front(group.device) for group in scenario.fleet]
    rows = [
        _group_row(group, decision, shape, cost, splits=splits, decisions=decisions, tables=tables)
        for group, decision, cost in zip(scenario.fleet, decisions, costs, strict=True)
    ]
    prompts = np.array([request.num_prompt_tokens for request in requests], np.int32)
    outputs = np.array([request.max_output_tokens for request in requests], np.int32)
    members = [(number, place) for number, group in enumerate(scenario.fleet) for place in range(group.count)]
    servers = _servers(scenario, laws, decisions)
    events = np.zeros((4 * _FIRST_SLOTS, 3), np.int64)
    return Arrays(
        arrival_ns=np.array([request.arrival_ns for request in requests], np.int64),
        requests=_requests(requests),
        counts=_counts(members),
        sums=_sums(scenario, members),
        groups=np.array(rows, np.int64),
        tables=_tables(decisions, laws, prompts=prompts, totals=prompts + outputs),
        jitter=tables.rows(),
        splits=np.array([[split, 0, 0, 0] for split in splits], np.int64),
        servers=servers,
        batches=np.zeros((len(servers), max([group.max_batch for group in scenario.servers], default=1)), np.int32),
        slots=np.zeros((_FIRST_SLOTS, SLOT_WIDTH), np.int64),
        free_slots=np.arange(_FIRST_SLOTS, dtype=np.int32)[::-1].copy(),
        events=events,
        asking=np.zeros(_FIRST_SLOTS, np.int64),
        missing=np.zeros(_most_packets(scenario, decisions, prompts, shape), np.int64),
        rows=np.zeros((_ROWS, WIDTH), np.int64),
        iterations=np.zeros((_ITERATIONS, ITERATION_WIDTH), np.int64),
        control=_control(scenario),
    )


def grown(arrays: Arrays) -> Arrays:
    """The same state with twice the slots, and room for as many events."""
    num_slots = len(arrays.slots)
    slots = np.concatenate([arrays.slots, np.zeros_like(arrays.slots)])
    free = np.zeros(2 * num_slots, np.int32)
    num_free = int(arrays.control[NUM_FREE])
    free[:num_free] = arrays.free_slots[:num_free]
    free[num_free : num_free + num_slots] = np.arange(num_slots, 2 * num_slots)[::-1]
    arrays.control[NUM_FREE] += num_slots
    events = [
        np.concatenate([each, np.zeros_like(each)]) for each in (arrays.event_ns, arrays.event_key, arrays.event_data)
    ]
    return arrays._replace(
        slots=slots,
        free_slots=free,
        event_ns=events[0],
        event_key=events[1],
        event_data=events[2],
        asking=np.zeros(2 * num_slots, np.int64),
    )


def codec_names(scenario: Scenario, num_layers: int) -> list[str]:
    """Of the numbers in a group's row."""
    return list(dict.fromkeys(_decision(scenario, group, num_layers).codec for group in scenario.fleet))


def _decision(scenario: Scenario, group: Group, num_layers: int) -> Decision:
    decision = fixed_decision(scenario, group, num_layers)
    assert decision is not None, "a policy that looks is none for this engine"
    return decision


def _requests(requests: Sequence[Request]) -> I32Array:
    cells = [(each.device, each.num_prompt_tokens, each.max_output_tokens, NOBODY) for each in requests]
    return np.array(cells, np.int32).reshape(-1, REQUEST_WIDTH)


def _counts(members: Sequence[tuple[int, int]]) -> I32Array:
    counts = np.zeros((len(members), DEVICE_COUNTS), np.int32)
    counts[:, WAITING_HEAD] = NOBODY
    counts[:, ITS_GROUP] = [group for group, _ in members]
    return counts


def _sums(scenario: Scenario, members: Sequence[tuple[int, int]]) -> I64Array:
    sums = np.zeros((len(members), DEVICE_SUMS), np.int64)
    keys = [entity_key(scenario.fleet[group].name, place) for group, place in members]
    sums[:, ENTITY] = np.array(keys, np.uint64).view(np.int64)
    return sums


def _control(scenario: Scenario) -> I64Array:
    control = np.zeros(CONTROL_WIDTH, np.int64)
    control[NUM_FREE] = _FIRST_SLOTS
    control[RECORDS_ITERATIONS] = 1
    keys = [stream_key(scenario.seed, name) for name in _STREAMS]
    control[KEYS : KEYS + len(keys)] = np.array(keys, np.uint64).view(np.int64)
    return control


def _group_row(
    group: Group,
    decision: Decision,
    shape: ModelShape,
    cost: CostModel,
    *,
    splits: list[int],
    decisions: list[Decision],
    tables: _JitterTables,
) -> list[int]:
    row = [0] * GROUP_WIDTH
    row[:COST_WIDTH] = cost.constants
    table = tables.number(group.link.jitter)
    row[UP_LINK : UP_LINK + LINK_WIDTH] = _link_row(group.link, group.link.rate_up, table)
    row[DOWN_LINK : DOWN_LINK + LINK_WIDTH] = _link_row(group.link, group.link.rate_down, table)
    effort = size_law(decision.codec).effort
    is_alone = decision.split == shape.num_layers
    row[state.SPLIT_LAYER], row[state.NUM_LAYERS] = decision.split, shape.num_layers
    row[state.SPLIT_PLACE] = 0 if is_alone else splits.index(decision.split)
    row[state.CODEC_NUMBER] = list(dict.fromkeys(each.codec for each in decisions)).index(decision.codec)
    row[state.FREE_BYTES] = free_bytes(group.device)
    row[state.HIDDEN_BYTES] = shape.hidden_bytes(1, 32)
    row[state.ENCODE_PERCENT], row[state.DECODE_PERCENT] = effort.encode_percent, effort.decode_percent
    row[state.HEAD_NS] = cost.head_ns(1)
    return row


def _link_row(link: LinkProfile, rate: object, table: int) -> list[int]:
    row = [0] * LINK_WIDTH
    if link.transport.kind == "colocated":
        row[state.IS_COLOCATED] = 1
        return row
    rate_bps: int = getattr(rate, "rate", 0)
    row[state.RATE_BPS], row[state.FULL_NS] = rate_bps, packet_ns(link.mtu, rate_bps)
    row[state.MTU_BYTES], row[state.HEADER_BYTES], row[state.LIMIT_BYTES] = link.mtu, link.header, link.queue.limit
    row[state.PROPAGATION_NS], row[state.JITTER] = link.propagation_delay, table
    row[state.LOSS_U32] = probability_u32(getattr(link.loss, "p", 0.0))
    row[state.TIMEOUT_NS] = getattr(link.transport, "timeout", 0)
    row[state.MAX_RETRANSMISSIONS] = getattr(link.transport, "max_retransmissions", 0)
    return row


class _JitterTables:
    """The quantile tables of the fleet's jitter laws, each once."""

    def __init__(self) -> None:
        self._configs: list[JitterConfig] = []

    def number(self, config: JitterConfig | None) -> int:
        if config is None:
            return NOBODY
        if config not in self._configs:
            self._configs.append(config)
        return self._configs.index(config)

    def rows(self) -> I64Array:
        tables = [jitter_table(config) for config in self._configs]
        return np.array([[*table.cells, *table.tail] for table in tables] or [[0]], np.int64)


def _servers(scenario: Scenario, laws: Laws, decisions: Sequence[Decision]) -> I64Array:
    served = {decision.split for decision in decisions} - {laws.shape.num_layers}
    rows = [_server_row(group, laws, served) for group in scenario.servers for _ in range(group.count)]
    return np.array(rows, np.int64).reshape(-1, SERVER_WIDTH)


def _server_row(group: Servers, laws: Laws, served: set[int]) -> list[int]:
    row = [0] * SERVER_WIDTH
    row[:COST_WIDTH] = laws.back(group.server).constants
    row[KV_CAPACITY] = free_bytes(group.server) - server_weights_bytes(laws.shape, served, laws.back_weights)
    row[MAX_BATCH], row[MAX_PREFILL], row[PLANNED_NS] = group.max_batch, group.max_prefill_tokens, NEVER
    row[COMING] = row[STEPS_HEAD] = row[PREFILLS_HEAD] = NOBODY
    return row


def _tables(decisions: Sequence[Decision], laws: Laws, *, prompts: I32Array, totals: I32Array) -> I64Array:
    """By law, group and number of tokens; filled where a number occurs."""
    tables = np.zeros((3, len(decisions), int(totals.max(initial=1)) + 1), np.int64)
    messages, whole = sorted({1, *np.unique(prompts).tolist()}), np.unique(totals).tolist()
    first: dict[Decision, int] = {}
    for number, decision in enumerate(decisions):
        known = first.setdefault(decision, number)
        if known < number:
            tables[:, number] = tables[:, known]
            continue
        codec = size_law(decision.codec)
        tables[MESSAGE_TABLE, number, messages] = [codec.nbytes(count, laws.shape.hidden_size) for count in messages]
        tables[DEMAND_TABLE, number, whole] = [_demand_bytes(decision, laws, tokens) for tokens in whole]
        tables[RESERVE_TABLE, number, whole] = [
            server_kv_bytes(laws.shape, decision.split, tokens, laws.back_kv) for tokens in whole
        ]
    return tables


def _demand_bytes(decision: Decision, laws: Laws, tokens: int) -> int:
    return edge_demand(laws.shape, decision.split, tokens, laws.front_weights, laws.front_kv).total_bytes


def _most_packets(
    scenario: Scenario,
    decisions: Sequence[Decision],
    prompts: I32Array,
    shape: ModelShape,
) -> int:
    """Of any message."""
    longest = int(prompts.max(initial=1))
    most = 1
    for group, decision in zip(scenario.fleet, decisions, strict=True):
        room = group.link.mtu - group.link.header
        size_bytes = max(size_law(decision.codec).nbytes(longest, shape.hidden_size), 4 * longest)
        most = max(most, -(-size_bytes // room))
    return most + 1
