"""Roofline and tables on the same held-out measurements, by source, device, model and regime.

Held out of a table is what lies between the entries of a thinned one (every second entry of every axis): neither the
prefill nor the steps of a mixed batch are entries. Of whole passes several prompts at once and other contexts are held
out, too. Rows that a profile's roofline was fitted on are left out, and the step that a `host_time` was read off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from testbed.actors.profile_table import ProfileTable
from testbed.actors.roofline import sliced
from testbed.core.work import Work
from testbed.scenarios.profiles import ProcessorProfile
from testbed.studies.profile_data.rows import Measurement, decode_pass, model_shape, prefill_pass
from testbed.studies.profile_data.tables import (
    BITS,
    DGX,
    NS_PER_MS,
    Passes,
    ServingSim,
    mean_context,
    splitwise_passes,
    splitwise_table,
    vidur_table,
    vidur_times,
)
from testbed.studies.profile_fit import is_fitted, predict_seconds

_NS_PER_S = 10**9
_P90 = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """One measured pass, and what predicts it: a roofline where a profile describes the device, a table, or both."""

    device: str
    regime: str
    measurement: Measurement
    table: ProfileTable
    has_roofline: bool = True
    host_ns: int = 0  # above 0: the roofline with this host_time, and no table


def held_out_rows(data: Path, known: Mapping[str, ProcessorProfile]) -> Iterator[HeldOut]:
    """Every row of the comparison; FileNotFoundError where a measurement is missing."""
    rows = (*_vidur(data / "prof-vidur" / "compute"), *_serving_sim(data / "prof-llmservingsim" / "perf"))
    for row in (*rows, *_splitwise(data / "prof-splitwise" / "perf_model.csv", known)):
        if not is_fitted(row.measurement):
            yield row


def _vidur(folder: Path) -> Iterator[HeldOut]:
    whole = model_shape("llama-2-7b")
    for device in ("a100", "a40", "h100"):
        times = vidur_times(folder, device)
        for processors in (1, 2, 4, 8):
            table = vidur_table(times, device, processors, thin=True)
            for (parallel, tokens), (layer_ns, _) in sorted(times.items()):
                if parallel != processors or tokens in table.layer.tokens:
                    continue
                measurement = Measurement(
                    profile=device if device != "a40" else "a100",  # a table of layers asks nothing of the profile
                    dataset="vidur",
                    label=f"one layer of Llama 2 7B, 1/{parallel} slice, {tokens} tokens",
                    kind="layer",
                    shape=sliced(whole, parallel),
                    bits=BITS,
                    works=(Work(start=1, stop=2, new_tokens=tokens, past_tokens=0),),
                    seconds=layer_ns / _NS_PER_S,
                )
                regime = f"layer at {_bucket(tokens, (64, 512, 4096), 'tokens')}"
                has_roofline = device != "a40"
                yield HeldOut(
                    device=device, regime=regime, measurement=measurement, table=table, has_roofline=has_roofline
                )


def _serving_sim(folder: Path) -> Iterator[HeldOut]:
    for device in ("RTX4090", "RTXPRO6000"):
        found = ServingSim(folder, device, 1)
        table = found.table(thin=True)
        assert table.prefill_attention is not None, "its files have attention"
        assert table.decode_attention is not None, "its files have attention"
        for (new, past, steps, context), attention_us in found.attention_us.items():
            tokens, sequences = new + steps, steps + (new > 0)
            is_entry = (new in table.prefill_attention.new_tokens and past in table.prefill_attention.past_tokens) or (
                steps in table.decode_attention.sequences and context in table.decode_attention.context_tokens
            )
            if is_entry or tokens not in found.ops:
                continue
            head = sequences if sequences in found.heads_us else steps
            works = (prefill_pass(found.shape, new, past) if new else ()) + decode_pass(found.shape, context, steps)
            label = f"prefill {new} after {past}" if new else f"decode batch {steps} context {context}"
            measurement = Measurement(
                profile="rtx-4090",
                dataset="llmservingsim",
                label=label if not (new and steps) else f"{label} beside {steps} at {context}",
                kind="prefill" if new else "decode",
                shape=found.shape,
                bits=BITS,
                works=works,
                seconds=found.pass_us(tokens, head, attention_us) * 1e-6,
            )
            yield HeldOut(
                device=device.lower(),
                regime=_regime(new, steps),
                measurement=measurement,
                table=table,
                has_roofline=device == "RTX4090",
            )


def _regime(new: int, steps: int) -> str:
    chunk = _bucket(new, (128, 512, 2048), "tokens")
    if new and steps:
        return f"prefill of {chunk} beside steps"
    return f"prefill of {chunk}" if new else f"decode, {_bucket(steps, (1, 8, 64, 256), 'sequences')}"


def _splitwise(path: Path, known: Mapping[str, ProcessorProfile]) -> Iterator[HeldOut]:
    shape, passes = model_shape("llama-2-70b"), splitwise_passes(path)
    for device in DGX.values():
        host_ns = round(passes[device, 8, 512, 1][1] * NS_PER_MS / shape.num_layers)  # one step, which GPUs hardly slow
        for processors in (2, 4, 8):
            table = splitwise_table(passes, known[device], processors, thin=True)
            for kind, prompt, batch, time_ms in _between_entries(passes, device, processors, table.layer.tokens):
                is_step = kind == "decode"
                measurement = Measurement(
                    profile=device,
                    dataset="splitwise",
                    label=f"Llama 2 70B, {processors} GPUs, prompt {prompt} batch {batch}, {kind}",
                    kind=kind,
                    shape=shape,
                    bits=BITS,
                    works=decode_pass(shape, mean_context(prompt), batch)
                    if is_step
                    else prefill_pass(shape, prompt, batch=batch),
                    seconds=time_ms * NS_PER_MS / _NS_PER_S,
                    devices=processors,
                )
                several = "1 sequence" if batch == 1 else "2-64 sequences"
                regime = f"{kind}, {several}, {processors} GPUs"
                row = HeldOut(device=device, regime=regime, measurement=measurement, table=table)
                yield row
                yield replace(row, device=f"{device}, host_time {host_ns / 1e3:.0f} us", host_ns=host_ns)


def _between_entries(
    passes: Passes, device: str, processors: int, entries: Sequence[int]
) -> Iterator[tuple[str, int, int, float]]:
    """Kind, prompt, batch and ms of the passes that a table with these numbers of tokens was not made of."""
    for (own_device, own_processors, prompt, batch), (prefill_ms, step_ms) in sorted(passes.items()):
        if (own_device, own_processors) != (device, processors):
            continue
        tokens = prompt * batch
        if tokens not in entries or (batch > 1 and tokens != entries[-1]):
            yield "prefill", prompt, batch, prefill_ms
        if prompt != 512 or batch not in entries:  # noqa: PLR2004
            yield "decode", prompt, batch, step_ms


def _bucket(value: int, ends: Sequence[int], unit: str) -> str:
    below = [0, *ends]
    place = next(index for index, end in enumerate(ends) if value <= end)
    low, high = below[place] + 1, ends[place]
    return f"{low}-{high} {unit}" if low < high else f"{high} {unit.removesuffix('s')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Absolute relative errors of the predicted speed over the rows of one regime."""

    source: str
    device: str
    model: str
    regime: str
    roofline: Sequence[float]  # empty where no profile describes the device
    table: Sequence[float]


