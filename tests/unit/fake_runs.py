"""Runs made of made-up events, for tests of what is recorded, measured and shown: no engine takes part."""

from __future__ import annotations

import heapq
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from testbed.core.cast import Cast, DeviceEnd, DeviceEntry, LinkEnd, Quality, RunEnd, ServerEnd, ServerEntry
from testbed.core.events import (
    Event,
    Hop,
    IterationEnded,
    Outcome,
    RequestAdmitted,
    RequestArrived,
    RequestEnded,
    SpanEnded,
    TokenDelivered,
    TransferEnded,
)
from testbed.results import files
from testbed.results.measure import SloLimits, write_summary
from testbed.results.record import RunRecorder

MS = 1_000_000
PREFILL = (
    (Hop.DEVICE_WAIT, 2),
    (Hop.FRONT, 60),
    (Hop.ENCODE, 3),
    (Hop.SEAL, 2),
    (Hop.UP_CONNECT, 2),
    (Hop.UP_WINDOW, 3),
    (Hop.UP_QUEUE, 4),
    (Hop.UP_SERIALISE, 45),
    (Hop.UP_PROPAGATE, 12),
    (Hop.UP_JITTER, 3),
    (Hop.UP_RETRANSMIT, 8),
    (Hop.ROUTER_WAIT, 1),
    (Hop.SERVER_WAIT, 9),
    (Hop.OPEN, 1),
    (Hop.DECODE, 1),
    (Hop.BACK, 22),
    (Hop.SEAL_TOKEN, 1),
    (Hop.DOWN_CONNECT, 1),
    (Hop.DOWN_WINDOW, 1),
    (Hop.DOWN_QUEUE, 1),
    (Hop.DOWN_SERIALISE, 1),
    (Hop.DOWN_PROPAGATE, 12),
    (Hop.DOWN_JITTER, 2),
    (Hop.DOWN_RETRANSMIT, 1),
    (Hop.OPEN_TOKEN, 1),
    (Hop.CUT_SHORT, 1),
)
EDGE_ONLY = ((Hop.DEVICE_WAIT, 5), (Hop.FRONT, 180))


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeGroup:
    name: str
    kind: str
    count: int
    real: bool = False
    edge_only: bool = False
    slowness: float = 1.0
    outcome: Outcome | None = None  # of every request; drawn where None


GROUPS = (
    FakeGroup(name="pi-real", kind="raspberry-pi-5", count=3, real=True),
    FakeGroup(name="phones", kind="phone-flagship", count=6, slowness=0.6),
    FakeGroup(name="jetsons", kind="jetson-orin-nano", count=4, slowness=0.4),
)


@dataclass(slots=True, kw_only=True)
class FakeRun:
    """Events in time order with the cast and the end that go with them."""

    cast: Cast
    events: list[Event]
    end: RunEnd
    slo: SloLimits | None = field(default_factory=lambda: SloLimits(ttft_ns=200 * MS, tpot_ns=60 * MS))


def fake_run(
    groups: tuple[FakeGroup, ...] = GROUPS,
    *,
    seed: int = 1,
    requests_per_device: int = 6,
    num_servers: int = 1,
    cut_at_s: float | None = None,
    text: str = "the red boat is in the harbour",
) -> FakeRun:
    """Requests whose spans follow each other without gap; with `cut_at_s` the run stops there, unfinished."""
    cast = _cast(groups, num_servers)
    owners = {entry.device: next(g for g in groups if g.name == entry.group) for entry in cast.devices}
    rng = np.random.default_rng(seed)
    numbers = itertools.count()
    journeys = []
    for device in cast.devices:
        arrival_ns = 0
        for _ in range(requests_per_device):
            arrival_ns += int(rng.exponential(1.5e9))
            journey = _Journey(request=next(numbers), device=device, group=owners[device.device], rng=rng)
            journey.travel(arrival_ns, num_servers)
            journeys.append(journey.told)
    events = list(heapq.merge(*journeys, *_iterations(num_servers, rng), key=lambda event: event.time_ns))
    cut_ns = None if cut_at_s is None else round(cut_at_s * 1e9)
    if cut_ns is not None:
        events = [event for event in events if event.time_ns <= cut_ns]
    return FakeRun(cast=cast, events=events, end=_end(cast, events, cut_ns, text))


