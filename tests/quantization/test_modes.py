"""The modes with real shards: the server forgets after every pass, and the answer stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.actors.calls import AuditCall, BackCall, BackItem, CloseCall, FrontCall, HostSpec
from testbed.actors.kv import kv_bytes
from testbed.actors.modes import MODE_IDS, Crossing
from testbed.actors.shard_host import ShardHost
from testbed.codecs.framing import CodecError, unpack_header
from testbed.codecs.named import make_codec
from testbed.core.plan import Mode
from testbed.models.kv_format import KVFormat
from testbed.models.sampling_config import SamplingConfig
from testbed.models.source import ModelSource
from testbed.results.folder import read_tables
from testbed.run import prepare
from testbed.run import run as run_scenario
from testbed.scenarios.load import load_scenario
from tests.equivalence.tiny_models import LAYERS, PROMPT

CASES = ["llama", "mistral sliding", "gemma3_text sliding", "gpt2", "opt"]
STEPS = 7
MODES: list[Mode] = ["stateful", "recompute", "ship-kv"]


@pytest.fixture(scope="module")
def sources(tiny: Callable[[str], ModelSource]) -> dict[str, ModelSource]:
    return {case: tiny(case) for case in CASES}


def host(source: ModelSource, kv_bits: int | None, **changes: object) -> ShardHost:
    sampling = SamplingConfig(greedy=True, temperature=1.0, top_k=0, top_p=1.0)
    spec = {"dtype": "float32", "front_kv_bits": kv_bits, "back_kv_bits": kv_bits, "keep_logits": True} | changes
    return ShardHost(HostSpec(source=source, sampling=sampling, **spec))


class Device:
    """One session's side of the cut: what a device does with a host, and what it keeps."""

    def __init__(self, found: ShardHost, session: int, split: int, mode: Mode) -> None:
        self.found, self.session, self.split, self.mode = found, session, split, mode
        self.output: list[int] = []
        self.shipped: list[bytes] = []
        self.sizes: list[int] = []

    def item(self) -> BackItem:
        """Run the front on what is new; the message as the server gets it."""
        new = tuple(PROMPT) if not self.output else (self.output[-1],)
        call = FrontCall(
            session=self.session,
            split=self.split,
            codec="raw-float32",
            tokens=new,
            mode=self.mode,
            kv=tuple(self.shipped),
        )
        message = self.found.execute([call])[0].value
        assert unpack_header(message).envelope.mode == MODE_IDS[self.mode]
        self.sizes.append(len(message))
        return BackItem(
            session=self.session,
            sampling_seed=1,
            split=self.split,
            codec="raw-float32",
            message=message,
            mode=self.mode,
        )

    def take(self, token: int, kv: bytes) -> None:
        self.output.append(token)
        if kv:
            self.shipped.append(kv)


def steps_of(found: ShardHost, devices: list[Device]) -> None:
    """All devices' passes in one batch each."""
    for _ in range(STEPS):
        (done,) = found.execute([BackCall(items=tuple(device.item() for device in devices))])
        for device, token, kv in zip(devices, done.value, done.kv, strict=True):
            device.take(token, kv)