def compare(rows: Iterator[HeldOut], known: Mapping[str, ProcessorProfile]) -> list[Comparison]:
    """By regime, those of one device together, in the order of the rows."""
    groups: dict[tuple[str, str, str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        measurement = row.measurement
        model = row.table.model.name
        roofline, table = groups[measurement.dataset, row.device, model, row.regime]
        profile = known[measurement.profile].model_copy(update={"host_time": row.host_ns})
        if row.has_roofline:
            roofline.append(abs(measurement.seconds / predict_seconds(profile, measurement) - 1))
        if not row.host_ns:
            table.append(abs(measurement.seconds / predict_seconds(profile, measurement, row.table) - 1))
    devices = list(dict.fromkeys(key[:2] for key in groups))
    return [
        Comparison(source=source, device=device, model=model, regime=regime, roofline=roofline, table=table)
        for (source, device, model, regime), (roofline, table) in sorted(
            groups.items(), key=lambda item: devices.index(item[0][:2])
        )
    ]


def comparison_table(compared: Sequence[Comparison]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Median and 90th percentile of each."""
    lines: list[Sequence[str]] = [
        (
            item.source,
            item.device,
            item.model,
            item.regime,
            str(max(len(item.roofline), len(item.table))),
            *_both(item.roofline),
            *_both(item.table),
        )
        for item in compared
    ]
    columns = ("data set", "device", "model", "regime", "rows", "roofline median", "p90", "table median", "p90")
    return columns, lines


def _both(errors: Sequence[float]) -> tuple[str, str]:
    if not errors:
        return "-", "-"
    ranked = sorted(errors)
    return f"{median(ranked):.1%}", f"{ranked[min(len(ranked) - 1, int(_P90 * len(ranked)))]:.1%}"
