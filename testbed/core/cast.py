"""Who takes part in a run, and what is known of each when it ends: what results need beside the events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEntry:
    """One emulated device; its link has the same id."""

    device: int
    group: str
    kind: str  # profile name
    real: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEntry:
    server: int
    group: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Everyone, by id: entry i of a sequence has id i."""

    devices: Sequence[DeviceEntry]
    servers: Sequence[ServerEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEnd:
    """A device's account at the end of the run. Energy is modelled from the profile's powers."""

    device: int
    busy_ns: int
    transmit_ns: int
    receive_ns: int
    energy_j: float
    peak_memory_bytes: int
    idle_j: float = 0.0  # the energy by what the device did
    compute_j: float = 0.0
    transmit_j: float = 0.0
    receive_j: float = 0.0
    seal_ns: int = 0  # of the busy time: sealing and opening messages
    seal_j: float = 0.0  # and of the energy
    state: DeviceStateEnd | None = None  # None: nothing changes in it


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStateEnd:
    """What became of a device by itself; None where it has no battery, or no heat was modelled."""

    background_j: float  # other programs, while no stage runs
    sleep_j: float
    asleep_ns: int
    off_ns: int  # away, crashed, or shut off by battery or heat
    throttled_ns: int  # of stages
    departures: int  # times that it left or crashed
    battery_capacity_j: float | None
    battery_start_j: float | None
    battery_end_j: float | None
    charged_j: float | None
    cutoffs: int | None
    max_temperature_c: float | None
    shutdowns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEnd:
    """How long a server was what: it costs while it starts, is up and drains, and the rest of the run it was off."""

    starting_ns: int
    up_ns: int
    draining_ns: int
    down_ns: int
    failures: int
    cost_usd: float | None  # None where its profile has no price

    @property
    def serving_ns(self) -> int:
        return self.up_ns + self.draining_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEnd:
    server: int
    busy_ns: int
    energy_j: float
    peak_kv_bytes: int
    preemptions: int = 0
    swapped_bytes: int = 0  # both ways
    recomputed_tokens: int = 0
    prefix_tokens: int = 0  # positions of earlier turns found held
    rejected: int = 0  # requests turned away at the door
    seal_ns: int = 0
    seal_j: float = 0.0
    operation: OperationEnd | None = None  # None: up all the time


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEnd:
    """One direction of one device's link."""

    device: int
    direction: str  # up | down
    messages: int
    delivered: int
    lost: int  # messages given up; those that are neither were under way
    payload_bytes: int
    lost_payload_bytes: int  # of messages given up
    wire_bytes: int
    packets: int
    retransmissions: int
    dropped_packets: int  # by the full queue
    lost_packets: int  # beyond it
    corrupt_packets: int  # arrived with a wrong bit
    duplicate_packets: int  # arrived once more
    ack_bytes: int  # of acknowledgements of these messages, on their way back
    busy_ns: int
    peak_backlog_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEnd:
    """The air of one direction of a cell, or of both where they share it."""

    cell: str
    direction: str  # up | down | both
    num_links: int
    carried_bytes: int  # clocked out, lost on the air or not
    busy_ns: int  # at least one link had something to send
    contending_ns: int  # the number of links with something to send, summed over time


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeEnd:
    """One direction of an edge of the topology: what was offered was dropped, lost, failed or carried, or waits."""

    source: str
    target: str
    offered_packets: int
    offered_bytes: int
    carried_packets: int  # clocked out and on their way to the far end, or there
    carried_bytes: int
    dropped_packets: int  # by the full queue
    lost_packets: int  # by the edge's own loss
    failed_packets: int  # on the edge, or about to enter it, when it was down
    waiting_bytes: int  # in the queue and in service
    peak_backlog_bytes: int
    busy_ns: int
    down_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A real request's answer held against the unsplit model, fed the same tokens step by step."""

    num_tokens: int
    num_agree: int  # steps at which the unsplit model's most likely token is the split run's most likely token
    max_logit_difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """How every message of the run was encrypted."""

    suite: str
    overhead_bytes: int  # a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What shards read before they packed their weights or agreed on a codec."""

    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a split takes for one sequence: the method's figures in bits, and the device's demand in bytes."""

    split: int
    tokens: int  # of the sequence, prompt and output
    footprint_bits: float  # M_w, weights of both sides
    state_bits: float  # B_kv, execution state at the cut
    edge_bytes: int  # M_edge, which decides between running and out of memory


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSizes:
    """A payload law that modelled messages were drawn from; errors on held-out text, as shares of the mean size."""

    codec: str
    split: int
    prefill_error: float
    decode_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What is known of requests beside their events: columns by the request's number."""

    kind_names: Sequence[str]
    kind: npt.NDArray[np.integer]  # index into `kind_names`; -1 where the workload names no kinds
    session: npt.NDArray[np.integer]  # the request that opened its session; -1 where it is no part of one
    turn: npt.NDArray[np.integer]  # in the session
    history_tokens: npt.NDArray[np.integer]  # of its prompt: the session's earlier turns


@dataclass(frozen=True, slots=True, kw_only=True)
class TableUse:
    """A table of measured times that a profile's durations came from."""

    profile: str
    table: str
    source: str
    by_roofline: Sequence[str]  # parts of a pass that the table doesn't have
    extrapolated: Mapping[str, int]  # axes that were left, and how far a run went


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """What moved the requests, and where it was not the compiled engine, why."""

    name: str = "requests"  # or cohorts
    why: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """What the world knows when the clock stops."""

    end_ns: int
    complete: bool  # False after an interrupt or a failure
    reason: str  # "" when complete
    deterministic: bool
    wall_s: float
    devices: Sequence[DeviceEnd]
    servers: Sequence[ServerEnd]
    links: Sequence[LinkEnd]
    cells: Sequence[CellEnd] = ()
    edges: Sequence[EdgeEnd] = ()  # of the topology, where there is one
    assumed_sizes: Sequence[str]  # codecs whose message sizes modelled groups assumed, as they follow the content
    quality: Mapping[int, Quality]  # by request
    texts: Mapping[int, str]  # by request: prompt and answer, where there is a tokenizer
    fitted_sizes: Sequence[FittedSizes] = ()  # laws of messages whose sizes modelled groups drew
    profile_tables: Sequence[TableUse] = ()
    calibration: Calibration | None = None  # None where nothing had to be read
    sealing: Sealing | None = None  # None where messages travel in the clear
    footprints: Mapping[str, Sequence[Footprint]] = field(default_factory=dict)  # by group
    request_facts: RequestFacts | None = None
    engine: EngineChoice = field(default_factory=EngineChoice)
