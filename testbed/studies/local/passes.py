"""Times of whole passes on this machine, taken with the very objects that an emulated run uses.

A pass of the server is one turn of `BackServer`: messages are read from sockets, decoded, run, answered. One of a
device is a turn of `FrontDevices`: a token is read, run, encoded, sent. What is to be done arrives by a link with a
delay, so that the process sleeps until it is due, and its time counts from that instant: waking up, and caches that
have gone cold meanwhile, are part of it as they are in a run.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from statistics import quantiles

import numpy as np

from testbed.actors.calls import HostSpec
from testbed.codecs.framing import Codec, Envelope
from testbed.codecs.named import make_codec
from testbed.core.work import Work
from testbed.scenarios.schema import Servers
from testbed.studies.local.back_server import BackServer
from testbed.studies.local.effort import BATCHES, CODEC, CONTEXTS, PROMPTS, Effort
from testbed.studies.local.fit import Pass
from testbed.studies.local.frames import Kind, Opening, pack, pack_token
from testbed.studies.local.front_devices import FrontDevices
from testbed.studies.local.plan import DevicesPlan, PlannedDevice, PlannedRequest, ServerPlan
from testbed.studies.local.wire import PacedRate, now_ns, tuned

_DELAY_NS = 8_000_000  # what a token waits for, somewhere else
_PATIENCE_S = 0.1
_SPREAD_TOKENS = 9  # contexts of a batch differ by so much, as they do in a run
_WARM_UP = 4
_MOST_OUTPUT = 2**20
_LINK = PacedRate(rate_bps=0, delay_ns=_DELAY_NS, mtu_bytes=1500, header_bytes=40)


def taken(part: str, works: Sequence[Work], times_ns: Sequence[int]) -> Pass:
    """The median of repeats and their spread."""
    low, middle, high = quantiles(times_ns, n=4)
    return Pass(part=part, works=tuple(works), time_ns=round(middle), spread=(high - low) / middle)


class ServerBench:
    """A server of one cut with so many sequences, whose devices are this process, too."""

    def __init__(self, spec: HostSpec, servers: Servers, split: int, num_sequences: int) -> None:
        self.shape = spec.source.shape
        self._split = split
        self._codec: Codec = make_codec(CODEC)
        self._random = np.random.default_rng(split)
        devices = tuple(
            PlannedDevice(device=number, split=split, codec=CODEC, up=_LINK, down=_LINK)
            for number in range(num_sequences)
        )
        plan = ServerPlan(spec=spec, servers=servers, kv_capacity_bytes=2**40, devices=devices, secret=b"")
        self.server = BackServer(plan, None)
        pairs = [tcp_pair() for _ in devices]
        self._ends = [near for near, _ in pairs]
        for number, (_, far) in enumerate(pairs):
            self.server.adopt(far, number)
        self._past: dict[int, int] = {}
        self._outbox: list[tuple[int, int, bytes]] = []  # (device, request, message)
        self._next = 0

    def open(self, device: int) -> int:
        """A new request on this device's connection."""
        request, self._next = self._next, self._next + 1
        opening = Opening(device, self._split, 1, _MOST_OUTPUT, 0, CODEC)
        self._ends[device].sendall(pack(Kind.OPEN, request, now_ns(), opening.pack()))
        self._past[request] = 0
        return request

    def send(self, device: int, request: int, num_tokens: int) -> Work:
        """A message of so many tokens, for the next turn; what it means for the server."""
        past = self._past[request]
        hidden_ND = self._random.standard_normal((num_tokens, self.shape.hidden_size)).astype(np.float32)
        message = self._codec.encode(hidden_ND, Envelope(request, past, self._split))
        self._outbox.append((device, request, message))
        self._past[request] = past + num_tokens
        return Work(start=self._split, stop=self.shape.num_layers, new_tokens=num_tokens, past_tokens=past)

    def timed_turn(self) -> int:
        """One iteration over all messages, from the instant at which they have arrived, in ns."""
        num_sequences, due_ns = len(self._outbox), self._post()
        while not (served := self.server.turn(_PATIENCE_S)):
            pass
        time_ns = now_ns() - due_ns
        assert served == num_sequences, "one batch holds them all"
        self._drain()
        return time_ns

    def run_all(self) -> None:
        """Whatever is waiting, in as many iterations as it takes."""
        left = len(self._outbox)
        self._post()
        while left:
            left -= self.server.turn(_PATIENCE_S)
        self._drain()

    def _post(self) -> int:
        """All messages leave at one instant; when they arrive."""
        sent_ns = now_ns()
        for device, request, message in self._outbox:
            self._ends[device].sendall(pack(Kind.STEP, request, sent_ns, message))
        self._outbox.clear()
        return sent_ns + _DELAY_NS

    def close(self) -> None:
        self.server.close()
        for near in self._ends:
            near.close()

    def _drain(self) -> None:
        for near in self._ends:
            drain(near)


