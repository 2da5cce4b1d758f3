"""Public measurements of operators and passes as profile tables of our own format.

`thin` leaves out every second entry of every axis, the last one apart: what is left out can then be predicted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from testbed.actors.profile_table import (
    DecodeGrid,
    MeasuredModel,
    PrefillGrid,
    ProfileTable,
    SequenceLine,
    TokenLine,
)
from testbed.actors.roofline import Roofline
from testbed.actors.weights import as_law
from testbed.models.shape import ModelShape
from testbed.scenarios.profiles import ProcessorProfile
from testbed.studies.profile_data.rows import csv_rows, model_shape
from testbed.studies.profile_data.servers import LAYER_OPS, PER_LAYER

BITS = 16  # of weights and caches, in every measurement here
NS_PER_US, NS_PER_MS = 1_000, 1_000_000
Attention = Mapping[tuple[int, int, int, int], float]  # us by new and past tokens of a prefill, steps, their context


def kept(axis: Sequence[int], thin: bool) -> list[int]:
    """The entries of an axis that a table holds."""
    found = sorted(axis)
    return [value for place, value in enumerate(found) if place % 2 == 0 or place == len(found) - 1] if thin else found


def measured_model(shape: ModelShape) -> MeasuredModel:
    return MeasuredModel(
        name=shape.name,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
    )


# --- microsoft/vidur: operators of one Llama 2 7B layer, whole or sliced; no attention, no head

VIDUR_SOURCE = "microsoft/vidur, data/profiling/compute, commit 7d47513; medians of operator times"


def vidur_times(folder: Path, device: str) -> dict[tuple[int, int], tuple[int, int]]:
    """Layer without attention and embedding in ns, by processors and tokens."""
    found: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for row in csv_rows(folder / device / "meta-llama" / "Llama-2-7b-hf" / "mlp.csv"):
        layer = sum(float(row[f"time_stats.{op}.median"]) for op in LAYER_OPS)
        key = int(row["num_tensor_parallel_workers"]), int(row["num_tokens"])
        found[key].append((layer, float(row["time_stats.emb.median"])))
    return {
        key: (
            round(median(pair[0] for pair in pairs) * NS_PER_MS),
            round(median(pair[1] for pair in pairs) * NS_PER_MS),
        )
        for key, pairs in found.items()
    }


def vidur_table(
    times: Mapping[tuple[int, int], tuple[int, int]], device: str, processors: int, thin: bool
) -> ProfileTable:
    tokens = kept([number for found, number in times if found == processors], thin)
    return ProfileTable(
        name=f"{device} llama-2-7b tp{processors}",
        source=VIDUR_SOURCE,
        model=measured_model(model_shape("llama-2-7b")),
        processors=processors,
        weight_bits=BITS,
        kv_bits=BITS,
        layer=TokenLine(tokens=tokens, time_ns=[times[processors, number][0] for number in tokens]),
        embedding=TokenLine(tokens=tokens, time_ns=[times[processors, number][1] for number in tokens]),
    )


# --- casys-kaist/LLMServingSim: every operator of Llama 3.1 8B, attention of mixed batches too

SERVINGSIM_SOURCE = "casys-kaist/LLMServingSim, profiler/perf, commit 5daddb2"


class ServingSim:
    """One device's files: layer, embedding and final norm by tokens, head by sequences, attention; all in us."""

    def __init__(self, folder: Path, device: str, processors: int) -> None:
        folder = folder / device / "meta-llama" / "Llama-3.1-8B" / "bf16" / f"tp{processors}"
        self.device, self.processors, self.shape = device, processors, model_shape("llama-3.1-8b")
        self.ops: dict[int, dict[str, float]] = defaultdict(dict)
        for row in csv_rows(folder / "dense.csv"):
            self.ops[int(row["tokens"])][row["layer"]] = float(row["time_us"])
        self.heads_us = {
            int(row["sequences"]): float(row["time_us"])
            for row in csv_rows(folder / "per_sequence.csv")
            if row["layer"] == "lm_head"
        }
        self.attention_us: Attention = {
            (int(row["prefill_chunk"]), int(row["kv_prefill"]), int(row["n_decode"]), int(row["kv_decode"])): float(
                row["time_us"]
            )
            for row in csv_rows(folder / "attention.csv")
        }

    def layer_us(self, tokens: int) -> float:
        ops = self.ops[tokens]
        return sum(ops[op] for op in PER_LAYER) + 2 * ops["layernorm"]

    def pass_us(self, tokens: int, sequences: int, attention_us: float) -> float:
        """A whole pass, from measured operators only."""
        ops, head = self.ops[tokens], self.heads_us[sequences] + self.ops[sequences]["final_layernorm"]
        return ops["embedding"] + self.shape.num_layers * (self.layer_us(tokens) + attention_us) + head

    def table(self, thin: bool) -> ProfileTable:
        tokens, sequences = kept(list(self.ops), thin), kept(list(self.heads_us), thin)
        heads = [self.heads_us[number] + self.ops[number]["final_layernorm"] for number in sequences]
        return ProfileTable(
            name=f"{self.device.lower()} llama-3.1-8b tp{self.processors}",
            source=SERVINGSIM_SOURCE,
            model=measured_model(self.shape),
            processors=self.processors,
            weight_bits=BITS,
            kv_bits=BITS,
            layer=TokenLine(tokens=tokens, time_ns=[_ns(self.layer_us(number)) for number in tokens]),
            prefill_attention=self._prefill(thin),
            decode_attention=self._decode(thin, self.attention_us),
            decode_beside_prefill=self._decode(thin, self._beside_prefill(thin)),
            embedding=TokenLine(tokens=tokens, time_ns=[_ns(self.ops[number]["embedding"]) for number in tokens]),
            head=SequenceLine(sequences=sequences, time_ns=[_ns(head) for head in heads]),
        )

    def axes(self, first: int) -> tuple[list[int], list[int]]:
        """Of prefills (0) or decode steps (2): every power of two is there with every other one."""
        keys = [key for key in self.attention_us if not key[2 - first]]
        rows = {key[first] for key in keys} - {0}
        columns = {key[first + 1] for key in keys}
        return sorted(filter(_is_power_of_two, rows)), sorted(filter(_is_power_of_two, columns))

    def _prefill(self, thin: bool) -> PrefillGrid:
        new, past = (kept(axis, thin) for axis in self.axes(0))
        times = [[_ns(self.attention_us[tokens, before, 0, 0]) for before in past] for tokens in new]
        return PrefillGrid(new_tokens=new, past_tokens=past, time_ns=times)

    def _beside_prefill(self, thin: bool) -> Attention:
        """What decode steps add to a prefill's attention: the median over all prefills that are entries."""
        new, past = (set(kept(axis, thin)) for axis in self.axes(0))
        added: dict[tuple[int, int, int, int], list[float]] = defaultdict(list)
        for (tokens, before, steps, context), time_us in self.attention_us.items():
            if steps and tokens in new and before in past:
                alone_us = self.attention_us[tokens, before, 0, 0]
                added[0, 0, steps, context].append(max(0.0, time_us - alone_us))
        return {key: median(times) for key, times in added.items()}

    def _decode(self, thin: bool, attention_us: Attention) -> DecodeGrid:
        """Beside prefills the largest batch was not measured; a prefill is a sequence, too."""
        steps, contexts = self.axes(2)
        measured = [number for number in steps if all((0, 0, number, context) in attention_us for context in contexts)]
        steps, contexts = kept(measured, thin), kept(contexts, thin)
        times = [[_ns(attention_us[0, 0, number, context]) for context in contexts] for number in steps]
        return DecodeGrid(sequences=steps, context_tokens=contexts, time_ns=times)