def write_run(folder: Path, run: FakeRun, *, spans: bool = True, name: str = "harbour") -> dict[str, object]:
    """A whole run folder; returns its summary."""
    folder.mkdir(parents=True, exist_ok=True)
    recorder = RunRecorder(folder, run.cast, spans=spans)
    for event in run.events:
        recorder(event)
    recorder.close(run.end)
    (folder / files.SCENARIO).write_text(f"name: {json.dumps(name)}\nmodel: pebble\nseed: 7\n", encoding="utf-8")
    environment = {
        "python": "3.11.7",
        "platform": "Linux-x86_64",
        "versions": {"split-testbed": "0.1.0", "numpy": "2.4.6", "simpy": "4.1.2"},
        "seed": 7,
        "fingerprint": "9f31c2d07ab4",
        "started": "2025-01-31T09:00:00Z",
    }
    (folder / files.ENVIRONMENT).write_text(json.dumps(environment), encoding="utf-8")
    return write_summary(folder, end=run.end, event_digest=recorder.digest, slo=run.slo)


def _cast(groups: tuple[FakeGroup, ...], num_servers: int) -> Cast:
    owners = [group for group in groups for _ in range(group.count)]
    return Cast(
        devices=[
            DeviceEntry(device=index, group=group.name, kind=group.kind, real=group.real)
            for index, group in enumerate(owners)
        ],
        servers=[ServerEntry(server=index, group="cloud", kind="l4") for index in range(num_servers)],
    )


@dataclass(slots=True, kw_only=True)
class _Journey:
    """One request's events, in time order."""

    request: int
    device: DeviceEntry
    group: FakeGroup
    rng: np.random.Generator
    told: list[Event] = field(default_factory=list)

    def travel(self, now_ns: int, num_servers: int) -> None:
        request = self.request
        self.told.append(
            RequestArrived(
                time_ns=now_ns, request=request, device=self.device.device, prompt_tokens=20, max_output_tokens=24
            )
        )
        draw = float(self.rng.random())
        drawn = Outcome.OOM if draw < 0.06 else Outcome.FAILED if draw < 0.12 else Outcome.COMPLETED
        outcome = self.group.outcome or drawn
        if outcome is Outcome.OOM:
            self._end(now_ns, outcome, "device memory: 9.1 GB needed, 8.0 GB there")
            return
        split = 12 if self.group.edge_only else 4
        server = -1 if self.group.edge_only else request % num_servers
        self.told.append(RequestAdmitted(time_ns=now_ns, request=request, split=split, codec="int8", server=server))
        num_tokens = 1 if request % 17 == 0 else int(self.rng.integers(8, 24))
        for step in range(num_tokens):
            lost = outcome is Outcome.FAILED and step == num_tokens // 2
            now_ns = self._step(step, now_ns, lost=lost)
            if lost:
                self._end(now_ns, outcome, "message lost for good")
                return
            token = int(self.rng.integers(0, 500)) if self.device.real else -1
            self.told.append(TokenDelivered(time_ns=now_ns, request=request, index=step, token=token))
        self._end(now_ns, Outcome.COMPLETED, "length")

    def _end(self, now_ns: int, outcome: Outcome, reason: str) -> None:
        self.told.append(RequestEnded(time_ns=now_ns, request=self.request, outcome=outcome, reason=reason))

    def _step(self, step: int, now_ns: int, *, lost: bool) -> int:
        """Add one step's spans and messages; returns when it ended."""
        scale = self.group.slowness * (1.0 if step == 0 else 0.2)
        for hop, mean_ms in EDGE_ONLY if self.group.edge_only else PREFILL:
            start_ns, now_ns = now_ns, now_ns + int(self.rng.gamma(4, mean_ms * scale / 4) * MS)
            size = 1200 if hop.endswith("serialise") else 0
            self.told.append(
                SpanEnded(
                    time_ns=now_ns,
                    request=self.request,
                    step=step,
                    hop=hop,
                    start_ns=start_ns,
                    end_ns=now_ns,
                    size_bytes=size,
                )
            )
            if hop in (Hop.UP_RETRANSMIT, Hop.DOWN_RETRANSMIT):
                up = hop is Hop.UP_RETRANSMIT
                self._transfer(now_ns, up=up, payload=(20 if step == 0 else 1) * 260 if up else 4, lost=lost and up)
                if lost:
                    break
        return now_ns

    def _transfer(self, now_ns: int, *, up: bool, payload: int, lost: bool) -> None:
        repeated = int(self.rng.random() < 0.1)
        self.told.append(
            TransferEnded(
                time_ns=now_ns,
                request=self.request,
                link=self.device.device,
                direction="up" if up else "down",
                sent_ns=now_ns - (70 if up else 15) * MS,
                payload_bytes=payload,
                wire_bytes=payload + 40 * (1 + repeated),
                num_packets=1,
                num_retransmissions=repeated,
                delivered=not lost,
            )
        )