def server_passes(spec: HostSpec, servers: Servers, split: int, effort: Effort) -> Iterator[Pass]:
    """Decode steps by batch and context, prefills alone, in pairs and beside decode steps."""
    bench = ServerBench(spec, servers, split, max(BATCHES) + 2)
    try:
        for context in CONTEXTS:
            requests = [bench.open(device) for device in range(max(BATCHES))]
            for device, request in enumerate(requests):
                bench.send(device, request, max(1, context - _SPREAD_TOKENS // 2 + device % _SPREAD_TOKENS))
            bench.run_all()
            for batch in BATCHES:
                yield _steps(bench, requests[:batch], effort)
                if batch in {1, 4}:
                    yield from _beside(bench, requests[:batch], effort)
            for request in requests:
                bench.server.forget(request)
        for num_tokens in PROMPTS:
            yield _prefills(bench, num_tokens, 1, effort)
            if 2 * num_tokens <= max(PROMPTS):
                yield _prefills(bench, num_tokens, 2, effort)
    finally:
        bench.close()


def _steps(bench: ServerBench, requests: Sequence[int], effort: Effort) -> Pass:
    times_ns, works = [], []
    for _ in range(_WARM_UP + effort.steps):
        works.append([bench.send(device, request, 1) for device, request in enumerate(requests)])
        times_ns.append(bench.timed_turn())
    return taken("server decode", works[_WARM_UP + effort.steps // 2], times_ns[_WARM_UP:])


def _beside(bench: ServerBench, requests: Sequence[int], effort: Effort) -> Iterator[Pass]:
    """Decode steps with one prefill among them."""
    free = max(BATCHES)
    for num_tokens in PROMPTS[1:3]:
        times_ns: list[int] = []
        for _ in range(1 + effort.prefills):
            works = [bench.send(device, request, 1) for device, request in enumerate(requests)]
            prefill = bench.open(free)
            works.append(bench.send(free, prefill, num_tokens))
            times_ns.append(bench.timed_turn())
            bench.server.forget(prefill)
        yield taken("server mixed", works, times_ns[1:])


def _prefills(bench: ServerBench, num_tokens: int, number: int, effort: Effort) -> Pass:
    times_ns: list[int] = []
    for _ in range(1 + effort.prefills):
        requests = [bench.open(device) for device in range(number)]
        works = [bench.send(device, request, num_tokens) for device, request in enumerate(requests)]
        times_ns.append(bench.timed_turn())
        for request in requests:
            bench.server.forget(request)
    return taken("server prefill", works, times_ns[1:])


class DeviceBench:
    """One device of one cut that answers prompts one after the other; its server is this process, too."""

    def __init__(self, spec: HostSpec, split: int, prompts: Sequence[int], num_steps: int) -> None:
        self._near, far = tcp_pair()
        requests = tuple(
            PlannedRequest(
                request=number,
                device=0,
                arrival_ns=0,
                after=number - 1,
                gap_ns=_DELAY_NS,
                prompt=tuple(range(1, num_tokens + 1)),
                max_output_tokens=num_steps + 1,
                sampling_seed=0,
            )
            for number, num_tokens in enumerate(prompts)
        )
        device = PlannedDevice(device=0, split=split, codec=CODEC, up=_LINK, down=_LINK)
        plan = DevicesPlan(spec=spec, devices=(device,), requests=requests, secret=b"")
        self._devices = FrontDevices(plan, [far])
        self._due_ns = now_ns()
        self._devices.start(self._due_ns)
        self._num_steps = num_steps
        self._request = 0

    def answer(self) -> tuple[int, list[int]]:
        """The next prompt: how long its prefill took, and each of its decode steps, in ns."""
        prefill_ns = self._timed_turn()
        steps_ns = []
        for _ in range(self._num_steps):
            self._send_token()
            steps_ns.append(self._timed_turn())
        self._send_token()
        self._timed_turn()
        self._due_ns += _DELAY_NS
        self._request += 1
        return prefill_ns, steps_ns

    def close(self) -> None:
        self._devices.close()
        self._near.close()

    def _send_token(self) -> None:
        sent_ns = now_ns()
        self._near.sendall(pack(Kind.TOKEN, self._request, sent_ns, pack_token(1)))
        self._due_ns = sent_ns + _DELAY_NS

    def _timed_turn(self) -> int:
        while not self._devices.turn(_PATIENCE_S):
            pass
        time_ns = now_ns() - self._due_ns
        drain(self._near)
        return time_ns


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over the loopback, as in a run."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return tuned(near), far


def drain(sock: socket.socket) -> None:
    """Take what has come, and leave it."""
    sock.setblocking(False)
    try:
        while sock.recv(2**18):
            pass
    except BlockingIOError:
        sock.setblocking(True)


def device_passes(spec: HostSpec, split: int, effort: Effort) -> Iterator[Pass]:
    """Prefills by length, and decode steps behind each of them."""
    num_steps, repeats = max(2, effort.steps // 3), 1 + effort.prefills
    bench = DeviceBench(spec, split, [length for length in PROMPTS for _ in range(repeats)], num_steps)
    try:
        for num_tokens in PROMPTS:
            answers = [bench.answer() for _ in range(repeats)][1:]
            prefill = Work(start=0, stop=split, new_tokens=num_tokens, past_tokens=0)
            step = Work(start=0, stop=split, new_tokens=1, past_tokens=num_tokens + num_steps // 2)
            yield taken("device prefill", [prefill], [prefill_ns for prefill_ns, _ in answers])
            yield taken("device decode", [step], [time_ns for _, steps_ns in answers for time_ns in steps_ns])
    finally:
        bench.close()
