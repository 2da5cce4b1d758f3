"""The digest: blind to the order within an instant and to nothing else, for every kind of event."""

from __future__ import annotations

import hashlib
import random
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.core import events
from testbed.core.events import (
    HOPS,
    CodecChanged,
    Event,
    EventDigest,
    Hop,
    IterationEnded,
    Outcome,
    PrefixFound,
    RequestAdmitted,
    RequestArrived,
    RequestEnded,
    RequestRequeued,
    SequencePreempted,
    SequenceResumed,
    ServerChanged,
    ServersScaled,
    SpanEnded,
    TokenDelivered,
    TransferEnded,
    canonical_text,
)

ONE_OF_EACH = [
    RequestArrived(time_ns=5, request=1, device=2, prompt_tokens=3, max_output_tokens=4),
    RequestAdmitted(time_ns=5, request=1, split=6, codec="int8", server=0),
    SpanEnded(time_ns=5, request=1, step=0, hop=Hop.FRONT, start_ns=2, end_ns=5, size_bytes=7),
    TransferEnded(
        time_ns=5,
        request=1,
        link=2,
        direction="up",
        sent_ns=3,
        payload_bytes=100,
        wire_bytes=140,
        num_packets=1,
        num_retransmissions=0,
        delivered=True,
    ),
    IterationEnded(
        time_ns=5,
        server=0,
        iteration=9,
        start_ns=1,
        num_sequences=2,
        prefill_tokens=3,
        decode_tokens=1,
        kv_tokens=20,
        num_waiting=0,
    ),
    TokenDelivered(time_ns=5, request=1, index=0, token=-1),
    CodecChanged(time_ns=5, request=1, step=2, codec="int4"),
    RequestEnded(time_ns=5, request=1, outcome=Outcome.COMPLETED, reason="length"),
    SequencePreempted(time_ns=5, request=1, server=0, kv_tokens=9, swapped_bytes=0),
    SequenceResumed(time_ns=5, request=1, server=0, recomputed_tokens=9, swapped_bytes=0),
    PrefixFound(time_ns=5, request=1, server=0, kv_tokens=9),
    RequestRequeued(time_ns=5, request=1, server=0),
    ServerChanged(time_ns=5, server=0, state="down"),
    ServersScaled(time_ns=5, group="cloud", num_before=1, num_after=2, why="queue high"),
]


def digest_of(happened):
    digest = EventDigest()
    for event in happened:
        digest(event)
    return digest.hexdigest()


def other(value):
    if isinstance(value, Hop):
        return HOPS[(HOPS.index(value) + 1) % len(HOPS)]
    if isinstance(value, Outcome):
        return Outcome.OOM
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value + "x"


def test_there_is_one_of_each_kind_and_each_has_its_own_rank():
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
    assert {type(event) for event in ONE_OF_EACH} == {*kinds} - {Event}
    ranks = [kind.rank for kind in kinds]
    assert len(set(ranks)) == len(ranks)


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_every_field_of_every_event_counts(event):
    whole = digest_of([event])
    changed = [digest_of([replace(event, **{f.name: other(getattr(event, f.name))})]) for f in fields(event)]
    assert len({whole, *changed}) == 1 + len(fields(event))


@given(seed=st.integers(0, 1000), times=st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_the_order_within_an_instant_does_not_count(seed, times):
    shuffled = random.Random(seed)
    happened = [replace(shuffled.choice(ONE_OF_EACH), time_ns=time_ns) for time_ns in sorted(times)]
    mixed = sorted(shuffled.sample(happened, len(happened)), key=lambda event: event.time_ns)
    assert digest_of(mixed) == digest_of(happened)


def test_the_order_of_instants_counts():
    first, second = ONE_OF_EACH[0], ONE_OF_EACH[1]
    assert digest_of([first, replace(second, time_ns=6)]) != digest_of([second, replace(first, time_ns=6)])
    assert digest_of([first, second]) != digest_of([first, replace(second, time_ns=6)])


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_a_lost_or_doubled_event_counts(event):
    whole = digest_of(ONE_OF_EACH)
    assert digest_of([item for item in ONE_OF_EACH if item is not event]) != whole
    assert digest_of([*ONE_OF_EACH, event]) != whole


def test_time_never_runs_backwards():
    digest = EventDigest()
    digest(ONE_OF_EACH[0])
    with pytest.raises(AssertionError, match="time order"):
        digest(replace(ONE_OF_EACH[0], time_ns=4))


def test_it_is_the_hash_of_sorted_lines():
    happened = [replace(event, time_ns=time_ns) for time_ns in range(2000) for event in ONE_OF_EACH]
    count = len(ONE_OF_EACH)
    at_one_instant = [happened[count * time_ns :][:count] for time_ns in range(2000)]
    lines = [line for together in at_one_instant for line in sorted(map(canonical_text, together))]
    assert digest_of(happened) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_no_events_have_a_digest_too():
    assert digest_of([]) == hashlib.sha256().hexdigest()


def test_a_line_reads_as_what_happened():
    assert canonical_text(ONE_OF_EACH[2]) == "03 SpanEnded(5, 1, 0, front, 2, 5, 7)\n"
    assert canonical_text(ONE_OF_EACH[1]) == "02 RequestAdmitted(5, 1, 6, 'int8', 0)\n"


def test_numpys_integers_read_as_pythons():
    plain = ONE_OF_EACH[5]
    assert canonical_text(replace(plain, time_ns=np.int64(5), index=np.uint32(0))) == canonical_text(plain)


def test_one_text_can_not_pass_for_two_fields():
    first = replace(ONE_OF_EACH[1], codec="a', 1, 'b")
    assert canonical_text(first) != canonical_text(replace(ONE_OF_EACH[1], codec="a"))
    assert canonical_text(replace(first, codec="line\nbreak")).count("\n") == 1


def test_counting_goes_on_after_a_look():
    digest = EventDigest()
    digest(ONE_OF_EACH[0])
    early = digest.hexdigest()
    digest(replace(ONE_OF_EACH[0], time_ns=6))
    assert digest.hexdigest() != early
    assert digest.num_events == 2
    assert digest.hexdigest() == digest_of([ONE_OF_EACH[0], replace(ONE_OF_EACH[0], time_ns=6)])
