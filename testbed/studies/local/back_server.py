"""The server's process: a continuous batch of real back shards behind TCP connections, in wall-clock time.

One thread, in turns: read what has come, put what has arrived by its link to the scheduler, run the batch that the
scheduler forms, answer. While a batch runs, what comes waits in the sockets, as it waits for the next iteration in the
simulated server.
"""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass
from heapq import heappop, heappush

from testbed.actors.calls import BackCall, BackItem, CloseCall
from testbed.actors.kv import kv_bytes
from testbed.actors.shard_host import ShardHost
from testbed.codecs.framing import CodecError, unpack_header
from testbed.core.registry import SCHEDULERS
from testbed.core.units import NS_PER_S
from testbed.core.work import KvDemand
from testbed.schedulers.batching import BatchScheduler
from testbed.schedulers.entry import Entry, Limits, Share
from testbed.schedulers.memory import FullReserve
from testbed.studies.local.frames import Frame, FrameError, Kind, Opening, pack, pack_token
from testbed.studies.local.plan import ServerPlan
from testbed.studies.local.wire import Connection, Pace, now_ns, tuned

_KV_BITS = 32  # of the shards' own precision


@dataclass(slots=True, kw_only=True)
class _Sequence:
    """A request on this server."""

    connection: Connection
    opening: Opening
    past_tokens: int = 0
    num_output: int = 0
    message: bytes = b""
    num_tokens: int = 0
    since_ns: int = 0


