"""What coding costs in virtual time: passes over memory, stage by stage."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest

from testbed.actors.cloud import BackStep, CloudWorker, Part
from testbed.actors.costs import CostModel
from testbed.actors.edge import Payload, Session, Step
from testbed.codecs.named import size_law
from testbed.core.events import SpanEnded
from tests.sim_runs import TINY, of_kind, run_events, scenario

HIDDEN, RAW = 16, 4 * 16  # of a token
LAUNCH_NS = {"device": 200_000, "server": 50_000}
BANDWIDTH = {"device": 50 * 10**6, "server": 10**9}
PASSES = {
    "raw-float32": ("1", "1"),
    "int8": ("1", "1"),
    "int4": ("1", "1"),
    "fp8": ("1", "1"),
    "ts": ("2", "1"),
    "tabq": ("2.2", "1.2"),
    "ts-tabq": ("2.2", "1.2"),
    "ts-tabq(symmetric=false)": ("4.5", "1.2"),
    "ts-tabq(entropy=rans)": ("6.3", "3.2"),
    "ts-tabq(entropy=rans,tables=agreed)": ("6.3", "3.2"),
    "ts-tabq(entropy=zstd)": ("3.3", "2.0"),
    "int8(entropy=rans)": ("5.1", "3.0"),
    "int8(centre=true)": ("1.7", "1.4"),
    "ts-tabq(centre=true,rotate=hadamard)": ("8.0", "4.7"),
}


def law_ns(where, passes, moved_bytes):
    return LAUNCH_NS[where] + ceil(Fraction(passes) * moved_bytes * 10**9 / BANDWIDTH[where])


@pytest.mark.parametrize("setting", PASSES)
def test_encoding_and_decoding_last_as_many_passes_as_the_stages_say(setting):
    events = run_events(scenario(policy={"kind": "static", "split": 2, "codec": setting}))
    codec = size_law(setting)
    moved = [num_tokens * RAW + codec.nbytes(num_tokens, HIDDEN) for num_tokens in (5, 1, 1, 1)]
    for hop, where, passes in zip(("encode", "decode"), ("device", "server"), PASSES[setting], strict=True):
        found = [span.end_ns - span.start_ns for span in of_kind(events, SpanEnded, hop=hop)]
        assert found == [law_ns(where, passes, moved_bytes) for moved_bytes in moved]


def back_step(setting, num_tokens, size_bytes):
    session = Session(
        request=0,
        sampling_seed=0,
        split=2,
        codec_name=setting,
        codec=size_law(setting),
        size_of=lambda num_tokens, past_tokens: size_bytes,
    )
    step = Step(num_tokens=num_tokens, past_tokens=0, tokens=None)
    payload = Payload(size_bytes=size_bytes, message=None, encode_ns=0)
    return BackStep(session=session, step=step, payload=payload, real=False)


def test_a_batch_of_several_codecs_pays_each_its_own_passes_and_one_launch():
    profile = scenario().servers[0].server
    worker = CloudWorker(CostModel(profile=profile, shape=TINY, weight_bits=32, kv_bits=32), None)
    batch = [back_step("int8", 5, 124), back_step("ts-tabq(entropy=rans)", 7, 99), back_step("int4", 1, 36)]
    moved = 5 * RAW + 124 + Fraction("3.2") * (7 * RAW + 99) + RAW + 36
    assert worker.start([Part.whole(item) for item in batch]).decode_ns == law_ns("server", 1, moved)
