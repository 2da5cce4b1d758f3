"""`testbed calibrate`: this machine's profiles for one model's shards, by timing and fitting.

The server and a device are timed at the same time, each in a process of its own, since both compute in a run. A
profile table holds what was fitted to whole passes; the profile's own numbers are effective ones: bandwidth and
overhead from the codec's times, compute from the longest prefill.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from testbed.actors.calls import HostSpec
from testbed.actors.costs import CostModel
from testbed.actors.profile_table import ProfileTable
from testbed.codecs.named import make_codec
from testbed.core.errors import ModelError
from testbed.core.units import NS_PER_S
from testbed.models.sampling_config import SamplingConfig
from testbed.models.shape import ModelShape
from testbed.models.source import ModelSource, resolve
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import DeviceProfile, LinkProfile, ProcessorProfile, ServerProfile
from testbed.studies.local.effort import BATCHES, CODEC, CONTEXT_ENTRIES, PROMPTS, Effort
from testbed.studies.local.fit import Axes, Entries, Pass, fit_entries, fit_line
from testbed.studies.local.processes import workers
from testbed.studies.local.timing import CodecTime, Timed, one_way_ns, time_device, time_server

_BITS = 32
_MOST_S = 900.0
_LAYER_TOKENS = (1, 2, 4, 8, 17, 33, 96, 192, 384)
SERVER_AXES = Axes(
    tokens=_LAYER_TOKENS,
    prefill_tokens=PROMPTS,
    steps=BATCHES,
    contexts=CONTEXT_ENTRIES,
    rows=BATCHES,
)
DEVICE_AXES = Axes(tokens=(1, *PROMPTS), prefill_tokens=PROMPTS, steps=(1,), contexts=CONTEXT_ENTRIES, rows=())


@dataclass(frozen=True, slots=True, kw_only=True)
class PartError:
    """How well the fit explains one part of what was timed."""

    part: str
    count: int
    median_error: float
    largest_error: float
    spread: float  # median, over the passes, of the repeats' interquartile range over their median


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The profiles of this machine, their tables, and how well they fit."""

    device: DeviceProfile
    server: ServerProfile
    link: LinkProfile
    tables: Mapping[str, ProfileTable]  # by side
    errors: tuple[PartError, ...]


def calibrate(model: str, effort: Effort) -> Calibration:
    """Time and fit. Raises ModelError for a model that can't be cut, or is not here with its weights."""
    source = resolve(model)
    if source.folder is None or source.shape.num_layers < 2:  # noqa: PLR2004 - a front and a back
        raise ModelError("real shards need weights and at least two layers", path="--model", value=model)
    spec = host_spec(source)
    bodies = {"server": partial(time_server, spec, effort), "device": partial(time_device, spec, effort)}
    with workers(bodies) as both:
        timed = {name: worker.answer(_MOST_S) for name, worker in both.items()}
        loopback_ns = one_way_ns(both["server"].pipe)
    return fitted(source.shape, timed["server"], timed["device"], loopback_ns)


def host_spec(source: ModelSource) -> HostSpec:
    """Plain shards at full precision, greedy."""
    return HostSpec(source=source, dtype="float32", sampling=SamplingConfig(greedy=True), keep_logits=False)


def fitted(shape: ModelShape, server: Timed, device: Timed, loopback_ns: int) -> Calibration:
    """Profiles from what was timed."""
    source = f"measured by testbed calibrate on {cpu_model()}, {datetime.now(UTC).date().isoformat()}"
    profiles, tables, errors = {}, {}, []
    for side, timed, axes in (("device", device, DEVICE_AXES), ("server", server, SERVER_AXES)):
        plain = _profile(side, source, shape, timed)
        own = [_without_codec(item, plain, shape) for item in timed.passes]
        entries = fit_entries(own, axes)
        tables[side] = _table(f"this-machine {side} {shape.name}", source, shape, axes, entries)
        profiles[side] = plain
        model = CostModel(profile=plain, shape=shape, weight_bits=_BITS, kv_bits=_BITS, table=tables[side])
        errors += _part_errors(own, model)
        errors.append(_codec_error(side, timed.codecs, plain))
    return Calibration(
        device=validate(DeviceProfile, profiles["device"].model_dump(mode="json", exclude_none=True)),
        server=validate(ServerProfile, profiles["server"].model_dump(mode="json", exclude_none=True)),
        link=_loopback(source, loopback_ns),
        tables=tables,
        errors=tuple(errors),
    )