@pytest.mark.parametrize("kv_bits", [None, 4])
@pytest.mark.parametrize("case", CASES)
def test_answers_are_the_stateful_ones_at_every_cut(
    sources: dict[str, ModelSource], case: str, kv_bits: int | None
) -> None:
    """Shipped keys and values are the server's own, bit for bit; running all positions anew rounds in another order."""
    source, num_past = sources[case], len(PROMPT)
    raw = make_codec("raw-float32")
    for split in range(1, LAYERS):
        differences, outputs = {}, {}
        law = 32 if kv_bits is None else KVFormat(bits=kv_bits)
        crossing = Crossing(mode="ship-kv", kv_token_bytes=kv_bytes(source.shape, 1, split, LAYERS, law))
        for mode in MODES:
            found = host(source, kv_bits)
            device = Device(found, 1, split, mode)
            for step in range(STEPS):
                (done,) = found.execute([BackCall(items=(device.item(),))])
                device.take(done.value[0], done.kv[0])
                held = found.shards.kv_bytes().get((split, LAYERS), 0)
                assert (held == 0) == (mode != "stateful")
                past, new = (0, num_past) if step == 0 else (num_past + step - 1, 1)
                if mode == "recompute":
                    assert device.sizes[-1] == raw.nbytes(past + new, source.shape.hidden_size)
                if mode == "ship-kv":
                    assert device.sizes[-1] == raw.nbytes(new, source.shape.hidden_size) + crossing.kv_up_bytes(past)
                    assert len(done.kv[0]) == crossing.kv_down_bytes(new)
            outputs[mode] = tuple(device.output)
            call = AuditCall(session=1, prompt=tuple(PROMPT), output=outputs[mode])
            differences[mode] = found.execute([call])[0].value.max_logit_difference
        assert outputs["stateful"] == outputs["recompute"] == outputs["ship-kv"]
        assert differences["ship-kv"] == differences["stateful"]
        if kv_bits is None:  # packed, the other order of sums may move a value over a code's edge
            assert differences["recompute"] == pytest.approx(differences["stateful"], abs=2e-4)


def test_modes_side_by_side_in_one_batch(sources: dict[str, ModelSource]) -> None:
    source = sources["llama"]
    found = host(source, 5)
    devices = [Device(found, session, 1, mode) for session, mode in enumerate([*MODES, *MODES])]
    steps_of(found, devices)
    alone = Device(host(source, 5), 9, 1, "stateful")
    steps_of(alone.found, [alone])
    assert {tuple(device.output) for device in devices} == {tuple(alone.output)}
    for device in devices:
        found.execute([CloseCall(session=device.session)])
    assert not any(found.shards.kv_bytes().values())


def test_keys_and_values_of_another_session_or_pass_are_refused(sources: dict[str, ModelSource]) -> None:
    found = host(sources["llama"], 4)
    mine, other = Device(found, 1, 1, "ship-kv"), Device(found, 2, 1, "ship-kv")
    steps_of(found, [mine, other])
    good, foreign = mine.item(), other.item()
    size = Crossing(
        mode="ship-kv", kv_token_bytes=KVFormat(bits=4).kv_bytes(found._spec.source.shape, 1, 1, LAYERS)
    ).kv_up_bytes(len(PROMPT) + STEPS - 1)
    broken = [
        good.message[:-size],
        good.message[:-size] + foreign.message[-size:],
        good.message[:-1] + bytes([good.message[-1] ^ 1]),
        good.message[: -size // 2],
    ]
    for message in broken:
        item = BackItem(session=1, sampling_seed=1, split=1, codec="raw-float32", message=message, mode="ship-kv")
        with pytest.raises(CodecError):
            found.execute([BackCall(items=(item,))])
    assert found.execute([BackCall(items=(good,))])[0].value


@pytest.mark.parametrize("mode", ["recompute", "ship-kv"])
def test_a_run_in_every_mode_answers_alike_and_moves_what_the_law_says(tmp_path: Path, mode: str) -> None:
    """Real devices of the smoke scenario, and the same scenario modelled: equal bytes, message by message."""
    tokens, moved = {}, {}
    for name, changes in {
        "real": [f"policy.mode={mode}"],
        "modelled": [f"policy.mode={mode}", "fleet.0.compute=modelled"],
        "stateful": [],
    }.items():
        changed = ["kv={front_bits: 8, back_bits: 8}", "record.quality=false", *changes]
        folder = tmp_path / name
        run_scenario(prepare(load_scenario("smoke", overrides=changed)), folder)
        requests = read_tables(folder).requests
        tokens[name] = requests["tokens"].to_pylist()
        moved[name] = [requests[f"payload_bytes_{direction}"].to_pylist() for direction in ("up", "down")]
    assert tokens["real"] == tokens["stateful"]
    assert moved["real"] == moved["modelled"] != moved["stateful"]
