"""Whatever is lost: every message ends, its bytes are there once and in order, and the account is right."""

from __future__ import annotations

from collections import Counter
from functools import partial, partialmethod

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.network_models.transports.endpoint import Endpoint
from tests.connections import MS, Chosen, S, connect, numbers

KINDS = ("tcp", "quic")
LAWS = ("reno", "cubic")


@st.composite
def transports(draw):
    kind = draw(st.sampled_from(KINDS))
    own = (
        {"delayed_ack": draw(st.sampled_from(["0 s", "40 ms"])), "nagle": draw(st.booleans())}
        if kind == "tcp"
        else {"zero_rtt": draw(st.booleans())}
    )
    return {"kind": kind, "congestion": draw(st.sampled_from(LAWS)), "initial_window": draw(st.integers(1, 10)), **own}


losses = st.sets(st.integers(0, 60), max_size=40)
messages = st.lists(
    st.tuples(st.sampled_from(["up", "down"]), st.integers(0, 300), st.integers(0, 30_000)), min_size=1, max_size=8
)


def note(end, taken, take, segment, *arrival):
    """A segment is read for the first time, so the engine says."""
    taken[segment] += 1
    take(end, segment, *arrival)


def drive(env, access, sendings):
    """Send each message at its time; the events, and the order in which they end in each direction."""
    events, ended = [], {"up": [], "down": []}

    def end(direction, place, _):
        ended[direction].append(place)

    def sender():
        for direction, gap_ms, size in sendings:
            yield env.timeout(gap_ms * MS)
            event = getattr(access, direction).send(size)
            event.callbacks.append(partial(end, direction, len(events)))
            events.append(event)

    env.process(sender())
    env.run()
    return [event.value for event in events], ended


@settings(deadline=None, max_examples=80)
@given(transport=transports(), lost_up=losses, lost_down=losses, sendings=messages, jitter=st.booleans())
def test_every_byte_arrives_once_and_in_order(transport, lost_up, lost_down, sendings, jitter):
    env = simpy.Environment()
    changes = {"jitter": {"law": "uniform", "mean": "5 ms", "std": "2 ms"}} if jitter else {}
    up, down = Chosen(numbers(*lost_up)), Chosen(numbers(*lost_down))
    access = connect(env, transport, up=up, down=down, **changes)
    taken = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Endpoint, "_take", partialmethod(note, taken, Endpoint._take))
        transfers, ended = drive(env, access, sendings)
    # The losses are finite, so a connection with its default patience delivers all.
    assert all(transfer.delivered for transfer in transfers)
    assert set(taken.values()) == {1}
    assert sum(segment.payload_bytes for segment in taken) == sum(item.payload_bytes for item in transfers)
    for way, link in (("up", access.up), ("down", access.down)):
        account = link.snapshot()
        mine = [item for item, (direction, *_) in zip(transfers, sendings, strict=True) if direction == way]
        assert account.delivered == account.messages == len(mine)
        assert account.delivered_payload_bytes == account.payload_bytes == sum(item.payload_bytes for item in mine)
        assert account.packets == sum(item.num_packets for item in mine)
        arrived = account.packets + account.retransmissions - account.lost_packets - account.dropped_packets
        assert arrived == account.packets + account.duplicate_packets
        assert account.wire_bytes >= sum(item.wire_bytes for item in mine)
        if transport["kind"] == "tcp":
            assert ended[way] == sorted(ended[way])
    check_parts(transfers)


def check_parts(transfers):
    for item in transfers:
        parts = (
            item.connect_ns, item.window_ns, item.queue_ns, item.serialise_ns,
            item.propagate_ns, item.jitter_ns, item.retransmit_ns,
        )  # fmt: skip
        assert min(parts) >= 0
        assert all(type(part) is int for part in parts)
        assert sum(parts) == item.ended_ns - item.sent_ns


@settings(deadline=None, max_examples=40)
@given(transport=transports(), p_loss=st.sampled_from([0.1, 0.5, 0.9]), seed=st.integers(0, 2**32), sendings=messages)
def test_at_any_loss_all_is_delivered_or_given_up(transport, p_loss, seed, sendings):
    env = simpy.Environment()
    limits = {"patience": "20 s"}
    access = connect(env, {**transport, **limits}, seed=seed, loss=p_loss)
    transfers, _ = drive(env, access, sendings)
    assert all(transfer.ended_ns - transfer.sent_ns <= 20 * S for transfer in transfers)
    for link in access:
        account = link.snapshot()
        assert account.delivered + account.lost == account.messages
        assert account.delivered_payload_bytes + account.lost_payload_bytes == account.payload_bytes
        assert account.backlog_bytes == 0
    check_parts(transfers)


@settings(deadline=None, max_examples=25)
@given(transport=transports(), seed=st.integers(0, 2**32), sendings=messages)
def test_the_same_seed_gives_the_same_path(transport, seed, sendings):
    runs = []
    for _ in range(2):
        env = simpy.Environment()
        access = connect(env, transport, seed=seed, loss=0.1, queue="30 kB")
        runs.append((drive(env, access, sendings), access.up.snapshot(), access.down.snapshot()))
    assert runs[0] == runs[1]
