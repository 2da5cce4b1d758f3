"""A process of emulated devices: real front shards, one connection a device, in wall-clock time.

One thread works off what is due, in the order in which it became so: a request that arrives, a token that has come
down. Devices that share the process take turns on its core; each still answers one request at a time.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from testbed.actors.calls import CloseCall, FrontCall
from testbed.actors.shard_host import ShardHost
from testbed.core.units import NS_PER_S
from testbed.studies.local.frames import Frame, FrameError, Kind, Opening, pack, unpack_token
from testbed.studies.local.plan import DevicesPlan, PlannedDevice, PlannedRequest, Timing
from testbed.studies.local.wire import Connection, Pace, now_ns, tuned

_WAITED_NS = 5_000  # a select that took longer has slept


@dataclass(slots=True, kw_only=True, eq=False)
class _Device:
    planned: PlannedDevice
    connection: Connection
    waiting: deque[PlannedRequest] = field(default_factory=deque)
    current: PlannedRequest | None = None


@dataclass(slots=True, kw_only=True)
class _Answer:
    arrival_ns: int
    tokens_ns: list[int] = field(default_factory=list)


class FrontDevices:
    """Runs all requests of its devices. `socks` has a connection a device, in the plan's order."""

    def __init__(self, plan: DevicesPlan, socks: list[socket.socket]) -> None:
        self._plan = plan
        self.host = ShardHost(plan.spec)
        self._devices = {
            planned.device: _Device(planned=planned, connection=Connection(tuned(sock), Pace(planned.down)))
            for planned, sock in zip(plan.devices, socks, strict=True)
        }
        self._requests = {planned.request: planned for planned in plan.requests}
        self._followers = {planned.after: planned for planned in plan.requests if planned.after >= 0}
        self._answers: dict[int, _Answer] = {}
        self._due: list[tuple[int, int, PlannedRequest, int | None]] = []  # (when, order, whose, its token)
        self._order = count()
        self.num_left = len(plan.requests)
        self.busy_ns = 0

    def start(self, start_ns: int) -> None:
        """Requests arrive from this instant on."""
        self._start_ns = start_ns
        for planned in self._plan.requests:
            if planned.after < 0:
                self._expect(start_ns + planned.arrival_ns, planned, None)

    def turn(self, timeout_s: float = 0.0) -> bool:
        """Read what has come and do the one thing that is due first, if any. Whether there was one."""
        self._receive(self._patience_s(timeout_s))
        if not self._due or self._due[0][0] > now_ns():
            return False
        when_ns, _, planned, token = heappop(self._due)
        started_ns = now_ns()
        if token is None:
            self._arrive(planned, when_ns)
        else:
            self._take_token(planned, when_ns, token)
        self.busy_ns += now_ns() - started_ns
        return True

    def timings(self) -> list[Timing]:
        """Of all requests that have arrived."""
        return [
            Timing(
                request=request,
                arrival_ns=answer.arrival_ns - self._start_ns,
                tokens_ns=tuple(time_ns - self._start_ns for time_ns in answer.tokens_ns),
            )
            for request, answer in self._answers.items()
        ]

    def close(self) -> None:
        for device in self._devices.values():
            device.connection.sock.close()

    def _expect(self, when_ns: int, planned: PlannedRequest, token: int | None) -> None:
        heappush(self._due, (when_ns, next(self._order), planned, token))

    def _patience_s(self, timeout_s: float) -> float:
        if not self._due:
            return timeout_s
        return min(timeout_s, max(0.0, (self._due[0][0] - now_ns()) / NS_PER_S))

    def _receive(self, timeout_s: float) -> None:
        connections = [device.connection for device in self._devices.values()]
        started_ns = now_ns()
        readable, _, _ = select.select(connections, [], [], timeout_s)
        read_ns = now_ns()
        waited = read_ns - started_ns > _WAITED_NS
        for connection in readable:
            for frame in connection.reader.feed(connection.read()):
                self._take(connection, frame, read_ns if waited else 0)

    def _take(self, connection: Connection, frame: Frame, read_ns: int) -> None:
        planned = self._requests.get(frame.request)
        if frame.kind is not Kind.TOKEN or planned is None:
            raise FrameError(f"a {frame.kind.name} frame from the server")
        if self._devices[planned.device].connection is not connection:
            raise FrameError(f"a token of request {frame.request} for another device")
        arrival_ns = max(read_ns, connection.pace.arrival_ns(frame.sent_ns, len(frame.body)))
        self._expect(arrival_ns, planned, unpack_token(frame.body))

    def _arrive(self, planned: PlannedRequest, when_ns: int) -> None:
        device = self._devices[planned.device]
        self._answers[planned.request] = _Answer(arrival_ns=when_ns)
        device.waiting.append(planned)
        if device.current is None:
            self._begin(device)

    def _begin(self, device: _Device) -> None:
        """The request that has waited longest on this device."""
        planned = device.current = device.waiting.popleft()
        opening = Opening(
            device=planned.device,
            split=device.planned.split,
            prompt_tokens=len(planned.prompt),
            max_output_tokens=planned.max_output_tokens,
            sampling_seed=planned.sampling_seed,
            codec=device.planned.codec,
        )
        device.connection.send(pack(Kind.OPEN, planned.request, now_ns(), opening.pack()))
        self._front(device, planned, planned.prompt)

    def _front(self, device: _Device, planned: PlannedRequest, tokens: tuple[int, ...]) -> None:
        call = FrontCall(session=planned.request, split=device.planned.split, codec=device.planned.codec, tokens=tokens)
        (done,) = self.host.execute([call])
        device.connection.send(pack(Kind.STEP, planned.request, now_ns(), done.value))

    def _take_token(self, planned: PlannedRequest, when_ns: int, token: int) -> None:
        device, answer = self._devices[planned.device], self._answers[planned.request]
        answer.tokens_ns.append(when_ns)
        if len(answer.tokens_ns) < planned.max_output_tokens:
            self._front(device, planned, (token,))
            return
        self.num_left -= 1
        device.current = None
        self.host.execute([CloseCall(session=planned.request)])
        follower = self._followers.get(planned.request)
        if follower is not None:
            self._expect(when_ns + follower.gap_ns, follower, None)
        if device.waiting:
            self._begin(device)
