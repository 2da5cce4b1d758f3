"""A scenario's live objects: clock, devices on their links, servers, policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import simpy

from testbed.actors.calls import AuditCall, CloseCall
from testbed.actors.edge import EdgeDevice, Session, Step
from testbed.actors.executor import Executor, HostPort, HostRef, Promise
from testbed.actors.kv import kv_laws
from testbed.actors.memory import server_kv_bytes
from testbed.actors.modes import crossing_of
from testbed.actors.payload_law import MessageSizes, PayloadLaw, SizeOf
from testbed.actors.sealing import Sealer, seal_secret
from testbed.actors.weight_plan import weight_laws
from testbed.codecs.framing import Codec
from testbed.codecs.named import size_law
from testbed.core.cast import EdgeEnd, FittedSizes, ServerEnd
from testbed.core.events import EventSink, Hop, Outcome
from testbed.core.plan import Decision
from testbed.core.rng import Stream, entity_key
from testbed.core.work import KvDemand
from testbed.models.source import ModelSource
from testbed.network_models.build import build_access
from testbed.network_models.connections import Connections, OneEach, OneForAll
from testbed.network_models.sharing.cell import Cell, Seat
from testbed.network_models.topology.network import Network
from testbed.scenarios.profiles import ProcessorProfile
from testbed.scenarios.schema import Group, Scenario, Servers
from testbed.sim.casting import device_members, server_members
from testbed.sim.choosing import Chooser
from testbed.sim.cluster import Cluster
from testbed.sim.device import Device
from testbed.sim.fleet import Fleet
from testbed.sim.journey import Journey, TurnedAwayError
from testbed.sim.kernel import BusyTime, Clock, Gate, Rank, Wait
from testbed.sim.measured import BITS, Measured
from testbed.sim.placement import Distances
from testbed.sim.racks import BuiltServer, ServerBuilder
from testbed.sim.request_table import Request
from testbed.sim.scaling import start_scalers
from testbed.sim.server import Server
from testbed.sim.slo_watch import slo_watch_of
from testbed.sim.tampering import Tampering
from testbed.sim.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The token ids of one completed real request."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]


class World:
    """Everyone who takes part. `executor` is None where no group is real."""

    def __init__(
        self,
        scenario: Scenario,
        source: ModelSource,
        *,
        executor: Executor | None,
        emit: EventSink,
        payload_law: PayloadLaw | None = None,
    ) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self._shape = source.shape
        self.measured = Measured(source.shape)
        bits = BITS[scenario.dtype]
        self._front_law, self._back_law = weight_laws(scenario.weights, bits)
        self._front_kv, self._back_kv = kv_laws(scenario.kv, bits)
        self._stop_tokens = frozenset(source.stop_token_ids)
        self._executor = executor
        slo_watch = slo_watch_of(scenario, emit)
        self._emit = emit = slo_watch or emit
        self._chooser = Chooser(scenario)
        self._codecs: dict[str, Codec] = {}
        tamper = 0.0 if scenario.security is None else scenario.security.tamper
        self._tampering = Tampering(scenario.seed, tamper)
        self._payload_laws = {} if payload_law is None else payload_law.by_cut()
        self._payload_sizes = Stream.named(scenario.seed, "payload.size")
        # Where a modelled message's size follows its content: laws that it was drawn from, codecs that have none.
        self.fitted_sizes: dict[tuple[str, int], MessageSizes] = {}
        self.assumed_sizes: set[str] = set()
        self.answers: dict[int, Answer] = {}  # of completed real requests
        self.audits: dict[int, Promise] = {}
        self.admission = Gate(self.clock, Rank.ADMISSION)
        members = server_members(scenario)
        self._server_nodes = [str(scenario.place_of(group, place)) for group, place in members]
        self._network = None
        if scenario.topology is not None:
            self._network = Network(self.clock, scenario.topology, seed=scenario.seed)
        self._cells = {
            cells.name: [Cell(self.clock, cells, name) for name in cells.names()] for cells in scenario.cells
        }
        self._fleet = Fleet(scenario)
        self.devices = [self._device(number, *member) for number, member in enumerate(device_members(scenario))]
        self.is_watched = any(device.watch is not None for device in self.devices)  # some may go off by themselves
        self._built = self._servers(members)
        self.cluster = Cluster(
            self.clock,
            scenario,
            [built.server for built in self._built],
            members,
            distances=Distances(scenario, device_members(scenario), members),
            admission=self.admission,
            emit=emit,
        )
        self.is_watched |= self.cluster.is_watched
        start_scalers(self.clock, scenario, self.cluster, slo_watch, emit)

    def trace(self, request: Request) -> Trace:
        """Begins a request's account: it has arrived."""
        return Trace(request, self._emit)

    def decide(self, request: Request) -> Decision:
        """Ask the group's policy; its state is the device's own."""
        return self._chooser.decide(request, self.devices[request.device].observe(self.clock, request))

    def embark(self, request: Request, decision: Decision, trace: Trace, attempt: int) -> Wait[Journey]:
        """Open the session, with a server unless the device holds all; `attempt` counts servers that were lost.

        Raises TurnedAwayError where no server could ever hold it, none will take it, or the one that it is routed to
        lets nobody in.
        """
        edge_only = decision.split == self._shape.num_layers
        tokens = request.num_prompt_tokens + request.max_output_tokens
        demand = KvDemand(
            max_tokens=tokens,
            num_layers=self._shape.num_layers - decision.split,
            full_bytes=server_kv_bytes(self._shape, decision.split, tokens, self._back_kv),
        )
        device = self.devices[request.device]
        server = None if edge_only else (yield from self.cluster.place(request, device.links, demand, attempt))
        trace.span(self.clock.now_ns, Hop.ROUTER_WAIT)
        if server is not None:
            if refusal := server.refusal():
                server.door.num_rejected += 1
                raise TurnedAwayError(refusal, Outcome.REJECTED)
            server.enter(request.request)
        known_tokens = 0 if server is None else self._known_tokens(request, decision, device, server)
        device.front_session = -1
        device.take(request, decision)
        number = -1 if server is None else server.server
        trace.admitted(self.clock.now_ns, split=decision.split, codec=decision.codec, server=number)
        codec_of = partial(self._codec, request, decision.split)
        codec, size_of = codec_of(decision.codec)
        return Journey(
            clock=self.clock,
            request=request,
            session=Session(
                request=request.request,
                sampling_seed=request.sampling_seed,
                split=decision.split,
                codec_name=decision.codec,
                codec=codec,
                size_of=size_of,
                crossing=crossing_of(self._shape, decision, self._back_kv),
            ),
            adapt=self._chooser.adaptation(request),
            codec_of=codec_of,
            device=device,
            server=server,
            trace=trace,
            tampering=self._tampering,
            kv_demand=demand,
            step=Step(
                num_tokens=request.num_prompt_tokens - known_tokens, past_tokens=known_tokens, tokens=request.prompt
            ),
            stop_tokens=frozenset() if request.ignore_eos else self._stop_tokens,
            server_life=0 if server is None else server.life,
        )

    def _known_tokens(self, request: Request, decision: Decision, device: Device, server: Server) -> int:
        """Positions of a session's earlier turns that need not travel again [our own design].

        The server must have had them, cut at the same layer, and the device's front must still hold them: its last
        request was the session's turn before, and completed. Otherwise the whole prompt goes its way again.
        """
        front_holds = decision.split == 0 or device.front_session == request.session
        if not request.history_tokens or decision.mode != "stateful" or not front_holds:
            return 0
        return min(server.remembers(request.session, decision.split), request.history_tokens)

    def completed(self, journey: Journey) -> None:
        """A real answer is kept, and held against the unsplit model: in real time only."""
        journey.device.front_session = journey.request.session
        number, prompt, output = journey.request.request, journey.request.prompt, tuple(journey.output)
        if self._executor is None or prompt is None:
            return
        self.answers[number] = Answer(prompt=prompt, output=output)
        if self.scenario.record.quality:
            call = AuditCall(session=number, prompt=prompt, output=output)
            self.audits[number] = self._executor.submit(self._sampling_host(journey), call)

    def requeues(self, journey: Journey, num_losses: int) -> bool:
        """A request's server has failed: whether it looks for another."""
        server = journey.server
        assert server is not None, "it was lost"
        self.cluster.found_lost(server)
        if not self.cluster.may_requeue(server, num_losses):
            return False
        journey.trace.requeued(self.clock.now_ns, server.server)
        return True

    def disembark(self, journey: Journey) -> None:
        """The session ends, however it did: caches and reservations are free, at once or when that is noticed."""
        silence_ns = journey.device.silence_ns
        if not silence_ns:
            self._close(journey)
            return
        noticed = self.clock.timeout(silence_ns)
        assert noticed.callbacks is not None, "it lies ahead"
        noticed.callbacks.append(lambda _: self._close(journey))

    def _close(self, journey: Journey) -> None:
        request = journey.request.request
        if journey.server is not None:
            journey.server.leave(request)
            self.cluster.left(journey.server)
        if self._executor is not None and journey.is_real:
            for host in {self._edge_host(journey.request.device), self._sampling_host(journey)}:
                self._executor.submit(host, CloseCall(session=request))

    def edge_ends(self) -> list[EdgeEnd]:
        """The account of every edge of the topology, each direction for itself."""
        return [] if self._network is None else self._network.edge_ends()

    def server_ends(self, duration_ns: int) -> list[ServerEnd]:
        """Every server's account of a run that took this long."""
        pairs = zip(self._built, self.cluster.slots, strict=True)
        return [built.end(slot, duration_ns) for built, slot in pairs]

    @property
    def cells(self) -> list[Cell]:
        """All of them, in the scenario's order."""
        return [cell for cells in self._cells.values() for cell in cells]

    def _device(self, number: int, group: Group, place: int) -> Device:
        port = self._port(self._edge_host(number)) if group.compute == "real" else None
        profile, busy, links = self._fleet.profile(group, place), BusyTime(), self._links(group, place)
        return Device(
            device=number,
            profile=profile,
            shape=self._shape,
            weights=self._front_law,
            kv=self._front_kv,
            back_kv=self._back_kv,
            edge=EdgeDevice(self.measured.costs(profile, self._front_law, self._front_kv), port, self._sealer(profile)),
            links=links,
            turn=simpy.Resource(self.clock),
            busy=busy,
            watch=self._fleet.watch(self.clock, group, place, profile, device=number, links=links, busy=busy),
            claims_as_used=group.kv_claim == "as-used",
        )

    def _links(self, group: Group, place: int) -> Connections:
        """One link to all servers, or in a topology a connection to each, where edges lie between."""
        entity, seed, seat = entity_key(group.name, place), self.scenario.seed, self._seat(group, place)
        node = self.scenario.place_of(group, place)
        if self._network is None or node is None or set(self._server_nodes) <= {node}:
            return OneForAll(access=build_access(self.clock, group.link, entity=entity, seed=seed, seat=seat))
        return OneEach(
            self.clock, group.link, self._network,
            node=node, servers=self._server_nodes, entity=entity, seed=seed, seat=seat,
        )  # fmt: skip

    def _seat(self, group: Group, place: int) -> Seat | None:
        """The devices of a group are dealt to its cells in turn."""
        if group.cell is None:
            return None
        cells = self._cells[group.cell]
        return Seat(cells[place % len(cells)], group.weight or 1)

    def _servers(self, members: Sequence[tuple[Servers, int]]) -> list[BuiltServer]:
        builder = ServerBuilder(
            clock=self.clock,
            shape=self._shape,
            measured=self.measured,
            weights=self._back_law,
            kv=self._back_kv,
            splits=self.served_splits(),
            sealer=self._sealer,
            emit=self._emit,
        )
        return [
            builder.build(number, group, self._port(self._cloud_host(number)))
            for number, (group, _) in enumerate(members)
        ]

    def check(self) -> None:
        """Internal errors where what went in did not come out, or memory does not add up."""
        for built in self._built:
            built.server.check()

    def served_splits(self) -> set[int]:
        """Every split a server may be asked to continue from."""
        chosen = {split for policy in self._chooser.policies for split in policy.splits(self._shape.num_layers)}
        return chosen - {self._shape.num_layers}

    def _sealer(self, profile: ProcessorProfile) -> Sealer:
        return Sealer(self.scenario.seal, profile, seal_secret(self.scenario))

    def _codec(self, request: Request, split: int, name: str) -> tuple[Codec, SizeOf]:
        """A codec and its messages' sizes: by its own law, or one fitted to real messages where content decides."""
        if name not in self._codecs:
            self._codecs[name] = size_law(name)
        codec, hidden_size = self._codecs[name], self._shape.hidden_size
        if request.prompt is None and 0 < split < self._shape.num_layers and not codec.is_fixed_size:
            fitted = self._payload_laws.get((name, split))
            if fitted is not None:
                self.fitted_sizes[name, split] = fitted
                bound = partial(codec.nbytes_bound, hidden_size=hidden_size)
                return codec, fitted.drawn(self._payload_sizes, request.sampling_seed, bound)
            self.assumed_sizes.add(name)
        return codec, lambda num_tokens, _past_tokens: codec.nbytes(num_tokens, hidden_size)

    def _port(self, host: HostRef) -> HostPort | None:
        if self._executor is None:
            return None
        measured = self.scenario.execution.costs == "measured"
        return HostPort(executor=self._executor, host=host, measured=measured)

    def _edge_host(self, device: int) -> HostRef:
        return HostRef("edge", device % self.scenario.execution.edge_hosts)

    def _cloud_host(self, server: int) -> HostRef:
        return HostRef("cloud", server % self.scenario.execution.cloud_hosts)

    def _sampling_host(self, journey: Journey) -> HostRef:
        """The host that chooses the session's tokens, and therefore has its logits."""
        if journey.server is None:
            return self._edge_host(journey.request.device)
        return self._cloud_host(journey.server.server)


def fitted_sizes(world: World) -> list[FittedSizes]:
    """The laws that modelled messages were drawn from, in order."""
    return [
        FittedSizes(codec=codec, split=split, prefill_error=law.held_out.prefill, decode_error=law.held_out.decode)
        for (codec, split), law in sorted(world.fitted_sizes.items())
    ]