def _iterations(num_servers: int, rng: np.random.Generator) -> list[list[Event]]:
    told: list[list[Event]] = []
    for server in range(num_servers):
        now_ns, mine = 0, list[Event]()
        for iteration in range(400):
            start_ns = now_ns + int(rng.exponential(12 * MS))
            now_ns = start_ns + int(rng.gamma(6, 3 * MS))
            size = int(1 + rng.poisson(3 + 2 * np.sin(iteration / 40)))
            mine.append(
                IterationEnded(
                    time_ns=now_ns,
                    server=server,
                    iteration=iteration,
                    start_ns=start_ns,
                    num_sequences=size,
                    prefill_tokens=20 * (iteration % 5 == 0),
                    decode_tokens=size,
                    kv_tokens=size * 30,
                    num_waiting=max(0, size - 5),
                )
            )
        told.append(mine)
    return told


def _end(cast: Cast, events: list[Event], cut_ns: int | None, text: str) -> RunEnd:
    end_ns = cut_ns if cut_ns is not None else max((event.time_ns for event in events), default=0)
    busy_ns = [0] * len(cast.servers)
    for event in events:
        if isinstance(event, IterationEnded):
            busy_ns[event.server] += event.time_ns - event.start_ns
    real = {entry.device for entry in cast.devices if entry.real}
    done = {event.request for event in events if isinstance(event, RequestEnded) and event.outcome == "completed"}
    arrived = [event for event in events if isinstance(event, RequestArrived)]
    answered = [event.request for event in arrived if event.device in real and event.request in done]
    return RunEnd(
        end_ns=end_ns,
        complete=cut_ns is None,
        reason="" if cut_ns is None else "interrupted by the user",
        deterministic=True,
        wall_s=3.25,
        devices=[
            DeviceEnd(
                device=entry.device,
                busy_ns=end_ns // 3,
                transmit_ns=end_ns // 10,
                receive_ns=end_ns // 50,
                energy_j=4.0 * end_ns / 1e9,
                peak_memory_bytes=900_000_000,
            )
            for entry in cast.devices
        ],
        servers=[
            ServerEnd(server=entry.server, busy_ns=busy_ns[entry.server], energy_j=900.0, peak_kv_bytes=2_000_000)
            for entry in cast.servers
        ],
        links=[_link_end(entry.device, direction, events) for entry in cast.devices for direction in ("up", "down")],
        assumed_sizes=[],
        quality={
            request: Quality(num_tokens=20, num_agree=20 - request % 3, max_logit_difference=0.01 * (1 + request))
            for request in answered
        },
        texts={request: f"{text} ({request})" for request in answered},
    )


def _link_end(device: int, direction: str, events: list[Event]) -> LinkEnd:
    mine = [e for e in events if isinstance(e, TransferEnded) and e.link == device and e.direction == direction]
    return LinkEnd(
        device=device,
        direction=direction,
        messages=len(mine),
        delivered=sum(event.delivered for event in mine),
        lost=sum(not event.delivered for event in mine),
        payload_bytes=sum(event.payload_bytes for event in mine),
        lost_payload_bytes=sum(event.payload_bytes for event in mine if not event.delivered),
        wire_bytes=sum(event.wire_bytes for event in mine),
        packets=sum(event.num_packets for event in mine),
        retransmissions=sum(event.num_retransmissions for event in mine),
        dropped_packets=0,
        lost_packets=sum(event.num_retransmissions for event in mine),
        corrupt_packets=0,
        duplicate_packets=0,
        ack_bytes=0,
        busy_ns=10 * len(mine),
        peak_backlog_bytes=1500,
    )