class BackServer:
    """Serves until it is told to stop. `listener` may be None where connections are handed in (`adopt`)."""

    def __init__(self, plan: ServerPlan, listener: socket.socket | None) -> None:
        self._plan = plan
        self._listener = listener
        self.host = ShardHost(plan.spec)
        self._scheduler = _scheduler(plan)
        self._strangers: dict[int, Connection] = {}  # that have not said who they are
        self._connections: dict[int, Connection] = {}  # by file number
        self._sequences: dict[int, _Sequence] = {}
        self._coming: list[tuple[int, int]] = []  # (arrival, request)
        self._is_stuck = False
        self.busy_ns = 0
        self.num_iterations = 0

    def adopt(self, sock: socket.socket, device: int) -> None:
        """A connection that is known to be a device's."""
        self._connections[sock.fileno()] = Connection(tuned(sock), Pace(self._plan.devices[device].up))

    def turn(self, timeout_s: float = 0.0) -> int:
        """Read, form a batch, run it, answer. Returns the number of sequences that it had."""
        self._receive(self._patience_s(timeout_s))
        self._queue_arrived(now_ns())
        shares = self._scheduler.next_batch()
        self._is_stuck = not shares  # whoever waits, waits for something that comes
        if shares:
            self._run(shares)
        return len(shares)

    def close(self) -> None:
        for connection in (*self._connections.values(), *self._strangers.values()):
            connection.sock.close()
        if self._listener is not None:
            self._listener.close()

    def forget(self, request: int) -> None:
        """The request has ended."""
        self._sequences.pop(request, None)
        self._scheduler.done(request)
        self.host.execute([CloseCall(session=request)])

    def _patience_s(self, timeout_s: float) -> float:
        if len(self._scheduler) and not self._is_stuck:
            return 0.0
        if self._coming:
            return min(timeout_s, max(0.0, (self._coming[0][0] - now_ns()) / NS_PER_S))
        return timeout_s

    def _receive(self, timeout_s: float) -> None:
        listeners = [] if self._listener is None else [self._listener]
        sources: list[Connection | socket.socket] = [*self._connections.values(), *self._strangers.values(), *listeners]
        started_ns = now_ns()
        readable, _, _ = select.select(sources, [], [], timeout_s)
        read_ns = now_ns()
        waited = read_ns - started_ns > _WAITED_NS
        for source in readable:
            if isinstance(source, Connection):
                self._read(source, read_ns if waited else 0)
            else:
                self._welcome(source)

    def _welcome(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        nobody = self._plan.devices[0].up
        self._strangers[sock.fileno()] = Connection(tuned(sock), Pace(nobody))

    def _read(self, connection: Connection, read_ns: int) -> None:
        """A stranger that misbehaves is shown the door; a device that does ends the run."""
        number = connection.fileno()
        is_stranger = number in self._strangers
        try:
            frames = connection.reader.feed(connection.read())
            for frame in frames:
                self._take(connection, frame, read_ns)
        except FrameError:
            connection.sock.close()
            if not is_stranger and number in self._connections and self._sequences:
                raise
            self._strangers.pop(number, None)
            self._connections.pop(number, None)

    def _take(self, connection: Connection, frame: Frame, read_ns: int) -> None:
        number = connection.fileno()
        if number in self._strangers:
            self._introduce(connection, frame)
        elif frame.kind is Kind.OPEN:
            self._open(connection, frame)
        elif frame.kind is Kind.STEP:
            self._step(connection, frame, read_ns)
        else:
            raise FrameError(f"a {frame.kind.name} frame from a device")

    def _introduce(self, connection: Connection, frame: Frame) -> None:
        """The first frame: who it is, and the secret of this run. `request` is the device's number."""
        devices = self._plan.devices
        if frame.kind is not Kind.HELLO or frame.body != self._plan.secret or frame.request >= len(devices):
            raise FrameError("a stranger")
        del self._strangers[connection.fileno()]
        connection.pace = Pace(devices[frame.request].up)
        self._connections[connection.fileno()] = connection

    def _open(self, connection: Connection, frame: Frame) -> None:
        opening = Opening.unpack(frame.body)
        if frame.request in self._sequences:
            raise FrameError(f"request {frame.request} is open already")
        if not 0 < opening.split < self._plan.spec.source.shape.num_layers:
            raise FrameError(f"there is no layer behind the cut {opening.split}")
        self._sequences[frame.request] = _Sequence(connection=connection, opening=opening, since_ns=frame.sent_ns)

    def _step(self, connection: Connection, frame: Frame, read_ns: int) -> None:
        sequence = self._sequences.get(frame.request)
        if sequence is None or sequence.connection is not connection or sequence.message:
            raise FrameError(f"a step of request {frame.request} that nobody waits for")
        try:
            sequence.num_tokens = unpack_header(frame.body).num_tokens
        except CodecError as error:
            raise FrameError(str(error)) from None
        sequence.message = frame.body
        arrival_ns = connection.pace.arrival_ns(frame.sent_ns, len(frame.body))
        heappush(self._coming, (max(arrival_ns, read_ns), frame.request))

    def _queue_arrived(self, until_ns: int) -> None:
        while self._coming and self._coming[0][0] <= until_ns:
            ready_ns, request = heappop(self._coming)
            sequence = self._sequences[request]
            self._scheduler.add(self._entry(request, sequence, ready_ns))

    def _entry(self, request: int, sequence: _Sequence, ready_ns: int) -> Entry:
        opening, shape = sequence.opening, self._plan.spec.source.shape
        most = opening.prompt_tokens + opening.max_output_tokens
        layers = shape.num_layers - opening.split
        return Entry(
            request=request,
            ready_ns=ready_ns,
            base_tokens=0,
            end_tokens=sequence.past_tokens + sequence.num_tokens,
            demand=KvDemand(
                max_tokens=most,
                num_layers=layers,
                full_bytes=kv_bytes(shape, most, opening.split, shape.num_layers, _KV_BITS),
            ),
            device=opening.device,
            since_ns=sequence.since_ns,
            is_first=sequence.num_output == 0,
            max_output_tokens=opening.max_output_tokens,
        )

    def _run(self, shares: list[Share]) -> None:
        started_ns = now_ns()
        requests = [share.entry.request for share in shares]
        batch = [self._sequences[request] for request in requests]
        items = tuple(
            BackItem(
                session=request,
                sampling_seed=sequence.opening.sampling_seed,
                split=sequence.opening.split,
                codec=sequence.opening.codec,
                message=sequence.message,
            )
            for request, sequence in zip(requests, batch, strict=True)
        )
        (done,) = self.host.execute([BackCall(items=items)])
        for request, sequence, token in zip(requests, batch, done.value, strict=True):
            self._answer(request, sequence, token)
        self.num_iterations += 1
        self.busy_ns += now_ns() - started_ns

    def _answer(self, request: int, sequence: _Sequence, token: int) -> None:
        sequence.past_tokens += sequence.num_tokens
        sequence.message = b""
        sequence.num_output += 1
        sequence.since_ns = now_ns()
        sequence.connection.send(pack(Kind.TOKEN, request, sequence.since_ns, pack_token(token)))
        if sequence.num_output == sequence.opening.max_output_tokens:
            self.forget(request)


_WAITED_NS = 5_000  # a select that took longer has slept


def _scheduler(plan: ServerPlan) -> BatchScheduler:
    servers = plan.servers
    limits = Limits(
        max_batch=servers.max_batch,
        max_prefill_tokens=servers.max_prefill_tokens,
        priority=servers.priority,
        max_resident=servers.max_resident,
    )
    scheduler: BatchScheduler = SCHEDULERS.load(servers.scheduler.kind)(
        servers.scheduler, limits=limits, memory=FullReserve(plan.kv_capacity_bytes)
    )
    return scheduler