# --- Mutinifni/splitwise-sim: whole passes of Llama 2 70B on 2, 4 and 8 GPUs of a DGX

SPLITWISE_SOURCE = (
    "Mutinifni/splitwise-sim, data/perf_model.csv, commit 8f99e7d; whole passes over the number of layers"
)
DGX = {"a100-80gb": "a100", "h100-80gb": "h100"}
Passes = Mapping[
    tuple[str, int, int, int], tuple[float, float]
]  # prefill and step in ms by device, GPUs, prompt, batch


def splitwise_passes(path: Path) -> Passes:
    times: dict[tuple[str, int, int, int], list[tuple[float, float]]] = defaultdict(list)
    for row in csv_rows(path):
        processors, batch = int(row["tensor_parallel"]), int(row["batch_size"])
        is_wanted = row["model"] == "llama2-70b" and row["hardware"] in DGX and row["token_size"] == "128"
        if is_wanted and (processors, batch) != (2, 64):  # its prompts took less than those of batch 8
            key = DGX[row["hardware"]], processors, int(row["prompt_size"]), batch
            times[key].append((float(row["prompt_time"]), float(row["token_time"])))
    return {key: (median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)) for key, pairs in times.items()}


def splitwise_table(passes: Passes, profile: ProcessorProfile, processors: int, thin: bool) -> ProfileTable:
    """One layer by tokens: steps of prompts of 512 below, prefills of one prompt above, the largest batch's last.

    A pass less embedding, head and attention, all three by the profile's roofline, over the number of layers.
    """
    shape = model_shape("llama-2-70b")
    shared = profile.model_copy(update={"tensor_parallel": processors})
    roofline = Roofline(shared, shape, as_law(BITS), BITS)
    own = {key[2:]: times for key, times in passes.items() if key[:2] == (profile.name, processors)}
    largest = max(batch for prompt, batch in own if prompt == 512)  # noqa: PLR2004
    layer_ns: dict[int, int] = {}

    def add(tokens: int, sequences: int, pass_ms: float, positions: int, pairs: int) -> None:
        ends_ns = roofline.embedding_ns(tokens) + roofline.head_ns(sequences)
        inside_ns = round(pass_ms * NS_PER_MS) - ends_ns
        layer_ns[tokens] = max(0, inside_ns // shape.num_layers - roofline.attention_ns(positions, pairs))

    for (prompt, batch), (prefill_ms, step_ms) in sorted(own.items()):
        if prompt == 512:  # noqa: PLR2004
            past = mean_context(prompt)
            add(batch, batch, step_ms, batch * (past + 2), batch * (past + 1))
        if batch in {1, largest}:
            add(prompt * batch, batch, prefill_ms, batch * 2 * prompt, batch * prompt * (prompt + 1) // 2)
    tokens = kept(list(layer_ns), thin)
    return ProfileTable(
        name=f"{profile.name} llama-2-70b tp{processors}",
        source=SPLITWISE_SOURCE,
        model=measured_model(shape),
        processors=processors,
        all_reduce="included",
        weight_bits=BITS,
        kv_bits=BITS,
        layer=TokenLine(tokens=tokens, time_ns=[layer_ns[number] for number in tokens]),
    )


def mean_context(prompt: int) -> int:
    """Of 128 tokens' steps."""
    return prompt + 64


def all_tables(data: Path, profiles: Mapping[str, ProcessorProfile]) -> Iterator[ProfileTable]:
    """Every table that the data sets give, with all entries."""
    for device in ("a100", "a40", "h100"):
        times = vidur_times(data / "prof-vidur" / "compute", device)
        yield from (vidur_table(times, device, processors, thin=False) for processors in (1, 2, 4, 8))
    for device, processors in (("RTX4090", 1), ("RTXPRO6000", 1), ("RTXPRO6000", 2)):
        yield ServingSim(data / "prof-llmservingsim" / "perf", device, processors).table(thin=False)
    passes = splitwise_passes(data / "prof-splitwise" / "perf_model.csv")
    for device in DGX.values():
        yield from (splitwise_table(passes, profiles[device], processors, thin=False) for processors in (2, 4, 8))


def _is_power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


def _ns(time_us: float) -> int:
    return round(time_us * NS_PER_US)
