"""A server takes a message once, for its own session and cut; no Ray needed to see it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from testbed.actors.calls import BackCall, BackItem, FrontCall, HostSpec
from testbed.actors.shard_host import ShardHost
from testbed.codecs.framing import CodecError, Envelope, unpack_header
from testbed.models.sampling_config import SamplingConfig
from testbed.models.source import from_folder

CODEC = "ts-tabq(delta=0.05,entropy=rans,tau=1.0)"


@pytest.fixture
def hosts(small: Path) -> tuple[ShardHost, ShardHost]:
    source = from_folder(small.parent / "model")
    spec = HostSpec(source=source, dtype="float32", sampling=SamplingConfig(greedy=True), keep_logits=False)
    return ShardHost(spec), ShardHost(spec)


def test_messages_carry_session_position_and_cut_and_are_taken_once(hosts: tuple[ShardHost, ShardHost]) -> None:
    edge, cloud = hosts
    prefill = edge.execute([FrontCall(session=5, split=2, codec=CODEC, tokens=(1, 2, 3))])[0].value
    step = edge.execute([FrontCall(session=5, split=2, codec=CODEC, tokens=(4,))])[0].value
    assert unpack_header(prefill).envelope == Envelope(session=5, position=0, split=2)
    assert unpack_header(step).envelope == Envelope(session=5, position=3, split=2)
    item = BackItem(session=5, sampling_seed=0, split=2, codec=CODEC, message=prefill)
    cloud.execute([BackCall(items=(item,))])
    for wrong in (item, replace(item, session=6, message=step), replace(item, codec="int8", message=step)):
        with pytest.raises(CodecError):
            cloud.execute([BackCall(items=(wrong,))])
    cloud.execute([BackCall(items=(replace(item, message=step),))])
