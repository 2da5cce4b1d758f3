"""A fresh host that runs a lost host's log again goes on bit for bit; no Ray needed to see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from testbed.actors.calls import BackCall, BackItem, Call, CloseCall, Done, HostSpec, pack_tokens
from testbed.actors.host_queue import CallLog, HostQueue
from testbed.actors.shard_host import ShardHost
from testbed.codecs.framing import Envelope
from testbed.codecs.named import RawFloat32
from testbed.models.sampling_config import SamplingConfig
from testbed.models.source import from_folder

SESSIONS, STEPS = 8, 40


@pytest.fixture(params=["float32", "bfloat16"])
def spec(small: Path, request: pytest.FixtureRequest) -> HostSpec:
    return HostSpec(
        source=from_folder(small.parent / "model"),
        dtype=request.param,
        sampling=SamplingConfig(greedy=False),
        keep_logits=True,
    )


def server_calls() -> Iterator[Call]:
    """Batches of a server on which sessions of two cuts come, stay for a while and leave."""
    rng = np.random.default_rng(8)
    codec = RawFloat32()
    splits = {session: int(rng.choice([0, 2])) for session in range(100)}
    live: dict[int, int] = {}
    newest = 0
    for _ in range(STEPS):
        while len(live) < SESSIONS and rng.random() < 0.5:
            live[newest] = 0
            newest += 1
        items = []
        for session in [session for session in live if rng.random() < 0.7]:
            num_tokens = 1 if live[session] else int(rng.integers(2, 12))
            envelope = Envelope(session=session, position=live[session], split=splits[session])
            live[session] += num_tokens
            hidden = rng.standard_normal((num_tokens, 32)).astype(np.float32)
            tokens = [int(token) for token in rng.integers(0, 96, num_tokens)]
            message = codec.encode(hidden, envelope) if splits[session] else pack_tokens(tokens)
            item = BackItem(
                session=session,
                sampling_seed=session,
                split=splits[session],
                codec="raw-float32",
                message=message,
            )
            items.append(item)
        if items:
            yield BackCall(items=tuple(items))
        for session in [session for session, length in live.items() if length > 15 and rng.random() < 0.3]:
            del live[session]
            yield CloseCall(session=session)


def test_recovery_is_exact_at_every_point(spec: HostSpec) -> None:
    calls = list(server_calls())
    host, log = ShardHost(spec), CallLog()
    points: list[tuple[list[Call], dict[int, list[np.ndarray]]]] = []
    for call in calls:
        points.append((log.recovery(), {}))
        log.record(call, host.execute([call])[0])
    final = {session: np.array(rows) for session, rows in host._logits.items()}
    assert len(final) > 2
    for number in range(0, len(calls), 7):
        heir = ShardHost(spec)
        heir.execute([*points[number][0], *calls[number:]])
        assert heir._logits.keys() == final.keys()
        for session, rows in final.items():
            np.testing.assert_array_equal(np.array(heir._logits[session]), rows)


def test_log_keeps_what_open_sessions_need_and_no_more(spec: HostSpec) -> None:
    host, log = ShardHost(spec), CallLog()
    longest = 0
    opened: set[int] = set()
    for call in server_calls():
        log.record(call, host.execute([call])[0])
        longest = max(longest, len(log))
        opened |= {item.session for item in call.items} if isinstance(call, BackCall) else set()
    assert longest < STEPS
    for session in opened:
        log.record(*_closed(host, session))
    assert len(log) == 0
    assert log.recovery() == []


def test_a_batch_in_flight_is_asked_again(spec: HostSpec) -> None:
    host, queue = ShardHost(spec), HostQueue(CallLog())
    calls = list(server_calls())
    for call in calls[:5]:
        queue.add(call)
    queue.arrive(host.execute(queue.depart()))
    pending = [queue.add(call) for call in calls[5:9]]
    lost = host.execute(queue.depart())
    again, num_known = queue.again()
    results = ShardHost(spec).execute(again)[num_known:]
    queue.arrive(results)
    assert [item.done.value for item in pending if item.done] == [done.value for done in lost]
    assert queue.flight == []


def _closed(host: ShardHost, session: int) -> tuple[Call, Done]:
    call = CloseCall(session=session)
    return call, host.execute([call])[0]