def _profile(side: str, source: str, shape: ModelShape, timed: Timed) -> ProcessorProfile:
    """The profile's own numbers; what can't be measured from here says so."""
    moved, times = zip(*((item.moved_bytes, item.time_ns) for item in timed.codecs), strict=True)
    start_ns, ns_per_byte = fit_line(moved, times)
    longest = max((item for item in timed.passes if "prefill" in item.part), key=lambda item: item.works[0].new_tokens)
    flops = 2 * shape.params_per_layer * longest.num_layers * sum(work.new_tokens for work in longest.works)
    measured = {
        "memory_bandwidth": f"{NS_PER_S / max(ns_per_byte, 1e-3):.4g} B/s",
        "compute": f"{flops * NS_PER_S / longest.time_ns:.4g} FLOP/s",
        "kernel_overhead": f"{round(start_ns)} ns",
    }
    unknown = {"idle_power": "0 W", "active_power": "0 W"}
    if side == "device":
        unknown |= {"transmit_power": "0 W", "receive_power": "0 W"}
    memory = {"memory": f"{_memory_bytes()} B", "reserved_memory": f"{_memory_bytes() // 4} B"}
    data: dict[str, Any] = {key: {"value": value, "source": source} for key, value in measured.items()}
    data |= {key: {"value": value, "source": "not measured"} for key, value in unknown.items()}
    data["memory"] = {"value": memory["memory"], "source": "as the system tells"}
    data["reserved_memory"] = {"value": memory["reserved_memory"], "source": "assumed: a quarter"}
    data |= {
        "name": f"this-machine-{side}",
        "description": f"one core of {cpu_model()} with {shape.name}'s real shards",
    }
    return validate(DeviceProfile if side == "device" else ServerProfile, data)


def _without_codec(item: Pass, profile: ProcessorProfile, shape: ModelShape) -> Pass:
    """What is left of a pass when the codec's law has taken its part."""
    codec, model = make_codec(CODEC), CostModel(profile=profile, shape=shape, weight_bits=_BITS, kv_bits=_BITS)
    effort = codec.effort.encode_percent if isinstance(profile, DeviceProfile) else codec.effort.decode_percent
    moved = [
        (shape.hidden_bytes(work.new_tokens, _BITS) + codec.nbytes(work.new_tokens, shape.hidden_size), effort)
        for work in item.works
    ]
    return replace(item, time_ns=max(1, item.time_ns - model.coding_ns(moved)))


def _table(name: str, source: str, shape: ModelShape, axes: Axes, entries: Entries) -> ProfileTable:
    sizes = ("hidden_size", "intermediate_size", "num_heads", "num_kv_heads", "head_dim", "vocab_size")
    decode = {"sequences": axes.steps, "context_tokens": axes.contexts, "time_ns": entries.decode_ns}
    data: dict[str, Any] = {
        "name": name,
        "source": f"{source}; whole passes, split up by least squares",
        "model": {"name": shape.name, **{size: getattr(shape, size) for size in sizes}},
        "weight_bits": _BITS,
        "kv_bits": _BITS,
        "overhead_ns": entries.overhead_ns,
        "layer": {"tokens": axes.tokens, "time_ns": entries.layer_ns},
        "prefill_attention": {
            "new_tokens": axes.prefill_tokens, "past_tokens": [0], "time_ns": [[time] for time in entries.prefill_ns]
        },
        "decode_attention": decode,
    }  # fmt: skip
    if axes.rows:
        data["head"] = {"sequences": axes.rows, "time_ns": entries.head_ns}
    return validate(ProfileTable, json.loads(json.dumps(data)))


def _part_errors(found: Sequence[Pass], model: CostModel) -> list[PartError]:
    parts: dict[str, list[Pass]] = {}
    for item in found:
        parts.setdefault(item.part, []).append(item)
    told = []
    for part, own in parts.items():
        sizes = [abs(model.forward_ns(item.works) / item.time_ns - 1) for item in own]
        told.append(_part_error(part, sizes, median(item.spread for item in own)))
    return told


def _codec_error(side: str, codecs: Sequence[CodecTime], profile: ProcessorProfile) -> PartError:
    law = [profile.kernel_overhead + item.moved_bytes * NS_PER_S / profile.memory_bandwidth for item in codecs]
    sizes = [abs(told / item.time_ns - 1) for told, item in zip(law, codecs, strict=True)]
    return _part_error("codec encode" if side == "device" else "codec decode", sizes, float("nan"))


def _part_error(part: str, sizes: Sequence[float], spread: float) -> PartError:
    return PartError(part=part, count=len(sizes), median_error=median(sizes), largest_error=max(sizes), spread=spread)


def _loopback(source: str, loopback_ns: int) -> LinkProfile:
    bare = {"rate_up": "10 Gbit/s", "rate_down": "10 Gbit/s"}
    data: dict[str, Any] = {key: {"value": value, "source": "not measured"} for key, value in bare.items()}
    data["propagation_delay"] = {"value": f"{loopback_ns} ns", "source": source}
    return validate(LinkProfile, {"name": "loopback", "description": "between two processes of one machine", **data})


def cpu_model() -> str:
    """What the system calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
