"""Servers built as a scenario describes them, and their accounts at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testbed.actors.cloud import CloudWorker
from testbed.actors.energy import processor_energy_j
from testbed.actors.executor import HostPort
from testbed.actors.kv import KVLaw, kv_bytes
from testbed.actors.memory import free_bytes, server_weights_bytes
from testbed.actors.sealing import Sealer
from testbed.actors.weights import WeightLaw
from testbed.core.cast import OperationEnd, ServerEnd
from testbed.core.events import EventSink
from testbed.core.registry import SCHEDULERS
from testbed.core.units import NS_PER_S
from testbed.models.shape import ModelShape
from testbed.scenarios.profiles import ProcessorProfile, ServerProfile
from testbed.scenarios.schema import Servers
from testbed.schedulers.entry import Limits
from testbed.schedulers.memory import FullReserve, KvMemory, PagedBlocks
from testbed.sim.kernel import Clock
from testbed.sim.measured import Measured
from testbed.sim.server import Scheduler, Server
from testbed.sim.slots import COSTING, ServerState, Slot

_S_PER_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltServer:
    """A server and the profile it was built from."""

    server: Server
    profile: ServerProfile
    sealer: Sealer

    def end(self, slot: Slot, duration_ns: int) -> ServerEnd:
        """Its account of a run that took this long. It draws power, and costs, while it starts, is up and drains."""
        server, busy_ns = self.server, self.server.busy.until(duration_ns)
        costing_ns = slot.time_ns(COSTING, duration_ns)
        return ServerEnd(
            server=server.server,
            busy_ns=busy_ns,
            energy_j=processor_energy_j(self.profile, duration_ns=costing_ns, busy_ns=busy_ns),
            peak_kv_bytes=server.peak_kv_bytes,
            preemptions=server.num_preemptions,
            swapped_bytes=server.swapped_bytes,
            recomputed_tokens=server.recomputed_tokens,
            prefix_tokens=server.prefix_tokens,
            rejected=server.door.num_rejected,
            seal_ns=self.sealer.total_ns,
            seal_j=self.sealer.energy_j,
            operation=_operation(slot, duration_ns, _price_usd(self.profile, costing_ns)),
        )


def always_up(profile: ServerProfile, duration_ns: int) -> OperationEnd:
    """The account of a server that is never started, taken away or down."""
    return OperationEnd(
        starting_ns=0,
        up_ns=duration_ns,
        draining_ns=0,
        down_ns=0,
        failures=0,
        cost_usd=_price_usd(profile, duration_ns),
    )


def _price_usd(profile: ServerProfile, costing_ns: int) -> float | None:
    per_hour = profile.worker_price_per_hour
    return None if per_hour is None else per_hour * (costing_ns / NS_PER_S) / _S_PER_HOUR


def _operation(slot: Slot, duration_ns: int, cost_usd: float | None) -> OperationEnd:
    starting_ns, up_ns, draining_ns, down_ns = (
        slot.time_ns((state,), duration_ns)
        for state in (ServerState.STARTING, ServerState.UP, ServerState.DRAINING, ServerState.DOWN)
    )
    return OperationEnd(
        starting_ns=starting_ns,
        up_ns=up_ns,
        draining_ns=draining_ns,
        down_ns=down_ns,
        failures=slot.num_failures,
        cost_usd=cost_usd,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBuilder:
    """What all servers of a run have in common. `splits` are those that one may be asked to continue from."""

    clock: Clock
    shape: ModelShape
    measured: Measured
    weights: WeightLaw
    kv: KVLaw
    splits: set[int]
    sealer: Callable[[ProcessorProfile], Sealer]
    emit: EventSink

    def build(self, number: int, group: Servers, port: HostPort | None) -> BuiltServer:
        """Server `number`, one of this group's."""
        capacity = free_bytes(group.server) - server_weights_bytes(self.shape, self.splits, self.weights)
        kind = SCHEDULERS.load(group.scheduler.kind)

        def make_scheduler() -> Scheduler:
            made: Scheduler = kind(group.scheduler, limits=_limits(group), memory=self._kv_memory(group, capacity))
            return made

        swap_bandwidth = max(1, round(group.kv_cache.swap_bandwidth or 1))
        costs = self.measured.costs(group.server, self.weights, self.kv)
        worker = CloudWorker(costs, port, self.sealer(group.server), swap_bandwidth=swap_bandwidth)
        server = Server(
            self.clock, number, worker=worker, make_scheduler=make_scheduler, emit=self.emit,
            admission=group.admission, keeps_sessions=group.kv_cache.prefix == "session",
        )  # fmt: skip
        return BuiltServer(server=server, profile=group.server, sealer=worker.sealer)

    def _kv_memory(self, group: Servers, capacity_bytes: int) -> KvMemory:
        cache = group.kv_cache
        if cache.reserve == "full":
            return FullReserve(capacity_bytes)
        block_bytes = kv_bytes(self.shape, cache.block_tokens, 0, 1, self.kv)
        return PagedBlocks(
            num_blocks=capacity_bytes // block_bytes, block_tokens=cache.block_tokens, block_bytes=block_bytes
        )


def _limits(group: Servers) -> Limits:
    return Limits(
        max_batch=group.max_batch,
        max_prefill_tokens=group.max_prefill_tokens,
        chunk_tokens=group.chunk_tokens,
        priority=group.priority,
        max_resident=group.max_resident,
        preempts_by_swap=group.kv_cache.preemption == "swap",
    )
